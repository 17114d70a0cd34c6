"""Positions as the where-clause of EasySteer: each phase by itself, a union of selectors less a union of others.

    ours                   theirs (half-open windows; negative bounds count from the end of the prompt)
    everywhere             prompt: all, generation: all
    prompt(-1), prompt(0)  prompt_positions: [-1], [0]
    prompt(3), prompt(2:5) prompt_window: [3, 4], [2, 5]   (a position behind the end would mean the last token)
    generated(), (0, 8)    generation: all, generation_window: [0, 8]
    tokens({5})            prompt_tokens: [5], generation_tokens: [5]
    a | b, a - b           selectors of both; those of b as `exclude_...`
    a & prompt()           what a selects in that phase

A selection prints as the expression that made it, so that is what is read; what was understood is built again and
compared with the original, so a selection that only bears a known name is refused. Schema: ZJU-REAL/EasySteer,
`docs/user-guide/steering.md` (the version without `phases`).
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mechint.errors import PositionError
from mechint.positions import Positions, TokenBatch, everywhere, generated, prompt, tokens

_SLICE = re.compile(r"prompt\(([-\d]*:[-\d:]*)\)")
_PHASES = ("prompt", "generation")
_ELSEWHERE = {
    "after": "it selects by what the text says",
    "rows": "it selects rows of a batch, which are requests of their own: leave the spec out of the others",
    "columns": "it selects columns of one batch",
}


@dataclass(frozen=True)
class _Clause:
    where: Positions
    """The same selection, built from what was read."""
    include: Mapping[str, Any]
    exclude: Mapping[str, Any]


def where_clause(where: Positions) -> dict[str, Any]:
    """Write a selection as an `ApplySpec` of EasySteer.

    Examples:
        >>> where_clause((prompt(-1) | generated(0, 8)) - prompt(0))
        {'prompt_positions': [-1], 'generation_window': [0, 8], 'exclude_prompt_positions': [0]}

    Raises:
        PositionError: the clause cannot say it; the message says why.
    """
    try:
        clause = _read(ast.parse(_SLICE.sub(r"prompt[\1]", where.name), mode="eval").body)
    except (SyntaxError, ValueError):
        raise PositionError(f"{where} is not made of everywhere, prompt, generated and tokens.") from None
    rows = [list(range(at, at + 14)) for at in (0, 0, 0, 7)]
    batch = TokenBatch.from_rows(rows, prompt_lengths=[1, 4, 9, 14])
    if not torch.equal(clause.where.mask(batch), where.mask(batch)):
        raise PositionError(f"{where} selects other tokens than that name says.")
    covered = {_phase(key) for key in clause.include}
    exclude = {f"exclude_{k}": v for k, v in clause.exclude.items() if _phase(k) in covered}
    return {**clause.include, **exclude}


def _read(node: ast.expr) -> _Clause:
    match node:
        case ast.Name("everywhere"):
            return _Clause(everywhere, dict.fromkeys(_PHASES, "all"), {})
        case ast.Call(ast.Name(name), args):
            return _selector(name, args)
        case ast.Subscript(ast.Name("prompt"), ast.Slice(lower, upper, step)):
            return _window(*(None if bound is None else ast.literal_eval(bound) for bound in (lower, upper, step)))
        case ast.BinOp(left, ast.BitOr(), right):
            return _either(_read(left), _read(right))
        case ast.BinOp(left, ast.Sub(), right):
            return _without(_read(left), _read(right))
        case ast.BinOp(left, ast.BitAnd(), right):
            return _both(_read(left), _read(right))
        case _:
            raise ValueError


def _selector(name: str, args: Sequence[ast.expr]) -> _Clause:
    if name in _ELSEWHERE:
        raise PositionError(f"{_ELSEWHERE[name]}, which a where-clause cannot.")
    values = [ast.literal_eval(arg) for arg in args]
    if name == "prompt" and not values:
        return _Clause(prompt(), {"prompt": "all"}, {})
    if name == "prompt":
        (i,) = values
        # Only these mean the same in prompts that are shorter.
        at = {"prompt_positions": [i]} if i <= 0 else {"prompt_window": [i, i + 1]}
        return _Clause(prompt(i), at, {})
    if name == "generated":
        start, stop = values[0], values[1] if len(values) > 1 else None
        if start == 0 and stop is None:
            return _Clause(generated(), {"generation": "all"}, {})
        return _Clause(generated(start, stop), {"generation_window": _filled(start, stop)}, {})
    if name == "tokens" and values[0]:
        ids = sorted(values[0])
        return _Clause(tokens(ids), {"prompt_tokens": ids, "generation_tokens": ids}, {})
    raise ValueError


def _window(start: int | None, stop: int | None, step: int | None) -> _Clause:
    if step not in (None, 1):
        raise PositionError(f"it takes every {step}th token, and a window takes all.")
    return _Clause(prompt(slice(start, stop, step)), {"prompt_window": _filled(start or 0, stop)}, {})


def _filled(start: int, stop: int | None) -> list[int | None]:
    if stop is not None and (start < 0) == (stop < 0) and stop <= start:
        raise PositionError(f"the window from {start} to {stop} holds nothing.")
    return [start, stop]


def _either(a: _Clause, b: _Clause) -> _Clause:
    for one, other in ((a, b), (b, a)):
        if {_phase(key) for key in one.exclude} & {_phase(key) for key in other.include}:
            raise PositionError(
                f"in {a.where} | {b.where}, what one side leaves out the other may select, and there exclusions count "
                "last. Write it as one union less one union."
            )
    return _Clause(a.where | b.where, _merged(a.include, b.include), _merged(a.exclude, b.exclude))


def _without(a: _Clause, b: _Clause) -> _Clause:
    if b.exclude:
        raise PositionError(f"{b.where} is left out less something itself. Write it as one union less one union.")
    left_out = {f"{k}_window" if k in _PHASES else k: [0, None] if k in _PHASES else v for k, v in b.include.items()}
    return _Clause(a.where - b.where, a.include, _merged(a.exclude, left_out))


def _both(a: _Clause, b: _Clause) -> _Clause:
    for one, other in ((a, b), (b, a)):
        for phase in _PHASES:
            if dict(other.include) == {phase: "all"} and not other.exclude:
                include, exclude = (
                    {k: v for k, v in part.items() if _phase(k) == phase} for part in (one.include, one.exclude)
                )
                if not include:
                    raise PositionError(f"{a.where} & {b.where} selects nothing.")
                return _Clause(a.where & b.where, include, exclude)
    raise PositionError(
        f"{a.where} & {b.where} asks for two things at once, and its selectors are alternatives. Expected one of them "
        "to be prompt() or generated()."
    )


def _merged(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    both = {**a, **b}
    for key in a.keys() & b.keys():
        if a[key] != b[key] and key.endswith("_window") and _phase(key) not in both:
            raise PositionError(f"it needs two of {key} ({a[key]} and {b[key]}), and there is one. Make two parts.")
        if a[key] != b[key] and not key.endswith("_window"):
            both[key] = sorted({*a[key], *b[key]})
    return {k: v for k, v in both.items() if k in _PHASES or _phase(k) not in both}


def _phase(key: str) -> str:
    return key.split("_")[0]
