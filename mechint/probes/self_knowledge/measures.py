"""Every number of every confidence: ranking, calibration, what it has beyond baselines, and with which interval.

All AUROCs are of the same bootstrap draws of facts, so differences are paired, draw by draw. A baseline is beaten where
the whole interval of the difference to the better one lies above 0; the better one is taken anew in every draw, which
makes it harder to beat, not easier.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from mechint.statistics import aurc, brier, calibration_error, derive_seed, estimate_mean, risk_coverage, wilson
from mechint.statistics.confidence import bin_index, calibrated_errors, squared_error_unbiased
from mechint.statistics.drawn import Drawn
from mechint.statistics.partial import residuals
from mechint.vectors.auroc import auroc, auroc_draws

SOURCES = {
    "is_right": "stated",
    "how_sure": "stated",
    "token": "read in the model",
    "sampling": "read in the model",
    "probe": "read in the model",
    "consistency": "read in the model",
    "input_only": "without the model",
    "cross": "without the model",
}
"""Where a confidence is from."""
_POINTS = 50
"""Of risk and coverage that are kept for the figure."""


class Scores:
    """Confidences of the same answers.

    Args:
        confidences: by name, of every answer, 0 to 1.
        y: 1 where the answer is right.
        clusters: the fact of each.
        covariates: what else may go with being right, by answer.
        resamples: draws of intervals.
        seed: of the draws.
    """

    def __init__(
        self,
        confidences: Mapping[str, Float[np.ndarray, " sample"]],
        y: Int[np.ndarray, " sample"],
        clusters: Sequence[str],
        covariates: Float[np.ndarray, "sample width"],
        resamples: int,
        seed: int,
    ) -> None:
        self.confidences, self.y, self.clusters = dict(confidences), y, list(clusters)
        self.covariates, self._resamples, self._seed = covariates, resamples, derive_seed(seed, "auroc")
        self._groups = np.unique(self.clusters, return_inverse=True)[1]
        self.aurocs = {name: self.auroc(c) for name, c in self.confidences.items()}
        own = [name for name in ("input_only", "cross") if name in self.aurocs]
        self.baseline = Drawn(
            max(self.aurocs[name].value for name in own), np.max([self.aurocs[name].draws for name in own], axis=0)
        )

    def auroc(self, scores: Float[np.ndarray, " sample"]) -> Drawn:
        """Return how often a right answer scores higher than a wrong one."""
        draws = auroc_draws(scores, self.y, self._groups, n_resamples=self._resamples, seed=self._seed)
        return Drawn(auroc(scores, self.y), draws)

    def over(self, name: str) -> Drawn:
        """Return the AUROC minus that of the best baseline."""
        own = self.aurocs[name]
        return Drawn(own.value - self.baseline.value, own.draws - self.baseline.draws)

    def partial(self, name: str) -> Drawn:
        """Return the AUROC of what the covariates leave."""
        return self.auroc(residuals(self.confidences[name], self.covariates))

    def table(self, masses: Mapping[str, float], n_bins: int) -> pd.DataFrame:
        """Return a row a confidence."""
        rows: list[dict[str, object]] = []
        for name, c in self.confidences.items():
            own, y, seed = self.aurocs[name], self.y, derive_seed(self._seed, name)
            parts = brier(c, y, n_bins)
            score = estimate_mean((c - y) ** 2, self.clusters, seed=seed)
            row: dict[str, object] = {"readout": name, "source": SOURCES[name], "n": len(y)}
            row |= _ends("auroc_right", own)
            if SOURCES[name] != "without the model":
                row |= _ends("over_baseline", self.over(name)) | _ends("partial_auroc", self.partial(name))
            row |= {"smallest_auroc": 0.5 + 2.8 * own.error, "mean_confidence": float(c.mean())}
            for label, equal_mass in (("ece", False), ("ace", True)):
                chance = calibrated_errors(c, n_bins, equal_mass=equal_mass, seed=seed)
                row[label] = calibration_error(c, y, n_bins, equal_mass=equal_mass)
                row[f"{label}_calibrated"] = float(np.quantile(chance, 0.95))
            row |= {"ece_15": calibration_error(c, y, 15), "squared_error": squared_error_unbiased(c, y, n_bins)}
            row |= {"brier": score.value, "brier_low": score.low, "brier_high": score.high}
            row |= {"reliability": parts.reliability, "resolution": parts.resolution}
            row |= {"uncertainty": parts.uncertainty, "within": parts.within, "skill": parts.skill}
            rows.append(row | {"aurc": aurc(c, y), "words_mass": masses.get(name, np.nan)})
        return pd.DataFrame(rows)

    def reliability(self, n_bins: int) -> pd.DataFrame:
        """Return accuracy and mean confidence of every bin of equal width that is not empty."""
        rows: list[dict[str, object]] = []
        for name, c in self.confidences.items():
            index = bin_index(c, n_bins)
            for one in np.unique(index):
                own = self.y[index == one]
                low, high = wilson(int(own.sum()), len(own))
                row: dict[str, object] = {"readout": name, "bin": int(one), "n_predictions": len(own)}
                row |= {"confidence": float(c[index == one].mean()), "accuracy": float(own.mean())}
                rows.append(row | {"accuracy_low": low, "accuracy_high": high})
        return pd.DataFrame(rows)

    def risks(self) -> pd.DataFrame:
        """Return the share of wrong answers among the surest, at some coverages."""
        found: list[pd.DataFrame] = []
        for name, c in self.confidences.items():
            coverage, risk = risk_coverage(c, self.y)
            at = np.unique(np.linspace(0, len(c) - 1, _POINTS).astype(int))
            found.append(pd.DataFrame({"readout": name, "coverage": coverage[at], "risk": risk[at]}))
        return pd.concat(found, ignore_index=True)


def _ends(name: str, one: Drawn) -> dict[str, object]:
    low, high = one.ends()
    return {name: one.value, f"{name}_low": low, f"{name}_high": high}
