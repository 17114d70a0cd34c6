"""Probabilities of being right that are learnt: from the hidden state, or from question and answer alone.

Every probability is of a fold whose facts were not learnt from. In folds of the training part of each is chosen the
probe's block (C = 0.1, as in `critique.reading`), and how strongly the words are held back (C of 0.1, 1 or 10). Words
are TF-IDF of words and pairs of words of question and answer, beside their lengths and how likely the answer is when
nothing was asked. They need the choice: a reader who is held back too much loses to a model that says no more than the
question does.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mechint.statistics import derive_seed
from mechint.vectors.auroc import auroc

STATE_C, WORDS_C = 0.1, (0.1, 1.0, 10.0)
Folds = list[tuple[np.ndarray, np.ndarray]]


def folds_of(y: Int[np.ndarray, " sample"], groups: Sequence[str], folds: int, seed: int) -> Folds:
    """Divide rows into folds that cut no group; none where one side has fewer than two groups."""
    from sklearn.model_selection import StratifiedGroupKFold

    names = np.asarray(groups)
    n = min([folds, *(len(np.unique(names[y == side])) for side in (0, 1))])
    if n < 2:
        return []
    splitter = StratifiedGroupKFold(n, shuffle=True, random_state=derive_seed(seed, "folds") % 2**32)
    found = list(splitter.split(y, y, names))
    return [one for one in found if len(np.unique(y[one[0]])) == 2]


def out_of_fold(
    y: Int[np.ndarray, " sample"],
    folds: Folds,
    learn: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Float[np.ndarray, " sample"]:
    """Return p(right) of each row, learnt from the others; the share that is right where nothing could be learnt."""
    p = np.full(len(y), float(np.mean(y)))
    for fitted, asked in folds:
        p[asked] = learn(fitted, asked)
    return p


def input_only(
    texts: Sequence[str],
    numbers: Float[np.ndarray, "sample width"],
    y: Int[np.ndarray, " sample"],
    groups: Sequence[str],
    folds: Folds,
    *,
    inner_folds: int,
    seed: int,
) -> Float[np.ndarray, " sample"]:
    """Return p(right) from question and answer as they are written, and numbers about them."""
    names = np.asarray(groups)

    def predict(fitted: np.ndarray, asked: np.ndarray, strength: float) -> np.ndarray:
        first, second = _features(texts, numbers, fitted, asked)
        return _logistic(first, y[fitted], second, strength)

    def learn(fitted: np.ndarray, asked: np.ndarray) -> np.ndarray:
        inner = folds_of(y[fitted], names[fitted].tolist(), inner_folds, derive_seed(seed, "inner"))
        pairs = [(fitted[a], fitted[b]) for a, b in inner]
        found = [_mean([auroc(predict(a, b, strength), y[b]) for a, b in pairs]) for strength in WORDS_C]
        return predict(fitted, asked, WORDS_C[int(np.argmax(found))])

    return out_of_fold(y, folds, learn)


def _features(
    texts: Sequence[str], numbers: Float[np.ndarray, "sample width"], fitted: np.ndarray, asked: np.ndarray
) -> tuple[Any, Any]:
    """Return words and numbers of rows to learn from, and of rows asked for, on the scale of the first."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import StandardScaler

    # Words that come once tell nothing of other texts, and shorten what the others weigh.
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", min_df=2)
    scaler = StandardScaler().fit(numbers[fitted])
    first = words.fit_transform([texts[i] for i in fitted])
    second = words.transform([texts[i] for i in asked])
    return (
        hstack([first, csr_matrix(scaler.transform(numbers[fitted]))]).tocsr(),
        hstack([second, csr_matrix(scaler.transform(numbers[asked]))]).tocsr(),
    )


def hidden_state(
    streams: Float[np.ndarray, "sample layer d_model"],
    y: Int[np.ndarray, " sample"],
    groups: Sequence[str],
    folds: Folds,
    *,
    inner_folds: int,
    seed: int,
) -> tuple[Float[np.ndarray, " sample"], Int[np.ndarray, " sample"]]:
    """Return p(right) from the stream, and the place of the block that was chosen for each row; -1 where none was."""
    chosen = np.full(len(y), -1)
    names = np.asarray(groups)

    def learn(fitted: np.ndarray, asked: np.ndarray) -> np.ndarray:
        inner = folds_of(y[fitted], names[fitted].tolist(), inner_folds, derive_seed(seed, "inner"))
        found = [_held_out(streams[fitted, layer], y[fitted], inner) for layer in range(streams.shape[1])]
        best = int(np.argmax(found))
        chosen[asked] = best
        return _standardised(streams[fitted, best], y[fitted], streams[asked, best])

    return out_of_fold(y, folds, learn), chosen


def combined(
    columns: Float[np.ndarray, "sample width"], y: Int[np.ndarray, " sample"], folds: Folds
) -> Float[np.ndarray, " sample"]:
    """Return p(right) from a few numbers together."""
    return out_of_fold(y, folds, lambda fitted, asked: _standardised(columns[fitted], y[fitted], columns[asked], 1.0))


def _held_out(x: np.ndarray, y: np.ndarray, folds: Folds) -> float:
    return _mean([auroc(_standardised(x[a], y[a], x[b]), y[b]) for a, b in folds])


def _mean(aurocs: Sequence[float]) -> float:
    """Return the mean over folds; chance where there is none."""
    return float(np.nanmean(aurocs)) if len(aurocs) and not np.isnan(aurocs).all() else 0.5


def _standardised(x: np.ndarray, y: np.ndarray, asked: np.ndarray, strength: float = STATE_C) -> np.ndarray:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    return _logistic(scaler.transform(x), y, scaler.transform(asked), strength)


def _logistic(x: Any, y: np.ndarray, asked: Any, strength: float) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000).fit(x, y).predict_proba(asked)[:, 1]
