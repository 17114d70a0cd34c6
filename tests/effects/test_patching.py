"""Path patching is what it says: an independent hook-based value, closed forms, and nothing where there is no path."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mechint import interventions, prompts
from mechint.effects import attribution
from mechint.effects.patching import PathEffects, path_patch, sweep_senders
from mechint.effects.path_ends import head_inputs
from mechint.errors import InterventionError, NeverFiredError, SiteError
from mechint.model.base import Logits
from mechint.model.loading import load
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import prompt
from mechint.sites import Site
from tests.families import CONFIGS, FAMILIES, VOCAB, plain, random_rows, tiny

N, LENGTH = 3, 7
ROWS, OTHERS = random_rows(N, LENGTH), random_rows(N, LENGTH, seed=9)
COLUMNS, MINUS = torch.randint(2, VOCAB, (2, N), generator=torch.Generator().manual_seed(5))
EVERYTHING = ("embed", "L0", "L1")


def patched(family: str, senders: Sequence[str], receivers: Sequence[str | Site], **options: Any) -> PathEffects:
    return path_patch(tiny(family), ROWS, OTHERS, senders, receivers, COLUMNS, MINUS, **options)


def difference(logits: Tensor) -> Tensor:
    """The watched difference from the logits [batch, d_vocab] of the last position."""
    return (logits.gather(1, COLUMNS[:, None]) - logits.gather(1, MINUS[:, None]))[:, 0]


def metric(model: TransformerLensModel, write: Any) -> Tensor:
    logits = model.run(ROWS, write=write, logits=Logits(capped=False)).logits
    assert logits is not None
    return difference(logits[:, 0])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


class Plain:
    """A transformers model with hooks of our own: the oracle, which shares nothing with the code under test."""

    def __init__(self, family: str) -> None:
        self.family, self.model = family, plain(family)
        config = CONFIGS[family]()
        self.n_heads = config.num_attention_heads
        gpt2 = family == "gpt2"
        self.blocks = self.model.transformer.h if gpt2 else self.model.model.layers
        self.size = getattr(config, "head_dim", None) or config.hidden_size // self.n_heads

    def out(self, layer: int) -> Any:
        block = self.blocks[layer]
        return block.attn.c_proj if self.family == "gpt2" else block.self_attn.o_proj

    def mlp(self, layer: int) -> Any:
        block = self.blocks[layer]
        return block.post_feedforward_layernorm if self.family == "gemma3" else block.mlp

    def projection(self, letter: str, layer: int) -> tuple[Any, int]:
        """The module that computes queries, keys or values, and where in its output they begin."""
        if self.family == "gpt2":
            return self.blocks[layer].attn.c_attn, "qkv".index(letter) * self.n_heads * self.size
        return getattr(self.blocks[layer].self_attn, f"{letter}_proj"), 0

    def run(self, rows: Sequence[Sequence[int]], hooks: Sequence[tuple[Any, bool, Callable[[Tensor], Tensor]]]) -> Any:
        """Run with functions on inputs (True) or outputs (False) of modules; return the last position's logits."""
        handles = []
        for module, before, change in hooks:
            if before:
                handles.append(module.register_forward_pre_hook(lambda _, args, f=change: (f(args[0]), *args[1:])))
            else:
                handles.append(module.register_forward_hook(lambda _, args, output, f=change: f(output)))
        with torch.no_grad():
            logits = self.model(torch.tensor(rows), use_cache=False).logits[:, -1]
        for handle in handles:
            handle.remove()
        return logits

    def record(self, rows: Sequence[Sequence[int]]) -> dict[tuple[str, int], Tensor]:
        seen: dict[tuple[str, int], Tensor] = {}

        def keep(key: tuple[str, int]) -> Callable[[Tensor], Tensor]:
            return lambda h: seen.__setitem__(key, h.clone()) or h

        layers = range(len(self.blocks))
        hooks = [(self.out(layer), True, keep(("z", layer))) for layer in layers]
        hooks += [(self.mlp(layer), False, keep(("mlp", layer))) for layer in layers]
        self.run(rows, hooks)
        return seen

    def path(self, sender: tuple[int, int | None], letter: str, receiver: tuple[int, int], freeze_mlps: bool) -> Tensor:
        """Steps 1 to 3 in full passes, every head held at its z."""
        clean, other = self.record(ROWS), self.record(OTHERS)
        layer, head = sender
        if head is None:
            sent = other["mlp", layer]
        else:
            sent = clean["z", layer].clone()
            own = slice(head * self.size, (head + 1) * self.size)
            sent[..., own] = other["z", layer][..., own]
        hooks = []
        for i in range(len(self.blocks)):
            z = sent if i == layer and head is not None else clean["z", i]
            hooks.append((self.out(i), True, lambda _, z=z: z))
            if i == layer and head is None:
                hooks.append((self.mlp(i), False, lambda _: sent))
            elif freeze_mlps:
                hooks.append((self.mlp(i), False, lambda _, m=clean["mlp", i]: m))
        module, begin = self.projection(letter, receiver[0])
        own = slice(begin + receiver[1] * self.size, begin + (receiver[1] + 1) * self.size)
        found: list[Tensor] = []
        hooks.append((module, False, lambda h: found.append(h[..., own].clone()) or h))
        self.run(ROWS, hooks)

        def receive(h: Tensor) -> Tensor:
            h = h.clone()
            h[..., own] = found[0]
            return h

        return difference(self.run(ROWS, [(module, False, receive)]))


