"""What the page about organisms shows runs, and every organism is on it."""

import re
from pathlib import Path

import pytest

from mechint.organisms import ORGANISMS, PREFIX

PAGE = (Path(__file__).parents[2] / "docs" / "organisms.md").read_text(encoding="utf-8")


def test_every_organism_is_on_the_page() -> None:
    assert set(re.findall(rf"`{PREFIX}([\w-]+)`", PAGE)) == set(ORGANISMS)


def test_its_examples_run_and_say_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 2

    for code in examples:
        assert re.search(r"n=(64|16)", code)
        exec(compile(re.sub(r"n=(64|16)", "n=12", code), "organisms.md", "exec"), {})

    said = capsys.readouterr().out
    assert "the rest of organism:self-repair adds +2.64 [+2.64, +2.64], so it changes by -0.36" in said
    assert "the rest of organism:self-repair-unplanted adds +0.00 [+0.00, +0.00], so it changes by -3.00" in said
    assert "None found: no head of organism:trained-no-suppression" in said
