"""Tables of receipts and evaluations of steering with made-up numbers, shaped as the real ones are."""

import numpy as np
import pandas as pd

DOSES = (0.1, 0.2, 0.4, 0.8)
TESTED = 0.4
_SLOPES = {
    "vector": (1, 5.0),
    "random": (50, 0.1),
    "random_covariance": (20, 0.4),
    "shuffled_labels": (20, -0.5),
    "orthogonal": (1, 3.0),
    "other_concept": (1, 0.6),
}


def evaluation() -> dict[str, pd.DataFrame]:
    """Return an evaluation with every arm, damage and texts."""
    rows = [
        {"arm": arm, "dose": dose, "draws": draws, "effect": slope * dose, "kl_p95": dose**2, "kl_mean": dose**2 / 3}
        for arm, (draws, slope) in _SLOPES.items()
        for dose in DOSES
    ]
    rows.append({"arm": "prompt_only", "dose": 0.0, "draws": 1, "effect": 1.5, "kl_p95": np.nan, "kl_mean": np.nan})
    doses = pd.DataFrame(rows).assign(unit="nats of odds")
    doses["effect_low"], doses["effect_high"] = doses["effect"] - 0.3, doses["effect"] + 0.5
    doses["perplexity_ratio"] = np.exp(doses["kl_mean"])
    doses["repetition"] = [
        0.5 * d if a == "vector" else np.nan for a, d in zip(doses["arm"], doses["dose"], strict=True)
    ]
    doses["distinct_2"] = 1 - doses["repetition"]
    tests = pd.DataFrame({"null": ["random", "shuffled_labels"], "draws": [50, 20], "mean": [0.04, -0.2]})
    tests = tests.assign(
        dose=TESTED,
        unit="nats of odds",
        mean_low=tests["mean"] - 0.3,
        mean_high=tests["mean"] + 0.5,
        p=[1 / 51, 1 / 21],
    )
    texts = pd.DataFrame(
        [
            {"dose": dose, "id": name, "prompt": "It was <so>\n and", "text": f" good</b>\n{dose}", "repetition": 0.0}
            for dose in (DOSES[1], 0.0, DOSES[0])
            for name in "abcde"
        ]
    )
    return {
        "doses": doses,
        "tests": tests.assign(effect=2.0, effect_low=1.7, effect_high=2.5),
        "texts": texts.assign(distinct_2=1.0),
    }


def receipt() -> dict[str, pd.DataFrame]:
    """Return a receipt of two parts on two texts: one acts on all tokens, one where its gate was open."""
    prompt_lengths, total = {0: 3, 1: 5}, 9
    tokens = [
        {
            "call": 0,
            "row": row,
            "position": position,
            "t": position - length,
            "token": position,
            "site": "L1.resid_post",
        }
        | {"dose": 0.5, "change": 0.1 + 0.01 * position, "part_name": "add <mood>", "text": f" w{position}"}
        for row, length in prompt_lengths.items()
        for position in range(total)
    ]
    gated = [
        row | {"site": "L2.resid_post", "dose": -2.0, "change": 0.9, "part_name": "add length"}
        for row in tokens
        if row["row"] == 0 and row["t"] in (2, 3)
    ]
    looks = [
        {
            "call": 0,
            "row": row,
            "signal": "entropy",
            "value": 1.0 + (look in (2, 3)),
            "threshold": 1.5,
            "open": look in (2, 3),
            "look": look,
        }
        for row in (1, 0)
        for look in range(6)
    ]
    parts = pd.DataFrame({"part": ["add <mood>", "add length"], "site": ["L1.resid_post", "L2.resid_post"]})
    return {
        "parts": parts.assign(
            where=["everywhere", "generated"], gate=["", "(entropy > 1.5 & not text has 'x')"], tokens=[18, 2],
            rows=[2, 1], dose=[0.5, -2.0], change=[0.14, 0.9], change_max=[0.18, 0.9],
            unit=["median |h|", "|v|"],
        ),
        "tokens": pd.DataFrame([*tokens, *gated]),
        "gates": pd.DataFrame(looks),
    }  # fmt: skip


def receipt_of_a_shut_gate() -> dict[str, pd.DataFrame]:
    """Return the receipt of a plan whose one gate never opened: as the real one, with a table of no tokens."""
    tables = receipt()
    nothing = {"tokens": 0, "rows": 0, "dose": np.nan, "change": np.nan, "change_max": np.nan}
    return {
        "parts": tables["parts"].tail(1).assign(**nothing),
        "tokens": tables["tokens"].head(0),
        "gates": tables["gates"].assign(open=False, value=1.0),
    }
