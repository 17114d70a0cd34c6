"""What a mean hides: how the final norm's scale changes from token to token, and single tokens for a scatter."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mechint.effects.documents import Documents
from mechint.probes.self_repair.averages import CONDENSED, FULL, Chosen, Measured, top
from mechint.statistics import generator

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
MOST_POINTS = 600
_BINS = 40


def norm_ratio_table(found: Mapping[str, dict[str, Chosen]], about: Any) -> pd.DataFrame:
    """Return quantiles of s'/s of the final norm, one row a layer, kind of component and average."""
    rows: list[dict[str, Any]] = []
    for average in (FULL, CONDENSED):
        for part, layer, values in _by_layer(found, about, average):
            quantiles = np.quantile(values, list(QUANTILES.values()))
            rows.append(
                {"layer": layer, "part": part, "average": average, "n_tokens": len(values)}
                | {"norm_ratio": float(values.mean()), "below_1": float((values < 1).mean())}
                | dict(zip(QUANTILES, quantiles.tolist(), strict=True))
            )
    return pd.DataFrame(rows)


def norm_ratio_histogram(found: Mapping[str, dict[str, Chosen]], about: Any) -> pd.DataFrame:
    """Return the distribution of s'/s for the heads of the last layer that was measured: a row a bin and average.

    The outermost bins hold what lies beyond them.
    """
    heads = about[about["part"] == "head"]
    if heads.empty:
        return pd.DataFrame()
    last = int(heads["layer"].max())
    values = {
        average: next(v for p, layer, v in _by_layer(found, heads, average) if p == "head" and layer == last)
        for average in (FULL, CONDENSED)
    }
    inner = np.concatenate([np.quantile(v, [0.01, 0.99]) for v in values.values()])
    reach = max(float(np.abs(inner - 1).max()), 1e-6)
    edges = np.linspace(1 - reach, 1 + reach, _BINS + 1)
    rows: list[pd.DataFrame] = []
    for average, own in values.items():
        counts, _ = np.histogram(own.clip(edges[0], edges[-1]), edges)
        rows.append(
            pd.DataFrame({"layer": last, "average": average, "n_tokens": len(own)} | {"norm_ratio_from": edges[:-1]})
            .assign(norm_ratio_to=edges[1:])
            .assign(share_of_tokens=counts / len(own))
        )
    return pd.concat(rows, ignore_index=True)


def _by_layer(found: Mapping[str, dict[str, Chosen]], about: Any, average: str) -> list[tuple[str, int, np.ndarray]]:
    return [
        (
            str(members["part"].iloc[0]),
            int(members["layer"].iloc[0]),
            np.concatenate([found[str(label)][average].values["norm_ratio"] for label in members["label"]]),
        )
        for _, members in about.groupby(["layer", "part"])
    ]


def token_table(
    components: Sequence[Measured], documents: Documents, tokenizer: Any, share: float, seed: int
) -> pd.DataFrame:
    """Return single tokens of some components: the condensed ones, and a sample of the others; means over draws."""
    frames: list[pd.DataFrame] = []
    for one in components:
        direct, repair = one.values["direct_effect"].mean(1), one.values["self_repair"].mean(1)
        largest = top(direct, share)
        rest = np.setdiff1d(np.arange(len(direct)), largest)
        drawn = generator(seed, "scatter", one.label).permutation(rest)[:MOST_POINTS]
        which = np.concatenate([largest, np.sort(drawn)])
        following = documents.tokens[one.document[which], one.position[which] + 1].tolist()
        frames.append(
            pd.DataFrame(
                {"label": one.label, "layer": one.layer, "head": one.head}
                | {"id": [documents.ids[i] for i in one.document[which]], "position": one.position[which]}
                | {"token": [str(tokenizer.decode([token])) for token in following]}
                | {"condensed": np.isin(which, largest), "direct_effect": direct[which], "self_repair": repair[which]}
            )
        )
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
