"""The dose at which a vector does a given amount: a root search, with an interval from resampled texts.

For a statistic s(dose) that is 0 at dose 0 and grows with it,

    kl           the 95th percentile over tokens (or the mean) of KL(clean || steered) on neutral text, in nats
    perplexity   the ratio of steered to clean perplexity on neutral text, minus 1
    effect       the mean over prompts of a measure that the caller gives

the dose c with s(c) = target is found by bracketing in factors of two and bisecting in log dose (`scipy`'s toms748);
every dose that was tried is kept. Equal KL makes vectors comparable across layers, models and methods, where equal
lengths do not. The interval is that of a bootstrap over texts: in each draw the statistic is recomputed at the doses
that were tried, and its crossing of the target is read off by interpolation in log dose and log statistic.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from scipy.optimize import toms748

from mechint.errors import ConfigError, InterventionError
from mechint.interventions import Intervention, add
from mechint.model.base import Model
from mechint.positions import Positions, everywhere
from mechint.sites import Site
from mechint.statistics import generator
from mechint.vectors.damage import Damage, NeutralTexts
from mechint.vectors.dose import Calibration
from mechint.vectors.vector import SteeringVector

_LARGEST = 16.0  # median |h|: far beyond what any text survives
_SMALLEST = 2.0**-12
_DRAWS = 1000

Effect = Callable[[SteeringVector, float], Float[np.ndarray, " prompt"]]
"""From a vector and a dose (in units of the median |h|) to one number a prompt."""


def calibrate(
    model: Model,
    vector: SteeringVector,
    *,
    target_kl: float | None = None,
    perplexity: float | None = None,
    target_effect: float | None = None,
    effect: Effect | None = None,
    statistic: str = "p95",
    where: Positions = everywhere,
    texts: NeutralTexts | None = None,
    tolerance: float = 0.02,
    seed: int = 0,
) -> SteeringVector:
    """Return the vector with the dose at which one of three targets is met.

    Args:
        model: the model that is steered.
        vector: what is added, at all of its sites, with one dose.
        target_kl: nats of KL on neutral text.
        perplexity: the ratio of steered to clean perplexity on neutral text, above 1.
        target_effect: the mean of `effect` that is wanted, above 0.
        effect: measures the effect of a dose, prompt by prompt, as the difference to no steering.
        statistic: for KL, "p95" or "mean" over tokens.
        where: tokens that are steered on neutral text, which counts as generated after its first token.
        texts: neutral texts; by default 32 passages of Python's manual.
        tolerance: of the dose, relative.
        seed: of the bootstrap.

    Raises:
        ConfigError: not exactly one target, or one that is not a positive number.
        InterventionError: no dose up to 16 median lengths meets the target.
    """
    vector.check(model)
    target, value = _target(target_kl, perplexity, target_effect, effect)
    if statistic not in ("p95", "mean"):
        raise ConfigError(f"statistic={statistic!r}. Expected 'p95' or 'mean'.")
    if target == "effect":
        assert effect is not None
        measured = _Tried(lambda dose: effect(vector, dose)[:, None], lambda rows: float(rows.mean()))
        about: dict[str, Any] = {}
    else:
        neutral = texts or NeutralTexts(model)

        def damage(dose: float) -> Damage:
            return neutral.damage(_writes(vector, dose, where))

        measured = _Tried(lambda dose: _by_text(damage(dose), target), _summary(target, statistic))
        about = {**neutral.about, "statistic": statistic if target == "kl" else "mean loss", "where": str(where)}
    wanted = value - 1 if target == "perplexity" else value
    dose = _root(measured, wanted, tolerance)
    low, high = _interval(measured, wanted, dose, seed)
    details = {
        **about,
        "seed": seed,
        "tried": {f"{d:.4g}": round(s, 6) for d, s in sorted(measured.statistics.items())},
    }
    return vector.with_calibration(Calibration(target, value, dose, low, high, details))  # pyright: ignore[reportArgumentType]


class _Tried:
    """The doses that were tried: what each text showed, and the statistic of all of them."""

    def __init__(self, measure: Callable[[float], np.ndarray], summary: Callable[[np.ndarray], float]) -> None:
        self._measure, self.summary = measure, summary
        self.texts: dict[float, np.ndarray] = {}
        """By dose, `[text, token]`."""
        self.statistics: dict[float, float] = {}

    def __call__(self, dose: float) -> float:
        if dose not in self.texts:
            self.texts[dose] = self._measure(dose)
            self.statistics[dose] = self.summary(self.texts[dose])
        return self.statistics[dose]


def _target(
    kl: float | None, perplexity: float | None, effect: float | None, measure: Effect | None
) -> tuple[str, float]:
    given = {name: v for name, v in (("kl", kl), ("perplexity", perplexity), ("effect", effect)) if v is not None}
    if len(given) != 1:
        raise ConfigError(
            f"Got {len(given)} targets ({', '.join(given) or 'none'}). Give target_kl, perplexity, or target_effect."
        )
    ((name, value),) = given.items()
    least = 1.0 if name == "perplexity" else 0.0
    if not (math.isfinite(value) and value > least):
        raise ConfigError(f"The target {name} is {value}. Expected a finite number above {least:g}.")
    if (name == "effect") != (measure is not None):
        raise ConfigError("target_effect and effect belong together: a number, and how it is measured.")
    return name, value


def _writes(vector: SteeringVector, dose: float, where: Positions) -> Mapping[Site, Sequence[Intervention]]:
    return {site: [add(vector.step(site, dose), where=where)] for site in vector.sites}


def _by_text(damage: Damage, target: str) -> np.ndarray:
    values = damage.kl if target == "kl" else damage.loss_change
    return values.reshape(int(damage.document.max()) + 1, -1)


def _summary(target: str, statistic: str) -> Callable[[np.ndarray], float]:
    if target == "perplexity":
        return lambda rows: math.expm1(float(rows.mean()))
    return (lambda rows: float(np.quantile(rows, 0.95))) if statistic == "p95" else (lambda rows: float(rows.mean()))


def _root(measured: _Tried, wanted: float, tolerance: float) -> float:
    low = high = 0.25
    while measured(high) < wanted:
        low, high = high, high * 2
        if high > _LARGEST:
            raise InterventionError(
                f"No dose up to {_LARGEST:g} median lengths reaches the target: at {low:g} it is {measured(low):.3g}, "
                f"wanted is {wanted:.3g}. Choose another site or a smaller target."
            )
    while measured(low) > wanted:
        low, high = low / 2, low
        if low < _SMALLEST:
            raise InterventionError(
                f"Even a dose of {high:g} median lengths exceeds the target: {measured(high):.3g}, not {wanted:.3g}."
            )
    if measured(low) == wanted:
        return low

    def excess(log_dose: float) -> float:
        return measured(math.exp(log_dose)) - wanted

    dose = math.exp(cast(float, toms748(excess, math.log(low), math.log(high), xtol=tolerance / 2)))
    # Two more, so that resampled crossings are interpolated and seldom extrapolated.
    for factor in (0.7, 1 / 0.7):
        measured(dose * factor)
    return dose


def _interval(measured: _Tried, wanted: float, dose: float, seed: int) -> tuple[float, float]:
    doses = np.array(sorted(measured.texts))
    values = [measured.texts[d] for d in doses]
    n, crossings = len(values[0]), np.empty(_DRAWS)
    if n < 2:
        return dose, dose
    rng = generator(seed, "calibration")
    for draw in range(_DRAWS):
        rows = rng.integers(0, n, n)
        crossings[draw] = _crossing(doses, np.array([measured.summary(v[rows]) for v in values]), wanted)
    low, high = (float(q) for q in np.quantile(crossings, [0.025, 0.975]))
    return min(low, dose), max(high, dose)


def _crossing(doses: np.ndarray, statistics: np.ndarray, wanted: float) -> float:
    """Return the first dose at which the statistic reaches what is wanted, between those tried or at their ends."""
    above = np.flatnonzero(statistics >= wanted)
    if len(above) == 0:
        return float(doses[-1])
    k = int(above[0])
    if k == 0:
        return float(doses[0])
    a, b = max(statistics[k - 1], 1e-12), statistics[k]
    share = (math.log(wanted) - math.log(a)) / (math.log(b) - math.log(a)) if b > a else 1.0
    return float(math.exp(math.log(doses[k - 1]) + share * (math.log(doses[k]) - math.log(doses[k - 1]))))
