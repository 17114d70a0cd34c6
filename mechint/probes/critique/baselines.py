"""What tells wrong from true rows without looking into the model, learnt and tested on the same problems as the probes.

    length      tokens of a row: the same in twins, not in natural errors
    literal     which tokens the result is made of, each with its place from the end
    words       TF-IDF of words and pairs of words of the whole text
    surprisal   -log p(result | what is before it) in nats: the model's own surprise, so no surface, but a reason why a
                probe may succeed that has nothing to do with a check (see `scores.partial_auroc`)

Numbers go through the probe of `reading`, texts through a logistic regression on TF-IDF. The embedding at R is a
baseline too; it is recorded as a site, `embed`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.capture.activations import Activations
from mechint.errors import PromptError
from mechint.model.base import Model
from mechint.probes.critique.questions import Question
from mechint.probes.critique.reading import estimates, probe_scores
from mechint.probes.critique.scores import FOLDS, RESAMPLES, blocks_of, out_of_fold, scored
from mechint.probes.critique.shared_prefixes import Answers
from mechint.prompts import require_apart
from mechint.prompts.reasoning import TokenTwins
from mechint.statistics import derive_seed
from mechint.vectors.samples import Samples

Features = list[str] | np.ndarray


@dataclass(frozen=True, eq=False)
class Baseline:
    """Something that is known of every row: a text, or a number such as the index of its step."""

    name: str
    train: Features
    """Of the training rows, in the order of their recording."""
    test: Features
    surface: bool = True
    """Whether it is known without the model; the best of those is the bar for a signal."""


def twin_baselines(train: TokenTwins, test: TokenTwins, tokenizer: Any) -> tuple[Baseline, ...]:
    """Return length, literal and words of two sets of twins, rows in the order of `record_twins`."""
    rows = [(*twins.wrong, *twins.true) for twins in (train, test)]
    lengths = [np.array([len(row) for row in one], dtype=float) for one in rows]
    words = [[str(tokenizer.decode(list(row))) for row in one] for one in rows]
    return (
        Baseline("length", lengths[0], lengths[1]),
        Baseline("literal", _literals(train), _literals(test)),
        Baseline("words", words[0], words[1]),
    )


def surprisal(model: Model, twins: TokenTwins) -> Float[np.ndarray, " sample"]:
    """Return -log p(result | what is before it) in nats of every row, wrong rows first, as `record_twins` has them.

    The result is counted from its first token that differs between twins: what is before is as likely in both.
    """
    first = _first_differing(twins)
    questions = [
        Question(row[:start], row[start : end + 1])
        for rows in (twins.wrong, twins.true)
        for row, start, end in zip(rows, first, twins.result, strict=True)
    ]
    return -Answers(model, questions)()


def compare(
    baselines: Sequence[Baseline],
    train: Activations,
    test: Activations,
    *,
    blocks: Mapping[str, str] | None = None,
    folds: int = FOLDS,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how well each baseline tells wrong from true rows.

    Args:
        baselines: at least one.
        train: labels and problems of the training rows, and the same folds of them as in `reading.read`.
        test: labels and problems of the test rows.
        blocks: as in `reading.read`.
        folds: of the training problems.
        n_resamples: draws of intervals and p.
        seed: of folds and draws.

    Returns:
        One row each: baseline, surface, cv_auroc; auroc, low, high, p and n on the test.

    Raises:
        PromptError: the recordings share a problem, or have one side only, or a baseline has another number of rows.
    """
    require_apart(train.groups, test.groups, "training and test data")
    fitted, asked = (Samples.of(one, one.sites[0]) for one in (train, test))
    cross_validated, uncut = list[float](), blocks_of(train.groups, blocks)
    found = []
    for one in baselines:
        for rows, samples in ((one.train, fitted), (one.test, asked)):
            if len(rows) != len(samples):
                raise PromptError(f"{len(rows)} rows of the baseline {one.name!r} and {len(samples)} recorded ones.")
        learn = _learning(one.train, fitted)
        cross_validated.append(out_of_fold(fitted, learn, folds=folds, seed=seed, blocks=uncut)[0])
        scores = _scores(one.train, fitted, one.test)
        own = derive_seed(seed, one.name)
        found.append(scored(scores, asked.y, asked.groups, n_resamples=n_resamples, seed=own))
    table = estimates([one.name for one in baselines], found, "baseline", "auroc")
    table.insert(1, "surface", [one.surface for one in baselines])
    table.insert(2, "cv_auroc", cross_validated)
    return table


def _learning(rows: Features, samples: Samples) -> Any:
    def learn(fitted: np.ndarray, asked: np.ndarray) -> np.ndarray:
        return _scores(_picked(rows, fitted), samples.pick(fitted), _picked(rows, asked))

    return learn


def _picked(rows: Features, which: np.ndarray) -> Features:
    return rows[which] if isinstance(rows, np.ndarray) else [rows[i] for i in which]


def _scores(rows: Features, samples: Samples, asked: Features) -> np.ndarray:
    """Learn from some rows, whose labels the samples have, and score others."""
    if isinstance(rows, np.ndarray) and isinstance(asked, np.ndarray):
        return probe_scores(Samples(rows[:, None], samples.y, samples.groups, samples.pairs), asked[:, None])
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    probe = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]"), LogisticRegression(C=10.0, max_iter=2000)
    )
    return probe.fit(rows, samples.y).decision_function(asked)


def _first_differing(twins: TokenTwins) -> list[int]:
    pairs = zip(twins.true, twins.wrong, strict=True)
    return [next(at for at, (a, b) in enumerate(zip(*rows, strict=True)) if a != b) for rows in pairs]


def _literals(twins: TokenTwins) -> list[str]:
    """Write the tokens of every result as words: each by itself, and with its distance from the last."""
    places = list(zip(_first_differing(twins), twins.result, strict=True))
    return [
        " ".join(f"t{row[at]} t{row[at]}at{end - at}" for at in range(start, end + 1))
        for rows in (twins.wrong, twins.true)
        for row, (start, end) in zip(rows, places, strict=True)
    ]
