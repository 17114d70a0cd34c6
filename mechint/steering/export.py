"""Plans for engines that serve: the same changes in the schema of vllm-lens or EasySteer, or a refusal with the reason.

                            vllm-lens 1.3                       EasySteer (vLLM 0.26)
    add at resid_post       SteeringVector                      algorithm "direct"
    ... in unit "token"     norm_match (adds c |h| u)           refused
    ... preserving norms    refused                             normalize (scales h' back to |h|)
    project out, all of it  refused                             algorithm "erase"
    replace                 refused                             algorithm "replace"
    positions               all; or places in one given prompt  a where-clause, see `steering.selectors`
    dose as a function      one vector for each dose            refused
    gates, clamps, means, other sites: refused by both

What comes out is JSON. Both engines work in the number format of the model, often bfloat16, and batch as they like:
expect agreement in distribution, not bit by bit. Schemas: UKGovernmentBEIS/vllm-lens, `SteeringVector`;
ZJU-REAL/EasySteer, `docs/user-guide/steering.md` and `docs/api-reference/payloads.md`.
"""

import base64
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.errors import InterventionError, PositionError
from mechint.positions import TokenBatch, everywhere
from mechint.steering.actions import Recipe
from mechint.steering.plan import Part, Plan
from mechint.steering.selectors import where_clause

_BY_BATCH = re.compile(r"\b(after|rows|columns)\(")


@dataclass(frozen=True, eq=False)
class _Task:
    """What both engines need of a part."""

    part: Part
    recipe: Recipe
    """Of its first block; `values` differ among blocks, nothing else does."""
    values: Mapping[int, Tensor]
    """By block."""
    additive: bool


def to_vllm_lens(
    plan: Plan, prompt: Sequence[int] | None = None, *, max_new_tokens: int | None = None
) -> list[dict[str, Any]]:
    """Write a plan as steering vectors of vllm-lens, JSON types only.

    They go into a request: `SamplingParams(extra_args={"apply_steering_vectors": vectors})`, or in HTTP as
    `"vllm_xargs": {"apply_steering_vectors": json.dumps(vectors)}`. Switch prefix caching off: a cached prefix was
    computed without them.

    Args:
        plan: what to do.
        prompt: tokens of the one prompt that this is for, BOS included; not needed for a constant dose everywhere.
            Send the same tokens as `prompt_token_ids`.
        max_new_tokens: how many tokens the request may generate; needed with a prompt.

    Raises:
        InterventionError: vllm-lens cannot carry it out; the message says what, and why.
    """
    tasks = _tasks(plan, "vllm-lens")
    vectors: list[dict[str, Any]] = []
    for task in tasks:
        if task.recipe.kind not in ("add", "add to own length") or task.recipe.preserve:
            raise _refusal("vllm-lens", task.part, "it adds, and nothing else.")
        if not task.additive and any(_share(task, other) for other in tasks if other is not task):
            raise _refusal(
                "vllm-lens", task.part, "the length it is measured by would change with what other parts add there."
            )
        if task.part.where is everywhere and not callable(task.part.dose):
            vectors.append(_lens_vector(task, float(task.part.dose), None))
            continue
        doses = _doses_in(task.part, prompt, max_new_tokens)
        vectors += [
            _lens_vector(task, dose, (doses == dose).nonzero()[:, 0].tolist())
            for dose in doses[doses != 0].unique().tolist()
        ]
    return vectors


def to_easysteer(plan: Plan) -> dict[str, Any]:
    """Write a plan as a `SteeringSpec` of EasySteer, JSON types only.

    It goes into a request as `"steering"`, or into `--steering-config`; several vectors need `--steer-multi-vector`.

    Raises:
        InterventionError: EasySteer cannot carry it out; the message says what, and why.
    """
    tasks = _tasks(plan, "EasySteer")
    conflict, tasks = _conflict(plan, tasks)
    return {"vectors": [_steer_vector(task) for task in tasks], "conflict": conflict}


def _tasks(plan: Plan, engine: str) -> list[_Task]:
    """Check what holds for both engines."""
    tasks: list[_Task] = []
    for part in plan.parts:
        if part.off:
            continue
        if part.gate is not None:
            raise _refusal(engine, part, "it has no gates. Leave the condition out, or generate here.")
        values: dict[int, Tensor] = {}
        recipes = {site: action.recipe for site, action in part.actions.items()}
        for site, recipe in recipes.items():
            if site.component != "resid_post" or site.layer is None:
                raise _refusal(engine, part, f"it acts at the output of blocks (resid_post), and {site} is elsewhere.")
            if recipe is None or recipe.values.ndim != 1:
                raise _refusal(engine, part, "it takes one vector a block, the same at every place.")
            values[site.layer] = recipe.values.detach().to("cpu", torch.float32)
        if len({len(v) for v in values.values()}) > 1:
            raise _refusal(engine, part, "its vectors differ in length.")
        first = next(recipe for recipe in recipes.values() if recipe is not None)
        additive = all(action.additive for action in part.actions.values())
        tasks.append(_Task(part, first, dict(sorted(values.items())), additive))
    if not tasks:
        raise InterventionError(f"Every part of this plan has dose 0: there is nothing for {engine} to do.")
    return tasks


