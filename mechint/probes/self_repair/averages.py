r"""Over which tokens self-repair is averaged, and what choosing them does to the average.

For one component, with token i and draw k of the ablation: DE_i its direct effect before (the same for all draws),
DE'_ik after, and SR_ik the self-repair. Averages over draws are written without k.

    full           all tokens: SR_i, DE_i
    condensed      the 2 % of tokens with the largest DE_i: SR_i, DE_i
    same draw      the 2 % with the largest loss DE_i - DE'_ik under draw k: SR_ik under that same draw
    other draws    the same tokens: the mean of SR_il over the other draws l
    chance fit     the component writes what it wrote in draw k's document, and that is replaced by what it wrote in
                   draw l's: DE_i := DE'_ik, DE'_i := DE'_il, SR_i := SR_il - SR_ik; the 2 % with the largest such DE_i

Why five. DE_i is computed, not measured: given the text it has no noise, so "condensed" is an unbiased mean for the
tokens it picks. But nothing says that a large DE_i was the component's doing rather than luck, and what was luck comes
with a repair that means nothing: SR = Delta logit + DE - DE' holds DE itself, so that even a change of the logit which
has nothing to do with the component would look like the perfect repair of whatever is large (mathematical coupling,
Oldham 1962). "Chance fit" is the null to hold it against: an output without relation to its token, chosen and repaired
by the same rule. Its direct effects are large by luck alone.

"Same draw" and "other draws" show the bias that comes with choosing by a loss that is itself noisy: SR_ik holds the
same DE'_ik by which the token was chosen, so the mean of SR_ik regresses towards 0 when it is taken under other draws
(regression to the mean). The second is free of it, the first is not.

Everything is in logits. Intervals are over clusters of documents with the chosen tokens held fixed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

FULL, CONDENSED, SAME_DRAW, OTHER_DRAWS, CHANCE = "full", "condensed", "same draw", "other draws", "chance fit"
MEASURES = (
    "direct_effect",
    "direct_effect_ablated",
    "logit_change",
    "self_repair",
    "heads_part",
    "mlps_part",
    "norm_part",
    "norm_ratio",
)
PARTS = ("heads_part", "mlps_part", "norm_part")


@dataclass(frozen=True)
class Measured:
    """All tokens of one component."""

    label: str
    part: str
    layer: int
    head: int
    document: Int[np.ndarray, " prompt"]
    """Number of each token's document."""
    position: Int[np.ndarray, " prompt"]
    values: dict[str, Float[np.ndarray, "prompt resample"]]
    """By measure: a row a token, a column a draw."""

    @property
    def draws(self) -> int:
        """How often the ablation was drawn."""
        return self.values["self_repair"].shape[1]


@dataclass(frozen=True)
class Chosen:
    """Tokens that are averaged over, each with one number a measure."""

    document: Int[np.ndarray, " prompt"]
    values: dict[str, Float[np.ndarray, " prompt"]]

    def ratio(self, part: str = "self_repair") -> Float[np.ndarray, " prompt"]:
        """Return a measure over the direct effect, token by token; NaN where that is 0."""
        below = self.values["direct_effect"]
        return np.divide(self.values[part], below, out=np.full_like(below, np.nan), where=below != 0)

    def clipped_ratio(self, part: str = "self_repair") -> Float[np.ndarray, " prompt"]:
        """Return the same, cut to 0 to 1: its mean is too high wherever more lies below 0 than above 1."""
        return self.ratio(part).clip(0.0, 1.0)


def measured(tokens: pd.DataFrame) -> Iterator[Measured]:
    """Take rows a component, draw, document and position apart by component, in forward order."""
    columns = ["layer", "part", "head"]
    for key, rows in tokens.sort_values([*columns, "document", "position", "draw"], kind="stable").groupby(columns):
        layer, part, head = (str(name) for name in key) if isinstance(key, tuple) else ("", "", "")
        draws = len(set(rows["draw"]))
        first = rows.iloc[::draws]
        yield Measured(
            label=str(first["label"].iloc[0]),
            part=part,
            layer=int(layer),
            head=int(head),
            document=first["document"].to_numpy(dtype=int),
            position=first["position"].to_numpy(dtype=int),
            values={name: rows[name].to_numpy(dtype=float).reshape(-1, draws) for name in MEASURES},
        )


def top(values: Float[np.ndarray, " prompt"], share: float) -> Int[np.ndarray, " at"]:
    """Return which values are the largest: that share of them, at least one.

    Examples:
        >>> top(np.array([0.1, 0.9, 0.5, 0.2]), 0.5).tolist()
        [1, 2]
    """
    return np.argsort(-values, kind="stable")[: max(1, round(share * len(values)))]


def averages(one: Measured, share: float) -> dict[str, Chosen]:
    """Return the tokens of each average; the last three need two draws or more.

    Args:
        one: a component.
        share: how many tokens are chosen, as a share of all.
    """
    mean = {name: values.mean(1) for name, values in one.values.items()}
    found = {FULL: Chosen(one.document, mean), CONDENSED: _pick(one, mean, top(mean["direct_effect"], share))}
    if one.draws < 2:
        return found
    loss = one.values["direct_effect"] - one.values["direct_effect_ablated"]
    same: list[Chosen] = []
    other: list[Chosen] = []
    chance: list[Chosen] = []
    for draw in range(one.draws):
        largest = top(loss[:, draw], share)
        same.append(_pick(one, {name: values[:, draw] for name, values in one.values.items()}, largest))
        left = {name: np.delete(values, draw, axis=1).mean(1) for name, values in one.values.items()}
        other.append(_pick(one, left, largest))
        unrelated = _from_draw_to_draw(one, draw, (draw + 1) % one.draws)
        chance.append(_pick(one, unrelated, top(unrelated["direct_effect"], share)))
    return found | {SAME_DRAW: _joined(same), OTHER_DRAWS: _joined(other), CHANCE: _joined(chance)}


def _from_draw_to_draw(one: Measured, before: int, after: int) -> dict[str, Float[np.ndarray, " prompt"]]:
    """Return the measures of replacing one unrelated output by another: all are differences of two ablations."""
    values = one.values
    changes = ("logit_change", "self_repair", *PARTS)
    return {
        "direct_effect": values["direct_effect_ablated"][:, before],
        "direct_effect_ablated": values["direct_effect_ablated"][:, after],
        "norm_ratio": values["norm_ratio"][:, after] / values["norm_ratio"][:, before],
    } | {name: values[name][:, after] - values[name][:, before] for name in changes}


def _pick(one: Measured, values: dict[str, Float[np.ndarray, " prompt"]], which: Int[np.ndarray, " at"]) -> Chosen:
    return Chosen(one.document[which], {name: column[which] for name, column in values.items()})


def _joined(parts: list[Chosen]) -> Chosen:
    return Chosen(
        np.concatenate([part.document for part in parts]),
        {name: np.concatenate([part.values[name] for part in parts]) for name in MEASURES},
    )
