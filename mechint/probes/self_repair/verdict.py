"""What was found about self-repair on text, in plain sentences."""

from typing import Any

import pandas as pd


def verdict(model: str, data: str, components: pd.DataFrame, layers: pd.DataFrame, ablation: str) -> str:
    """Say how many components are repaired, by how much, and against which control.

    Args:
        model: its name.
        data: what the texts are called.
        components: the table of components, judged.
        layers: the table of layers.
        ablation: what components were set to.
    """
    first = components.iloc[0]
    n_tokens, n_documents = int(first["n_tokens"]), int(first["n_documents"])
    where = f"on {n_tokens} tokens of {n_documents} documents ({data}; {ablation} ablation)"
    if not components["ratio_excess"].notna().to_numpy().any():
        opening = (
            f"No claim is made about {model} {where}: without two draws of resample ablation there is no chance fit to "
            "compare repair with."
        )
    else:
        opening = _opening(model, where, components)
    shape = _by_layer(layers)
    return f"{opening} {shape}".strip()


def _opening(model: str, where: str, components: Any) -> str:
    found = components[components["repaired"]].sort_values("condensed_self_repair", ascending=False)
    if found.empty:
        tested = components.dropna(subset=["condensed_direct_effect"])
        best = tested.sort_values("condensed_self_repair", ascending=False).iloc[0]
        return (
            f"None found: no component of {model} meets all five conditions for self-repair {where}. The one with the "
            f"largest condensed self-repair, {best['label']} ({_interval(best, 'condensed_self_repair', signed=True)} "
            f"logits), fails: {best['failed']}."
        )
    best = found.iloc[0]
    names = ", ".join(found["label"][:8]) + (", …" if len(found) > 8 else "")
    return (
        f"{len(found)} of {len(components)} components of {model} {'is' if len(found) == 1 else 'are'} repaired by all "
        f"five conditions {where}: {names}. Most is put back for {best['label']}: on the {int(best['n_condensed'])} "
        f"tokens where its direct effect is largest it is {_interval(best, 'condensed_direct_effect', signed=True)} "
        f"logits, and after ablation the rest of the model adds {_interval(best, 'condensed_self_repair', signed=True)}"
        f", {_interval(best, 'condensed_ratio')} of it (ratio of means). Where the same component's output comes from "
        f"unrelated documents and fits by chance, that share is {_interval(best, 'chance_ratio')}; the difference is "
        f"{_interval(best, 'ratio_excess', signed=True)}."
    )


def _by_layer(layers: Any) -> str:
    """Name the layer whose heads are repaired most, and by whom."""
    heads = layers[(layers["part"] == "head") & (layers["average"] == "condensed")]
    if heads.empty:
        return ""
    most = heads.sort_values("self_repair", ascending=False).iloc[0]
    parts = ", ".join(
        f"{name} {most[column]:+.2f}"
        for name, column in (("other heads", "heads_part"), ("MLPs", "mlps_part"), ("final norm", "norm_part"))
    )
    return (
        f"Over the heads of a layer, repair is largest in layer {int(most['layer'])}: "
        f"{_interval(most, 'self_repair', signed=True)} of {_interval(most, 'direct_effect', signed=True)} logits "
        f"({parts})."
    )


def _interval(row: Any, name: str, *, signed: bool = False) -> str:
    value, low, high = (format(round(row[f"{name}{end}"], 2) + 0.0, "+.2f" if signed else ".2f") for end in _ENDS)
    return f"{value} [{low}, {high}]"


_ENDS = ("", "_low", "_high")
