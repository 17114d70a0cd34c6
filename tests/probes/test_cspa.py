"""T2-T5 and T10-T14: what CSPA keeps of planted heads, random heads and real ones."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from mechint.effects.attribution import final_norm
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import mean_outputs, read_heads
from mechint.effects.sampling import destinations
from mechint.errors import ConfigError, SiteError
from mechint.model.base import Logits, Model
from mechint.model.loading import load
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import everywhere
from mechint.probes.copy_suppression.context_tokens import eligible_sources, kept_sources
from mechint.probes.copy_suppression.cspa import (
    BOTH,
    CONTROLS,
    KEEP_ALL,
    KEEP_NONE,
    OV,
    QK,
    RULES,
    Rule,
    keep_projections,
    keep_sources,
    keep_span,
    unit,
)
from mechint.probes.copy_suppression.cspa_effects import Vocabulary, cspa_effects
from mechint.probes.copy_suppression.cspa_findings import cspa
from mechint.probes.copy_suppression.cspa_summary import buckets, by_document, explained, scores_table, verdict
from mechint.probes.copy_suppression.word_forms import WordForms
from mechint.prompts import Prompt, PromptSet, natural
from tests.families import FAMILIES, VOCAB, plain, random_rows, tiny, tokenizer

LENGTH = 16
FUNCTION = torch.tensor([0, 1, 2, 3])
ZERO_OV = Rule("ov from zero", qk=False, baseline="zero")
KEEPERS = (BOTH, OV, QK, *CONTROLS[:3], KEEP_ALL, KEEP_NONE)


# --- The definition, with a tensor [batch, query, key, d_model] and Gram-Schmidt ---


def gram_schmidt(vectors: Tensor) -> Tensor:
    """Orthonormal vectors of the same span; zeros for what depends on the ones before."""
    basis: list[Tensor] = []
    for vector in vectors:
        rest = vector
        for _ in range(2):
            for one in basis:
                rest = rest - (rest @ one) * one
        basis.append(rest / rest.norm() if rest.norm() > 1e-9 * vector.norm() else torch.zeros_like(rest))
    return torch.stack(basis)


def by_definition(
    attention: Tensor, sources: Tensor, post_factor: Tensor, mean: Tensor, directions: Tensor, kept: Tensor, sign: str
) -> Tensor:
    """h' of every destination, from T_ds and Tbar_ds one pair at a time."""
    rewritten = torch.zeros(*attention.shape[:2], mean.shape[-1], dtype=mean.dtype)
    for b, d, s in np.ndindex(*attention.shape):
        ablated = attention[b, d, s] * mean[d]
        term = attention[b, d, s] * post_factor[b, d] * sources[b, s]
        rewritten[b, d] += ablated
        if kept[b, d, s].any():
            for one in gram_schmidt(directions[b, s][kept[b, d, s]]):
                along = (term - ablated) @ one
                if sign == "any" or (along < 0) == (sign == "negative"):
                    rewritten[b, d] += along * one
    return rewritten


def random_head(seed: int, n_forms: int = 1) -> dict[str, Any]:
    """A head with no structure at all, in float64."""
    torch.manual_seed(seed)
    n, length, width = 2, 9, 7
    scores = torch.randn(n, length, length, dtype=torch.float64).masked_fill(
        ~torch.ones(9, 9).tril().bool(), -torch.inf
    )
    return {
        "attention": scores.softmax(-1),
        "sources": torch.randn(n, length, width, dtype=torch.float64),
        "post_factor": torch.rand(n, length, dtype=torch.float64) + 0.5,
        "mean": torch.randn(length, width, dtype=torch.float64),
        "directions": unit(torch.randn(n, length, n_forms, width, dtype=torch.float64)),
        "kept": torch.rand(n, length, length, n_forms) < 0.5,
    }


