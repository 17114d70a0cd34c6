"""Whether the instrument worked on a model: without that, its answers say nothing about it.

injected       what is added is what was meant to 1e-4, and nothing else changes by a bit
format         a label is the likeliest token of all in 90 % of the answers to every kind of question
mass           labels have half of the probability
knowledge      unrelated questions are answered above chance (Wilson) where nothing is injected
fluency        what follows the text is at most 1 nat a token less likely under the injection
"""

from collections.abc import Mapping
from typing import Any

from mechint.probes.gates import Gate
from mechint.probes.introspection.battery import CONCEPT, MENTION, NONE
from mechint.probes.introspection.cells import Cells
from mechint.statistics import wilson

LARGEST_ERROR, LEAST_FORMAT, LEAST_MASS, LARGEST_RISE = 1e-4, 0.9, 0.5, 1.0
_FAMILIES = {"detects": ("detect", "flip"), "identifies": ("identify",)}
_ALWAYS = ("source", "unrelated")
_EXACT = (float("nan"), float("nan"))


def validity(claim: str, cells: Cells, receipt: Mapping[str, float], nll_rise: float | None = None) -> list[Gate]:
    """Return the gates that say whether the instrument worked.

    Args:
        claim: one of `CLAIMS`.
        cells: the answers.
        receipt: of `Battery.receipt`.
        nll_rise: how much less likely what follows the text is under the injection, nats a token; None: no such text.
    """
    error, elsewhere = receipt["relative_error"], receipt["change_elsewhere"]
    rows: Any = cells.answers[cells.answers["arm"].isin((NONE, CONCEPT, MENTION)) & ~cells.answers["held"]]
    family = rows["question"].str.partition(" ")[0]
    rows = rows.assign(family=family)[family.isin((*_FAMILIES.get(claim, ()), *_ALWAYS))]
    by_family = rows.assign(formed=rows["said"] != "").groupby("family")[["formed", "mass"]].mean()
    formed, mass = float(by_family["formed"].min()), float(by_family["mass"].min())
    known = rows.loc[(rows["arm"] == NONE) & rows["right"].notna(), "right"].astype(bool)
    low, high = wilson(int(known.sum()), len(known))
    unreadable = "its answers are not among the labels, so their order says little"

    def exact(statistic: str, value: float, bar: str, passed: bool, alternative: str) -> Gate:
        return Gate("validity", "validity", statistic, value, *_EXACT, bar, passed, alternative)

    gates = [
        exact("relative error of what is injected", error, "below 1e-4", error < LARGEST_ERROR, "nothing is injected"),
        exact("largest change elsewhere", elsewhere, "0", elsewhere == 0, "something else was changed too"),
        exact("answers that are a label", formed, "at least .90", formed >= LEAST_FORMAT, unreadable),
        exact("mass on labels", mass, "at least .50", mass >= LEAST_MASS, unreadable),
        Gate(
            "validity", "validity", "unrelated questions answered right, no injection", float(known.mean()), low, high,
            "low end above .5", low > 0.5, "it cannot answer yes-or-no questions at all",
        ),
    ]  # fmt: skip
    if nll_rise is not None:
        words, broken = "rise of the surprise at what follows, nats a token", "the dose breaks the model"
        gates.append(exact(words, nll_rise, "at most 1", nll_rise <= LARGEST_RISE, broken))
    return gates
