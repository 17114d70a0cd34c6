"""What step-labelled solutions tell by themselves: label noise, length, position, and how little a few rows prove.

A detector of mistakes has to beat what the number of steps and the index of a step give away, not one half. A rule
checks every equality of plain arithmetic in every step; the first step with a false one is where it sees the mistake.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mechint.prompts.reasoning.audit import Audit, Measure, auroc, half_width, share
from mechint.prompts.reasoning.expressions import equalities

FEW = 30
"""With fewer correct rows than this, a rate on them is hardly known and no single F1 is reported."""


@dataclass(frozen=True)
class StepSolution:
    """A solution in steps."""

    steps: tuple[str, ...]
    mistake: int | None
    """The first step with a mistake, from 0; None: no step is said to have one."""
    answer_right: bool
    """Whether its final answer is the expected one."""


def first_false_step(steps: Sequence[str]) -> int | None:
    """Return the first step that states an equality of plain arithmetic which does not hold; None where all hold.

    Examples:
        >>> first_false_step(["2 + 2 = 4", "A = 3 * 4 = 13"]), first_false_step(["A = B"])
        (1, None)
    """
    return next((at for at, step in enumerate(steps) if any(a != b for a, b in equalities(step))), None)


def audit_steps(solutions: Sequence[StepSolution], name: str) -> Audit:
    """Return counts, label noise, the checker's agreement, AUROCs of length and position, and power.

    The AUROC of the number of steps compares solutions with and without a mistake; that of the index compares the
    step with the first mistake with those before it, over all solutions that have one.
    """
    faulty = [one for one in solutions if one.mistake is not None]
    sound = [one for one in solutions if one.mistake is None]
    held = [a == b for one in solutions for step in one.steps for a, b in equalities(step)]
    places = [one.mistake for one in faulty if one.mistake is not None]
    agree = sum(first_false_step(one.steps) == one.mistake for one in faulty)
    flagged = sum(first_false_step(one.steps) is not None for one in sound)
    measures = (
        Measure("solutions", len(solutions)),
        share("with a mistake", len(faulty), len(solutions)),
        share("without a mistake", len(sound), len(solutions)),
        share("no mistake, wrong answer", sum(not one.answer_right for one in sound), len(sound)),
        share("a mistake, right answer", sum(one.answer_right for one in faulty), len(faulty)),
        Measure("right equalities", sum(held)),
        Measure("wrong equalities", len(held) - sum(held)),
        share("no mistake, wrong equality", flagged, len(sound) if held else 0),
        share("checker finds the labelled step", agree if held else 0, len(faulty) if held else 0),
        Measure("AUROC of the number of steps", auroc(_lengths(faulty), _lengths(sound))),
        Measure("AUROC of the index of a step", auroc(places, [k for place in places for k in range(place)])),
        Measure("half-width with a mistake", half_width(len(faulty))),
        Measure("half-width without a mistake", half_width(len(sound))),
    )
    return Audit(name, measures, _sentences({measure.name: measure for measure in measures}))


def _lengths(solutions: Sequence[StepSolution]) -> list[int]:
    return [len(one.steps) for one in solutions]


def _sentences(by: dict[str, Measure]) -> tuple[str, ...]:
    sound, faulty = by["without a mistake"].count, by["with a mistake"].count
    noise, untrue = by["no mistake, wrong answer"], by["no mistake, wrong equality"]
    said = [f"{by['solutions'].count} solutions: {faulty} with a mistake, {sound} without."]
    if noise.count:
        said.append(
            f"Label noise: {noise.count} of {sound} solutions without a labelled mistake have a wrong answer. "
            "Score those with a right answer apart."
        )
    if by["right equalities"].count + by["wrong equalities"].count:
        said.append(
            f"Their {by['right equalities'].count} right and {by['wrong equalities'].count} wrong equalities can be "
            f"checked by rule: it finds {by['checker finds the labelled step'].count} of {faulty} labelled steps, "
            f"and a false equality in {untrue.count} of {sound} solutions without a labelled mistake."
        )
    else:
        said.append("No equality of plain arithmetic stands in them: the labels cannot be checked by rule.")
    length, index = by["AUROC of the number of steps"].value, by["AUROC of the index of a step"].value
    said.append(
        f"What a detector has to beat: the number of steps alone has AUROC {length:.3f} for solutions, the index alone "
        f"{index:.3f} for steps."
    )
    few = f", too few (under {FEW}) for one F1" if sound < FEW else ""
    said.append(
        f"A rate of one half is known to ± {100 * by['half-width with a mistake'].value:.0f} points on the {faulty} "
        f"with a mistake and ± {100 * by['half-width without a mistake'].value:.0f} on the {sound} without{few}."
    )
    return tuple(said)
