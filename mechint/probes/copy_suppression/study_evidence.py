"""From the rows of a study to its tables: all heads, and one line of evidence after another for the chosen ones.

Every line of `evidence` is a number with its interval beside the same number for a control, and says what it is. What
has to hold before copy suppression is said to explain a head was fixed before any model was measured (`CRITERIA`).
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mechint.effects.calibration import CONTROL as RANDOM
from mechint.effects.calibration import HEAD, MARGINAL
from mechint.effects.loss_effects import CONTROL, DIRECT, FROZEN, INDIRECT, loss_effect_table
from mechint.effects.ranks import LOW_SHARE
from mechint.model.model_facts import ModelFacts
from mechint.probes.copy_suppression.cspa_summary import (
    DIRECTION_CONTROLS,
    LEAST_EFFECT,
    LEAST_SCORE,
    buckets,
    explained,
    scores_table,
)
from mechint.probes.copy_suppression.dynamic_ranks import dynamic_rank_table, rank_histogram
from mechint.probes.copy_suppression.three_steps import three_step_table
from mechint.probes.copy_suppression.words import interval, listed
from mechint.probes.criterion import Criterion, criteria_table
from mechint.results import Findings
from mechint.sites import head_label
from mechint.statistics import bootstrap_mean, bootstrap_median, bootstrap_ratio, wilson

CRITERIA: tuple[Criterion, ...] = (
    Criterion(
        "does something on the text",
        f"mean KL of mean-ablating it along the direct path > {LEAST_EFFECT} nats (lower end)",
        "A share of nothing means nothing.",
    ),
    Criterion(
        "mostly explained",
        f"CSPA score > {LEAST_SCORE} (lower end)",
        "Most of what the head does to predictions is lowering tokens that it attends to and that are predicted.",
    ),
    Criterion(
        "by the attended tokens, downwards",
        f"CSPA score > that of each control: {', '.join(DIRECTION_CONTROLS)} (lower end of the difference > 0)",
        "Other directions, or the opposite sign, keep less.",
    ),
)
"""When copy suppression is said to explain a head; beside the scan's own."""


