"""When stated confidence counts as self-knowledge: gates for each of two claims of each report.

Claim 1: what the model says of its answers tells the right from the wrong ones, and nobody could have told as well from
question and answer alone, or by asking another model. Claim 2 is stronger: what it says goes with how far its blocks
agree on the answer, beyond how likely the answer is, and among questions of one kind. If it does not, confidence is
read off the output distribution, which is ordinary calibration. That the kind must be held fixed was learnt from the
first run: on Gemma-3-270m a report that tells nothing goes with depth as long as kinds are mixed.

A baseline that is learnt from a few hundred answers falls short of what question and answer do tell: where a stub knows
exactly the questions that hold certain words, its words are read with an AUROC of about .72 to .78 instead of .80. So
what is beyond the baseline has to be so by a margin, and not only above 0.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mechint.probes.gates import Gate
from mechint.statistics import wilson
from mechint.statistics.drawn import Drawn
from mechint.statistics.equivalence import equivalence_p, smallest_detectable

REPORTS = {"is_right": "what it says of an answer being right", "how_sure": "what it says of how sure it is"}
"""Confidences that the model states, in words; the others are read off it, or are baselines."""
BAR, MARGIN, HEADROOM, MASS, FEWEST = 0.55, 0.075, 0.05, 0.5, 30
"""AUROC that is asked for; within which of .5 an effect is excluded; what the report, and any reader of the model, must
gain on the baselines; share of the probability that labels must have; right and wrong answers that there must be."""
MARGIN_RANK, LEVEL = 0.1, 0.05
"""Margin of the rank correlation; of p after Holm."""
CLAIM = "tells its right answers from its wrong ones, as no reader of question and answer could"
STRONGER = "states more than how likely its answer is, namely how far its blocks agree on it"


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of one report."""

    auroc: Drawn
    over: Drawn
    """AUROC minus that of the best baseline, draw by draw."""
    partial: Drawn
    """AUROC of what covariates leave of it."""
    rank: Drawn
    """Partial Spearman with internal consistency, given the probability of the answer."""
    within: Drawn
    """The same, given the kind of question and the covariates too."""
    mass: float
    p_holm: tuple[float, float, float]
    """Of the first three, corrected over the reports."""


def shared(n_right: int, n: int, readers: dict[str, Drawn]) -> list[Gate]:
    """Return the gates that do not depend on the report.

    Args:
        n_right: answers that are right.
        n: answers.
        readers: by name, AUROC of a reader of the model minus that of the best baseline.
    """
    low, high = wilson(n_right, n)
    fewest = min(n_right, n - n_right)
    # One of several readers is enough, so each has its share of the error.
    level = 1 - 0.05 / len(readers)
    name, best = max(readers.items(), key=lambda one: one[1].ends(level)[0])
    ends = best.ends(level)
    return [
        Gate("it can answer", "validity", "share of right answers", n_right / n, low, high, "low end above .5",
             low > 0.5, "it does not know these things, so there is nothing to be sure of"),
        Gate("enough of both", "headroom", "answers of the rarer side", fewest, np.nan, np.nan, f"at least {FEWEST}",
             fewest >= FEWEST, "too few right or too few wrong answers to tell anything apart"),
        Gate("something to know", "headroom", f"AUROC of {name} over the best baseline", best.value, *ends,
             f"low end above {HEADROOM:g}", ends[0] > HEADROOM,
             "nothing in the model tells more of its answers than question and answer do"),
    ]  # fmt: skip


def of_report(found: Evidence, words: str, common: list[Gate]) -> list[Gate]:
    """Return the gates of claim 1."""
    gates = [_labels(found), *common]
    low, high = found.auroc.ends()
    gates.append(
        Gate("it tells", "effect", f"AUROC of {words}", found.auroc.value, low, high,
             f"low end above {BAR:g} and p (Holm) below {LEVEL:g}", low > BAR and found.p_holm[0] < LEVEL,
             "what it says has nothing to do with being right", **_null(found.auroc, 0.5, MARGIN))
    )  # fmt: skip
    for name, one, bar, p, alternative in (
        ("not the question", found.over, HEADROOM, found.p_holm[1],
         "the question and the answer, as anybody can read them, tell as much"),
        ("not a covariate", found.partial, 0.5, found.p_holm[2],
         "it follows lengths, the popularity of the answer, or what the question tells"),
    ):  # fmt: skip
        statistic = "AUROC over the best baseline" if one is found.over else "AUROC of what covariates leave"
        low, high = one.ends()
        passed = low > bar and p < LEVEL
        text = f"low end above {bar:g} and p (Holm) below {LEVEL:g}"
        gates.append(Gate(name, "control", statistic, one.value, low, high, text, passed, alternative))
    return gates


def of_depth(found: Evidence, common: list[Gate]) -> list[Gate]:
    """Return the gates of claim 2."""
    low, high = found.rank.ends()
    agreement = Gate(
        "goes with depth", "effect", "partial rank correlation with internal consistency", found.rank.value, low, high,
        "low end above 0", low > 0, "it is read off the output distribution: ordinary calibration",
        **_null(found.rank, 0.0, MARGIN_RANK),
    )  # fmt: skip
    low, high = found.within.ends()
    kind = Gate(
        "not the kind of question", "control", "the same given kind of question and covariates", found.within.value,
        low, high, "low end above 0", low > 0,
        "kinds of question differ in what is said of their answers and in how far blocks agree on them",
    )  # fmt: skip
    return [_labels(found), *common[:2], agreement, kind]


def _null(one: Drawn, null: float, margin: float) -> dict[str, Any]:
    """Return what a null is worth.

    An effect is excluded where the 90 % interval ends below null + margin; and where the number is not defined, since
    the probability of the answer then leaves nothing of the report (or there is one side only, which fails before).
    """
    return {
        "excluded": bool(np.isnan(one.value)) or one.ends(0.90)[1] < null + margin,
        "smallest": smallest_detectable(one.error),
        "equivalence_p": equivalence_p(one.draws, null, margin),
    }


def _labels(found: Evidence) -> Gate:
    return Gate("it uses the words", "validity", "mean probability of the labels", found.mass, np.nan, np.nan,
                f"at least {MASS:g}", found.mass >= MASS, "it does not answer in these words")  # fmt: skip
