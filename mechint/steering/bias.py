"""Plans for engines that know weights alone: what to add to the bias of the linear module that ends an MLP.

    h + c v  at the output of a block, at every token     =     b + c v  in that module

Exact where an MLP's output is added to the stream as it is (GPT-2, Llama, Qwen, Mistral, GPT-NeoX), which is tried on
the block itself; a norm behind the MLP (Gemma 2 and 3, OLMo 2) would take v to another place at every token. A bias
knows no positions, conditions or times. This is the steering of "Decoding the Critique Mechanism in Large Reasoning
Models" (arXiv 2603.16331): `down_proj.bias += alpha v`.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechint.errors import InterventionError, UnsupportedModelError
from mechint.model.base import Model, Restart
from mechint.positions import everywhere
from mechint.sites import Site
from mechint.steering.parts import add
from mechint.steering.plan import Part, Plan
from mechint.vectors.vector import SteeringVector

_INSTEAD = "Steer at run time (model.generate(prompts, plan), model.apply(plan)), or export with mi.to_vllm_lens."
_WRAPPER = "_original_component"  # what TransformerLens puts into the names of modules
_TOLERANCE = 5e-2  # relative: rounding to bfloat16 is 1e-2 or so, a multiplier or a norm 1e-1 or more


def to_bias(
    model: Model, what: Plan | SteeringVector, dose: float | None = None, *, unit: str | None = None
) -> dict[str, Float[Tensor, " d_model"]]:
    """Write a plan, or a vector at a dose, as what to add to biases of the transformers model.

    A module may have no bias yet. Llama reads one if its configuration says `mlp_bias` (and then in every block: give
    the others zero); the classes of Qwen and Mistral read none, so set it on the module after loading. Keep a copy of
    what was there: adding and subtracting the same number again need not give the old one to the last bit.

    Args:
        model: whose biases are meant; it is left as it is.
        what: a plan that adds to `resid_post` or `mlp_out`, everywhere, at constant doses; or a vector.
        dose: of the vector, as in `add`; a plan has its own.
        unit: of this dose.

    Returns:
        By name in the state dict of transformers, such as "model.layers.9.mlp.down_proj.bias": float32 on the CPU.

    Raises:
        InterventionError: the plan does what no bias does; the message says what, and why.
        UnsupportedModelError: this model does not add an MLP's output as it is, or shows no transformers model.
        SiteError: the model has no such site.
    """
    if isinstance(what, SteeringVector):
        what.check(model)
        plan = add(what, dose, unit=unit)
    elif dose is not None or unit is not None:
        raise InterventionError(f"dose={dose}, unit={unit!r}: a plan has doses of its own. Give it alone.")
    else:
        plan = what
    plan.check(model)
    steps: dict[int, Tensor] = {}
    for part in plan.parts:
        if not part.off:
            _collect(part, steps, model.facts.d_model)
    if not steps:
        raise InterventionError("Every part of this plan has dose 0: there is nothing to add to a bias.")
    if model.facts.post_norms:
        raise UnsupportedModelError(
            f"{model.facts.name} ({model.facts.family}) normalises what an MLP writes before it is added, so a bias "
            f"would arrive with another length and direction at every token. {_INSTEAD}"
        )
    return {_checked_name(model, layer): step for layer, step in sorted(steps.items())}


def _collect(part: Part, steps: dict[int, Tensor], d_model: int) -> None:
    """Add what a part does to each block's step, or say why no bias does it."""
    if part.gate is not None:
        raise _refusal(part, "it knows no conditions. Leave the gate out.")
    if callable(part.dose):
        raise _refusal(part, "it is the same at all times. Give the dose as a number.")
    if part.where is not everywhere:
        raise _refusal(part, "it acts on every token, of prompts and of what is generated. Leave `where` out.")
    for site, action in part.actions.items():
        recipe = action.recipe
        if site.component not in ("resid_post", "mlp_out") or site.layer is None:
            raise _refusal(part, f"it acts where an MLP writes (resid_post, mlp_out), and {site} is elsewhere.")
        if recipe is None or recipe.kind != "add" or recipe.preserve:
            raise _refusal(part, "it adds one and the same vector to every token, and does nothing else.")
        if recipe.values.shape != (d_model,):
            raise _refusal(part, f"its values have shape {list(recipe.values.shape)}; expected [{d_model}].")
        step = part.dose * recipe.values.detach().to("cpu", torch.float32)
        steps[site.layer] = steps[site.layer] + step if site.layer in steps else step


def _refusal(part: Part, reason: str) -> InterventionError:
    return InterventionError(f"A bias cannot carry out '{part}': {reason} {_INSTEAD}")


@torch.no_grad()
def _checked_name(model: Model, layer: int) -> str:
    """Return the name of the bias of the module that ends an MLP, after trying that what it adds arrives as it is."""
    hf_model: Any = getattr(model, "hf_model", None)
    try:
        weight = model.mlp_output_weights(layer)[0]
        parameters = hf_model.named_parameters()
        found = next(name for name, one in parameters if one.data_ptr() == weight.data_ptr())
    except (AttributeError, StopIteration) as error:
        raise UnsupportedModelError(
            f"The MLP of L{layer} of {model.facts.name} ({model.facts.family}) does not end in one linear module of a "
            f"transformers model, so no bias is added to all that it writes. {_INSTEAD}"
        ) from error
    owner = found.rpartition(".")[0]
    # Uneven numbers, other ones in either token, so that neither a scale nor a norm nor a mix of both is overlooked.
    stream = torch.linspace(-1.0, 3.0, 2 * model.facts.d_model).sin().reshape(1, 2, -1).to(weight)
    probe, site = stream[0, 1].flip(0), Site("resid_post", layer)

    def block_output() -> Tensor:
        return model.run([[0, 0]], read=[site], from_=Restart(layer, stream), stop_after=site)[site]

    def with_bias(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        return output + probe

    before = block_output()
    handle = hf_model.get_submodule(owner).register_forward_hook(with_bias)
    try:
        moved = block_output() - before
    finally:
        handle.remove()
    error = float((moved - probe).norm() / probe.expand_as(moved).norm())
    if not error <= _TOLERANCE:
        raise UnsupportedModelError(
            f"What is added to the MLP's output in L{layer} of {model.facts.name} ({model.facts.family}) arrives "
            f"changed in the stream (relative error {error:.1e}), so a bias would be another steering. {_INSTEAD}"
        )
    return ".".join(part for part in [*owner.split("."), "bias"] if part != _WRAPPER)