@dataclass(frozen=True)
class Told:
    """Everything that was measured, and the tables and words it makes."""

    facts: ModelFacts
    scan: Findings
    raw: Mapping[str, pd.DataFrame]
    clusters: Mapping[str, str]
    """Of each document."""
    texts: str
    seed: int

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return every table, the heads first."""
        made: dict[str, pd.DataFrame] = {"heads": self.heads}
        if "cspa_chosen" in self.raw:
            parts = self.chosen()
            made |= {"evidence": evidence(made["heads"], parts, self.raw["scan_induction"], self.seed), **parts}
        made |= {name: table for name, table in self.scan.tables.items() if name not in ("heads", "criteria")}
        both = [self.scan.tables["criteria"], criteria_table(CRITERIA)]
        return made | {"criteria": pd.concat(both, ignore_index=True)}

    @functools.cached_property
    def heads(self) -> pd.DataFrame:
        """Return the scan's table of all heads, with what CSPA keeps of each and what its controls keep."""
        scores = scores_table(self.raw["cspa"], self.clusters, self.seed)
        both: Any = scores[scores["rule"] == "both"]
        names = [f"{name}{end}" for name in ("score", "kl_ablated") for end in ("", "_low", "_high")]
        own = both[["layer", "head", *names, "defined"]].rename(columns={name: f"cspa_{name}" for name in names})
        own = own.rename(columns={"defined": "cspa_defined"})
        for control in DIRECTION_CONTROLS:
            mine: Any = scores[scores["rule"] == control]
            column = f"cspa_{control.replace(' ', '_')}"
            kept = mine[["layer", "head", "score", "score_low", "score_high"]]
            own = own.merge(kept.rename(columns={f"score{e}": f"{column}{e}" for e in ("", "_low", "_high")}))
        labels = [head_label(layer, head) for layer, head in zip(own["layer"], own["head"], strict=True)]
        own = own.assign(cspa_explained=[explained(scores, label) for label in labels])
        return self.scan.tables["heads"].merge(own, on=["layer", "head"], how="left")

    @functools.cached_property
    def scores(self) -> pd.DataFrame:
        """What CSPA and its controls keep of the chosen heads."""
        return scores_table(self.raw["cspa_chosen"], self.clusters, self.seed)

    def chosen(self) -> dict[str, pd.DataFrame]:
        """Return the tables about the chosen heads."""
        rows = self.raw["cspa_chosen"]
        made = {
            "cspa": self.scores,
            "buckets": pd.concat([buckets(rows, name) for name in ("kl", "absolute_loss_change")], ignore_index=True),
            "three_steps": three_step_table(self.raw["steps"], self.clusters, seed=self.seed),
            "dynamic_ranks": dynamic_rank_table(self.raw["ranks"], self.clusters, seed=self.seed),
            "rank_histogram": rank_histogram(self.raw["ranks"], self.clusters, seed=self.seed),
            "loss_effects": loss_effect_table(self.raw["losses"], self.clusters, seed=self.seed),
            "qk": qk_table(self.raw["qk"], self.facts.d_vocab, self.seed),
            "qk_grid": grid_table(self.raw["grid"], self.seed),
            "entropy": entropy_table(self.raw["calibration"], self.clusters, self.seed),
        }
        return made | {"tokens": self.raw["tokens"]}

    def verdict(self) -> str:
        """Say what the scan found, and for each chosen head how far copy suppression explains it."""
        if "cspa_chosen" not in self.raw:
            return self.scan.verdict
        scores = self.scores.set_index(["label", "rule"])
        sentences: list[str] = []
        for label in dict.fromkeys(self.raw["cspa_chosen"]["label"]):
            both = scores.loc[(label, "both")]
            if not both["kl_ablated_low"] > LEAST_EFFECT:
                sentences.append(
                    f"{label} does next to nothing on these texts (mean-ablating it directly changes a prediction by "
                    f"{both['kl_ablated']:.1g} nats), so there is nothing to explain."
                )
                continue
            strongest = max(DIRECTION_CONTROLS, key=lambda name: float(scores.loc[(label, name), "score"]))
            means = "explains most of" if explained(self.scores, label) else "does not explain most of"
            sentences.append(
                f"On texts ({self.texts}) copy suppression {means} what {label} does to predictions: of the "
                f"{both['kl_ablated']:.2g} nats by which mean-ablating it directly changes one, CSPA keeps "
                f"{interval(both, 'score')} of the whole, and its strongest control ({strongest}) "
                f"{interval(scores.loc[(label, strongest)], 'score')}."
            )
        every = self.heads
        others: Any = every[every["cspa_explained"] & ~every["label"].isin(list(scores.index.get_level_values(0)))]
        if len(others):
            sentences.append(
                f"By the same measure on fewer positions it explains most of {listed(others['label'].tolist())} too."
            )
        return "\n".join([self.scan.verdict, " ".join(sentences)])


def qk_table(rows: pd.DataFrame, d_vocab: int, seed: int) -> pd.DataFrame:
    """Summarise static QK ranks: one row a head of the chosen blocks, shares with Wilson's intervals."""
    found: list[dict[str, Any]] = []
    groups: Any = rows.groupby(["layer", "head"])
    for (layer, head), own in groups:
        rank = own["rank"].to_numpy(dtype=float)
        median, low, high = (float(end[0]) for end in bootstrap_median(rank[:, None], seed=seed))
        about: dict[str, Any] = {"layer": layer, "head": head, "label": head_label(int(layer), int(head))}
        about |= {"qk_rank_median": median, "qk_rank_median_low": low, "qk_rank_median_high": high}
        for name, met in (("qk_top_share", rank < LOW_SHARE * d_vocab), ("qk_below_10", rank < 10)):
            ends = wilson(int(met.sum()), len(met))
            about |= {name: float(met.mean()), f"{name}_low": ends[0], f"{name}_high": ends[1]}
        found.append(
            about | {"qk_rows": len(rank), "qk_ties": int(own["ties"].sum()), "rotation": own["rotation"].iloc[0]}
        )
    return pd.DataFrame(found)


