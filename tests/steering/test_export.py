"""Exported plans, carried out by a few lines that restate what the engines document, against the plans themselves."""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mechint.errors import InterventionError, PositionError
from mechint.positions import (
    Positions,
    TokenBatch,
    after,
    columns,
    everywhere,
    generated,
    prompt,
    rows,
    tokens,
)
from mechint.sites import Site
from mechint.steering.export import to_easysteer, to_vllm_lens
from mechint.steering.gates import gate
from mechint.steering.parts import ablate, add, clamp, project_out, replace
from mechint.steering.plan import Plan
from mechint.steering.selectors import where_clause
from tests.families import plain, tiny
from tests.steering.few import SITE, vector

DEEP = Site("resid_post", 2)
PROMPT, WRITTEN = [0, 5, 6, 7], [9, 5, 11]
"""A prompt, and what was generated after it."""


# --- the engines, as documented -------------------------------------------------------------------------------------


def lens_rewrite(vectors: Sequence[Mapping[str, Any]], block: int, h: Tensor) -> Tensor:
    """vllm-lens: h + scale v, or h + scale |h| v/|v| where norms are matched, at all places or the given ones."""
    new = h.clone()
    for one in vectors:
        packed = one["activations"]
        raw = np.frombuffer(base64.b64decode(packed["data"]), dtype=packed["dtype"]).reshape(packed["shape"])
        activations = torch.from_numpy(raw.copy())
        assert activations.shape[0] == len(one["layer_indices"])
        if block not in one["layer_indices"]:
            continue
        v = activations[one["layer_indices"].index(block)]
        places = list(range(len(h))) if v.ndim == 1 else one["position_indices"]
        for i, place in enumerate(places):
            if place < len(h):
                step = v if v.ndim == 1 else v[i]
                length = h[place].norm() / step.norm() if one["norm_match"] else 1.0
                new[place] += one["scale"] * length * step
    return new


def steer_mask(clause: Mapping[str, Any], ids: Sequence[int], n: int) -> list[bool]:
    """EasySteer: the union of the selectors of each phase, less the union of those to exclude."""

    def matches(prefix: str, at: int) -> bool:
        phase, step, length = ("prompt", at, n) if at < n else ("generation", at - n, 10**9)
        get = {k.removeprefix(prefix): v for k, v in clause.items() if k.startswith(prefix)}
        if not prefix and get.get(phase) == "all":
            return True
        if ids[at] in get.get(f"{phase}_tokens", ()):
            return True
        # A position behind the end of the prompt means its last token.
        places = [p + length if p < 0 else min(p, length - 1) for p in get.get(f"{phase}_positions", ())]
        if step in places:
            return True
        if f"{phase}_window" not in get:
            return False
        low, high = get[f"{phase}_window"]
        low = low + length if low < 0 else low
        high = length if high is None else high + length if high < 0 else high
        return low <= step < high

    return [matches("", at) and not matches("exclude_", at) for at in range(len(ids))]


def steer_rewrite(spec: Mapping[str, Any], block: int, h: Tensor, ids: Sequence[int], n: int) -> Tensor:
    assert spec["conflict"] in ("priority", "sequential", "error")
    taken, new = [False] * len(h), h.clone()
    for one in spec["vectors"]:
        if block not in one["layers"]:
            continue
        packed = one["data"]["tensors"][f"layer.{block}"]
        v = torch.from_numpy(np.frombuffer(base64.b64decode(packed["data"]), "<f4").reshape(packed["shape"]).copy())
        for at, here in enumerate(steer_mask(one["apply"], ids, n)):
            if not here or (taken[at] and spec["conflict"] == "priority"):
                continue
            assert not (taken[at] and spec["conflict"] == "error")
            taken[at], x = True, new[at].clone()
            if one["algorithm"] == "direct":
                new[at] = x + one["scale"] * v
            elif one["algorithm"] == "erase":
                new[at] = x - (x @ v) / (v @ v + 1e-8) * v
            else:
                new[at] = one["scale"] * v
            if one["normalize"]:
                new[at] *= x.norm() / new[at].norm()
    return new


# --- both together --------------------------------------------------------------------------------------------------


def by_hooks(rewrite: Any, ids: Sequence[int]) -> Tensor:
    """Logits of plain transformers, the output of each block rewritten."""
    hf = plain("llama")
    for block, module in enumerate(hf.model.layers):

        def hook(_m: Any, _a: Any, out: Any, block: int = block) -> Any:
            h = out[0] if isinstance(out, tuple) else out
            new = rewrite(block, h[0])[None]
            return (new, *out[1:]) if isinstance(out, tuple) else new

        module.register_forward_hook(hook)
    with torch.no_grad():
        return hf(torch.tensor([list(ids)])).logits[0]