@pytest.mark.parametrize("sign", ["negative", "positive", "any"])
def test_the_closed_form_is_the_definition(sign: Any) -> None:
    head = random_head(0)

    got = keep_projections(
        **{**head, "directions": head["directions"][:, :, 0], "kept": head["kept"][..., 0]}, sign=sign
    )

    torch.testing.assert_close(got, by_definition(**head, sign=sign), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_forms", [1, 3, 5])
def test_the_span_of_several_forms_is_projected_on_by_coefficients_alone(n_forms: int) -> None:
    head = random_head(1, n_forms)
    head["directions"][0, :, -1] = head["directions"][0, :, 0]  # one form twice is one direction
    head["directions"][1, 3, -1] = 0  # and a form may be missing
    head["kept"][1, :, 3, -1] = n_forms == 1

    torch.testing.assert_close(keep_span(**head), by_definition(**head, sign="any"), rtol=0, atol=1e-12)


def test_signs_are_two_halves_of_the_projection() -> None:
    head = random_head(2)
    head = {**head, "directions": head["directions"][:, :, 0], "kept": head["kept"][..., 0]}

    halves = [keep_projections(**head, sign=sign) for sign in ("negative", "positive")]

    torch.testing.assert_close(sum(halves) - head["mean"], keep_projections(**head, sign="any"))
    assert all((half - head["mean"]).abs().max() > 0.1 for half in halves)


def test_keeping_everything_is_the_head_and_keeping_nothing_its_mean() -> None:
    head = random_head(3)
    parts = [head[name] for name in ("attention", "sources", "post_factor", "mean")]
    all_of_it = torch.ones(2, 9, 9, dtype=torch.bool)

    whole = head["post_factor"][..., None] * (head["attention"] @ head["sources"])
    assert torch.equal(keep_sources(*parts, all_of_it), whole)
    torch.testing.assert_close(keep_sources(*parts, ~all_of_it), head["mean"].expand(2, -1, -1))
    none = keep_projections(*parts, head["directions"][:, :, 0], ~all_of_it)
    assert torch.equal(none, head["mean"].expand(2, -1, -1))


@pytest.mark.parametrize("family", FAMILIES)
def test_on_random_heads_of_every_family_the_closed_form_is_the_definition(family: str) -> None:
    model, texts = tiny(family), documents(2)
    means = mean_outputs(model, texts).double()
    final = final_norm(model)
    for run in read_heads(model, texts, [(0, 1), (2, 3)]):
        directions = unit(final.centre(final.gain * model.unembedding(texts.tokens)).double())
        kept = torch.rand(2, LENGTH, LENGTH, generator=torch.Generator().manual_seed(0)) < 0.6
        parts = (run.attention.double(), run.sources.double(), run.post_factor.double(), means[run.layer, run.head])

        got = keep_projections(*parts, directions, kept)

        expected = by_definition(*parts, directions[:, :, None], kept[..., None], "negative")
        # Σ_s A_ds = 1 but for the rounding of the model's own float32.
        expected = expected + (1 - parts[0].sum(-1, keepdim=True)) * parts[3]
        scale = expected.abs().max().clamp(min=1)
        torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-12)


# --- Planted heads ---