def grid_table(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Summarise the 3 x 3 table: the median of rank + 1 for each kind of query and of key."""
    found: list[dict[str, Any]] = []
    groups: Any = rows.groupby(["label", "query", "key"], sort=False)
    for (label, query, key), own in groups:
        ends = bootstrap_median(own["rank"].to_numpy(dtype=float)[:, None] + 1, seed=seed)
        told = {f"rank_median{end}": float(v[0]) for end, v in zip(("", "_low", "_high"), ends, strict=True)}
        found.append({"label": label, "query": query, "key": key, **told, "qk_rows": len(own)})
    return pd.DataFrame(found)


def entropy_table(rows: pd.DataFrame, clusters: Mapping[str, str], seed: int) -> pd.DataFrame:
    """Summarise by how much heads of the chosen blocks raise the entropy of predictions, beside random directions."""
    found: list[dict[str, Any]] = []
    changes: Any = rows[rows["counted"] == MARGINAL]
    groups: Any = changes.groupby(["layer", "head"])
    for (layer, head), own in groups:
        about: dict[str, Any] = {"layer": layer, "head": head, "label": head_label(int(layer), int(head))}
        for output, name in ((HEAD, "entropy_change"), (RANDOM, "control_entropy_change")):
            mine = own[own["output"] == output]
            above, below = mine["total"].to_numpy(dtype=float), mine["n"].to_numpy(dtype=float)
            ends = bootstrap_ratio(above[:, None], below[:, None], [clusters[str(i)] for i in mine["id"]], seed=seed)
            about |= {f"{name}{end}": float(v[0]) for end, v in zip(("", "_low", "_high"), ends, strict=True)}
            about["n"] = int(below.sum())
        found.append(about)
    return pd.DataFrame(found)


def evidence(
    heads: pd.DataFrame, parts: Mapping[str, pd.DataFrame], induction: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """Return one row a chosen head and line of evidence: the number, its interval, and the same for its control."""
    lines: list[dict[str, Any]] = []
    for label in dict.fromkeys(parts["cspa"]["label"]):
        own = heads[heads["label"] == label].iloc[0]
        lines += [{"label": label, **line} for line in _lines(label, own, parts, induction, seed)]
    table: Any = pd.DataFrame(lines)
    return table[["label", "question", "measure", "unit", *_VALUES, "control", *_CONTROLS, "n"]]


_VALUES = ("value", "value_low", "value_high")
_CONTROLS = ("control_value", "control_value_low", "control_value_high")


def _line(
    question: str, measure: str, unit: str, value: Any, name: str, control: str, other: Any, other_name: str, n: Any
) -> dict[str, Any]:
    told: dict[str, Any] = {"question": question, "measure": measure, "unit": unit, "control": control, "n": int(n)}
    told |= {column: _get(value, name, column.removeprefix("value")) for column in _VALUES}
    return told | {column: _get(other, other_name, column.removeprefix("control_value")) for column in _CONTROLS}


def _get(row: Any, name: str, end: str) -> float:
    return float("nan") if row is None or f"{name}{end}" not in row else float(row[f"{name}{end}"])


def _lines(
    label: str,
    own: Any,
    parts: Mapping[str, pd.DataFrame],
    induction: pd.DataFrame,
    seed: int,
) -> list[dict[str, Any]]:
    chance = {"chance": LOW_SHARE}
    qk = parts["qk"].set_index("label")
    beside = _others(parts["qk"], own, "qk_top_share")
    ranks: Any = parts["dynamic_ranks"][parts["dynamic_ranks"]["words"] == "all"].set_index("label")
    control = next((name for name in ranks.index if _same_layer(name, own) and name != label), None)
    steps: Any = parts["three_steps"].set_index(["label", "chosen", "condition"])
    cspa: Any = parts["cspa"].set_index(["label", "rule"])
    losses: Any = parts["loss_effects"].set_index(["label", "effect", "scale"])
    lines = [
        _line("Does it look for a predicted token?", "static QK: own token among the 5 % best keys", "share",
              qk.loc[label], "qk_top_share", "other heads of the layer", beside, "mean", qk.loc[label, "qk_rows"]),
        _line("Does it lower the token it reads?", "static OV: own token in lowest 5 %", "share",
              own, "ov_bottom_share", "chance", chance, "chance", own["ov_rows"]),
        _line("… also in texts?", "dynamic OV: attended token among the 10 most lowered", "share",
              ranks.loc[label], "share_rank_below_10", f"{control}" if control else "none",
              None if control is None else ranks.loc[control], "share_rank_below_10", ranks.loc[label, "n_edges"]),
        _line("Does it do so to a name that is predicted?", "copy-suppression score, two-name sentences", "logits",
              own, "cs_score", "random token of the sentence", own, "cs_control", own["n_with_target"]),
        _line("… and where there is no meaning?", "anti-induction score, random tokens repeated", "logits",
              own, "anti_induction_score", "other heads of the layer", _induction_others(induction, own, seed), "mean",
              induction["id"].nunique()),
    ]  # fmt: skip
    for share in ("5 %", "1 %"):
        top, random = (steps.loc[(label, f"{name} {share}", "same token")] for name in ("top", "random"))
        lines.append(
            _line("Are prediction, attention and suppression of one token?", f"all three steps, top {share} of effects",
                  "share", top, "met_share", f"random {share} of positions", random, "met_share", top["n_positions"])
        )  # fmt: skip
    for rule, name in (("both", "CSPA"), ("ov", "CSPA, OV only"), ("qk", "CSPA, QK only (no evidence by itself)")):
        lines.append(
            _line("How much of its effect does that explain?", name, "share of KL", cspa.loc[(label, rule)], "score",
                  "random token of the text", cspa.loc[(label, "random token")], "score",
                  cspa.loc[(label, rule), "n_positions"])
        )  # fmt: skip
    for effect, name in ((DIRECT, "direct effect"), (INDIRECT, "indirect effect")):
        found = losses.loc[(label, effect, FROZEN)]
        lines.append(
            _line("What happens to the loss if it goes?", f"{name} of mean ablation on the loss", "nats", found,
                  "loss_change", "random direction of its size", losses.loc[(label, CONTROL, FROZEN)], "loss_change",
                  found["n_positions"])
        )  # fmt: skip
    change = parts["entropy"].set_index("label").loc[label]
    lines.append(
        _line("Does it make the model less sure?", "entropy it adds to predictions", "nats", change, "entropy_change",
              "random direction of its size", change, "control_entropy_change", change["n"])
    )  # fmt: skip
    return lines


def _same_layer(label: str, own: Any) -> bool:
    return label.startswith(f"L{own['layer']}H")


def _others(table: pd.DataFrame, own: Any, column: str) -> dict[str, float] | None:
    """Return the mean of a number over the other heads of the layer, with the lowest and highest as its ends."""
    others: Any = table[(table["layer"] == own["layer"]) & (table["head"] != own["head"])][column]
    if not len(others):
        return None
    return {"mean": float(others.mean()), "mean_low": float(others.min()), "mean_high": float(others.max())}


def _induction_others(rows: pd.DataFrame, own: Any, seed: int) -> dict[str, float] | None:
    others: Any = rows[(rows["layer"] == own["layer"]) & (rows["head"] != own["head"])]
    if not len(others):
        return None
    values = others.groupby("id")["anti_induction_score"].mean().to_numpy(dtype=float)
    mean, low, high = (float(end[0]) for end in bootstrap_mean(values[:, None], seed=seed))
    return {"mean": mean, "mean_low": low, "mean_high": high}
