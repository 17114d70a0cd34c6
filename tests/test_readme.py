"""What the README shows runs."""

import re
from pathlib import Path
from typing import Any

import pytest

import mechint as mi
from tests import fruit

README = Path(__file__).parent.parent / "README.md"


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_first_example_runs_and_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    code = examples()[0]
    for real, small in (("gemma3-270m", "organism:copy-suppression"), ("L11H3", "L1H2"), ("n=64", "n=16")):
        assert real in code
        code = code.replace(real, small)

    exec(compile(code, "README.md", "exec"), {})

    said = capsys.readouterr().out
    assert "1 of 8 heads of organism:copy-suppression meets all five conditions" in said
    assert "Ablating L1H2 (mean)" in said


def test_the_steering_example_runs_on_an_organism(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = examples()[1]
    lines = [line for line in code.splitlines() if line.strip()]
    small = {
        'mi.prompts.CONCEPTS["sentiment"]': "fruit.CONCEPT",
        "96, 0": "30, 0",
        '"L12.resid_post"': '"L0.resid_post"',
        "target_kl=0.5": "target_kl=0.5, texts=fruit.neutral(model)",
        "mi.prompts.openings(8)": "concept.openings(8, 0)",
        "mi.prompts.openings(48)": "concept.openings(12, 0)",
        "max_new_tokens=40": "max_new_tokens=4",
        "instruction=concept.instruction)": "controls={'random': 20, 'shuffled_labels': 5}, damage=False, texts=0)",
    }
    for real, ours in small.items():
        assert real in code
        code = code.replace(real, ours)
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {"mi": mi, "fruit": fruit, "model": mi.load("organism:trained-copy-suppression")}

    exec(compile(code, "README.md", "exec"), given)

    assert len(lines) <= 12
    assert (tmp_path / "sentiment.safetensors").exists()
    assert given["texts"].receipt.table()["tokens"].item() == 8 * 4


def test_every_file_it_names_is_there() -> None:
    text = README.read_text(encoding="utf-8")
    named = re.findall(r"\]\((?!http|#)([^)#]+)\)", text) + re.findall(r"`(experiments/[\w./-]+\.toml)`", text)

    assert named
    assert [name for name in named if not (README.parent / name).exists()] == []