class Planted:
    """A head that attends to tokens which the stream predicts, and writes `strength` times their unembedding.

    The stream has a coordinate for each token that is read (e_t), one for each that is predicted (u_t), and a constant
    one that draws attention to BOS, whose value is zero.
    """

    V, S, B = 40, 40, 12

    def __init__(self, strength: float = -4.0, targets: Sequence[int] | None = None, seed: int = 0) -> None:
        V, S, B = self.V, self.S, self.B
        draw = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(1, V, (B, S), generator=draw)
        self.tokens[:, 0] = 0
        said = torch.eye(V, dtype=torch.float64)[self.tokens]
        predicted = 0.3 * torch.randn(B, S, V, dtype=torch.float64, generator=draw)
        for b in range(B):
            for d in range(4, S):
                if torch.rand((), generator=draw) < 0.6:
                    source = int(torch.randint(1, d, (), generator=draw))
                    predicted[b, d, self.tokens[b, source]] += 5.0
        written = torch.eye(V, dtype=torch.float64)[torch.arange(V) if targets is None else torch.tensor(targets)]
        written[0] = 0
        scores = 1.5 * predicted @ said.transpose(1, 2)
        scores[:, :, 0] = 4.0  # BOS
        scores = scores.masked_fill(~torch.ones(S, S).tril().bool(), -torch.inf)
        self.attention = scores.softmax(-1)
        zeros = torch.zeros(B, S, V + 1, dtype=torch.float64)
        self.sources = torch.cat([zeros[..., :V], strength * written[self.tokens], zeros[..., :1]], -1)
        self.resid = torch.cat([said, predicted, torch.ones(B, S, 1, dtype=torch.float64)], -1)
        self.U = torch.cat([torch.zeros(V, V), torch.eye(V), torch.zeros(V, 1)], 1).double()

    def rows(self, *rules: Rule) -> pd.DataFrame:
        """The table that `cspa_effects` gives, by dense arithmetic."""
        output = self.attention @ self.sources
        final = self.resid + output
        scale = final.pow(2).mean(-1, keepdim=True).sqrt()
        clean = (final / scale @ self.U.T).log_softmax(-1)
        frames = []
        for rule in rules:
            mean = output.mean(0) * (rule.baseline == "mean")
            changed = [mean.expand_as(output), self.rewritten(rule, mean)]
            ablated, kept = ((((final + new - output) / scale) @ self.U.T).log_softmax(-1) for new in changed)
            kl = [(clean.exp() * (clean - other)).sum(-1).flatten().numpy() for other in (kept, ablated)]
            about = {
                "id": np.repeat(np.arange(self.B).astype(str), self.S),
                "position": np.tile(np.arange(self.S), self.B),
            }
            about |= {"label": "L0H0", "layer": 0, "head": 0, "rule": rule.name, "baseline": rule.baseline}
            frames.append(
                pd.DataFrame(about | {"kl": kl[0], "kl_ablated": kl[1], "loss_change": 0.0, "loss_change_ablated": 0.0})
            )
        return pd.concat(frames, ignore_index=True)

    def rewritten(self, rule: Rule, mean: Tensor) -> Tensor:
        parts = (self.attention, self.sources, torch.ones(self.B, self.S).double(), mean)
        kept = torch.ones(self.B, self.S, self.S, dtype=torch.bool)
        if rule.qk:
            lens = (self.resid @ self.U.T).gather(2, self.tokens[:, None].expand(-1, self.S, -1))
            kept = kept_sources(lens[..., None], self.tokens, eligible_sources(self.tokens, FUNCTION), rule.share)[
                ..., 0
            ]
        if not rule.ov:
            return keep_sources(*parts, kept)
        return keep_projections(*parts, unit(self.U[self.tokens]), kept, rule.sign)

    def scores(self, *rules: Rule) -> dict[str, float]:
        clusters = {str(i): str(i) for i in range(self.B)}
        return scores_table(self.rows(*rules), clusters).set_index("rule")["score"].to_dict()


def test_a_planted_suppressor_is_kept_by_its_own_account() -> None:
    scores = Planted().scores(BOTH, OV, QK, ZERO_OV, Rule("positive only", sign="positive"), KEEP_ALL, KEEP_NONE)

    assert scores["ov from zero"] == pytest.approx(1, abs=1e-12)  # it writes along û of its sources and nothing else
    assert scores["ov"] > 0.95
    assert 0.8 < scores["both"] < scores["ov"]
    assert scores["qk"] > 0.8
    assert scores["keep all"] == 1
    assert scores["keep none"] == 0
    # Only where it suppresses less than on average is there anything positive to keep.
    assert scores["positive only"] < 0.1


