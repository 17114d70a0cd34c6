"""From the rows of an evaluation to a dose-response table, tests at one dose, and one sentence.

The effect of a dose is the mean over prompts of the metric minus the metric without steering; its interval is BCa,
clusters of prompts drawn together. For an arm of many draws the table has the mean over draws, and as interval the
middle 95 % of the draws.

The test, at the dose that was named beforehand, against each null arm of n draws: p = (1 + #{draws with an effect at
least as large}) / (n + 1). The claim "more than chance" is that the vector beats every one of them; for an
intersection of claims the p-value is the largest (Berger 1982), with no further correction. It is made when that p is
below 0.05 and the interval of the effect lies above 0. Twenty draws can reach p = 1/21 = 0.048 at best.
"""

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.statistics import bootstrap_mean, draws_p
from mechint.steering.arms import NULLS
from mechint.steering.metrics import Metric

LEVEL = 0.05
_ORDER = ("vector", "random", "random_covariance", "shuffled_labels", "orthogonal", "other_concept", "prompt_only")


def differences(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of steered arms with `effect`, the metric minus that of the same prompt without steering."""
    plain = effects[effects["arm"] == "none"].set_index("id")["value"]
    steered = effects.loc[effects["arm"] != "none"]
    return steered.assign(effect=steered["value"] - steered["id"].map(plain))


def dose_response(
    effects: pd.DataFrame,
    damage: pd.DataFrame | None,
    texts: pd.DataFrame | None,
    clusters: Mapping[str, str],
    seed: int,
) -> pd.DataFrame:
    """Return one row for each arm and dose: effect with its interval, and what was measured of the damage."""
    rows: list[dict[str, Any]] = []
    for (arm, dose), part in _parts(differences(effects)):
        means = _by_draw(part)
        if len(means) > 1:
            value, (low, high) = float(means.mean()), np.quantile(means, [0.025, 0.975])
        else:
            value, low, high = _interval(part, clusters, seed)
        rows.append(
            {"arm": arm, "dose": dose, "draws": len(means), "effect": value} | {"effect_low": low, "effect_high": high}
        )
    found = pd.DataFrame(rows)
    found["place"] = [_ORDER.index(arm) for arm in found["arm"]]
    if damage is not None:
        found = found.merge(_damage(damage), on=["arm", "dose"], how="left")
    if texts is not None:
        written = texts.loc[texts["dose"] > 0].groupby("dose", as_index=False)[["repetition", "distinct_2"]].mean()
        found = found.merge(pd.DataFrame(written).assign(arm="vector"), on=["arm", "dose"], how="left")
    return found.sort_values(["place", "dose"], ignore_index=True).drop(columns="place")


def tests(effects: pd.DataFrame, dose: float, clusters: Mapping[str, str], seed: int) -> pd.DataFrame:
    """Return one row for each null arm at the tested dose: its draws, and how many reach the vector's effect."""
    found = differences(effects)
    here = found.loc[np.isclose(found["dose"], dose)]
    value, low, high = _interval(here.loc[here["arm"] == "vector"], clusters, seed)
    rows: list[dict[str, Any]] = []
    for arm in NULLS:
        means = _by_draw(here.loc[here["arm"] == arm])
        if len(means) == 0:
            continue
        ends = np.quantile(means, [0.025, 0.975])
        about: dict[str, Any] = {
            "null": arm,
            "dose": dose,
            "draws": len(means),
            "mean": means.mean(),
            "mean_low": ends[0],
            "mean_high": ends[1],
        }
        about |= {"effect": value, "effect_low": low, "effect_high": high}
        rows.append({**about, "p": draws_p(value, means)})
    columns = ["null", "dose", "draws", "mean", "mean_low", "mean_high", "effect", "effect_low", "effect_high", "p"]
    return pd.DataFrame(rows, columns=columns)


def verdict(concept: str, metric: Metric, dose: float, doses: pd.DataFrame, tested: pd.DataFrame) -> str:
    """Say in one breath what was found at the tested dose, or that nothing was."""
    at_dose = doses.loc[np.isclose(doses["dose"], dose)].to_dict("records")
    here: dict[str, dict[str, Any]] = {row["arm"]: row for row in at_dose}
    own = here["vector"]
    said = f"At dose {dose:.3g}, steering towards {concept} changes the {metric.name} by {own['effect']:.3g} "
    said += f"{metric.unit} [{own['effect_low']:.3g}, {own['effect_high']:.3g}]"
    if tested.empty:
        said += "; it was compared with nothing, so this is no evidence for the vector."
    else:
        nulls: list[dict[str, Any]] = tested.to_dict("records")
        p = max(row["p"] for row in nulls)
        least = " and ".join(f"{row['draws']} of {row['null'].replace('_', ' ')}" for row in nulls)
        against = f"p = {p:.2g} against the hardest of its nulls ({least})"
        real = p < LEVEL and own["effect_low"] > 0
        said = f"{'More than chance' if real else 'No effect beyond chance'}: {said[0].lower()}{said[1:]}, {against}"
        said += f"; 97.5 % of the draws of every null lie below {max(row['mean_high'] for row in nulls):.3g}."
    if "orthogonal" in here:
        said += f" Without the part along the scored tokens themselves it is {here['orthogonal']['effect']:.3g}."
    for row in doses.loc[doses["arm"] == "prompt_only"].to_dict("records"):
        said += f" The instruction alone: {row['effect']:.3g}."
    if "kl_p95" in own and math.isfinite(own["kl_p95"]):
        said += f" Cost on neutral text: perplexity times {own['perplexity_ratio']:.3g}, 95 % of tokens below "
        said += f"{own['kl_p95']:.2g} nats of KL."
    return said


def _parts(rows: pd.DataFrame) -> list[tuple[tuple[str, float], pd.DataFrame]]:
    """Divide rows by arm and dose, in the order in which they were measured."""
    return cast(Any, list(rows.groupby(["arm", "dose"], sort=False)))


def _by_draw(part: pd.DataFrame) -> Float[np.ndarray, " resample"]:
    """Return the mean effect of each draw of an arm."""
    return np.asarray(part.groupby("draw")["effect"].mean(), float)


def _interval(part: pd.DataFrame, clusters: Mapping[str, str], seed: int) -> tuple[float, float, float]:
    labels = [clusters[name] for name in part["id"]]
    value, low, high = bootstrap_mean(np.asarray(part["effect"], float)[:, None], labels, seed=seed)
    return float(value[0]), float(low[0]), float(high[0])


def _damage(damage: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for (arm, dose), part in _parts(damage):
        kl, loss = np.asarray(part["kl"], float), np.asarray(part["loss_change"], float)
        about = {"arm": arm, "dose": dose, "kl_mean": float(kl.mean()), "kl_p95": float(np.quantile(kl, 0.95))}
        rows.append({**about, "perplexity_ratio": math.exp(float(loss.mean()))})
    return pd.DataFrame(rows)
