import errno
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechint.errors import OutputError
from mechint.experiment import files

FRAME = pd.DataFrame({"x": [1.0, np.nan], "n": [1, 2], "good": [True, False], "word": ["<bos>", None]})


@given(st.lists(st.tuples(st.floats(), st.integers(-9, 9), st.text(st.characters(exclude_categories=["Cs"])))))
def test_the_hash_of_a_table_survives_the_file(rows):
    frame = files.as_stored(pd.DataFrame(rows, columns=["x", "n", "word"]))

    assert files.content_hash(files.as_stored(frame)) == files.content_hash(frame)


@pytest.mark.parametrize(
    "changed",
    [
        FRAME.assign(x=[1.0, 2.0]),
        FRAME.assign(x=[1.0 + 1e-12, np.nan]),
        FRAME.assign(word=["<bos>", "None"]),
        FRAME.rename(columns={"x": "y"}),
        FRAME[["n", "x", "good", "word"]],
        FRAME.head(1),
    ],
)
def test_the_hash_tells_any_change_of_a_table(changed):
    assert files.content_hash(changed) != files.content_hash(FRAME)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "table.json"
    files.write_atomic(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        files.write_atomic(path, "new")

    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["table.json"]


def test_a_damaged_table_is_an_error_that_says_so(tmp_path):
    buffer = io.BytesIO()
    FRAME.to_parquet(buffer)
    (tmp_path / "t.parquet").write_bytes(buffer.getvalue()[:-20])

    with pytest.raises(OutputError, match="damaged"):
        files.read_frame(tmp_path / "t.parquet")
    with pytest.raises(OutputError, match="missing"):
        files.read_frame(tmp_path / "none.parquet")