def test_a_copying_head_suppresses_nothing_though_qk_alone_would_say_so() -> None:
    scores = Planted(strength=4.0).scores(BOTH, OV, QK, Rule("positive", sign="positive"))

    assert scores["both"] == scores["ov"] == 0
    assert scores["qk"] > 0.5
    assert scores["positive"] > 0.5


def test_a_head_that_suppresses_other_tokens_than_it_attends_to_suppresses_no_copies() -> None:
    targets = [(t + 7) % Planted.V for t in range(Planted.V)]
    scores = Planted(targets=targets).scores(BOTH, OV, QK)

    assert scores["both"] == scores["ov"] == 0
    assert scores["qk"] > 0.05


def test_a_dead_head_has_no_score() -> None:
    head = Planted(strength=0.0)
    table = scores_table(head.rows(BOTH, OV, *CONTROLS[:3]), {str(i): str(i) for i in range(head.B)})

    assert not table["defined"].any()
    assert table[["score", "score_low", "score_high", "score_top", "score_loss", "margin"]].isna().all(axis=None)
    assert not explained(table, "L0H0")
    assert "no direct effect to explain" in verdict(table, "planted")


ORACLE = Path(__file__).parents[3] / "shared" / "oracles" / "copy_suppression_oracle.py"


@pytest.mark.skipif(not ORACLE.exists(), reason="the independent script is not here")
def test_an_independent_script_gets_the_same_scores() -> None:
    import runpy

    threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()
    with torch.random.fork_rng():
        theirs = runpy.run_path(str(ORACLE))
        noise = {"ov_noise": 0.25, "qk_noise": 0.05}
        heads = {kind: theirs["planted"](kind) for kind in ("planted", "copy", "shuffled", "dead")}
        heads["noisy"] = theirs["planted"]("planted", **noise)
    torch.set_num_threads(threads)
    torch.set_grad_enabled(gradients)
    both_from_zero = Rule("both from zero", baseline="zero")
    settings = {
        "both": {},
        "ov": {"qk": False},
        "qk": {"ov": False},
        "both from zero": {"zero": True},
        "ov from zero": {"qk": False, "zero": True},
    }
    known = {"both": 0.9192, "ov": 0.9933, "qk": 0.9224, "both from zero": 0.9255, "ov from zero": 1.0}
    for kind, weights in heads.items():
        mine = Planted()
        mine.S, mine.B, mine.V = theirs["S"], theirs["B"], theirs["V"]
        mine.tokens, mine.resid, mine.U = theirs["toks"], theirs["resid"], theirs["U"]
        mine.attention, mine.sources, _ = theirs["head"](weights)
        scores = mine.scores(BOTH, OV, QK, both_from_zero, ZERO_OV)
        for rule, options in settings.items():
            expected = theirs["run"](weights, **options)[0]
            assert scores[rule] == pytest.approx(expected, abs=1e-6, nan_ok=True), (kind, rule)
            assert np.isnan(expected) == (kind == "dead")
        if kind == "planted":
            assert {rule: scores[rule] for rule in known} == pytest.approx(known, abs=1e-4)
        if kind == "noisy":  # spec's figures for another draw of the noise: .8910, .9659, .9159
            assert 0.8 < scores["both"] < scores["ov"] < known["ov"]


# --- Models ---


def documents(n: int, seed: int = 0) -> Documents:
    names = tuple(f"d{seed}-{i}" for i in range(n))
    return Documents(names, names, torch.tensor(random_rows(n, LENGTH, seed)))


