"""Tables of a copy-suppression scan with made-up numbers, shaped as the real ones are."""

import numpy as np
import pandas as pd


def heads(n_layers: int = 3, n_heads: int = 4) -> pd.DataFrame:
    """Return one row a head; L2H1 suppresses most, L0H3 raises most."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        [(layer, head, f"L{layer}H{head}") for layer in range(n_layers) for head in range(n_heads)],
        columns=["layer", "head", "label"],
    )
    count = len(frame)
    score = rng.normal(0, 0.02, count)
    score[frame.index[frame["label"] == "L2H1"]] = 0.8
    score[frame.index[frame["label"] == "L0H3"]] = -0.5
    numbers = {
        "cs_score": score,
        "cs_control": rng.normal(0, 0.01, count),
        "anti_induction_score": score * 1.5,
        "attention": np.abs(score),
        "direct_effect_target": -score,
        "direct_effect_difference": -0.9 * score,
        "ablation_effect": 0.4 * score,
        "ablation_effect_target": 0.5 * score,
        "ov_rank_median": 500 - 600 * score,
        "ov_bottom_share": np.clip(0.05 + score, 0, 1),
    }
    for name, values in numbers.items():
        frame[name], frame[f"{name}_low"], frame[f"{name}_high"] = values, values - 0.05, values + 0.1
    frame["cs_score_p"] = 0.01
    return frame.assign(
        suppresses=frame["label"] == "L2H1",
        failed=["" if label == "L2H1" else "effect" for label in frame["label"]],
        ablation="mean",
        metric="logit difference",
        ov_rows=100,
        ov_ties=0,
        d_vocab=1000,
    )


def repair() -> pd.DataFrame:
    """Return the repair of one head, with more components than are shown."""
    values = [0.01, -0.3, 0.2, 0.0, -0.05, 0.06, 0.07, -0.08, 0.09, 0.1]
    return pd.DataFrame(
        {
            "ablated": "L2H1",
            "component": [f"M{index}" for index in range(10)],
            "part": ["MLPs"] * 9 + ["final norm"],
            "layer": range(10),
            "repair": values,
            "repair_low": np.array(values) - 0.02,
            "repair_high": np.array(values) + 0.02,
            "average": "mean over prompts",
        }
    )


def repair_parts() -> pd.DataFrame:
    """Return the repair of one head by part, averaged in two ways."""
    parts = pd.DataFrame({"part": ["heads", "MLPs", "final norm", "total"], "repair": [-0.1, -0.3, 0.05, -0.35]})
    parts = parts.assign(ablated="L2H1", direct_effect_change=0.8, logit_change=0.45, average="mean over prompts")
    for name in ("repair", "direct_effect_change", "logit_change"):
        parts[f"{name}_low"], parts[f"{name}_high"] = parts[name] - 0.1, parts[name] + 0.1
    return pd.concat([parts, parts.assign(repair=9.0, average="top 2 %")], ignore_index=True)


def attention_examples() -> pd.DataFrame:
    """Return one prompt with awkward tokens."""
    tokens = ["<bos>", " Mary", "\n", "</script>", " to"]
    return pd.DataFrame(
        {
            "prompt_id": "ioi-<0>",
            "label": "L2H1",
            "position": range(5),
            "token": tokens,
            "weight": [0.2, 0.6, 0.1, 0.06, 0.04],
            "is_target": [False, True, False, False, False],
            "is_destination": [False] * 4 + [True],
            "target": " Mary",
        }
    )


def tables() -> dict[str, pd.DataFrame]:
    """Return all of them."""
    return {
        "heads": heads(),
        "repair": repair(),
        "repair_parts": repair_parts(),
        "attention_examples": attention_examples(),
    }
