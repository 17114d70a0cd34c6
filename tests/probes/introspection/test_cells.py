"""Answers as arrays: every cell where it belongs, whatever the order of the rows, and none missing or there twice."""

import numpy as np
import pandas as pd
import pytest

from mechint.errors import OutputError
from mechint.probes.introspection.battery import CONCEPT, NONE
from mechint.probes.introspection.cells import Cells

ROWS = pd.DataFrame(
    [("detect", NONE, False, "", at, float(at), "no") for at in (0, 1, 2)]
    + [("detect", CONCEPT, False, name, at, 10.0 * place + at, "yes" if place else "no")
       for place, name in enumerate(("ape", "bee")) for at in (0, 1, 2)],
    columns=["question", "arm", "held", "concept", "carrier", "yes_no", "said"],
)  # fmt: skip


def test_a_cell_is_that_of_its_concept_and_carrier_and_plain_texts_are_repeated() -> None:
    cells = Cells(ROWS.sample(frac=1, random_state=0))

    assert cells.numbers("detect", CONCEPT, "yes_no").tolist() == [[0, 1, 2], [10, 11, 12]]
    assert cells.numbers("detect", NONE, "yes_no").tolist() == [[0, 1, 2], [0, 1, 2]]
    assert cells.shift("detect", CONCEPT).tolist() == [[0, 0, 0], [10, 10, 10]]
    assert cells.said("detect", CONCEPT, "yes").tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    "rows",
    [
        ROWS.iloc[:-1],
        pd.concat([ROWS, ROWS.iloc[[-1]]]),
        ROWS.assign(yes_no=np.where(ROWS.index == 8, np.nan, ROWS["yes_no"])),
        ROWS.assign(concept=np.where(ROWS.index == 8, "", ROWS["concept"])),
    ],
    ids=["missing", "twice", "not a number", "of no concept"],
)
def test_a_cell_that_is_missing_or_there_twice_is_an_error(rows: pd.DataFrame) -> None:
    with pytest.raises(OutputError, match="missing in some cells, or there twice"):
        Cells(rows).of("detect", CONCEPT, "yes_no")


def test_what_was_not_asked_is_an_error() -> None:
    with pytest.raises(OutputError, match="was not asked"):
        Cells(ROWS).of("identify", CONCEPT, "yes_no")
