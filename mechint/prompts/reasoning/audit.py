"""What an audit of a data set is: numbers with their intervals, and sentences that say what follows from them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechint.errors import PromptError
from mechint.statistics.estimate import wilson

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # annotations are checked under pytest, and pandas is not loaded for them


@dataclass(frozen=True)
class Measure:
    """One number of an audit."""

    name: str
    value: float
    """A count, a share or an AUROC; NaN where it is not defined."""
    of: int | None = None
    """For a share: of how many; the count is value times this."""
    low: float | None = None
    """For a share: ends of Wilson's 95 % interval."""
    high: float | None = None

    @property
    def count(self) -> int:
        """For a share the number of cases, otherwise the value itself.

        Raises:
            PromptError: the value is no count.
        """
        counted = 0 if self.of == 0 else self.value * (1 if self.of is None else self.of)
        if counted != counted or abs(counted - round(counted)) > 1e-6:
            raise PromptError(f"{self.name!r} is {self.value:.3g}, which counts nothing. Read its value.")
        return round(counted)

    def __str__(self) -> str:
        if self.of is not None:
            return f"{self.name}: {self.count} of {self.of} ({self.value:.0%})" if self.of else f"{self.name}: 0 of 0"
        return f"{self.name}: {self.value:.3g}" if self.value % 1 else f"{self.name}: {self.value:.0f}"


@dataclass(frozen=True)
class Audit:
    """Numbers about a data set, and what follows from them."""

    name: str
    measures: tuple[Measure, ...]
    sentences: tuple[str, ...]

    def __getitem__(self, name: str) -> Measure:
        """Return one of the numbers.

        Raises:
            PromptError: there is none of this name.
        """
        for measure in self.measures:
            if measure.name == name:
                return measure
        raise PromptError(f"{name!r} was not measured. There are: {', '.join(m.name for m in self.measures)}.")

    def __str__(self) -> str:
        return "\n".join([f"{self.name}:", *(f"- {sentence}" for sentence in self.sentences)])

    def to_frame(self) -> DataFrame:
        """Return one row a number: `measure`, `value`, `count`, `of`, `low`, `high`."""
        import pandas as pd

        rows = [(m.name, m.value, m.count if m.of is not None else None, m.of, m.low, m.high) for m in self.measures]
        return pd.DataFrame(rows, columns=["measure", "value", "count", "of", "low", "high"])


def share(name: str, count: int, of: int) -> Measure:
    """Return a share with Wilson's 95 % interval; NaN of nothing.

    Examples:
        >>> print(share("refusals", 17, 1000))
        refusals: 17 of 1000 (2%)
    """
    low, high = wilson(count, of)
    return Measure(name, count / of if of else float("nan"), of, low, high)


def auroc(positive: list[int], negative: list[int]) -> float:
    """Return the chance that a positive value is above a negative one, ties counting half; NaN if a side is empty.

    Examples:
        >>> auroc([2, 3], [1, 2])
        0.875
    """
    if not positive or not negative:
        return float("nan")
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score([1] * len(positive) + [0] * len(negative), positive + negative))


def half_width(n: int) -> float:
    """Return half the width of Wilson's 95 % interval around a rate of one half in n; NaN when n is 0.

    Examples:
        >>> round(half_width(62), 2), round(half_width(6), 2)
        (0.12, 0.31)
    """
    low, high = wilson(n // 2, n)
    return (high - low) / 2