def by_us(plan: Plan | None, ids: Sequence[int], n: int) -> Tensor:
    from mechint.model.base import Logits

    model, batch = tiny("llama"), TokenBatch.from_rows([list(ids)], prompt_lengths=[n])
    if plan is None:
        return model.run(batch, logits=Logits(at=everywhere)).logits[0]
    with model.apply(plan):
        return model.run(batch, logits=Logits(at=everywhere)).logits[0]


def two_sites(**changes: Any) -> Any:
    one, two = vector(1), vector(2, DEEP, norm=5.0)
    return type(one)({**one.directions, **two.directions}, {**one.norms, **two.norms}, "both", "random", **changes)


LENS_PLANS = {
    "everywhere": add(vector(), 1.5),
    "two blocks": add(two_sites(), -0.8),
    "raw": add(two_sites(), 0.3, unit="raw"),
    "own length": add(vector(), 0.6, unit="token"),
    "own length, two doses": add(
        vector(), lambda t: 0.3 if t % 2 else -0.2, unit="token", where=prompt(slice(1, None))
    ),
    "last of the prompt": add(vector(), 2.0, where=prompt(-1)),
    "generated": add(vector(), 2.0, where=generated(1)),
    "schedule": add(vector(), lambda t: 1.0 / (2 + abs(t))),
    "tokens of the prompt": add(vector(), 2.0, where=tokens({6, 7}) & prompt()),
    "two at one block": add(vector(), 1.0, where=prompt(0)) + add(vector(3), 1.0),
    "one is off": add(vector(), 1.0) + add(vector(3), 0.0, unit="token"),
}


@pytest.mark.parametrize("name", LENS_PLANS)
def test_vllm_lens_is_told_to_do_what_the_plan_does(name: str) -> None:
    plan, ids = LENS_PLANS[name], PROMPT + WRITTEN
    vectors = json.loads(json.dumps(to_vllm_lens(plan, PROMPT, max_new_tokens=len(WRITTEN))))
    expected = by_us(plan, ids, len(PROMPT))

    torch.testing.assert_close(by_hooks(lambda k, h: lens_rewrite(vectors, k, h), ids), expected, rtol=1e-4, atol=1e-4)
    assert float((expected - by_us(None, ids, len(PROMPT))).abs().max()) > 0.05


def test_a_constant_dose_everywhere_needs_no_prompt() -> None:
    (one,) = to_vllm_lens(add(two_sites(), 1.5))

    assert one["position_indices"] is None
    assert one["activations"]["shape"] == [2, 32]
    assert (one["layer_indices"], one["scale"], one["norm_match"]) == ([1, 2], 1.5, False)


STEER_PLANS = {
    "everywhere": add(vector(), 1.5),
    "two blocks": add(two_sites(), -0.8),
    "preserving": add(vector(), 3.0, norm="preserve"),
    "project out": project_out(two_sites(), where=everywhere - prompt(0)),
    "replace": replace(SITE, torch.arange(32.0) / 10, where=prompt(-1)),
    "producing": add(vector(), 2.0, where=generated() | prompt(-1)),
    "tokens": add(vector(), 2.0, where=tokens({5, 9})),
    "sums": add(vector(), 1.0, where=prompt()) + add(vector(3), 1.0),
    "sums, last wins otherwise": (add(vector(), 1.0) + add(vector(3), 1.0)).resolving("priority"),
    "in order": (add(vector(), 2.0) + project_out(vector(3))).resolving("sequential"),
    "in the other order": (project_out(vector(3)) + add(vector(), 2.0)).resolving("sequential"),
    "last wins": (add(vector(), 2.0) + project_out(vector(3), where=prompt(slice(1, 3)))).resolving("priority"),
    "apart": add(vector(), 2.0, where=generated()) + project_out(vector(3), where=prompt()),
}


@pytest.mark.parametrize("name", STEER_PLANS)
def test_easysteer_is_told_to_do_what_the_plan_does(name: str) -> None:
    plan, ids = STEER_PLANS[name], PROMPT + WRITTEN
    spec = json.loads(json.dumps(to_easysteer(plan)))
    expected = by_us(plan, ids, len(PROMPT))
    got = by_hooks(lambda k, h: steer_rewrite(spec, k, h, ids, len(PROMPT)), ids)

    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert float((expected - by_us(None, ids, len(PROMPT))).abs().max()) > 0.05


