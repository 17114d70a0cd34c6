from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechint.errors import OutputError, PromptError
from mechint.prompts import Prompt, PromptSet, ioi, read, write

GOOD = '{"id": "a", "prompt": "one", "target": " two"}'


def made(folder: Path, content: str | bytes, name: str = "mine.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


TEXT = st.text(min_size=1).filter(str.strip)


@given(st.lists(st.tuples(TEXT, st.none() | TEXT, st.none() | TEXT, st.none() | TEXT), min_size=1, max_size=5))
def test_what_is_written_is_read_back_whatever_the_text(tmp_path_factory, rows) -> None:
    prompts = PromptSet(
        "x",
        tuple(
            Prompt(str(i), f"{a}.", b, counterfactual=None if c is None else f"{c}!{i}", cluster=d)
            for i, (a, b, c, d) in enumerate(rows)
        ),
    )
    path = tmp_path_factory.mktemp("prompts") / "x.jsonl"

    assert read(write(path, prompts)) == prompts


def test_a_set_survives_the_file_with_its_hash(tmp_path: Path) -> None:
    prompts = ioi(n=5)

    assert read(write(tmp_path / "ioi.jsonl", prompts)) == prompts
    assert read(tmp_path / "ioi.jsonl").content_hash == prompts.content_hash


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = made(tmp_path, "precious")

    with pytest.raises(OutputError, match=r"exists.*nothing is overwritten"):
        write(path, ioi(n=1))

    assert path.read_text() == "precious"


def test_writing_nothing_or_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="no prompts"):
        write(tmp_path / "x.jsonl", ioi(n=1)[:0])
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "missing" / "x.jsonl", ioi(n=1))


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_marks_line_ends_and_blank_lines_make_no_difference(tmp_path: Path, mark: bytes, ends: str) -> None:
    content = ends.join(["", GOOD, "  ", GOOD.replace('"a"', '"b"')])

    prompts = read(made(tmp_path, mark + content.encode()))

    assert prompts == PromptSet("mine", (Prompt("a", "one", " two"), Prompt("b", "one", " two")))


def test_a_line_separator_inside_a_text_is_text(tmp_path: Path) -> None:
    assert read(made(tmp_path, GOOD.replace("one", "one\u2028more")))[0].prompt == "one\u2028more"


def test_ids_may_be_numbers_or_left_out(tmp_path: Path) -> None:
    path = made(tmp_path, '{"prompt": "x", "target": null}\n\n{"id": 7, "prompt": "y", "target": " z"}\n')

    assert [(p.id, p.target) for p in read(path)] == [("line-1", None), ("7", " z")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "b", prompt}', "line 17: no JSON: .* at column 1"),
        ("[1, 2]", "line 17: expected a JSON object .* not a list"),
        ('"text"', "line 17: expected a JSON object .* not text"),
        ("null", "not null"),
        ('{"prompt": "x"}', "line 17: 'target' missing. A target of null says"),
        ('{"target": " x"}', "line 17: 'prompt' missing"),
        ("{}", "'prompt' and 'target' missing"),
        ('{"prompt": "x", "target": " y", "distracter": " z"}', "'distracter'; allowed are id.*mean 'distractor'"),
        ('{"prompt": "x", "target": " y", "zzzz": 1}', r"unknown keys 'zzzz'; allowed are [a-z, ]*\.$"),
        ('{"prompt": 3, "target": " y"}', "line 17: 'prompt' is a number; expected text"),
        ('{"prompt": null, "target": " y"}', "'prompt' is null"),
        ('{"prompt": "x", "target": [" y"]}', "'target' is a list"),
        ('{"id": true, "prompt": "x", "target": " y"}', "'id' is true or false"),
        ('{"id": "", "prompt": "x", "target": " y"}', "'id' is blank"),
        ('{"prompt": "  ", "target": " y"}', "line 17: .*'prompt' is blank"),
        ('{"id": "a", "prompt": "x", "target": " y"}', "line 17: id 'a' occurs on line 1 already"),
        ('{"prompt": "x", "target": " y", "distractor": " y"}', "target and distractor are both"),
        ('{"prompt": "\\ud800", "target": " y"}', "lone surrogate"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path, line: str, message: str) -> None:
    path = made(tmp_path, GOOD + "\n" * 16 + line + "\n")

    with pytest.raises(PromptError, match=message) as error:
        read(path)

    assert str(path) in str(error.value)


def test_the_first_five_problems_are_told_together(tmp_path: Path) -> None:
    path = made(tmp_path, "\n".join([GOOD, *["{"] * 7]))

    with pytest.raises(PromptError) as error:
        read(path)

    lines = str(error.value).splitlines()
    assert [f"line {k}:" in line for k, line in enumerate(lines[:5], start=2)] == [True] * 5
    assert lines[5] == "… and 2 more."


def test_files_that_are_missing_empty_or_folders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"There is no file .*nowhere"):
        read(tmp_path / "nowhere.jsonl")
    with pytest.raises(PromptError, match="holds no prompts"):
        read(made(tmp_path, "\n \n"))
    with pytest.raises(PromptError, match="cannot be read"):
        read(tmp_path)


def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"line 2: not UTF-8 .* Save the file as UTF-8"):
        read(made(tmp_path, GOOD.encode() + b'\n{"prompt": "caf\xe9"}'))
