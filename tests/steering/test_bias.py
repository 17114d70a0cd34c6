"""Biases in plain transformers models, against the same plans carried out by hooks."""

from collections.abc import Mapping
from dataclasses import replace as changed
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import mechint as mi
from mechint.errors import InterventionError, SiteError, UnsupportedModelError
from mechint.model.base import Logits
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import everywhere, generated, prompt
from mechint.sites import Site
from mechint.steering.bias import to_bias
from mechint.steering.gates import gate
from mechint.steering.parts import ablate, add, clamp, project_out, replace
from mechint.steering.plan import Plan
from mechint.vectors.vector import SteeringVector
from tests.families import BACKEND, plain, random_rows, tiny, tokenizer
from tests.steering.few import PROMPTS, SITE, vector

ROWS = random_rows(3, 9)
NAMES = {
    "gpt2": "transformer.h.{}.mlp.c_proj.bias",
    "llama": "model.layers.{}.mlp.down_proj.bias",
    "llama-with-bias": "model.layers.{}.mlp.down_proj.bias",
    "qwen3": "model.layers.{}.mlp.down_proj.bias",
    "neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h.bias",
    "gptj": "transformer.h.{}.mlp.fc_out.bias",
}
SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
only_bridge = pytest.mark.skipif(BACKEND != "transformer_lens", reason="a model of its own, behind the bridge")


