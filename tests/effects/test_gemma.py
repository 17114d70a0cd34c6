"""The same theorems on the real model: post-norms, QK-norm, shared keys, a residual stream that reaches 60,000."""

import pytest
import torch
from torch import Tensor

from mechint import prompts
from mechint.effects import attribution
from mechint.effects.ablation import Component, sweep
from mechint.effects.baselines import Baseline
from mechint.effects.self_repair import repair
from mechint.effects.task import labels
from mechint.model.base import Logits, Model
from mechint.model.loading import load
from mechint.positions import everywhere
from mechint.sites import Site

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def gemma() -> Model:
    return load("gemma3-270m")


@pytest.fixture(scope="module")
def encoded(gemma: Model) -> prompts.Encoded:
    return prompts.encode(prompts.ioi(n=3, seed=5, tokenizer=gemma.tokenizer), gemma.tokenizer)


def test_the_terms_add_up_to_the_final_residual_stream(gemma: Model, encoded: prompts.Encoded) -> None:
    terms = attribution.contributions(gemma, [encoded.tokens[0]], everywhere)

    total = terms.embed + terms.heads.sum((0, 3)) + terms.attn_biases.sum(0) + terms.mlps.sum(0)
    error = (total - terms.resid_final).norm(dim=-1) / terms.resid_final.norm(dim=-1)
    assert error.max() < 1e-4


def test_every_head_is_what_its_output_projection_writes_through_the_post_norm(
    gemma: Model, encoded: prompts.Encoded
) -> None:
    row = encoded.tokens[0]
    terms = attribution.contributions(gemma, [row], everywhere)
    inputs: dict[int, Tensor] = {}
    blocks = gemma.hf_model.base_model.layers  # type: ignore[attr-defined]
    handles = [
        block.self_attn.o_proj.register_forward_pre_hook(lambda _, args, i=i: inputs.__setitem__(i, args[0]))
        for i, block in enumerate(blocks)
    ]
    gemma.run([row])
    for handle in handles:
        handle.remove()

    with torch.no_grad():
        for layer, block in enumerate(blocks):
            weight = block.self_attn.o_proj.weight
            norm = block.post_attention_layernorm
            whole = inputs[layer] @ weight.T
            scale = torch.rsqrt(whole.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + norm.weight)
            for head in range(4):
                part = slice(256 * head, 256 * (head + 1))
                expected = inputs[layer][..., part] @ weight[:, part].T * scale
                torch.testing.assert_close(terms.heads[layer, :, :, head], expected, rtol=1e-3, atol=1e-2)


def test_repair_is_its_three_parts_and_the_sweep_is_the_plain_loop(gemma: Model, encoded: prompts.Encoded) -> None:
    heads, columns = [Component(11, 3), Component(17, 2)], labels(encoded)

    swept = sweep(gemma, encoded.tokens, heads, Baseline(), columns)
    found = repair(gemma, encoded.tokens, heads, Baseline(), columns[:, 0], columns[:, 1])

    for i, one in enumerate(found):
        torch.testing.assert_close(one.total, one.heads_part + one.mlp_part + one.norm, rtol=1e-4, atol=1e-4)
        site = Site("z", heads[i].layer, heads[i].head)
        for j, row in enumerate(encoded.tokens):
            write = {site: Baseline().intervention(site, 1, everywhere)}
            logits = gemma.run([row], write=write, logits=Logits(columns=columns[j][None, None])).logits
            assert logits is not None
            torch.testing.assert_close(swept.ablated[i, j], logits[0, 0], rtol=1e-4, atol=1e-4)
