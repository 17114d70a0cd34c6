r"""From CSPA at every position to scores with intervals, bucket curves and a verdict in words.

For a rule with baseline b, sums over all positions of all documents, and D = KL, Δloss, |Δloss| or Δloss²:

    score_D = 1 - Σ D_rule / Σ D_b                   D_b that of the full ablation to b
    top     = the same for KL over the 1 % of positions at which the full ablation has the largest KL
    margin  = (Σ KL_rule - Σ KL_both) / Σ KL_mean    how much more of the effect the paper's rule keeps than this one

Documents, by their clusters, are what is drawn in the bootstrap. A head whose ablation changes no prediction has
nothing to be kept: its score is undefined, not 1. The score of Δloss can be anything where gains and losses of loss
cancel; its interval is then undefined, too (no bounded interval for a ratio is honest, `statistics.bootstrap_ratio`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mechint.statistics import bootstrap_ratio

LEAST_KL = 1e-9
"""Mean KL in nats of the full ablation below which a head does nothing that float32 could tell from rounding."""
LEAST_EFFECT = 1e-4
"""Mean KL in nats of the full ablation, at the lower end of its interval, above which a head is worth explaining."""
LEAST_SCORE = 0.5
"""What CSPA must keep of a head's effect, at the lower end of its interval, for that to be called most of it."""
DIRECTION_CONTROLS = ("random token", "shuffled targets", "positive only")
"""Controls that the score must exceed, with intervals of the margins above 0. Fixed before any model was measured."""
TOP = 0.01
"""Share of positions that counts as the most affected."""
_LOSSES = {"loss": "loss_change", "absolute_loss": "absolute_loss_change", "squared_loss": "squared_loss_change"}
_MEANS = ("loss_change", "loss_change_ablated", "absolute_loss_change", "absolute_loss_change_ablated")
_STATISTIC = ["label", "layer", "head", "rule", "baseline"]
_LARGE = 0.5


def by_document(rows: pd.DataFrame) -> pd.DataFrame:
    """Add up the rows of `cspa_effects`: one row a document, head and rule.

    `n_positions`; sums in nats of `kl`, `loss_change`, `absolute_loss_change`, `squared_loss_change` (nats²), and the
    number of positions at which the loss changes by more than 0.5 (`n_large`); each also `_ablated`: of the full
    ablation.
    """
    sums: dict[str, Any] = {"n_positions": np.ones(len(rows), dtype=int)}
    for end in ("", "_ablated"):
        loss = rows[f"loss_change{end}"]
        sums |= {f"kl{end}": rows[f"kl{end}"], f"loss_change{end}": loss, f"absolute_loss_change{end}": loss.abs()}
        sums |= {f"squared_loss_change{end}": loss**2, f"n_large{end}": (loss.abs() > _LARGE).astype(int)}
    keys = ["id", *_STATISTIC]
    table: Any = pd.DataFrame({**rows[keys], **sums}).groupby(keys, as_index=False, sort=False).sum()
    return table


class _Sums:
    """Sums by document as arrays: a row a document, a column a head and rule."""

    def __init__(self, documents: pd.DataFrame, clusters: Mapping[str, str], seed: int) -> None:
        about: Any = documents[_STATISTIC].drop_duplicates()
        self.about: pd.DataFrame = about.reset_index(drop=True)
        self.ids = sorted(documents["id"].unique())
        self.clusters, self.seed = [clusters[str(i)] for i in self.ids], seed
        self._documents = documents

    @property
    def defined(self) -> np.ndarray:
        """Whether a full ablation changes anything, so that there is something to keep."""
        return self.of("kl_ablated").sum(0) > LEAST_KL * self.of("n_positions").sum(0)

    def of(self, name: str, documents: pd.DataFrame | None = None) -> np.ndarray:
        """Return a sum, 0 where a document has no positions."""
        table: Any = self._documents if documents is None else documents
        wide = table.pivot(index="id", columns=_STATISTIC, values=name)
        columns = pd.MultiIndex.from_frame(self.about)
        return wide.reindex(index=self.ids, columns=columns).fillna(0).to_numpy(dtype=float)

    def ratio(self, name: str, above: np.ndarray, below: np.ndarray) -> pd.DataFrame:
        """Return a ratio of means and its interval, as columns."""
        value, low, high = bootstrap_ratio(above, below, self.clusters, seed=self.seed)
        return pd.DataFrame({name: value, f"{name}_low": low, f"{name}_high": high})

    def score(self, name: str, kept: np.ndarray, ablated: np.ndarray) -> pd.DataFrame:
        """Return 1 - kept / ablated; NaN for heads that do nothing."""
        ratio = self.ratio("", np.where(self.defined, kept, np.nan), ablated)
        return pd.DataFrame({name: 1 - ratio[""], f"{name}_low": 1 - ratio["_high"], f"{name}_high": 1 - ratio["_low"]})

    def margin(self) -> pd.DataFrame:
        """Return how much more of the KL the rule "both" keeps than each other rule with its baseline."""
        kl, more = self.of("kl"), np.full((len(self.ids), len(self.about)), np.nan)
        about: list[dict[Any, Any]] = self.about.to_dict("records")
        both = {row["label"]: i for i, row in enumerate(about) if row["rule"] == "both"}
        for i, row in enumerate(about):
            j = both.get(row["label"], i)
            if j != i and self.defined[i] and row["baseline"] == about[j]["baseline"]:
                more[:, i] = kl[:, i] - kl[:, j]
        return self.ratio("margin", more, self.of("kl_ablated"))


