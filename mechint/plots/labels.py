"""Where to write the names of points so that they cover neither points nor one another.

Greedy: the names come in order of importance; each takes the first free place around its point, near ones first,
and a name for which there is none is left out (its point keeps its hover text).
"""

from collections.abc import Sequence

import numpy as np

CHARACTER, LINE = 7.6, 17.0
"""Width of a character and height of a line, in pixels, at 12 points."""

_DIRECTIONS = ((1, -1), (1, 1), (-1, -1), (-1, 1), (1, 0), (-1, 0), (0, -1), (0, 1))
_DISTANCES = (6.0, 14.0, 28.0, 46.0, 70.0)

Box = tuple[float, float, float, float]


def place_labels(
    x: Sequence[float],
    y: Sequence[float],
    labels: Sequence[str],
    *,
    size: tuple[float, float],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    obstacles: Sequence[tuple[float, float]] = (),
    lines: Sequence[tuple[float, float, float, float]] = (),
) -> list[tuple[int, float, float]]:
    """Find an offset for each label, most important first.

    Args:
        x: positions of the labelled points.
        y: likewise.
        labels: their names.
        size: width and height of the plotting area in pixels.
        x_range: what the horizontal axis spans.
        y_range: what the vertical axis spans.
        obstacles: further points, in data units, that may not be covered.
        lines: level or upright lines that may not be covered, each as its two ends in data units.

    Returns:
        For each label that found a place: its index, and the offset of its middle in pixels (right, down).

    Examples:
        >>> place_labels([0.0], [0.0], ["L0H0"], size=(100, 100), x_range=(-1, 1), y_range=(-1, 1))
        [(0, 21.2, -14.5)]
    """

    def pixels(u: float, v: float) -> tuple[float, float]:
        return (
            (u - x_range[0]) / (x_range[1] - x_range[0]) * size[0],
            (y_range[1] - v) / (y_range[1] - y_range[0]) * size[1],
        )

    points = [pixels(u, v) for u, v in zip(x, y, strict=True)]
    taken: list[Box] = [(u - 5, v - 5, u + 5, v + 5) for u, v in [*points, *(pixels(u, v) for u, v in obstacles)]]
    for x0, y0, x1, y1 in lines:
        (left, bottom), (right, top) = pixels(x0, y0), pixels(x1, y1)
        taken.append((min(left, right) - 2, min(top, bottom) - 2, max(left, right) + 2, max(top, bottom) + 2))
    placed: list[tuple[int, float, float]] = []
    for index, (u, v) in enumerate(points):
        half_width, half_height = len(labels[index]) * CHARACTER / 2, LINE / 2
        for distance in _DISTANCES:
            found = False
            for right, down in _DIRECTIONS:
                dx, dy = right * (distance + half_width), down * (distance + half_height)
                box = (u + dx - half_width, v + dy - half_height, u + dx + half_width, v + dy + half_height)
                if _inside(box, size) and not any(_overlap(box, other) for other in taken):
                    taken.append(box)
                    placed.append((index, round(dx, 1), round(dy, 1)))
                    found = True
                    break
            if found:
                break
    return placed


def span(values: Sequence[float], also: Sequence[float] = (), margin: float = 0.08) -> tuple[float, float]:
    """Return an axis range around these values with some air at both ends.

    Examples:
        >>> span([0.0, 10.0], margin=0.1)
        (-1.0, 11.0)
        >>> span([float("nan")])
        (-1.0, 1.0)
    """
    finite = np.asarray([*values, *also], dtype=float)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return -1.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    air = (high - low) * margin or max(abs(high), 1.0) * margin
    return low - air, high + air


def _inside(box: Box, size: tuple[float, float]) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
