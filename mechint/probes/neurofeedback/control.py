r"""The control task: the model is told which score comes next. Does the state of the sentence that follows obey?

After N examples, `{instruction}{label}{end}` names a label. Given (implicit, as published): a sentence that the model
did not choose is prefilled, the same under both labels. Written (explicit): the model writes it, at temperature .7 and
up to the cue or 50 tokens; there it can choose words whose states lie where they should, as any writer can, so that
such a score is partial evidence at most. The sentence's state is read within the text at the site, and d compares its
scores under the label of high scores and under that of low ones:

    d = (s̄₁ - s̄₀) / s_pooled,   published interval  ± 1.96 √((n₁ + n₀) / (n₁ n₀) + d² / (2 (n₁ + n₀)))
    precision = |d on the axis that was named| / mean |d| over all axes that are looked at

Which letter stands for high scores alternates between texts: a letter that moves states by itself moves them both ways.
The published interval takes sentences for independent; the bootstrap over texts does not.
"""

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.positions import TokenBatch
from mechint.probes.neurofeedback.bench import Bench, Drawn
from mechint.probes.neurofeedback.episodes import plain, span_means
from mechint.statistics import bootstrap_mean
from mechint.steering.decoder import Decoder, Row, Settings
from mechint.steering.sampling import Sampling, generators

INSTRUCTION, END = "The next sentence is written so that its score is", ":\n"
TEMPERATURE, LONGEST = 0.7, 50
"""Of sentences that the model writes, as published."""
GIVEN, WRITTEN = "given", "written"


def given(bench: Bench, drawn: Drawn, context: int) -> pd.DataFrame:
    """Return the scores of prefilled sentences on every axis, under either label."""
    before, told = _asked(bench, drawn, context)
    model, past = bench.model, bench.model.new_past()
    model.run([before], past=past)
    rows: list[dict[str, Any]] = []
    for at in bench.others(drawn, context):
        sentence = bench.tokens[int(at)]
        batch = TokenBatch.from_rows([(*before, *one, *sentence) for one in told], pad_left=True)
        # Only columns that the past has not are read, so the sentence is at the end of what comes back.
        values = model.run(batch, read=[bench.site], past=past.fork([0, 0]))[bench.site]
        for target in (0, 1):
            rows += _scores(bench, drawn, values[target, -len(sentence) :], bench.id_of(int(at)), target)
    return pd.DataFrame(rows)


@torch.no_grad()
def written(bench: Bench, drawn: Drawn, context: int) -> pd.DataFrame:
    """Return the scores of sentences that the model writes, on every axis, under either label; empty ones have none."""
    before, told = _asked(bench, drawn, context)
    s, model, rows = bench.settings, bench.model, list[dict[str, Any]]()
    stops = [text for text in (s.cue, s.after) if text]
    last = {*model.end_tokens, bench.wording.cue[0]}

    def ends(token: int) -> bool:
        return token in last or (s.after != "" and s.after in model.tokenizer.decode([token]))

    for target in (0, 1):
        begun = [*before, *told[target]]
        names = [f"neurofeedback/{drawn.axis.name}/{context}/{target}/{i}" for i in range(s.written)]
        new = [Row(i, draw) for i, draw in enumerate(generators(names, bench.seed))]
        most = min(LONGEST, model.facts.n_ctx - len(begun))
        settings = Settings(most, Sampling(TEMPERATURE), stops, end=model.end_tokens)
        for _ in Decoder(model, [begun] * s.written, new, settings).steps():
            pass
        for i, one in enumerate(new):
            sentence = tuple(itertools.takewhile(lambda token: not ends(token), one.tokens))
            if sentence:
                values = model.run([(*begun, *sentence)], read=[bench.site])[bench.site][0, len(begun) :]
                text = model.tokenizer.decode(sentence)
                rows += [row | {"text": text} for row in _scores(bench, drawn, values, str(i), target)]
    return pd.DataFrame(rows, columns=["sentence", "measured_on", "target", "score", "text"])


def _asked(bench: Bench, drawn: Drawn, context: int) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Return the tokens of the examples, and what asks for a low and for a high score."""
    flipped, model = context % 2, bench.model
    before = bench.write(drawn, bool(flipped), bench.settings.shots)
    labels = [bench.wording.labels[target ^ flipped] for target in (0, 1)]
    return before.tokens, [(*plain(model, INSTRUCTION), label, *plain(model, END)) for label in labels]


def _scores(
    bench: Bench, drawn: Drawn, values: Float[Tensor, "pos d_model"], sentence: str, target: int
) -> list[dict[str, Any]]:
    state, rows = span_means(values.double(), [(0, len(values))])[0].numpy(), list[dict[str, Any]]()
    for name in dict.fromkeys((drawn.axis.name, *bench.settings.axes)):
        axis = bench.axis(name)
        score = float(axis.scores(state[None])[0] / axis.spread)
        rows.append({"sentence": sentence, "measured_on": name, "target": target, "score": score})
    return rows


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
    for keys, part in raw.groupby(["model", "control", "axis", "measured_on"], sort=False):
        sides = part.pivot_table(index=["context", "sentence"], columns="target", values="score")
        sides = sides.reindex(columns=[0, 1]).dropna()
        names: dict[str, Any] = dict(zip(("model", "control", "axis", "measured_on"), keys, strict=True))  # pyright: ignore[reportArgumentType]
        rows.append({**names, **_shift(sides, seed), "n": len(sides)})
    table = pd.DataFrame(rows)
    for _, own in table.groupby(["model", "control", "axis"], sort=False):
        size = np.abs(np.asarray(own["shift_d"], dtype=float))
        named = size[np.asarray(own["axis"] == own["measured_on"])]
        table.loc[own.index, "precision"] = float(named[0] / size.mean()) if len(named) else float("nan")
    return table


def _shift(sides: pd.DataFrame, seed: int) -> dict[str, float]:
    if len(sides) < 2:
        return dict.fromkeys(("shift_d", "shift_d_low", "shift_d_high", "published_low", "published_high"), math.nan)
    high, low = sides[1].to_numpy(), sides[0].to_numpy()
    d, half = effect_size(high, low)
    clusters = [str(context) for context in sides.index.get_level_values(0)]
    mean, first, last = (float(end[0]) for end in bootstrap_mean((high - low)[:, None], clusters, seed=seed))
    scale = d / mean if mean else math.nan
    ends = {"shift_d_low": first * scale, "shift_d_high": last * scale}
    return {"shift_d": d, **ends, "published_low": d - half, "published_high": d + half}