def _refusal(engine: str, part: Part, reason: str) -> InterventionError:
    return InterventionError(f"{engine} cannot carry out '{part}': {reason}")


def _share(a: _Task, b: _Task) -> bool:
    return bool(a.values.keys() & b.values.keys())


def _doses_in(part: Part, prompt: Sequence[int] | None, max_new_tokens: int | None) -> Float[Tensor, " pos"]:
    """Return the dose of each place of a prompt and what will be generated after it."""
    if found := _BY_BATCH.search(str(part.where)):
        raise _refusal("vllm-lens", part, f"it takes places in a prompt, which {found[1]}(...) does not tell.")
    if not prompt or max_new_tokens is None or max_new_tokens < 0:
        raise _refusal(
            "vllm-lens",
            part,
            "it takes absolute places. Give the tokens of the prompt, and max_new_tokens; or act everywhere, at a "
            "constant dose.",
        )

    def doses(filler: int) -> Tensor:
        row = [*prompt, *[filler] * max_new_tokens]
        return part.doses(TokenBatch.from_rows([row], prompt_lengths=[len(prompt)]))[0]

    # What is generated is not known. Any id that the selection names may come, and must make no difference.
    named = {int(digits) for digits in re.findall(r"\d+", str(part.where))}
    known = doses(max(named, default=0) + 1)
    if any(not torch.equal(doses(token), known) for token in named):
        raise _refusal("vllm-lens", part, "which generated tokens it means is known only once they are there.")
    if not bool(known.any()):
        raise _refusal("vllm-lens", part, f"it selects none of {len(prompt)} + {max_new_tokens} tokens.")
    return known


def _lens_vector(task: _Task, scale: float, places: list[int] | None) -> dict[str, Any]:
    stacked = torch.stack(list(task.values.values()))
    if places is not None:
        stacked = stacked[:, None].expand(-1, len(places), -1)
    return {
        "activations": {
            "data": _base64(stacked),
            "dtype": "float32",
            "original_dtype": "torch.float32",
            "shape": list(stacked.shape),
        },
        "layer_indices": list(task.values),
        "scale": scale,
        "norm_match": task.recipe.kind == "add to own length",
        "position_indices": places,
    }


def _conflict(plan: Plan, tasks: list[_Task]) -> tuple[str, list[_Task]]:
    """Return the policy of EasySteer that does what ours does, and the order for it."""
    shared = [(a, b) for a, b in itertools.combinations(tasks, 2) if _share(a, b)]
    if all(a.additive and b.additive for a, b in shared) or plan.policy == "sequential":
        return "sequential", tasks
    if plan.policy == "raise":
        return "error", tasks
    # Here additions add up even under "priority", and the last part wins, block by block; there the first one does.
    if any(a.additive and b.additive for a, b in shared) or len({tuple(task.values) for task in tasks}) > 1:
        raise _refusal("EasySteer", tasks[-1].part, "its 'priority' would also choose among parts that add up here.")
    return "priority", tasks[::-1]


def _steer_vector(task: _Task) -> dict[str, Any]:
    part, recipe = task.part, task.recipe
    algorithms = {"add": "direct", "project out": "erase", "replace": "replace"}
    if recipe.kind not in algorithms:
        raise _refusal("EasySteer", part, f"it has no algorithm that would {recipe.kind}.")
    if callable(part.dose):
        raise _refusal("EasySteer", part, "its scale is a number. Make a part for each stretch of one dose.")
    if recipe.kind != "add" and part.dose != 1:
        raise _refusal("EasySteer", part, f"it can {recipe.kind} fully (strength 1) or not at all.")
    try:
        apply = where_clause(part.where)
    except PositionError as error:
        raise _refusal("EasySteer", part, str(error)) from error
    return {
        "data": _payload(task.values),
        "algorithm": algorithms[recipe.kind],
        "scale": float(part.dose),
        "layers": list(task.values),
        "normalize": recipe.preserve,
        "apply": apply,
        "name": part.name,
    }


def _payload(values: Mapping[int, Tensor]) -> dict[str, Any]:
    """Return a `DirectionVector` in the JSON form of its wire format, version 1."""
    named = {f"layer.{block}": vector for block, vector in values.items()}
    digest = hashlib.sha256(b"direction:1")
    for name in sorted(named):
        digest.update(name.encode() + str(tuple(named[name].shape)).encode() + _bytes(named[name]))
    tensors = {name: {"shape": list(named[name].shape), "data": _base64(named[name])} for name in sorted(named)}
    return {"version": 1, "kind": "direction", "tensors": tensors, "extra": {}, "sha256": digest.hexdigest()}


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().astype("<f4").tobytes()


def _base64(tensor: Tensor) -> str:
    return base64.b64encode(_bytes(tensor)).decode("ascii")