def test_a_payload_carries_the_hash_of_what_is_in_it() -> None:
    """Kind and version; then, by name, name, shape and bytes of each tensor."""
    (one,) = to_easysteer(add(two_sites(), 1.0))["vectors"]
    data = one["data"]
    digest = hashlib.sha256(b"direction:1")
    for block in (1, 2):
        digest.update(f"layer.{block}(32,)".encode() + two_sites().step(f"L{block}.resid_post", 1.0).numpy().tobytes())

    assert (data["version"], data["kind"], data["extra"]) == (1, "direction", {})
    assert data["sha256"] == digest.hexdigest()
    assert set(one) <= {"source", "data", "algorithm", "scale", "layers", "normalize", "apply", "params", "name"}


SELECTORS = {"prompt", "generation"} | {
    f"{pre}{phase}_{kind}"
    for pre in ("", "exclude_")
    for phase in ("prompt", "generation")
    for kind in ("tokens", "positions", "window")
}


def leaves() -> st.SearchStrategy[Positions]:
    bound = st.none() | st.integers(-5, 5)
    return st.one_of(
        st.just(everywhere),
        st.just(prompt()),
        st.integers(-5, 5).map(prompt),
        st.builds(lambda a, b: prompt(slice(a, b)), bound, bound),
        st.integers(0, 4).map(generated),
        st.builds(lambda a, n: generated(a, a + n), st.integers(0, 4), st.integers(0, 4)),
        st.sets(st.integers(3, 12), min_size=1, max_size=3).map(tokens),
    )


def grown(inner: st.SearchStrategy[Positions]) -> st.SearchStrategy[Positions]:
    return st.one_of(
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a, b: a - b, inner, inner),
        st.builds(lambda a, b: a & b, inner, inner),
    )


@given(
    where=st.recursive(leaves(), grown, max_leaves=4),
    ids=st.lists(st.integers(3, 12), min_size=1, max_size=9),
    share=st.floats(0, 1),
)
def test_a_clause_selects_the_same_tokens_or_is_refused(where: Positions, ids: list[int], share: float) -> None:
    n = max(1, round(share * len(ids)))
    try:
        clause = where_clause(where)
    except PositionError:
        return
    batch = TokenBatch.from_rows([ids], prompt_lengths=[n])

    assert steer_mask(clause, ids, n) == where.mask(batch)[0].tolist()
    assert clause.keys() <= SELECTORS
    for phase in {k.split("_")[1] for k in clause if k.startswith("exclude_")}:
        assert any(k.split("_")[0] == phase for k in clause)


@pytest.mark.parametrize(
    ("where", "clause"),
    [
        (everywhere, {"prompt": "all", "generation": "all"}),
        (prompt(-1) | generated(), {"prompt_positions": [-1], "generation": "all"}),
        (prompt(3), {"prompt_window": [3, 4]}),
        (prompt(slice(-4, None)) | generated(0, 4), {"prompt_window": [-4, None], "generation_window": [0, 4]}),
        (tokens({7}) & generated(), {"generation_tokens": [7]}),
        (everywhere - prompt(0), {"prompt": "all", "generation": "all", "exclude_prompt_positions": [0]}),
        ((prompt() - prompt(0)) | generated(2), {
            "prompt": "all", "generation_window": [2, None], "exclude_prompt_positions": [0],
        }),
        (generated() - tokens({2}), {"generation": "all", "exclude_generation_tokens": [2]}),
    ],
)  # fmt: skip
def test_what_users_write_most_has_a_clause(where: Positions, clause: dict[str, Any]) -> None:
    assert where_clause(where) == clause


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        (after("Wait"), "what the text says"),
        (rows([0]), "rows of a batch"),
        (columns(torch.tensor([[1]])), "columns of one batch"),
        (prompt(slice(0, None, 2)), "every 2th token"),
        (prompt(slice(2, 2)), "holds nothing"),
        (generated(3, 3), "holds nothing"),
        (prompt(slice(0, 2)) | prompt(slice(4, 6)), "two of prompt_window"),
        (tokens({5}) & generated(0, 4), "two things at once"),
        (prompt() & generated(), "selects nothing"),
        ((everywhere - prompt(0)) | tokens({5}), "one union less one union"),
        (everywhere - (prompt() - prompt(0)), "one union less one union"),
        (Positions("my own", lambda b: b.real), "not made of"),
        (Positions("f(1)", lambda b: b.real), "not made of"),
        (Positions("everywhere", lambda b: b.ids == 3), "other tokens than that name says"),
    ],
)
def test_a_selection_that_a_clause_cannot_say_is_refused(where: Positions, reason: str) -> None:
    with pytest.raises(PositionError, match=reason):
        where_clause(where)
    with pytest.raises(InterventionError, match=f"EasySteer cannot carry out.*{reason}"):
        to_easysteer(add(vector(), 1.0, where=where))


