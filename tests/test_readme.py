"""What the README shows runs."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_the_first_example_runs_and_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[0]
    for real, small in (("gemma3-270m", "organism:copy-suppression"), ("L11H3", "L1H2"), ("n=64", "n=16")):
        assert real in code
        code = code.replace(real, small)

    exec(compile(code, "README.md", "exec"), {})

    said = capsys.readouterr().out
    assert "1 of 8 heads of organism:copy-suppression meets all five conditions" in said
    assert "Ablating L1H2 (mean)" in said


def test_every_file_it_names_is_there() -> None:
    text = README.read_text(encoding="utf-8")
    named = re.findall(r"\]\((?!http|#)([^)#]+)\)", text) + re.findall(r"`(experiments/[\w./-]+\.toml)`", text)

    assert named
    assert [name for name in named if not (README.parent / name).exists()] == []