def measured(
    model: Model, texts: Documents, heads: Sequence[tuple[int, int]], *rules: Rule, **more: Any
) -> pd.DataFrame:
    vocabulary = Vocabulary(FUNCTION, WordForms([None, None, *(f"w{i // 3}" for i in range(2, VOCAB))]))
    means = mean_outputs(model, texts) if "means" not in more else more["means"]
    at = more.get("at", destinations(texts))
    return cspa_effects(model, texts, heads, rules, means, at, vocabulary)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_those_of_dense_float64_arithmetic(family: str) -> None:
    model, texts = tiny(family), documents(3)
    means = mean_outputs(model, texts).double()
    final, (run,) = final_norm(model), list(read_heads(model, texts, [(1, 2)]))
    U = final.centre(final.gain * model.unembedding(texts.tokens)).double()
    lens = run.resid_pre.double() @ U.transpose(1, 2)
    window = model.facts.windows[1]
    eligible = eligible_sources(texts.tokens, FUNCTION, window)
    kept = kept_sources(lens[..., None], texts.tokens, eligible, share=0.3)
    parts = (run.attention.double(), run.sources.double(), run.post_factor.double(), means[1, 2])
    output = (parts[0] @ parts[1]) * parts[2][..., None]
    scale = final.scale(run.resid_final).double()

    def log_probs(new: Tensor) -> Tensor:
        moved = final.centre(new - output) * final.gain / scale
        stream = final(run.resid_final).double() + moved
        W, cap = model.unembedding(slice(0, VOCAB)).double(), model.facts.logit_cap
        logits = stream @ W.T + model.output_bias(slice(0, VOCAB))
        return (logits if cap is None else cap * torch.tanh(logits / cap)).log_softmax(-1)

    p = log_probs(output)
    assert_log_probs_are_the_models(model, texts, p)
    found = measured(model, texts, [(1, 2)], Rule("a third", share=0.3)).sort_values(["id", "position"])
    q = log_probs(by_definition(*parts, unit(U)[:, :, None], kept, "negative"))
    ablated = log_probs(means[1, 2].expand_as(output))
    own = texts.next_tokens[..., None]
    for end, other in (("", q), ("_ablated", ablated)):
        kl = (p.exp() * (p - other)).sum(-1)[:, 1:-1].flatten()
        loss = (p - other)[:, :-1].gather(2, own)[:, 1:, 0].flatten()
        np.testing.assert_allclose(found[f"kl{end}"], kl, rtol=2e-3, atol=1e-8)
        np.testing.assert_allclose(found[f"loss_change{end}"], loss, rtol=1e-3, atol=2e-5)


