"""Graded questions about injections: where, how strong, which code, was it meant? Reported, and no gate of a claim.

    locate      which of five sentences: chance 1/5
    stronger    which of two, doses α and α/2: chance 1/2; in both orders, so a letter's prior is worth nothing
    codebook    ±u into four marked sentences, the mark of a fifth: right with both +u and -u in the fifth on the same
                tokens, where a reader of the text gets 0 and a coin at most 1/4
    tamper      log odds that a word was meant, with that word's direction injected beforehand less with another's

Each with concepts and, as the control, with isotropic directions of the same length. Answers are corrected for what is
said without an injection, where that is one prompt; the crossed bootstrap draws concepts and arrangements.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.probes.introspection.directions import random_direction
from mechint.probes.introspection.injection import Answer, Reader, Row
from mechint.prompts.introspection import graded
from mechint.prompts.introspection.graded import LETTERS, N_ARRANGEMENTS, Posed
from mechint.statistics.crossed import Crossed

Vectors = Float[Tensor, "concept width"]
_CODES = (("A", "B", "B", "A"), ("B", "A", "A", "B"))
_SIGNS = (1, -1, -1, 1)
"""Of what is injected into the four marked sentences: the first mark of each code belongs to +u."""


def graded_questions(
    reader: Reader, concepts: Sequence[str], units: Vectors, dose: float, seed: int = 0
) -> pd.DataFrame:
    """Ask all graded questions, and return one row a question and kind of direction.

    Args:
        reader: of the model and site.
        concepts: words.
        units: their directions.
        dose: ‖what is added‖ / ‖h‖.
        seed: of random directions and of the bootstrap.
    """
    random = torch.stack([random_direction(units.shape[1], seed, "graded", concept) for concept in concepts])
    draws = Crossed(len(concepts), N_ARRANGEMENTS, seed=seed)
    told: list[dict[str, Any]] = []
    for injected, vectors in (("concept", units), ("random", random)):
        tasks: tuple[tuple[str, float, Callable[[], np.ndarray]], ...] = (
            ("locate", 1 / len(LETTERS), lambda v=vectors: _locate(reader, dose * v)),
            ("stronger", 0.5, lambda v=vectors: _stronger(reader, dose * v)),
            ("codebook", 0.25, lambda v=vectors: _codebook(reader, dose * v)),
            ("tamper", 0.0, lambda v=vectors: _tamper(reader, concepts, dose * v)),
        )
        for task, chance, measure in tasks:
            found = draws.mean(measure())
            line = {"task": task, "injected": injected, "value": found.value, "low": found.low, "high": found.high}
            told.append(line | {"chance": chance, "n": len(concepts) * N_ARRANGEMENTS})
    return pd.DataFrame(told)


def _row(posed: Posed, places: Sequence[tuple[int, Tensor]]) -> Row:
    """Return a row with vectors injected into some of its sentences."""
    return Row(posed.asked, also=tuple((vector, *posed.spans[place]) for place, vector in places))


def _cells(answers: Sequence[float], n_concepts: int) -> Float[np.ndarray, "concept carrier"]:
    """Return numbers that were listed arrangement by arrangement, concept by concept."""
    return np.array(answers, dtype=float).reshape(N_ARRANGEMENTS, n_concepts, -1).mean(2).T


def _locate(reader: Reader, vectors: Vectors) -> Float[np.ndarray, "concept carrier"]:
    right: list[float] = []
    for arrangement in range(N_ARRANGEMENTS):
        posed = graded.locate(reader.model.tokenizer, arrangement)
        plain = reader.answers([Row(posed.asked)])[0]
        places = range(len(posed.spans))
        answers = reader.answers([_row(posed, [(place, vector)]) for vector in vectors for place in places])
        chosen = [int((answer.log_probs - plain.log_probs).argmax()) for answer in answers]
        right += [float(letter == i % len(places)) for i, letter in enumerate(chosen)]
    return _cells(right, len(vectors))


def _stronger(reader: Reader, vectors: Vectors) -> Float[np.ndarray, "concept carrier"]:
    right: list[float] = []
    for arrangement in range(N_ARRANGEMENTS):
        posed = graded.stronger(reader.model.tokenizer, arrangement)
        rows = [_row(posed, [(strong, vector), (1 - strong, vector / 2)]) for vector in vectors for strong in (0, 1)]
        for i, answer in enumerate(reader.answers(rows)):
            right.append(float(int(answer.log_probs.argmax()) == i % 2))
    return _cells(right, len(vectors))


def _codebook(reader: Reader, vectors: Vectors) -> Float[np.ndarray, "concept carrier"]:
    both: list[float] = []
    for arrangement in range(N_ARRANGEMENTS):
        by_code: list[list[Answer]] = []
        for marks in _CODES:
            posed = graded.codebook(reader.model.tokenizer, arrangement, marks)
            rows = [
                _row(posed, [*((i, sign * v) for i, sign in enumerate(_SIGNS)), (len(_SIGNS), asked * v)])
                for v in vectors
                for asked in (1, -1)
            ]
            by_code.append(reader.answers(rows))
        for k in range(len(vectors)):
            for code, answers in enumerate(by_code):
                said = [int(answer.log_probs.argmax()) for answer in answers[2 * k : 2 * k + 2]]
                both.append(float(said == [code, 1 - code]))
    return _cells(both, len(vectors))


def _tamper(reader: Reader, concepts: Sequence[str], vectors: Vectors) -> Float[np.ndarray, "concept carrier"]:
    rise: list[float] = []
    for arrangement in range(N_ARRANGEMENTS):
        posed = [graded.tamper(reader.model.tokenizer, arrangement, word) for word in concepts]
        own = [_row(one, [(0, vector)]) for one, vector in zip(posed, vectors, strict=True)]
        other = [_row(one, [(0, vector)]) for one, vector in zip(posed, vectors.roll(-1, 0), strict=True)]
        meant = [float(answer.log_probs[0] - answer.log_probs[1]) for answer in reader.answers([*own, *other])]
        rise += [a - b for a, b in zip(meant[: len(posed)], meant[len(posed) :], strict=True)]
    return _cells(rise, len(concepts))