def both(plan: Plan) -> list[Any]:
    return [lambda: to_vllm_lens(plan, PROMPT, max_new_tokens=4), lambda: to_easysteer(plan)]


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (add(vector(), 1.0).when(gate("entropy", "<", 1.0)), "no gates"),
        (add(vector(0, Site("resid_mid", 1)), 1.0), "L1.resid_mid is elsewhere"),
        (add(vector(0, Site("embed")), 1.0), "embed is elsewhere"),
        (ablate("L1H2"), "L1H2.z is elsewhere"),
        (replace(SITE, torch.zeros(())), "one vector a block"),
        (add(vector(), 0.0), "nothing for"),
        (clamp(vector(), 0.0, 1.0), "cannot carry out 'clamp"),
    ],
)
def test_what_neither_engine_does_is_refused_with_the_reason(plan: Plan, reason: str) -> None:
    for export in both(plan):
        with pytest.raises(InterventionError, match=reason):
            export()


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (add(vector(), 1.0, norm="preserve"), "adds, and nothing else"),
        (project_out(vector()), "adds, and nothing else"),
        (add(vector(), 1.0, unit="token") + add(vector(3), 1.0), "length"),
        (add(vector(), 1.0, where=tokens({7})), "only once they are there"),
        (add(vector(), 1.0, where=tokens({7, 8}) & generated(2, 3)), "only once they are there"),
        (add(vector(), 1.0, where=after("w5")), "does not tell"),
        (add(vector(), 1.0, where=rows([0])), "does not tell"),
        (add(vector(), 1.0, where=generated(4)), "selects none of"),
    ],
)
def test_what_vllm_lens_does_not_do_is_refused_with_the_reason(plan: Plan, reason: str) -> None:
    with pytest.raises(InterventionError, match=f"vllm-lens cannot carry out.*{reason}"):
        to_vllm_lens(plan, PROMPT, max_new_tokens=4)


@pytest.mark.parametrize(("given_", "n"), [(None, None), (PROMPT, None), (None, 4), ([], 4), (PROMPT, -1)])
def test_places_need_the_prompt_and_how_much_follows(given_: list[int] | None, n: int | None) -> None:
    for plan in (add(vector(), 1.0, where=prompt(-1)), add(vector(), lambda t: 1.0)):
        with pytest.raises(InterventionError, match="absolute places"):
            to_vllm_lens(plan, given_, max_new_tokens=n)


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (add(vector(), 1.0, unit="token"), "no algorithm that would add to own length"),
        (add(vector(), lambda t: 1.0), "a number"),
        (project_out(vector(), 0.5), "fully"),
        (replace(SITE, torch.ones(32), strength=0.5), "fully"),
        (
            (add(vector(), 1.0) + add(vector(3), 1.0) + project_out(vector(4))).resolving("priority"),
            "choose among parts that add up",
        ),
        ((add(two_sites(), 1.0) + project_out(vector(4))).resolving("priority"), "choose among parts"),
    ],
)
def test_what_easysteer_does_not_do_is_refused_with_the_reason(plan: Plan, reason: str) -> None:
    with pytest.raises(InterventionError, match=f"EasySteer cannot carry out.*{reason}"):
        to_easysteer(plan)


def test_parts_that_may_not_meet_here_may_not_meet_there() -> None:
    assert to_easysteer(add(vector(), 1.0) + project_out(vector(3)))["conflict"] == "error"


def test_a_dose_is_exported_as_a_multiple_of_the_step() -> None:
    (one,) = to_vllm_lens(add(vector(norm=3.0), 0.5))
    values = np.frombuffer(base64.b64decode(one["activations"]["data"]), "<f4")

    assert one["scale"] == 0.5
    assert math.isclose(float(np.linalg.norm(values)), 3.0, rel_tol=1e-5)


def test_vllm_lens_itself_takes_what_is_exported() -> None:
    lens: Any = pytest.importorskip("vllm_lens")
    for plan in LENS_PLANS.values():
        for one in json.loads(json.dumps(to_vllm_lens(plan, PROMPT, max_new_tokens=3))):
            taken = lens.SteeringVector.model_validate(one)
            assert list(taken.activations.shape) == one["activations"]["shape"]