@pytest.mark.parametrize("freeze_mlps", [False, True])
@pytest.mark.parametrize("letter", ["q", "k", "v"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])
def test_a_path_equals_hooks_on_the_plain_model(family: str, letter: str, freeze_mlps: bool) -> None:
    model, oracle = tiny(family), Plain(family)
    receiver = (2, 1 if letter == "q" or model.facts.n_kv_heads > 1 else 0)
    site = Site(letter, *receiver)

    found = sweep_senders(
        model, ROWS, OTHERS, [site], COLUMNS, MINUS, senders=["L0H1", "M0", "L1H3", "M1"], freeze_mlps=freeze_mlps
    )

    assert found.senders == ("L0H1", "M0", "L1H3", "M1")
    for i, sender in enumerate([(0, 1), (0, None), (1, 3), (1, None)]):
        close(found.patched[i], oracle.path(sender, letter, receiver, freeze_mlps))
    # Were the path without effect, equality would say nothing.
    assert found.effect.abs().max(1).values.min() > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_direct_path_is_the_difference_of_contributions_through_a_recomputed_final_norm(family: str) -> None:
    model = tiny(family)
    final = model.norm("final")
    assert final is not None
    last = Site("resid_post", model.facts.n_layers - 1)
    senders = ["L0H2", "L1H0", "M1", f"L{model.facts.n_layers - 1}H3"]

    found = sweep_senders(model, ROWS, OTHERS, ["final_norm"], COLUMNS, MINUS, senders=senders, freeze_mlps=True)

    for i, sender in enumerate(senders):
        layer = int(sender[1])
        site = Site("mlp_out", layer) if sender[0] == "M" else Site("z", layer)
        clean = model.run(ROWS, read=dict.fromkeys([site, last], prompt(-1)))
        other = model.run(OTHERS, read={site: prompt(-1)})[site]
        if sender[0] == "M":
            change = other - clean[site]
        else:
            sent = clean[site].clone()
            sent[:, :, int(sender[3])] = other[:, :, int(sender[3])]
            after, before = (attribution.head_outputs(model, layer, z) for z in (sent, clean[site]))
            change = (after[0] - before[0]).sum(2) + after[1] - before[1]
        close(found.patched[i], difference(model.unembed(final(clean[last] + change)[:, 0])))


@pytest.mark.parametrize("family", FAMILIES)
def test_to_the_stream_behind_the_sender_it_is_ordinary_activation_patching(family: str) -> None:
    model = tiny(family)
    for sender, site in (("L1H2", Site("z", 1, 2)), ("M1", Site("mlp_out", 1))):
        values = model.run(OTHERS, read=[site])[site]

        found = patched(family, [sender], ["L1.resid_post"])

        close(found.patched[0], metric(model, {site: interventions.replace(values)}))