def made(config: Any) -> Any:
    """A random transformers model whose biases are not zero."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        parameter.add_((0.3 if name.endswith("bias") else 0.15) * torch.randn_like(parameter))
    return model


def bridged(config: Any, name: str) -> TransformerLensModel:
    return TransformerLensModel(made(config), tokenizer(), name=name)


def untouched(family: str) -> Any:
    """The same weights in plain transformers."""
    return made(transformers.LlamaConfig(**SMALL, mlp_bias=True)) if family == "llama-with-bias" else plain(family)


def steerable(family: str) -> Any:
    if family != "llama-with-bias":
        return tiny(family)
    if BACKEND != "transformer_lens":
        pytest.skip("a model of its own, behind the bridge")
    return bridged(transformers.LlamaConfig(**SMALL, mlp_bias=True), family)


def put_in(model: Any, biases: Mapping[str, Tensor]) -> dict[str, nn.Parameter | None]:
    """What an engine does: write b + c v where b was. Returns what was there."""
    before: dict[str, nn.Parameter | None] = {}
    for name, step in biases.items():
        module = model.get_submodule(name.removesuffix(".bias"))
        before[name] = module.bias
        module.bias = nn.Parameter(step if module.bias is None else module.bias + step, requires_grad=False)
    return before


def put_back(model: Any, before: Mapping[str, nn.Parameter | None]) -> None:
    for name, bias in before.items():
        model.get_submodule(name.removesuffix(".bias")).bias = bias


@torch.no_grad()
def plain_logits(model: Any) -> Tensor:
    return model(torch.tensor(ROWS)).logits


def steered_logits(model: Any, plan: Plan) -> Tensor:
    with model.apply(plan):
        found = model.run(ROWS, logits=Logits(at=everywhere)).logits
    assert found is not None
    return found


def of(model: Any) -> SteeringVector:
    """A vector that knows these weights as its own."""
    return changed(vector(), model={"name": "tiny", "weights": model.fingerprint["weights"]})


def at_two_blocks() -> SteeringVector:
    sites = Site("resid_post", 0), SITE
    return SteeringVector({s: vector(4 + i)[SITE] for i, s in enumerate(sites)}, dict.fromkeys(sites, 3.0), "two", "x")


PLANS = {
    "one block": add(vector(), 0.7),
    "downwards": add(vector(), -0.7),
    "two blocks": add(at_two_blocks(), 0.4),
    "two parts, one block": add(vector(), 0.4) + add(vector(1, Site("mlp_out", 1)), 0.3, unit="raw"),
}


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_bias_in_plain_transformers_is_the_plan_and_taken_out_again_it_leaves_nothing(
    family: str, plan: Plan
) -> None:
    model, served = steerable(family), untouched(family)
    clean, fingerprint = plain_logits(served), dict(model.fingerprint)
    biases = to_bias(model, plan)

    before = put_in(served, biases)
    assert not torch.allclose(plain_logits(served), clean, atol=1e-2)
    assert torch.allclose(plain_logits(served), steered_logits(model, plan), atol=1e-4)
    put_back(served, before)
    assert torch.equal(plain_logits(served), clean)
    # The model that was looked at is as it was, and steers and runs as before.
    assert torch.allclose(model.all_logits(ROWS), clean, atol=1e-4)
    assert dict(model.fingerprint) == fingerprint


@pytest.mark.parametrize("family", NAMES)
def test_the_name_is_that_of_the_last_linear_module_of_the_mlp_in_plain_transformers(family: str) -> None:
    biases = to_bias(steerable(family), add(at_two_blocks(), 0.4))

    assert list(biases) == [NAMES[family].format(layer) for layer in (0, 1)]
    weights = untouched(family).state_dict()
    for name, step in biases.items():
        assert name.replace(".bias", ".weight") in weights
        assert step.dtype == torch.float32
        assert not step.requires_grad
        assert float(step.norm()) == pytest.approx(0.4 * 3.0, rel=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_prompt_and_generated_tokens_are_both_steered(family: str) -> None:
    """Greedy text under the plan is that of the served model; steering either kind of token alone writes another."""
    model, served = tiny(family), plain(family)
    put_in(served, to_bias(model, add(vector(), 2.0)))
    for text in PROMPTS[1:]:
        ids = torch.tensor([model.tokenize(text)])
        seen = torch.ones_like(ids)  # else transformers takes <bos>, which is 0, for padding
        how = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        written = served.generate(ids, attention_mask=seen, **how)[0, ids.shape[1] :]
        assert model.generate([text], add(vector(), 2.0), max_new_tokens=8)[0].tokens == tuple(written.tolist())
    ways = [add(vector(), 2.0, where=where) for where in (everywhere, prompt(), generated())]
    texts = [model.generate(PROMPTS, way, max_new_tokens=8).texts for way in ways]
    assert texts[0] != texts[1]
    assert texts[0] != texts[2]


@pytest.mark.parametrize("how", [{"dose": 0.3}, {"dose": -2.0, "unit": "raw"}])
def test_a_vector_at_a_dose_is_the_plan_that_adds_it(how: dict[str, Any]) -> None:
    model = tiny("llama")
    (one,) = to_bias(model, of(model), **how).values()
    (other,) = to_bias(model, add(vector(), **how)).values()

    assert mi.to_bias is to_bias
    assert torch.equal(one, other)


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_where_a_norm_follows_the_mlp_it_is_refused(family: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"normalises what an MLP writes.*run time.*to_vllm_lens"):
        to_bias(tiny(family), add(vector(), 0.5))


def test_the_refusal_of_gemma_is_right_the_same_bias_there_is_another_steering() -> None:
    model, served, plan = tiny("gemma3"), plain("gemma3"), add(vector(), 0.7)
    (step,) = to_bias(tiny("llama"), plan).values()
    put_in(served, {"model.layers.1.mlp.down_proj.bias": step})

    assert not torch.allclose(plain_logits(served), steered_logits(model, plan), atol=0.1)


@only_bridge
@pytest.mark.parametrize(
    ("config", "name"),
    [
        (transformers.Olmo2Config(**SMALL), "norm"),
        (transformers.GraniteConfig(**SMALL, residual_multiplier=0.25), "multiplier"),
    ],
)
def test_what_changes_an_mlps_output_on_its_way_is_noticed_without_knowing_the_family(config: Any, name: str) -> None:
    model = bridged(config, name)

    with pytest.raises(UnsupportedModelError, match=r"arrives changed in the stream.*run time"):
        to_bias(model, add(vector(), 0.5))
    plain_one = bridged(transformers.GraniteConfig(**SMALL, residual_multiplier=1.0), "no multiplier")
    assert list(to_bias(plain_one, add(vector(), 0.5))) == ["model.layers.1.mlp.down_proj.bias"]


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (add(vector(), 1.0, where=generated()), "every token, of prompts and of what is generated"),
        (add(vector(), 1.0, where=prompt(-1)), "every token"),
        (add(vector(), 1.0).when(gate("entropy", "<", 1.0)), "knows no conditions"),
        (add(vector(), lambda t: 1.0), "the same at all times"),
        (add(vector(), 1.0, norm="preserve"), "one and the same vector"),
        (add(vector(), 1.0, unit="token"), "one and the same vector"),
        (project_out(vector()), "does nothing else"),
        (clamp(vector(), 0.0, 1.0), "does nothing else"),
        (replace(SITE, torch.zeros(32)), "does nothing else"),
        (ablate("L1H2"), "L1H2.z is elsewhere"),
        (add(vector(0, Site("resid_pre", 1)), 1.0), "L1.resid_pre is elsewhere"),
        (add(vector(0, Site("attn_out", 1)), 1.0), "L1.attn_out is elsewhere"),
        (add(vector(0, Site("embed")), 1.0), "embed is elsewhere"),
        (add(vector(), 1.0) + add(vector(1), 1.0, where=generated()), "every token"),
    ],
)
def test_what_no_bias_does_is_refused_with_the_reason_and_what_to_do(plan: Plan, reason: str) -> None:
    with pytest.raises(InterventionError, match=rf"A bias cannot carry out '.*{reason}.*run time.*to_vllm_lens"):
        to_bias(tiny("llama"), plan)


def test_nothing_to_add_and_what_does_not_fit_are_refused() -> None:
    model = tiny("llama")
    with pytest.raises(InterventionError, match="nothing to add"):
        to_bias(model, of(model), 0.0)
    with pytest.raises(InterventionError, match="doses of its own"):
        to_bias(model, add(vector(), 1.0), 0.5)
    with pytest.raises(InterventionError, match="Give a dose"):
        to_bias(model, of(model))
    with pytest.raises(SiteError, match="blocks L0 to L2"):
        to_bias(model, add(vector(0, Site("resid_post", 7)), 1.0))
    with pytest.raises(InterventionError, match=r"shape \[16\]; expected \[32\]"):
        to_bias(model, add(vector(width=16), 1.0))
    with pytest.raises(InterventionError, match="has 16 numbers"):
        to_bias(model, vector(width=16), 1.0)


def test_a_part_of_dose_0_is_left_out_and_parts_of_one_block_add_up() -> None:
    off = add(vector(), 0.0, where=generated())
    (both,) = to_bias(tiny("llama"), off + add(vector(), 0.25) + add(vector(), 0.5)).values()
    (whole,) = to_bias(tiny("llama"), add(vector(), 0.75)).values()

    assert torch.allclose(both, whole)


def test_other_weights_are_warned_about() -> None:
    with pytest.warns(UserWarning, match="Doses may mean other things"):
        to_bias(tiny("llama"), vector(), 0.5)
