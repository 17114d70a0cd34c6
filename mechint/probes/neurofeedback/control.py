r"""The control task, implicit: the model is told which score comes next, and a sentence that it did not choose follows.

After N examples, `{instruction}{label}{end}` names a label, and the sentence is prefilled. Its state is read within the
text at the site, and d compares its scores under the label of high scores and under that of low ones:

    d = (s̄₁ - s̄₀) / s_pooled,   published interval  ± 1.96 √((n₁ + n₀) / (n₁ n₀) + d² / (2 (n₁ + n₀)))
    precision = |d on the axis that was named| / mean |d| over all axes that are looked at

The sentences are the same under both labels, and which letter stands for high scores alternates between texts: a letter
that moves states by itself moves them both ways. The published interval takes sentences for independent; the bootstrap
over texts does not.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.positions import TokenBatch
from mechint.probes.neurofeedback.bench import Bench, Drawn
from mechint.probes.neurofeedback.episodes import plain, span_means
from mechint.statistics import bootstrap_mean

INSTRUCTION, END = "The next sentence is written so that its score is", ":\n"


def control(bench: Bench, drawn: Drawn, context: int) -> pd.DataFrame:
    """Return the scores of prefilled sentences on every axis, under either label."""
    flipped, n, model = context % 2, bench.settings.shots, bench.model
    before, past = bench.write(drawn, bool(flipped), n), model.new_past()
    model.run([before.tokens], past=past)
    told = [
        (*plain(model, INSTRUCTION), bench.wording.labels[target ^ flipped], *plain(model, END)) for target in (0, 1)
    ]
    rows: list[dict[str, Any]] = []
    for at in bench.others(drawn, context):
        sentence = bench.tokens[int(at)]
        texts = [(*before.tokens, *one, *sentence) for one in told]
        batch = TokenBatch.from_rows(texts, pad_left=True)
        fork = past.fork([0, 0])
        # Only columns that the past has not are read, so the sentence is at the end of what comes back.
        values = model.run(batch, read=[bench.site], past=fork)[bench.site]
        width = values.shape[1]
        for target in (0, 1):
            state = span_means(values[target].double(), [(width - len(sentence), width)])[0].numpy()
            for name in dict.fromkeys((drawn.axis.name, *bench.settings.axes)):
                axis = bench.axis(name)
                score = float(axis.scores(state[None])[0] / axis.spread)
                rows.append({"sentence": bench.id_of(int(at)), "measured_on": name, "target": target, "score": score})
    return pd.DataFrame(rows)


def effect_size(high: Float[np.ndarray, " sentence"], low: Float[np.ndarray, " sentence"]) -> tuple[float, float]:
    """Return d, and half the width of its published interval.

    Examples:
        >>> d, half = effect_size(np.array([1.0, 3.0]), np.array([0.0, 2.0]))
        >>> round(d, 3), round(half, 3)
        (0.707, 2.02)
    """
    n1, n0 = len(high), len(low)
    pooled = math.sqrt(((n1 - 1) * high.var(ddof=1) + (n0 - 1) * low.var(ddof=1)) / (n1 + n0 - 2))
    d = float((high.mean() - low.mean()) / pooled) if pooled > 0 else float("nan")
    return d, 1.96 * math.sqrt((n1 + n0) / (n1 * n0) + d * d / (2 * (n1 + n0)))


def control_table(raw: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return d of every axis that was named on every axis that was looked at, with both intervals, and precision."""
    rows: list[dict[str, Any]] = []
    for keys, part in raw.groupby(["model", "axis", "measured_on"], sort=False):
        sides = part.pivot_table(index=["context", "sentence"], columns="target", values="score")
        high, low = sides[1].to_numpy(), sides[0].to_numpy()
        d, half = effect_size(high, low)
        difference = high - low
        clusters = [str(context) for context in sides.index.get_level_values(0)]
        mean, first, last = (float(end[0]) for end in bootstrap_mean(difference[:, None], clusters, seed=seed))
        scale = d / mean if mean else float("nan")
        rows.append(
            {
                **dict(zip(("model", "axis", "measured_on"), keys, strict=True)),  # pyright: ignore[reportArgumentType]
                "shift_d": d,
                "shift_d_low": first * scale,
                "shift_d_high": last * scale,
                "published_low": d - half,
                "published_high": d + half,
                "n": len(high),
            }
        )
    table = pd.DataFrame(rows)
    for _, own in table.groupby(["model", "axis"], sort=False):
        size = np.abs(np.asarray(own["shift_d"], dtype=float))
        named = size[np.asarray(own["axis"] == own["measured_on"])]
        table.loc[own.index, "precision"] = float(named[0] / size.mean()) if len(named) else float("nan")
    return table
