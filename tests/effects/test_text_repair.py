"""Self-repair at every token of documents equals the slow loop, adds up, and leaves out what cannot react."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mechint.effects.ablation import Component, all_heads
from mechint.effects.baselines import Baseline
from mechint.effects.documents import Documents
from mechint.effects.sampling import destinations
from mechint.effects.self_repair import repair
from mechint.effects.text_ablation import TextAblation, resample_order
from mechint.effects.text_repair import (
    CleanText,
    TextRepair,
    clean_text,
    mean_unembedding,
    repair_on_documents,
    text_repair,
)
from mechint.errors import ConfigError, InterventionError, PositionError, SiteError
from mechint.interventions import resample, zero
from mechint.model.base import Logits, Model
from mechint.model.model_facts import ModelFacts
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import everywhere
from mechint.sites import Site
from tests.families import CONFIGS, FAMILIES, plain, random_rows, tiny, tokenizer

LENGTH = 9
PARTS = ("direct_effect", "direct_effect_ablated", "logit_change", "self_repair", "heads", "mlps", "final_norm")


def documents(n: int, length: int = LENGTH, seed: int = 0) -> Documents:
    rows = random_rows(n, length, seed)
    return Documents(tuple(f"d{i}" for i in range(n)), tuple(f"c{i // 2}" for i in range(n)), torch.tensor(rows))


DOCUMENTS = documents(5)
SOME = (0, 1, 3)


def components(facts: ModelFacts) -> list[Component]:
    last = facts.n_layers - 1
    return [Component.parse(label) for label in ("L0H1", "M0", "L1H2", "L1H3", "M1", "L1", f"L{last}H0", f"M{last}")]


def measured(
    model: Model, kind: str, which: tuple[int, ...] = SOME, draw: int = 0
) -> tuple[CleanText, Baseline, list[TextRepair]]:
    wanted = components(model.facts)
    text = clean_text(model, DOCUMENTS.pick(which))
    draws = 2 if kind == "resample" else 1
    baseline = TextAblation(model, DOCUMENTS, wanted, kind, draws=draws).baselines(which)[draw]
    return text, baseline, list(text_repair(model, text, wanted, baseline))


def exact_logits(model: Model, rows: list[list[int]], write: dict, columns: Tensor) -> Tensor:
    logits = model.run(rows, write=write, logits=Logits(at=everywhere, columns=columns[..., None], capped=False)).logits
    assert logits is not None
    return logits[..., 0]


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_three_parts_add_up_at_every_token(family: str, kind: str) -> None:
    _, _, found = measured(tiny(family), kind)

    for one in found:
        torch.testing.assert_close(one.self_repair, one.heads + one.mlps + one.final_norm, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    ("family", "kind"), [*((family, "resample") for family in FAMILIES), ("gpt2", "mean"), ("gemma3", "zero")]
)
def test_at_a_texts_end_it_is_what_repair_finds_for_a_prompt(family: str, kind: str) -> None:
    """Nothing later in a document can matter, so a document cut off behind a token is a prompt that ends there."""
    model = tiny(family)
    text, baseline, found = measured(model, kind)
    place = 4
    rows = [row[: place + 1] for row in text.documents.tokens.tolist()]
    cut = replace(baseline, values={site: value[:, : place + 1] for site, value in baseline.values.items()})
    following = text.documents.tokens[:, place + 1]

    expected = repair(model, rows, components(model.facts), cut if kind == "resample" else baseline, following)

    assert [one.component for one in found] == [one.component for one in expected]
    for one, single in zip(found, expected, strict=True):
        for name, value in (
            ("self_repair", single.total),
            ("logit_change", single.logit_change),
            ("heads", single.heads_part),
            ("mlps", single.mlp_part),
            ("final_norm", single.norm),
        ):
            torch.testing.assert_close(getattr(one, name)[:, place - 1], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "label"), [*((family, "L1H2") for family in FAMILIES), ("gpt2", "M1"), ("gemma3", "M1"), ("neox", "L1")]
)
def test_it_equals_the_loop_of_one_full_run_a_document_from_other_streams(family: str, label: str) -> None:
    """Logits from the unembedding, parts from whole-run differences: nothing here restarts, stacks or picks places."""
    model, component = tiny(family), Component.parse(label)
    text = clean_text(model, DOCUMENTS.pick(SOME))
    ablation = TextAblation(model, DOCUMENTS, [component], "resample", draws=2, seed=4)
    (one,) = text_repair(model, text, [component], ablation.baselines(SOME)[1])
    order = resample_order(len(DOCUMENTS), 2, seed=4)[1]
    final = model.norm("final")
    assert final is not None
    last = Site("resid_post", model.facts.n_layers - 1)
    sites = [Site(part, layer) for layer in range(model.facts.n_layers) for part in ("attn_out", "mlp_out")]
    own = [Site("attn_out", 1), Site("mlp_out", 1)] if label == "L1" else [Site("mlp_out", 1)]
    for i, document in enumerate(SOME):
        row, source = [DOCUMENTS.tokens[document].tolist()], [DOCUMENTS.tokens[order[document]].tolist()]
        assert int(order[document]) != document
        recorded = model.run(source, read=[site.whole for site in component.sites])
        values = {
            site: recorded[site.whole] if site.head is None else recorded[site.whole][:, :, site.head]
            for site in component.sites
        }
        write = {site: resample(value) for site, value in values.items()}
        shorter = {site: resample(value[:, :-1]) for site, value in values.items()}
        clean, ablated = (model.run(row, read=[*sites, last], write=w) for w in ({}, write))
        following = torch.tensor(row)[:, 1:]
        logits = [exact_logits(model, [row[0][:-1]], w, following) for w in ({}, shorter)]
        w = final.centre(final.gain * model.unembedding(following))
        u = w / final.scale(clean[last][:, :-1])
        change = {site: ((ablated[site] - clean[site])[:, :-1] * u).sum(-1)[0, 1:] for site in sites}
        total = (logits[1] - logits[0])[0, 1:]
        norm = (ablated[last][:, :-1] * w).sum(-1, keepdim=True) * (
            1 / final.scale(ablated[last][:, :-1]) - 1 / final.scale(clean[last][:, :-1])
        )

        torch.testing.assert_close(one.logit_change[i], total, rtol=1e-3, atol=2e-5)
        torch.testing.assert_close(one.final_norm[i], norm[0, 1:, 0], rtol=1e-3, atol=1e-5)
        everything = sum(change.values())
        difference = one.direct_effect_ablated[i] - one.direct_effect[i]
        torch.testing.assert_close(one.heads[i] + one.mlps[i] + difference, everything, rtol=1e-3, atol=1e-5)
        mlps = sum(value for site, value in change.items() if site.component == "mlp_out" and site not in own)
        mlps = mlps + change[Site("mlp_out", 1)] if label == "L1H2" else mlps
        torch.testing.assert_close(one.mlps[i], mlps, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "neox"])
def test_in_double_precision_the_parts_are_exact_to_twelve_digits(family: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        model = TransformerLensModel(plain(family).double(), tokenizer(), name=f"double-{family}")
        text = clean_text(model, DOCUMENTS)
        found = list(text_repair(model, text, components(model.facts), Baseline()))
        last, final = Site("resid_post", model.facts.n_layers - 1), model.norm("final")
        assert final is not None
        for one in found:
            assert one.self_repair.dtype == torch.float64
            parts = one.heads + one.mlps + one.final_norm
            torch.testing.assert_close(parts, one.self_repair, rtol=1e-12, atol=1e-13)
        head = found[2]
        site = head.component.sites[0]
        ablated = model.run(text.layout.batch, read=[last], write={site: zero()})[last][:, 1:-1]
        clean = model.run(text.layout.batch, read=[last])[last][:, 1:-1]
        w = final.centre(final.gain * model.unembedding(text.next_tokens))
        closed = (ablated * w).sum(-1) * (1 / final.scale(ablated) - 1 / final.scale(clean))[..., 0]
        torch.testing.assert_close(head.final_norm, closed, rtol=1e-10, atol=1e-13)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_behind_the_last_attention_only_its_mlp_and_the_norm_react_if_the_model_lets_them(family: str) -> None:
    model = tiny(family)
    last = model.facts.n_layers - 1
    text = clean_text(model, DOCUMENTS)
    (head,) = text_repair(model, text, [Component(last, 0)], Baseline())
    (mlp,) = text_repair(model, text, [Component(last, None, "mlp")], Baseline())

    assert (float(head.heads.abs().max()) > 1e-4) == model.facts.post_norms
    assert (float(head.mlps.abs().max()) == 0) == model.facts.parallel
    assert float(mlp.heads.abs().max()) == 0
    torch.testing.assert_close(mlp.mlps, torch.zeros_like(mlp.mlps), rtol=0, atol=1e-6)
    assert float(head.final_norm.abs().max()) > 0


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "gptj"])
def test_less_the_mean_unembedding_it_is_the_logit_less_the_mean_logit(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechint.effects.text_repair._VOCABULARY_BLOCK", 7)
    model, component = tiny(family), Component(1, 2)
    (one,) = text_repair(model, clean_text(model, DOCUMENTS, minus=mean_unembedding(model)), [component], Baseline())
    rows = DOCUMENTS.tokens.tolist()
    clean, ablated = (
        model.run(rows, write=write, logits=Logits(at=everywhere, capped=False)).logits
        for write in ({}, {component.sites[0]: zero()})
    )
    assert clean is not None
    assert ablated is not None
    change = ablated - clean
    own = change[:, :-1].gather(2, DOCUMENTS.next_tokens[..., None])[..., 0]
    # What the output bias adds does not change; so the mean over the vocabulary is that of directions alone.
    torch.testing.assert_close(one.logit_change, (own - change[:, :-1].mean(-1))[:, 1:], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(one.self_repair, one.heads + one.mlps + one.final_norm, rtol=1e-4, atol=2e-6)


def test_a_component_that_is_set_to_its_own_values_changes_nothing() -> None:
    model, component = tiny("gemma3"), Component(1, 1)
    text = clean_text(model, DOCUMENTS)
    site = Site("z", 1)
    same = Baseline("resample", False, "", {site: model.run(text.layout.batch, read=[site])[site]})

    (one,) = text_repair(model, text, [component], same)

    for value in (one.logit_change, one.heads, one.mlps, one.final_norm, one.self_repair):
        assert float(value.abs().max()) < 1e-5
    torch.testing.assert_close(one.norm_ratio, torch.ones_like(one.norm_ratio))
    torch.testing.assert_close(one.direct_effect_ablated, one.direct_effect)


def test_the_norm_ratio_is_that_of_the_final_scales() -> None:
    model, component = tiny("llama"), Component(0, 2)
    text = clean_text(model, DOCUMENTS)
    last, final = Site("resid_post", model.facts.n_layers - 1), model.norm("final")
    assert final is not None

    (one,) = text_repair(model, text, [component], Baseline())

    clean, ablated = (
        final.scale(model.run(text.layout.batch, read=[last], write=w)[last])[:, 1:-1, 0]
        for w in ({}, {component.sites[0]: zero()})
    )
    torch.testing.assert_close(one.norm_ratio, ablated / clean)


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_a_sample_of_places_gives_what_all_places_give_there(family: str) -> None:
    model, component = tiny(family), [Component(1, 0), Component(1, 3), Component(2, 1)]
    places = destinations(DOCUMENTS, 3, seed=7)
    every = list(text_repair(model, clean_text(model, DOCUMENTS), component, Baseline()))

    some = list(text_repair(model, clean_text(model, DOCUMENTS, places), component, Baseline()))

    for one, other in zip(some, every, strict=True):
        for name in PARTS:
            torch.testing.assert_close(getattr(one, name), getattr(other, name).gather(1, places - 1))


def test_places_depend_on_a_document_and_the_seed_alone() -> None:
    drawn = destinations(DOCUMENTS, 4, seed=1)

    assert torch.equal(drawn[[3, 0]], destinations(DOCUMENTS.pick([3, 0]), 4, seed=1))
    assert not torch.equal(drawn, destinations(DOCUMENTS, 4, seed=2))
    assert int(drawn.min()) >= 1
    assert int(drawn.max()) <= LENGTH - 2
    assert bool((drawn.diff(dim=1) > 0).all())
    with pytest.raises(ConfigError, match="0 positions a document were asked for"):
        destinations(DOCUMENTS, 0)


@pytest.mark.parametrize(("n", "draws"), [(2, 1), (5, 4), (9, 3)])
def test_no_document_is_resampled_from_itself_or_twice_from_one(n: int, draws: int) -> None:
    order = resample_order(n, draws, seed=3)

    for k in range(draws):
        assert sorted(order[k].tolist()) == list(range(n))
        assert not bool((order[k] == torch.arange(n)).any())
        for earlier in range(k):
            assert not bool((order[k] == order[earlier]).any())


def test_more_draws_than_other_documents_are_refused() -> None:
    with pytest.raises(InterventionError, match=r"5 draws from other documents need at least 6 documents; there are 5"):
        TextAblation(tiny("gpt2"), DOCUMENTS, [Component(0, 0)], "resample", draws=5)


@pytest.mark.parametrize("places", [[[0, 8]], [[2, 2]], [[3, 1]], [[-1, 1]]])
def test_places_without_a_next_token_or_out_of_order_are_refused(places: list[list[int]]) -> None:
    with pytest.raises(PositionError, match=r"expected positions 0 to 7 of documents of 9 tokens"):
        clean_text(tiny("gpt2"), DOCUMENTS.pick([0]), torch.tensor(places))


def test_a_component_that_the_model_has_not_is_refused() -> None:
    text = clean_text(tiny("gpt2"), DOCUMENTS)
    with pytest.raises(SiteError, match="blocks L0 to L2"):
        list(text_repair(tiny("gpt2"), text, [Component(7, 0)], Baseline()))


@pytest.mark.parametrize("kind", ["mean", "resample"])
def test_rows_do_not_depend_on_how_documents_are_grouped(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, wanted = tiny("gemma2"), [Component(0, 1), Component(1, None, "mlp")]
    arguments = {"per_document": 3, "draws": 2, "seed": 5}
    together = repair_on_documents(model, DOCUMENTS, wanted, kind, **arguments)

    monkeypatch.setattr("mechint.effects.text_repair.TOKENS_A_GROUP", 2 * LENGTH)
    apart = repair_on_documents(model, DOCUMENTS, wanted, kind, **arguments)

    keys = ["label", "draw", "document", "position"]
    assert len(together) == 2 * (2 if kind == "resample" else 1) * len(DOCUMENTS) * 3
    one, other = (frame.sort_values(keys).reset_index(drop=True) for frame in (together, apart))
    for name in ("direct_effect", "logit_change", "self_repair", "heads_part", "mlps_part", "norm_part", "norm_ratio"):
        torch.testing.assert_close(
            torch.tensor(one[name].to_numpy()), torch.tensor(other[name].to_numpy()), rtol=1e-4, atol=1e-5
        )
    assert (one[keys] == other[keys]).all(axis=None)


def test_only_the_columns_of_the_next_tokens_are_unembedded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("qwen3")
    asked: list[int] = []
    known = type(model).unembedding

    def noted(self: Model, columns: Tensor) -> Tensor:
        asked.append(columns.numel())
        return known(self, columns)  # type: ignore[arg-type]

    monkeypatch.setattr(type(model), "unembedding", noted)
    monkeypatch.setattr(type(model), "unembed", None)

    list(text_repair(model, clean_text(model, DOCUMENTS), all_heads(model.facts), Baseline()))

    assert asked == [len(DOCUMENTS) * (LENGTH - 2)]
    assert CONFIGS["qwen3"]().vocab_size > max(asked) // len(DOCUMENTS)


@pytest.mark.real
def test_the_parts_add_up_on_the_real_gemma() -> None:
    import mechint as mi

    model = mi.load("gemma3-270m")
    texts = Documents.cut(mi.prompts.natural(n=6, min_words=40), model, 16)
    wanted = [Component.parse(label) for label in ("L11H3", "L16H0", "L17H2", "M16")]
    found = list(text_repair(model, clean_text(model, texts), wanted, Baseline()))

    for one in found:
        error = (one.self_repair - one.heads - one.mlps - one.final_norm).abs().max()
        assert float(error) <= 1e-4 * float(one.logit_change.abs().max())