def assert_log_probs_are_the_models(model: Model, texts: Documents, p: Tensor) -> None:
    logits = model.run(texts.tokens.tolist(), logits=Logits(at=everywhere)).logits
    assert logits is not None
    torch.testing.assert_close(p, logits.double().log_softmax(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_all_changes_nothing_and_keeping_none_is_the_mean_ablation(family: str) -> None:
    rows = measured(tiny(family), documents(3), [(0, 0), (2, 1)], KEEP_ALL, KEEP_NONE)

    kept = rows[rows["rule"] == "keep all"]
    assert (kept["kl"] == 0).all()
    assert (kept["loss_change"] == 0).all()
    none = rows[rows["rule"] == "keep none"]
    np.testing.assert_allclose(none["kl"], none["kl_ablated"], rtol=1e-3)
    scores = scores_table(rows, {i: i for i in rows["id"]}).set_index(["label", "rule"])["score"]
    assert (scores.xs("keep all", level="rule") == 1).all()
    assert scores.xs("keep none", level="rule").abs().max() < 1e-3


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_neither_batches_nor_company_change_a_row(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts = tiny(family), documents(4)
    rules = (*RULES, Rule("span", forms=3, sign="any"))
    means, at = mean_outputs(model, texts), destinations(texts, 5, seed=1)
    keys = ["id", "position", "label", "rule"]
    whole = measured(model, texts, [(0, 1), (0, 2), (1, 0)], *rules, means=means, at=at).sort_values(keys)

    monkeypatch.setattr("mechint.probes.copy_suppression.cspa_effects._NUMBERS_A_CALL", 1)
    parts = [
        measured(model, texts.pick(which), [head], *rules, means=means, at=at[list(which)])
        for which in ([0], [1, 3], [2])
        for head in ((1, 0), (0, 2), (0, 1))
    ]

    alone = pd.concat(parts).sort_values(keys)
    assert alone[keys].to_numpy().tolist() == whole[keys].to_numpy().tolist()
    for name in ("kl", "kl_ablated", "loss_change", "loss_change_ablated"):
        np.testing.assert_allclose(alone[name], whole[name], rtol=2e-3, atol=1e-5)


def test_the_projection_on_the_span_of_one_form_is_the_projection() -> None:
    one = Rule("any sign", sign="any")
    forms = WordForms([None] * VOCAB)  # every token is its own only form
    model, texts = tiny("gpt2"), documents(3)
    rules = (one, Rule("span", forms=4, sign="any"))

    rows = cspa_effects(
        model, texts, [(1, 1)], rules, mean_outputs(model, texts), destinations(texts), Vocabulary(FUNCTION, forms)
    )

    kl = [rows[rows["rule"] == rule.name]["kl"].to_numpy() for rule in rules]
    np.testing.assert_allclose(kl[1], kl[0], rtol=1e-3, atol=1e-9)


def test_a_head_whose_output_matrix_is_zero_is_flagged() -> None:
    hf = plain("gpt2")
    hf.transformer.h[1].attn.c_proj.weight[8:16] = 0  # head 1 of 4, of width 8
    dead = TransformerLensModel(hf, tokenizer(), name="dead")
    words = (" ".join(f"w{t}" for t in row[1:]) for row in random_rows(4, LENGTH))

    found = cspa(
        dead, PromptSet("t", tuple(Prompt(f"p{i}", t) for i, t in enumerate(words))), heads="L1H1", length=LENGTH
    )

    table = found.to_frame()
    assert not table["defined"].any()
    assert table["score"].isna().all()
    assert "no direct effect to explain" in found.verdict


def test_findings_hold_tables_and_a_sentence() -> None:
    words = (" ".join(f"w{t}" for t in row[1:]) for row in random_rows(5, LENGTH))
    texts = PromptSet("t", (*(Prompt(f"p{i}", t) for i, t in enumerate(words)), Prompt("short", "w4 w5")))

    found = cspa(tiny("llama"), texts, heads=["L0H0", "L2H3"], length=LENGTH, positions=4)

    table = found.to_frame()
    assert len(table) == 2 * len(RULES)
    assert (table["n_positions"] == 20).all()
    assert (table["score_low"].isna() | (table["score_low"] <= table["score"])).all()
    assert "L2H3" in found.verdict
    assert "(1 texts were shorter)" in found.notes[0]
    assert len(found.to_frame("documents")) == 5 * 2 * len(RULES)


def test_destinations_leave_out_the_ends_and_do_not_depend_on_company() -> None:
    texts = documents(5)

    assert destinations(texts)[2].tolist() == list(range(1, LENGTH - 1))
    drawn = destinations(texts, 4, seed=3)
    assert torch.equal(destinations(texts.pick([3, 1]), 4, seed=3), drawn[[3, 1]])
    assert drawn.min() >= 1
    assert drawn.max() <= LENGTH - 2
    assert all(len(set(row.tolist())) == 4 for row in drawn)
    assert not torch.equal(drawn[0], drawn[1])
    with pytest.raises(ConfigError, match="0 positions"):
        destinations(texts, 0)


def test_what_makes_no_sense_is_refused() -> None:
    model, texts = tiny("gpt2"), documents(2)
    with pytest.raises(ConfigError, match="beside 'both' and 'ov'"):
        measured(model, texts, [(0, 0)], QK)
    with pytest.raises(ConfigError, match="Rules of one name"):
        measured(model, texts, [(0, 0)], OV, OV)
    with pytest.raises(ConfigError, match="Means of 11 positions"):
        measured(model, texts, [(0, 0)], OV, means=torch.zeros(3, 4, 11, 32))
    with pytest.raises(ConfigError, match="Expected 0 to 1"):
        Rule("much", share=5)
    with pytest.raises(ConfigError, match="no sign"):
        Rule("forms", forms=2)
    span, means, at = Rule("span", forms=2, sign="any"), mean_outputs(model, texts), destinations(texts)
    with pytest.raises(ConfigError, match="forms=WordForms"):
        cspa_effects(model, texts, [(0, 0)], [span], means, at, Vocabulary(FUNCTION))
    with pytest.raises(SiteError, match="L9"):
        cspa(model, PromptSet("t", (Prompt("a", "w4 w5 w6"), Prompt("b", "w4 w5 w6"))), heads="L9H0", length=4)


# --- Tables ---


def table_of(kl: dict[str, Sequence[float]], ablated: Sequence[float], label: str = "L1H2") -> pd.DataFrame:
    """Rows of one position a document."""
    frames = [
        pd.DataFrame(
            {"id": [f"d{i}" for i in range(len(ablated))], "position": 1, "label": label, "layer": 1, "head": 2}
        )
        .assign(rule=rule, baseline="mean", kl=values, kl_ablated=ablated)
        .assign(loss_change=-np.array(values), loss_change_ablated=2 * np.array(ablated))
        for rule, values in kl.items()
    ]
    return pd.concat(frames, ignore_index=True)


def test_scores_are_ratios_of_means_and_margins_differences_of_scores() -> None:
    ablated = np.linspace(1, 3, 40)
    rows = table_of({"both": 0.25 * ablated, "random token": 0.875 * ablated}, ablated)

    table = scores_table(rows, {i: i for i in rows["id"]}).set_index("rule")

    assert table.loc["both", ["score", "score_low", "score_high"]].to_list() == pytest.approx([0.75] * 3)
    assert table.loc["random token", ["margin", "margin_low"]].to_list() == pytest.approx([0.625] * 2)
    assert math.isnan(table.loc["both", "margin"])
    assert table.loc["both", ["kl", "kl_ablated"]].to_list() == pytest.approx([0.5, 2.0])
    # Loss falls by 0.25 where ablation raises it by 2: more than all of it is kept.
    assert table.loc["both", "score_loss"] == pytest.approx(1 + 0.25 / 2)
    assert table.loc["both", "score_absolute_loss"] == pytest.approx(1 - 0.25 / 2)
    assert table.loc["both", "score_squared_loss"] == pytest.approx(1 - (0.25 / 2) ** 2)
    assert table.loc["both", "n_large"] == int((0.25 * ablated > 0.5).sum())


def test_what_float32_cannot_tell_from_nothing_has_no_score() -> None:
    nothing = np.full(10, 1e-12)
    rows = pd.concat([table_of({"both": nothing / 2}, nothing), table_of({"both": [1.0] * 10}, [2.0] * 10, "L1H3")])

    table = scores_table(rows, {i: i for i in rows["id"]}).set_index("label")

    assert table["defined"].to_list() == [False, True]
    assert math.isnan(table.loc["L1H2", "score"])
    assert table.loc["L1H3", "score"] == pytest.approx(0.5)


def test_documents_of_one_cluster_are_drawn_together() -> None:
    draw = np.random.default_rng(0)
    ablated = np.repeat(draw.uniform(1, 3, 8), 8)
    rows = table_of({"both": ablated * np.repeat(draw.uniform(0, 1, 8), 8)}, ablated)

    alone = scores_table(rows, {i: i for i in rows["id"]}).iloc[0]
    together = scores_table(rows, {i: str(int(i[1:]) // 8) for i in rows["id"]}).iloc[0]

    assert together["score"] == pytest.approx(alone["score"])
    assert together["score_high"] - together["score_low"] > 1.5 * (alone["score_high"] - alone["score_low"])


def test_the_top_score_is_that_of_the_most_affected_positions() -> None:
    ablated = np.append(np.ones(99), 50.0)
    rows = table_of({"both": np.append(np.ones(99), 5.0)}, ablated)

    assert scores_table(rows, {i: i for i in rows["id"]})["score_top"].item() == pytest.approx(0.9)


def test_buckets_are_means_of_equal_counts_in_the_order_of_the_full_effect() -> None:
    ablated = np.random.default_rng(0).permutation(20).astype(float)
    rows = table_of({"both": 0.5 * ablated}, ablated)

    found = buckets(rows, n=4)

    assert found["bucket"].tolist() == [0, 1, 2, 3]
    assert found["n_positions"].tolist() == [5] * 4
    assert found["bucket_ablated"].tolist() == [2.0, 7.0, 12.0, 17.0]
    assert found["bucket_cspa"].tolist() == [1.0, 3.5, 6.0, 8.5]
    assert buckets(rows, "absolute_loss_change", n=4)["bucket_cspa"].tolist() == [1.0, 3.5, 6.0, 8.5]
    assert buckets(rows, "loss_change", n=4)["bucket_cspa"].tolist() == [-1.0, -3.5, -6.0, -8.5]
    assert len(buckets(rows)) == 20  # never more buckets than positions


def test_sums_by_document_lose_nothing() -> None:
    rows = measured(tiny("gpt2"), documents(3), [(0, 0), (1, 3)], BOTH, OV)
    sums = by_document(rows)

    assert len(sums) == 3 * 2 * 2
    assert (sums["n_positions"] == LENGTH - 2).all()
    assert sums["kl"].sum() == pytest.approx(rows["kl"].sum())
    assert sums["absolute_loss_change"].sum() == pytest.approx(rows["loss_change"].abs().sum())


def full_table(both: float, controls: float = 0.9, qk: float = 0.2) -> pd.DataFrame:
    ablated = np.linspace(1, 3, 40)
    kl = {"both": both * ablated, "ov": 0.1 * ablated, "qk": qk * ablated}
    kl |= dict.fromkeys(("random token", "shuffled targets", "positive only"), controls * ablated)
    rows = table_of(kl, ablated)
    return scores_table(rows, {i: i for i in rows["id"]})


def test_a_verdict_asks_for_the_score_and_for_every_control() -> None:
    assert explained(full_table(both=0.2), "L1H2")
    assert not explained(full_table(both=0.6), "L1H2")  # keeps too little
    assert not explained(full_table(both=0.2, controls=0.1), "L1H2")  # anything keeps as much
    without = full_table(both=0.2)
    assert not explained(without[without["rule"] != "random token"], "L1H2")  # a control was not measured
    assert "is most of the direct effect of L1H2 of m" in verdict(full_table(both=0.2), "m")
    assert "does not account for most" in verdict(full_table(both=0.6), "m")


def test_qk_alone_never_moves_a_verdict() -> None:
    for both in (0.2, 0.6):
        said = [verdict(full_table(both=both, qk=qk), "m") for qk in (0.0, 0.5, 1.0)]
        assert len(set(said)) == 1
        assert "qk" not in said[0]
    table = full_table(both=0.2, qk=0.0)
    assert not explained(table[table["rule"] == "qk"], "L1H2")
    assert "Nothing is said about L1H2" in verdict(table[table["rule"] == "qk"], "m")


@pytest.mark.real
def test_on_the_real_model_keeping_all_is_1_and_keeping_none_0() -> None:
    gemma = load("gemma3-270m")
    rules = (KEEP_ALL, KEEP_NONE, BOTH)

    found = cspa(gemma, natural(2), heads="L11H3", length=32, positions=1, rules=rules)

    table = found.to_frame().set_index("rule")
    assert table.loc["keep all", "score"] == 1
    assert table.loc["keep all", "kl"] == 0
    assert table.loc["keep none", "score"] == pytest.approx(0, abs=1e-4)
    assert table.loc["both", "kl"] > 0
