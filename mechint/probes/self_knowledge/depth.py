"""What the blocks say of the answer before the last one has spoken, as tables; definitions in `consistency`."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from mechint.probes.self_knowledge.consistency import agreeing, thresholds, weighted_vote
from mechint.probes.self_knowledge.criteria import REPORTS
from mechint.probes.self_knowledge.fitted import Folds, combined
from mechint.probes.self_knowledge.measures import Scores
from mechint.statistics import derive_seed, estimate_mean, wilson
from mechint.statistics.drawn import Drawn
from mechint.statistics.partial import partial_spearman, partial_spearman_draws, residuals


def agreement(items: pd.DataFrame) -> tuple[Float[np.ndarray, "sample layer"], pd.DataFrame]:
    """Return whether each block but the last agrees with the answer, for the tested questions; and a row a block.

    Args:
        items: rows of all questions; thresholds are of those of the part "calibrate".

    Raises:
        PromptError: these are not balanced.
    """
    p, answers, right = _read(items)
    held = (items["part"] == "calibrate").to_numpy()
    tau = thresholds(p[held], right[held])
    own, y = items[~held], items.loc[~held, "correct"].to_numpy()
    calibrated, raw = agreeing(p[~held], answers[~held], tau), agreeing(p[~held], answers[~held])
    says = agreeing(p[~held], right[~held], tau)
    rows: list[dict[str, object]] = []
    for layer in range(calibrated.shape[1]):
        row: dict[str, object] = {"layer": layer}
        for name, kept in (("agreement_right", y == 1), ("agreement_wrong", y == 0)):
            one = estimate_mean(calibrated[kept, layer], own.loc[kept, "cluster"].tolist())
            row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        row |= {"agreement_raw": float(raw[:, layer].mean()), "lens_accuracy": float(says[:, layer].mean())}
        rows.append(row)
    return calibrated, pd.DataFrame(rows)


def against_depth(
    scores: Scores, kinds: Sequence[str], folds: Folds, resamples: int, seed: int
) -> tuple[pd.DataFrame, dict[str, tuple[Drawn, Drawn]]]:
    """Return what each report has to do with internal consistency.

    Args:
        scores: of all confidences.
        kinds: of question, one an answer. Kinds differ in what is said of them and in how blocks agree, so that both
            may go together with nothing of an answer being known.
        folds: for what is learnt.
        resamples: draws of intervals.
        seed: of the draws.

    Returns:
        A row a report; and its partial rank correlations, given the probability of the answer, and given kind and
        covariates as well.
    """
    ic, rows, ranks = scores.confidences["consistency"], list[dict[str, object]](), dict[str, tuple[Drawn, Drawn]]()
    logit = _logit(scores.confidences["token"])[:, None]
    names = sorted(set(kinds))[1:]
    more = np.column_stack([logit, scores.covariates, *(np.equal(kinds, one).astype(float) for one in names)])
    for name in REPORTS:
        c = scores.confidences[name]
        given, within = (
            Drawn(
                partial_spearman(c, ic, z),
                partial_spearman_draws(
                    c, ic, z, scores.clusters, n_resamples=resamples, seed=derive_seed(seed, "rank")
                ),
            )
            for z in (logit, more)
        )
        ranks[name] = given, within
        both = scores.auroc(combined(np.column_stack([c, ic]), scores.y, folds))
        alone = scores.auroc(combined(c[:, None], scores.y, folds))
        added = Drawn(both.value - alone.value, both.draws - alone.draws)
        row: dict[str, object] = {"readout": name}
        for label, one in (
            ("partial_rank", given),
            ("partial_rank_within", within),
            ("consistency_beyond", scores.auroc(residuals(ic, c[:, None]))),
            ("consistency_added", added),
        ):
            low, high = one.ends()
            row |= {label: one.value, f"{label}_low": low, f"{label}_high": high}
        rows.append(row)
    return pd.DataFrame(rows), ranks


def votes(items: pd.DataFrame, ic: Float[np.ndarray, " sample"], samples: int) -> pd.DataFrame:
    """Return how often the likelier answer is right, the majority of samples, and samples weighted by consistency.

    Args:
        items: the tested questions.
        ic: internal consistency of the given answer; that of the other answer is what remains to 1.
        samples: how many were drawn for each.
    """
    y = items["correct"].to_numpy()
    agree = np.rint(items["sampling"].to_numpy() * samples).astype(int)
    right: Mapping[str, list[int]] = {"the likelier answer": y.tolist(), "majority": [], "weighted by consistency": []}
    for own, k, weight in zip(y, agree, ic, strict=True):
        drawn = np.repeat([0, 1], [k, samples - k])  # 0: the given answer
        for name, weights in (
            ("majority", np.ones(samples)),
            ("weighted by consistency", np.where(drawn == 0, weight, 1 - weight)),
        ):
            right[name].append(int(own if weighted_vote(drawn, weights, 0) == 0 else 1 - own))
    rows: list[dict[str, object]] = []
    for name, hits in right.items():
        low, high = wilson(sum(hits), len(hits))
        rows.append({"answered_by": name, "accuracy": float(np.mean(hits)), "accuracy_low": low, "accuracy_high": high})
    return pd.DataFrame(rows)


def _read(
    items: pd.DataFrame,
) -> tuple[Float[np.ndarray, "prompt layer column"], Int[np.ndarray, " prompt"], Int[np.ndarray, " prompt"]]:
    """Return p^l of both labels, and which of them is given and right; the first is first in the alphabet."""
    n_layers = sum(name.startswith("lens_") for name in items)
    first = items[[f"lens_{layer}" for layer in range(n_layers)]].to_numpy(float)
    given, right = (1 - items[name].astype(int).to_numpy() for name in ("first_given", "first_right"))
    return np.stack([first, 1 - first], axis=2), given, right


def _logit(p: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " sample"]:
    return np.log(np.clip(p, 1e-12, None)) - np.log(np.clip(1 - p, 1e-12, None))
