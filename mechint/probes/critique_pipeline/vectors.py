"""The critique vector of every block, how well it is known, what it says, and what tells its two sides apart.

    a_i^l = mean over the tokens of the final answer of the output of block l               (float32)
    v_l   = mean_i a_i^l(injected) - mean_i a_i^l(original)                      (sums in float64, not normalised)

(arXiv 2603.16331, whose code averages, subtracts and stores in bfloat16.) The output of a block is what stands before
the next one, so the last block's is not normed either, and v_l can be added where it was read. A linear probe with
folds by problem stands beside what length and words of the answers alone tell: the two sides are different texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from mechint.errors import InterventionError
from mechint.model.base import Model
from mechint.positions import columns
from mechint.sites import Site
from mechint.statistics import generator
from mechint.statistics.drawn import percentiles
from mechint.vectors.auroc import auroc, auroc_draws
from mechint.vectors.vector import SteeringVector

TOP_TOKENS = 10
_HALVES = 20
"""Random halves of the problems whose vectors are compared."""
_STRENGTH = 0.1
"""Of the probe: C of a logistic regression on standardised activations."""


@dataclass(frozen=True)
class Answers:
    """Final answers of both sides, each injected one beside the original of the same problem."""

    groups: tuple[str, ...]
    """The problem of each pair."""
    rows: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    """Injected and original row of each."""
    starts: tuple[tuple[int, int], ...]
    """Where the final answer begins in each."""
    texts: tuple[tuple[str, str], ...]
    """The final answers themselves."""

    def __len__(self) -> int:
        return len(self.rows)


@torch.no_grad()
def answer_means(
    model: Model, answers: Answers, layers: Sequence[int]
) -> tuple[Float[np.ndarray, "sample layer d_model"], Float[np.ndarray, " layer"]]:
    """Return the mean output of each block over each final answer, pair by pair, and the mean |h| of these tokens.

    Rows are read one by one: answers are of any length, and a mean over padding would not be one.
    """
    sites = [Site("resid_post", layer) for layer in layers]
    means: list[np.ndarray] = []
    length, tokens = np.zeros(len(layers)), 0
    for pair, starts in zip(answers.rows, answers.starts, strict=True):
        for row, start in zip(pair, starts, strict=True):
            at = columns(torch.arange(start, len(row))[None])
            run = model.run([list(row)], read=dict.fromkeys(sites, at), stop_after=sites[-1])
            read = torch.stack([run[site][0] for site in sites]).float()
            means.append(read.mean(1).cpu().numpy())
            length += read.norm(dim=-1).double().sum(1).cpu().numpy()
            tokens += len(row) - start
    return np.stack(means), length / tokens


def differences(x: Float[np.ndarray, "sample layer d_model"]) -> Float[np.ndarray, "layer d_model"]:
    """Return the mean of the injected rows (0, 2, …) minus that of the original ones (1, 3, …), in float64."""
    return x[0::2].mean(0, dtype=np.float64) - x[1::2].mean(0, dtype=np.float64)


def as_vector(
    direction: Float[np.ndarray, " d_model"], layer: int, length: float, concept: str = "critique"
) -> SteeringVector:
    """Return a direction as a vector at the output of a block.

    Raises:
        InterventionError: the two sides have the same mean there.
    """
    site = Site("resid_post", layer)
    if not np.any(direction):
        raise InterventionError(f"Both sides have the same mean at {site}: there is no vector.")
    values = torch.from_numpy(direction.astype(np.float32))
    return SteeringVector({site: values}, {site: length}, concept, "mean_diff")


def random_direction(like: Float[np.ndarray, " d_model"], draw: int, seed: int) -> Float[np.ndarray, " d_model"]:
    """Return a random direction of the same length."""
    direction = generator(seed, "random direction", draw).normal(size=len(like))
    return direction * (np.linalg.norm(like) / np.linalg.norm(direction))


def split_half(x: Float[np.ndarray, "sample layer d_model"], seed: int) -> Float[np.ndarray, " layer"]:
    """Return the mean cosine of vectors from two random halves of the pairs; near 0 for noise."""
    n = len(x) // 2
    found: list[np.ndarray] = []
    for half in range(_HALVES):
        order = generator(seed, "half", half).permutation(n)
        a, b = (differences(x[np.stack([2 * part, 2 * part + 1], 1).ravel()]) for part in np.array_split(order, 2))
        with np.errstate(invalid="ignore"):
            found.append((a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)))
    return np.mean(found, axis=0)


@torch.no_grad()
def lens(model: Model, direction: Float[np.ndarray, " d_model"], layer: int) -> pd.DataFrame:
    """Return the tokens that a direction promotes most, through the unembedding with and without the final norm."""
    v = torch.from_numpy(direction.astype(np.float32))
    norm = model.norm("final")
    ways = {"without": v} | ({} if norm is None else {"with": norm(v[None])[0]})
    rows: list[dict[str, object]] = []
    for way, one in ways.items():
        top = model.unembed(one).float().topk(min(TOP_TOKENS, model.facts.d_vocab))
        for rank, (value, token) in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True)):
            text = str(model.tokenizer.decode([token]))
            rows.append({"layer": layer, "final_norm": way, "place": rank, "token": text, "lens_logit": value})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Held:
    """How well a probe tells the sides apart on problems that it was not fitted on."""

    auroc: float
    low: float
    high: float
    accuracy: float


def probe(x: Float[np.ndarray, "sample width"], groups: Sequence[str], folds: int, seed: int) -> Held:
    """Fit a logistic probe in folds by problem and score it on the held-out ones.

    Args:
        x: rows of injected (0, 2, …) and original (1, 3, …) texts.
        groups: the problem of each pair: both its rows are held out together.
        folds: at most; never more than there are problems.
        seed: of the bootstrap over problems.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    y, owner = sides(len(groups)), np.repeat(np.unique(groups, return_inverse=True)[1], 2)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=1000))
    cut = GroupKFold(min(folds, len(set(groups))))
    scores = np.asarray(cross_val_predict(model, x, y, groups=owner, cv=cut, method="decision_function"))
    low, high = percentiles(auroc_draws(scores, y, owner, seed=seed))
    return Held(auroc(scores, y), low, high, float(((scores > 0) == y).mean()))


def surface(answers: Answers, folds: int, seed: int) -> pd.DataFrame:
    """Return what the number of tokens and the words of the answers tell, in the same folds."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    lengths = [len(row) - start for rows, at in zip(answers.rows, answers.starts, strict=True)
               for row, start in zip(rows, at, strict=True)]  # fmt: skip
    texts = [text for pair in answers.texts for text in pair]
    known: dict[str, np.ndarray] = {"length": np.array(lengths, dtype=float)[:, None]}
    try:
        # Words do not see labels, so that one vocabulary for all folds gives nothing away.
        known["words"] = np.asarray(TfidfVectorizer(token_pattern=r"\S+").fit_transform(texts).todense())
    except ValueError:  # no word in any answer
        known["words"] = np.zeros((len(texts), 1))
    rows: list[dict[str, object]] = []
    for name, x in known.items():
        held = probe(x, answers.groups, folds, seed)
        rows.append(
            {"surface": name, "probe_auroc": held.auroc, "probe_auroc_low": held.low, "probe_auroc_high": held.high}
        )
    return pd.DataFrame(rows)


def sides(pairs: int) -> Int[np.ndarray, " sample"]:
    """Return the labels: 1 injected, 0 original, pair by pair."""
    return np.tile([1, 0], pairs)
