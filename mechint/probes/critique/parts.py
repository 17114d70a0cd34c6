"""Pairs divided by problem: to fit on, to choose on, to report on; each part deranged by itself, and tokenised.

The wrong literals of a derangement are the true ones in another order, so a literal alone tells nothing: but only
within the set that was permuted. So each part is permuted once more by itself, and what is fitted on block by block,
so that folds which cut no block are balanced too.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mechint.errors import PromptError
from mechint.prompts import Prompt, PromptSet
from mechint.prompts.reasoning import Pairs, Twins, derange, twins
from mechint.statistics import derive_seed, generator

SHARES = {"train": 0.6, "select": 0.15, "test": 0.25}
FEWEST = 8
"""Problems of a part; fewer can hardly be permuted, drawn or divided into folds."""

_BLOCKS, _IN_A_BLOCK = 10, 12


@dataclass(frozen=True)
class Parts:
    """Twins of three sets of problems, none in two."""

    train: Twins
    select: Twins
    test: Twins
    blocks: Mapping[str, str] | None
    """From each training problem to the block within which its wrong literal was deranged; None without derangement."""
    reasons: Mapping[str, int]
    """Why candidates are no pair, or pairs no twins, and how many."""

    @property
    def sizes(self) -> str:
        """How many pairs each part has, in words."""
        return ", ".join(f"{len(getattr(self, name))} {name}" for name in SHARES)


def divide(pairs: Pairs, tokenizer: Any, seed: int = 0) -> Parts:
    """Divide pairs by problem in fixed shares (60, 15 and 25 %), derange each part by itself, and make twins of it.

    Raises:
        PromptError: fewer than eight problems in a part, or a tokenizer that does not tell the places of its tokens.
    """
    parts = pairs.split(**SHARES, seed=derive_seed(seed, "parts"))
    blocks = None
    if deranged(pairs):
        parts["train"], blocks = derange_in_blocks(parts["train"], seed)
        for name in ("select", "test"):
            parts[name] = derange(parts[name], seed=derive_seed(seed, "derange", name), name=parts[name].name)
    made: dict[str, Twins] = {}
    for name, part in parts.items():
        made[name] = Twins(part.name, (), {}) if not part else twins(part, tokenizer)
        if len(set(made[name].groups)) < FEWEST:
            told = {**part.reasons, **made[name].reasons}
            raise PromptError(
                f"{pairs!r}: of {len(part.groups)} problems to {name} on, {len(set(made[name].groups))} have twins "
                f"({told or 'no others were given'}). Expected {FEWEST} or more: give more pairs."
            )
    left_out = [pairs.left_out, *(part.left_out for part in parts.values()), *(one.apart for one in made.values())]
    reasons = Counter(reason for one in left_out for reason in one.values())
    return Parts(made["train"], made["select"], made["test"], blocks, dict(reasons.most_common()))


def deranged(pairs: Pairs) -> bool:
    """Whether every wrong literal is the true one of another problem."""
    return all(pair.rule == "derangement" for pair in pairs)


def derange_in_blocks(pairs: Pairs, seed: int = 0) -> tuple[Pairs, dict[str, str]]:
    """Derange pairs block by block, ten blocks or as many as have a dozen problems, and two at least.

    Returns:
        The pairs, and the block of each problem.
    """
    n = max(2, min(_BLOCKS, len(pairs.groups) // _IN_A_BLOCK))
    order = generator(seed, "blocks").permutation(len(pairs.groups))
    blocks = {pairs.groups[int(at)]: f"block-{rank % n}" for rank, at in enumerate(order)}
    made = [
        derange(pairs.pick([g for g, own in blocks.items() if own == name]), seed=derive_seed(seed, name))
        for name in sorted(set(blocks.values()))
    ]
    left_out = {one: reason for part in (pairs, *made) for one, reason in part.left_out.items()}
    kept = tuple(pair for part in made for pair in part)
    return Pairs(pairs.name, kept, left_out), {pair.group: blocks[pair.group] for pair in kept}


def questions(part: Twins, n: int) -> PromptSet:
    """Return the questions of the first n problems: clean text, on which damage is measured."""
    of = {twin.pair.group: twin.pair.question for twin in part}
    chosen = list(of.items())[:n]
    return PromptSet(f"{part.name}/questions", tuple(Prompt(group, f"Question: {text}") for group, text in chosen))
