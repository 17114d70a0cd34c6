"""From rows to clusters: sums, and which statistics are defined in the same clusters."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

Clusters = Sequence[str] | Sequence[int] | np.ndarray | None
"""A label for each prompt; None: every prompt is its own cluster."""


def cluster_index(clusters: Clusters, n_rows: int) -> Int[np.ndarray, " prompt"]:
    """Number the clusters from 0 in the order of their labels, so that the order of the rows does not matter.

    Raises:
        ValueError: not one label a row.
    """
    if clusters is None:
        return np.arange(n_rows)
    if len(clusters) != n_rows:
        raise ValueError(f"{len(clusters)} cluster labels for {n_rows} rows of values. Give one label a row.")
    return np.unique(np.asarray(clusters), return_inverse=True)[1]


def cluster_sums(
    values: Float[np.ndarray, "prompt statistic"], index: Int[np.ndarray, " prompt"]
) -> Float[np.ndarray, "cluster statistic"]:
    """Add up the rows of each cluster, NaN counting as nothing.

    Raises:
        ValueError: a value is infinite.
    """
    if np.isinf(values).any():
        raise ValueError(
            f"{int(np.isinf(values).sum())} values are infinite; a mean of them means nothing. Find out why."
        )
    sums = np.zeros((index.max(initial=-1) + 1, values.shape[1]))
    np.add.at(sums, index, np.nan_to_num(values.astype(float)))
    return sums


def same_clusters(
    present: Bool[np.ndarray, "cluster statistic"],
) -> Iterator[tuple[Int[np.ndarray, " statistic"], Int[np.ndarray, " cluster"]]]:
    """Group the statistics that are defined in the same clusters: (their columns, those clusters).

    What is drawn for a statistic then depends on its own clusters only, not on what stands beside it.
    """
    if present.shape[1] == 0:
        return
    patterns, which = np.unique(present, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        yield np.flatnonzero(which.reshape(-1) == number), np.flatnonzero(patterns[:, number])
