"""What a model says of its scores, and what others make of the same examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mechint.model.base import Logits
from mechint.positions import TokenBatch, columns
from mechint.probes.neurofeedback.another_model import AnotherModel
from mechint.probes.neurofeedback.bench import Bench, Drawn
from mechint.probes.neurofeedback.episodes import Episode, noise, span_means
from mechint.probes.neurofeedback.readers import TEXT, after_examples, fitted, majority, standardised
from mechint.probes.neurofeedback.said import said
from mechint.sites import Site


def written(bench: Bench, drawn: Drawn, rows: Sequence[Episode], amounts: Sequence[Sequence[float]]) -> dict[Site, Any]:
    """Return what is written in a pass: the noise at the site, nothing in the natural arm."""
    if drawn.arm == "natural":
        return {}
    axis = torch.tensor(drawn.axis.direction, dtype=torch.float32)
    return {bench.site: noise(rows, amounts, axis)}


def reports(bench: Bench, drawn: Drawn) -> pd.DataFrame:
    """Return what the model says after every number of examples, with labels as they are and exchanged."""
    rows = [bench.write(drawn, flipped) for flipped in (False, True)]
    run = bench.model.run(
        [row.tokens for row in rows],
        read=[bench.site],
        write=written(bench, drawn, rows, [drawn.noise.tolist()] * 2),
        logits=Logits(at=columns(torch.tensor([row.cues for row in rows]))),
    )
    tables: list[pd.DataFrame] = []
    for flipped, (row, logits) in enumerate(zip(rows, _whole(run.logits), strict=True)):
        labels = drawn.labels ^ flipped
        within = span_means(run[bench.site][flipped].double(), row.spans).numpy()
        tables.append(
            pd.DataFrame(
                {
                    "flipped": bool(flipped),
                    "shown": range(len(labels)),
                    "sentence": [bench.id_of(int(at)) for at in drawn.which],
                    "label": labels,
                    **said(logits, bench.wording.labels, labels),
                    "score": (drawn.text + drawn.noise) / drawn.axis.spread,
                    "score_within": drawn.axis.scores(within) / drawn.axis.spread,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def readers(bench: Bench, drawn: Drawn, models: Mapping[str, AnotherModel] | None = None) -> pd.DataFrame:
    """Return what readers, other models among them, make of the same examples at the tested places.

    Exchanging all labels exchanges what they say, so one row stands for both texts.
    """
    s, labels, rows = bench.settings, drawn.labels, list[pd.DataFrame]()
    places = list(range(s.shots - s.tested + 1, s.shots + 1))

    def add(reader: str, examples: str, right: Sequence[float]) -> None:
        rows.append(pd.DataFrame({"reader": reader, "examples": examples, "shown": places, "right": right}))

    add("majority", "the same", majority(labels, places))
    learnt = (drawn.axis.scores(bench.halves.fit_states) > 0).astype(int)
    for name in TEXT:
        fit, shown = bench.features[name]
        add(name, "the same", [float(right) for right in after_examples(shown[drawn.which], labels, places)])
        guessed = fitted(fit, learnt).predict(shown[drawn.which[places]])
        add(name, "half of all", (guessed == labels[places]).astype(float).tolist())
    for name, model in (models or {}).items():
        add(name, "the same", model.right(drawn, places))
    states = bench.halves.test_states[drawn.which] + drawn.noise[:, None] * drawn.axis.direction
    seen = standardised(bench.halves.fit_states, states)
    add("state", "the same", [float(right) for right in after_examples(seen, labels, places)])
    return pd.concat(rows, ignore_index=True)


def twins(bench: Bench, drawn: Drawn, context: int) -> pd.DataFrame:
    """Return what the model says of one sentence with noise of one sign and of the other, all else being equal."""
    flipped, n = bool(context % 2), bench.settings.shots
    before, past = bench.write(drawn, flipped, n), bench.model.new_past()
    shown = drawn.noise[:n].tolist()
    bench.model.run([before.tokens], write=written(bench, drawn, [before], [shown]), past=past)
    size, rows = bench.settings.noise * drawn.axis.spread, list[dict[str, Any]]()
    for at in bench.others(drawn, context):
        one = _with_sentence(before, bench, int(at))
        pair = TokenBatch.from_rows([one.tokens] * 2, pad_left=True)
        run = bench.model.run(
            pair,
            write=written(bench, drawn, [one] * 2, [[*shown, size], [*shown, -size]]),
            # Which label is likelier is all that is asked here: two columns of the unembedding, not the vocabulary.
            logits=Logits(columns(torch.full((2, 1), len(one.tokens) - 1)), torch.tensor(bench.wording.labels)),
            past=past.fork([0, 0]),
        )
        text = float(drawn.axis.scores(bench.halves.test_states[[int(at)]])[0])
        labels = np.array([int(text + size > 0), int(text - size > 0)]) ^ int(flipped)
        right = said(_whole(run.logits)[:, 0], (0, 1), labels)["right"]
        rows.append(
            {
                "sentence": bench.id_of(int(at)),
                "right_up": float(right[0]),
                "right_down": float(right[1]),
                "both_right": float(right[0] == 1 and right[1] == 1),
                "says_up": float((right[0] + 1 - right[1]) / 2),
            }
        )
    return pd.DataFrame(rows)


def receipt(bench: Bench, drawn: Drawn) -> pd.DataFrame:
    """Return whether the noise arrived: at the sentences' tokens the amount asked for, elsewhere nothing at all."""
    row = bench.write(drawn, flipped=False)
    write = written(bench, drawn, [row], [drawn.noise.tolist()])
    clean, noisy = (bench.model.run([row.tokens], read=[bench.site], write=w)[bench.site][0] for w in ({}, write))
    asked = torch.zeros(len(row.tokens), dtype=torch.double)
    for (start, stop), size in zip(row.spans, drawn.noise.tolist(), strict=True):
        asked[start:stop] = size
    axis = torch.tensor(drawn.axis.direction)
    change, on = noisy.double() - clean.double(), asked != 0
    error = (change - asked[:, None] * axis).norm(dim=1)[on]
    return pd.DataFrame(
        [
            {
                # Of single tokens nothing is asked: noise near 0 is lost in the rounding of a large activation.
                "receipt_error": float(error.norm() / asked.norm()),
                "elsewhere": float(change[~on].abs().max()),
                "noise_size": float(asked[on].abs().mean() / clean[on].norm(dim=1).mean()),
                "noisy_tokens": int(on.sum()),
            }
        ]
    )


def _with_sentence(before: Episode, bench: Bench, at: int) -> Episode:
    start = len(before.tokens)
    tokens = (*before.tokens, *bench.tokens[at], *bench.wording.cue)
    spans = (*before.spans, (start, start + len(bench.tokens[at])))
    return Episode(tokens, spans, (*before.cues, len(tokens) - 1))


def _whole(logits: Tensor | None) -> Tensor:
    assert logits is not None  # they were asked for
    return logits