def scores_table(rows: pd.DataFrame, clusters: Mapping[str, str], seed: int = 0) -> pd.DataFrame:
    """Summarise the rows of `cspa_effects`: one row a head and rule, with 95 % intervals.

    Args:
        rows: of all documents.
        clusters: the cluster of each document id.
        seed: of the bootstrap.
    """
    sums = _Sums(by_document(rows), clusters, seed)
    n = sums.of("n_positions")
    kept, ablated = sums.of("kl"), sums.of("kl_ablated")
    means = {name: sums.of(name).sum(0) / n.sum(0) for name in _MEANS}
    counts = {name: sums.of(name).sum(0).astype(int) for name in ("n_large", "n_large_ablated", "n_positions")}
    top = by_document(_top_rows(rows))
    return pd.concat(
        [
            sums.about,
            sums.score("score", kept, ablated),
            sums.ratio("kl", kept, n),
            sums.ratio("kl_ablated", ablated, n),
            pd.DataFrame({"defined": sums.defined}),
            sums.margin(),
            *(sums.score(f"score_{end}", sums.of(name), sums.of(f"{name}_ablated")) for end, name in _LOSSES.items()),
            sums.score("score_top", sums.of("kl", top), sums.of("kl_ablated", top)),
            pd.DataFrame({**means, **counts, "n_documents": len(sums.ids)}),
        ],
        axis=1,
    )


def _top_rows(rows: pd.DataFrame) -> pd.DataFrame:
    groups = rows.groupby(["label", "rule"])["kl_ablated"]
    rank: Any = groups.rank(method="first", ascending=False)
    count: Any = groups.transform("size")
    top: Any = rows[rank <= np.ceil(TOP * count)]
    return top


def buckets(rows: pd.DataFrame, measure: str = "kl", n: int = 100) -> pd.DataFrame:
    """Sort positions by the size of the full ablation's effect into buckets of equal count, for each head and rule.

    Columns: `label`, `rule`, `bucket` from 0, `measure`; `bucket_ablated` and `bucket_cspa`: means of the measure under
    full ablation and CSPA; `n_positions`. Where the two are equal nothing of the effect is kept, where the second is 0
    all of it is.

    Args:
        rows: of `cspa_effects`.
        measure: `kl`, `loss_change` or `absolute_loss_change`.
        n: buckets; fewer where there are fewer positions.
    """
    source = measure.removeprefix("absolute_")
    table = rows[["label", "rule"]].assign(cspa=rows[source], ablated=rows[f"{source}_ablated"])
    if source != measure:
        table = table.assign(cspa=table["cspa"].abs(), ablated=table["ablated"].abs())
    groups = table.groupby(["label", "rule"], sort=False)["ablated"]
    rank: Any = groups.rank(method="first") - 1
    count: Any = groups.transform("size")
    table["bucket"] = (rank * np.minimum(n, count) // count).astype(int)
    found = table.groupby(["label", "rule", "bucket"], as_index=False).agg(
        bucket_ablated=("ablated", "mean"), bucket_cspa=("cspa", "mean"), n_positions=("cspa", "size")
    )
    return found.assign(measure=measure)


def explained(scores: pd.DataFrame, label: str) -> bool:
    """Whether copy suppression accounts for most of a head's direct effect: never by QK alone.

    The lower end of the full ablation's KL is above LEAST_EFFECT, that of the score of "both" at least LEAST_SCORE, and
    that of its margins over every control in DIRECTION_CONTROLS above 0; what was not measured counts as not passed.
    """
    mine = scores[scores["label"] == label].set_index("rule")
    if "both" not in mine.index or not bool(mine.loc["both", "defined"]):
        return False
    least: Any = mine["margin_low"].reindex(list(DIRECTION_CONTROLS))
    both: Any = mine.loc["both"]
    large = bool(both["kl_ablated_low"] > LEAST_EFFECT) and bool(both["score_low"] >= LEAST_SCORE)
    return large and bool((least > 0).all())


def verdict(scores: pd.DataFrame, model: str) -> str:
    """Say in plain words how much of each head's effect is copy suppression, beside its controls."""
    sentences: list[str] = []
    for label in scores["label"].unique():
        mine: Any = scores[scores["label"] == label].set_index("rule")
        if "both" not in mine.index:
            sentences.append(f"Nothing is said about {label}: the rule 'both' was not measured.")
            continue
        both = mine.loc["both"]
        if not both["defined"]:
            sentences.append(
                f"{label} of {model} has no direct effect to explain: ablating it changes predictions by "
                f"{both['kl_ablated']:.1e} nats on average."
            )
            continue
        controls = [name for name in DIRECTION_CONTROLS if name in mine.index]
        beside = ", ".join(f"{name} {mine.loc[name, 'score']:.2f}" for name in controls) or "none measured"
        means = "is most of" if explained(scores, label) else "does not account for most of"
        sentences.append(
            f"Copy suppression {means} the direct effect of {label} of {model}: of the "
            f"{both['kl_ablated']:.2g} nats by which mean-ablating it changes a prediction, CSPA keeps "
            f"{both['score']:.2f} [{both['score_low']:.2f}, {both['score_high']:.2f}] (controls: {beside})."
        )
    return " ".join(sentences)
