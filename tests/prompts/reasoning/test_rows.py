import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechint.errors import PromptError
from mechint.prompts.reasoning import (
    BigBenchRow,
    ErrorTrace,
    ProcessBenchRow,
    load_bbm,
    load_error_traces,
    load_processbench,
    load_published_pairs,
)
from mechint.prompts.reasoning.natural_errors import natural_pairs

TRACE = {"id": 0, "question": "How many?", "ground_truth": "7", "search": "First, 3.\n\nSo 3 + 4 = 8.\n\n"}
BIG_BENCH = {"input": "1 + 2 + 3 =", "steps": ["A", "B"], "target": "6", "answer": "7", "mistake_index": 1}
PROCESS = {
    "id": "gsm8k-0",
    "generator": "someone",
    "problem": "How many?",
    "steps": ["A", "B"],
    "final_answer_correct": False,
    "label": 1,
}
KINDS = [(load_error_traces, TRACE), (load_bbm, BIG_BENCH), (load_processbench, PROCESS)]
EVERY_KIND = pytest.mark.parametrize(("load", "row"), KINDS, ids=["traces", "big bench", "processbench"])


def written(folder: Path, *lines: Any) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_rows_have_types(tmp_path: Path) -> None:
    assert load_error_traces(written(tmp_path, TRACE)).rows == (ErrorTrace(**TRACE),)
    assert load_bbm(written(tmp_path, BIG_BENCH)).rows == (BigBenchRow(**{**BIG_BENCH, "steps": ("A", "B")}),)
    assert load_processbench(written(tmp_path, PROCESS)).rows == (ProcessBenchRow(**{**PROCESS, "steps": ("A", "B")}),)


def test_no_mistake_is_written_in_either_way(tmp_path: Path) -> None:
    sound = load_bbm(written(tmp_path, {**BIG_BENCH, "mistake_index": None, "answer": None})).solutions()
    same = load_processbench(written(tmp_path, {**PROCESS, "label": -1})).solutions()

    assert sound == same
    assert (sound[0].mistake, sound[0].answer_right) == (None, False)


def test_a_json_array_is_read_like_lines(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps([PROCESS, {**PROCESS, "id": "x"}], indent=1), encoding="utf-8")

    assert [row.id for row in load_processbench(path).rows] == ["gsm8k-0", "x"]


@EVERY_KIND
def test_blank_lines_and_the_last_line_end_make_no_difference(
    tmp_path: Path, load: Callable[[Path], Any], row: dict[str, Any]
) -> None:
    assert load(written(tmp_path, row)) == load(written(tmp_path, "", row, "  ", ""))


@EVERY_KIND
def test_bad_lines_are_named(tmp_path: Path, load: Callable[[Path], Any], row: dict[str, Any]) -> None:
    first = next(iter(row))
    cases = [
        ("{", r"line 2: no JSON: .* at column 2\. Give one object a line"),
        ("[1]", rf"line 2: expected an object with {first}, "),
        (
            {key: row[key] for key in row if key != first},
            rf"line 2: missing fields '{first}'\. Expected exactly {first}",
        ),
        ({**row, "colour": 1}, r"line 2: unknown fields 'colour'"),
        ({**row, first: 1.5}, rf"line 2: '{first}' is 1\.5; expected "),
        ("[" * 100_000, r"line 2: no JSON that can be read: nested too deeply"),
    ]
    for line, message in cases:
        with pytest.raises(PromptError, match=message):
            load(written(tmp_path, row, line))


@EVERY_KIND
def test_empty_missing_and_binary_files_are_refused(
    tmp_path: Path, load: Callable[[Path], Any], row: dict[str, Any]
) -> None:
    with pytest.raises(PromptError, match=r"holds no rows\. Give one JSON object a line"):
        load(written(tmp_path, "\n"))
    with pytest.raises(PromptError, match="There is no file"):
        load(tmp_path / "none.jsonl")
    (tmp_path / "mine.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(PromptError, match="not UTF-8"):
        load(tmp_path / "mine.jsonl")


@pytest.mark.parametrize(
    ("load", "row", "message"),
    [
        (load_error_traces, {**TRACE, "id": True}, "'id' is True; expected a whole number"),
        (load_bbm, {**BIG_BENCH, "mistake_index": 2}, r"line 1: the mistake is in step 2 and there are 2 steps"),
        (load_bbm, {**BIG_BENCH, "mistake_index": -1}, "or null"),
        (load_bbm, {**BIG_BENCH, "steps": []}, "a list of at least one text"),
        (load_bbm, {**BIG_BENCH, "steps": ["A", 3]}, "a list of at least one text"),
        (load_processbench, {**PROCESS, "label": None}, "a whole number, -1 or more"),
        (load_processbench, {**PROCESS, "label": 5}, "the mistake is in step 5"),
        (load_processbench, {**PROCESS, "final_answer_correct": 1}, "true or false"),
    ],
)
def test_fields_that_mean_nothing_are_refused(
    tmp_path: Path, load: Callable[[Path], Any], row: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        load(written(tmp_path, row))


def test_ids_that_occur_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="2 rows share 1 ids"):
        load_error_traces(written(tmp_path, TRACE, TRACE))


def test_only_the_first_five_problems_are_listed(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"line 5: no JSON[^\n]*\n… and 2 more\.$"):
        load_bbm(written(tmp_path, *["{"] * 7))


def test_published_pairs_are_read_from_either_kind_of_file(tmp_path: Path) -> None:
    steps = {**BIG_BENCH, "steps": ["A = (1 + 2) = 3.", "A + 3 = 3 + 3 = 7. So the answer is 7"], "mistake_index": 1}
    traces, natural = (load_published_pairs(written(tmp_path, row)) for row in (TRACE, steps))

    assert (traces[0].wrong, traces[0].true) == ("8", "7")
    assert (natural[0].wrong, natural[0].true, natural[0].step) == ("7", "6", 1)
    assert natural[0].text(wrong=True).endswith("A = (1 + 2) = 3.\nA + 3 = 3 + 3 = 7")
    with pytest.raises(PromptError, match=r"As error traces: (.|\n)*As BIG-Bench Mistake: "):
        load_published_pairs(written(tmp_path, PROCESS))
    with pytest.raises(PromptError, match="no row has a pair"):
        load_published_pairs(written(tmp_path, BIG_BENCH))


@pytest.mark.parametrize(
    ("step", "found"),
    [
        ("X = (5 + 2) = 6 = 6", ("5 + 2", "6", "7")),  # in the middle of a chain
        ("X = 4 / 8 = 0.4.", ("4 / 8", "0.4", "0.5")),
        ("X = 1 / 3 = 0.33.", None),  # rounded, not wrong
        ("X = 7 / 2 = 3.", None),  # cannot be written as an integer
        ("X = 2 + 2 = 5 apples", None),  # the number is not the whole of its side
        ("X = 2 + 2 = 4.", None),
    ],
)
def test_the_first_false_result_is_recomputed(step: str, found: Any) -> None:
    pairs = natural_pairs([("q", ["All is well: 1 + 1 = 2.", step, "X = 3 + 3 = 7."])], "n")
    later = pairs and pairs[0].step == 2

    if found is None:
        assert later or not pairs
    else:
        assert (pairs[0].expression.strip("()"), pairs[0].wrong, pairs[0].true) == found
        assert pairs[0].step == 1