@pytest.mark.parametrize("letter", ["q", "k", "v"])
@pytest.mark.parametrize("family", FAMILIES)
def test_when_everything_before_a_receiver_is_sent_it_has_its_counterfactual_value(family: str, letter: str) -> None:
    model = tiny(family)
    site = Site(letter, 2)
    values = model.run(OTHERS, read=[site])[site]

    for freeze_mlps in (False, True):
        found = patched(family, EVERYTHING, [site], freeze_mlps=freeze_mlps)

        close(found.patched[0], metric(model, {site: interventions.replace(values)}))


@pytest.mark.parametrize("family", FAMILIES)
def test_when_everything_is_sent_to_the_logits_the_metric_is_that_of_the_counterfactual(family: str) -> None:
    model = tiny(family)
    senders = ["embed", *(f"L{layer}H{h}" for layer in range(model.facts.n_layers) for h in range(4))]
    senders += [f"M{layer}" for layer in range(model.facts.n_layers)]

    found = patched(family, senders, ["final_norm"])

    close(found.patched[0], found.counterfactual)
    logits = model.run(OTHERS, logits=Logits(capped=False)).logits
    assert logits is not None
    close(found.counterfactual, difference(logits[:, 0]))


@pytest.mark.parametrize("family", ["gpt2", "gptj", "gemma3"])
def test_with_mlps_held_the_embedding_reaches_the_logits_by_its_own_term_only(family: str) -> None:
    model = tiny(family)
    final, last = model.norm("final"), Site("resid_post", model.facts.n_layers - 1)
    assert final is not None
    clean = model.run(ROWS, read=dict.fromkeys([Site("resid_pre", 0), last], prompt(-1)))
    other = model.run(OTHERS, read={Site("resid_pre", 0): prompt(-1)})["L0.resid_pre"]

    found = patched(family, ["embed"], ["final_norm"], freeze_mlps=True)

    changed = clean[last] + other - clean["L0.resid_pre"]
    close(found.patched[0], difference(model.unembed(final(changed)[:, 0])))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sender_behind_the_receiver_has_no_effect_at_all(family: str) -> None:
    found = sweep_senders(tiny(family), ROWS, OTHERS, ["L1H0.q"], COLUMNS, MINUS, senders=["L1H3", "M1", "L2H0"])

    assert found.effect.abs().max() == 0
    assert found.receipt == ()


@pytest.mark.parametrize("receiver", ["L2H1.q", "L1.resid_post", "final_norm"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_counterfactual_that_is_the_prompt_itself_changes_nothing(family: str, receiver: str) -> None:
    model = tiny(family)

    found = sweep_senders(model, ROWS, ROWS, [receiver], COLUMNS, MINUS, senders=["embed", "L0H1", "M0", "L1H2"])

    torch.testing.assert_close(found.effect, torch.zeros_like(found.effect), rtol=0, atol=1e-5)
    close(found.counterfactual, found.clean)


@pytest.mark.parametrize("family", ["gpt2", "gptj", "gemma3"])
def test_a_sweep_gives_what_each_sender_gives_alone_and_rows_of_many_lengths_what_each_row_gives(family: str) -> None:
    model = tiny(family)
    lengths = (7, 4, 6)
    rows, others = ([row[:n] for row, n in zip(table, lengths, strict=True)] for table in (ROWS, OTHERS))
    senders, receivers = ["M0", "L1H1", "L0H3", "embed"], ["L2H0.q", "L2KV0.v"]

    swept = sweep_senders(model, rows, others, receivers, COLUMNS, MINUS, senders=senders)

    assert set(swept.senders) == set(senders)
    for i, sender in enumerate(swept.senders):
        for j, (row, other) in enumerate(zip(rows, others, strict=True)):
            one = slice(j, j + 1)
            alone = path_patch(model, [row], [other], [sender], receivers, COLUMNS[one], MINUS[one])
            close(swept.patched[i, one], alone.patched[0])


@pytest.mark.parametrize("freeze_mlps", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_on_the_direct_path_only_what_is_sent_at_the_last_position_counts(family: str, freeze_mlps: bool) -> None:
    whole = patched(family, ["L0H1", "M1"], ["final_norm"], freeze_mlps=freeze_mlps)
    at_end = patched(family, ["L0H1", "M1"], ["final_norm"], freeze_mlps=freeze_mlps, sender_at=prompt(-1))
    before = patched(family, ["L0H1", "M1"], ["final_norm"], freeze_mlps=freeze_mlps, sender_at=prompt(slice(0, -1)))

    close(at_end.patched, whole.patched)
    close(before.patched[0], before.clean)


def test_queries_count_at_the_last_position_only_in_the_last_block() -> None:
    at_end = patched("llama", ["L0H1"], ["L2H1.q"], receiver_at=prompt(-1))
    whole = patched("llama", ["L0H1"], ["L2H1.q"])
    before = patched("llama", ["L0H1"], ["L2H1.q"], receiver_at=prompt(slice(0, -1)))

    close(at_end.patched, whole.patched)
    close(before.patched[0], before.clean)
    assert (at_end.effect.abs() > 1e-4).all()


def test_a_path_through_shared_keys_reaches_every_head_that_shares_them() -> None:
    facts = tiny("llama").facts
    found = patched("llama", ["L0H1"], head_inputs(facts, "L2H3", "k"))

    assert found.receivers == (Site("k", 2, 1),)
    assert found.reached == ("L2H2", "L2H3")
    assert patched("llama", ["L0H1"], head_inputs(facts, "L2H3", "qv")).reached == ("L2H2", "L2H3")
    assert patched("llama", ["L0H1"], ["L2H3.q"]).reached == ("L2H3",)
    assert patched("llama", ["L0H1"], ["L2.v"]).reached == ("L2H0", "L2H1", "L2H2", "L2H3")
    assert patched("llama", ["L0H1"], ["final_norm"]).reached == ()


def test_a_receipt_is_given_for_every_hold_and_every_sending() -> None:
    names = [fired.intervention for fired in patched("gpt2", ["L0H1"], ["L2H0.q"], freeze_mlps=True).receipt]

    assert names.count("send") == 1
    assert names.count("receive") == 1
    assert names.count("hold") == 3  # attention of block 1, both MLPs


def test_what_cannot_be_patched_is_refused() -> None:
    with pytest.raises(InterventionError, match="Expected equal lengths"):
        path_patch(tiny("gpt2"), ROWS, [row[:-1] for row in OTHERS], ["L0H1"], ["L2H0.q"], COLUMNS)
    with pytest.raises(InterventionError, match="Give one stream alone"):
        patched("gpt2", ["L0H1"], ["L2H0.q", "L1.resid_post"])
    with pytest.raises(InterventionError, match="receiver_at = prompt"):
        patched("gpt2", ["L0H1"], ["final_norm"], receiver_at=prompt(-1))
    with pytest.raises(SiteError, match=r"Receivers: L1\.mlp_out\. Expected sites of q, k, v"):
        patched("gpt2", ["L0H1"], ["L1.mlp_out"])
    with pytest.raises(SiteError, match="Receivers: none"):
        patched("gpt2", ["L0H1"], [])
    with pytest.raises(SiteError, match="has query heads H0 to H3"):
        patched("gpt2", ["L0H7"], ["L2H0.q"])
    with pytest.raises(SiteError, match="expected some of the letters"):
        head_inputs(tiny("gpt2").facts, "L0H1", "qx")
    with pytest.raises(NeverFiredError):
        patched("gpt2", ["L0H1"], ["L2H0.q"], sender_at=prompt(20))
    with pytest.raises(NeverFiredError, match="no token of these prompts"):
        patched("gpt2", ["embed"], ["L2H0.q"], sender_at=prompt(20))


@pytest.mark.real
def test_on_gemma_everything_sent_to_the_logits_gives_the_counterfactual() -> None:
    gemma = load("gemma3-270m")
    data = prompts.encode(prompts.ioi(n=2, seed=5, tokenizer=gemma.tokenizer), gemma.tokenizer)
    target, distractor = (torch.tensor([token or 0 for token in own]) for own in (data.target, data.distractor))
    others = [row for row in data.counterfactual if row is not None]
    senders = ["embed", *(f"L{i}H{h}" for i in range(18) for h in range(4)), *(f"M{i}" for i in range(18))]

    found = path_patch(gemma, data.tokens, others, senders, ["final_norm"], target, distractor)

    torch.testing.assert_close(found.patched[0], found.counterfactual, rtol=0, atol=2e-3)
    assert found.effect.abs().min() > 0.1
