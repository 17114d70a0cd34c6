"""Notebooks are thin, and run from top to bottom on an organism."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from mechint import prompts

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
REPLACED = {
    'gemma = mi.load("gemma3-270m")': "gemma = letters.model()",
    "mi.prompts.arithmetic_errors(300, 0)": "mi.prompts.arithmetic_errors(60, 0)",
    "test_pairs=12, select_pairs=8": 'measures=("recompute",), layers=(1, 2), steered=(1,), candidates=(0.01,), '
    "test_pairs=2, select_pairs=2, clean_texts=2, clean_positions=2, shuffles=1, resamples=100",
    "extract=256, select=64, answers=32": "extract=96, select=16, random=3, random_covariance=1, shuffled_labels=3, "
    "answers=4",
    "mi.introspection(gemma)": "mi.introspection(reader, material, **one)",
    'found.plot("graded")': 'found.plot("development")',
    "n_carriers=8": "n_carriers=4",
    "random_networks=10": "random_networks=2",
    '"gemma3-270m"': '"organism:trained-copy-suppression"',
    "mi.prompts.ioi(n=32, seed=0, tokenizer=model.tokenizer)": "trained.prompts(n=24, seed=3)",
    "mi.prompts.ioi(n=24, seed=0, tokenizer=model.tokenizer)": "trained.prompts(n=24, seed=3)",
    "mi.prompts.natural(n=24, min_words=60, joined=True)": "trained.documents(n=8, seed=3)",
    "mi.prompts.natural(n=24, min_words=40, joined=True)": "trained.documents(n=8, seed=3)",
    'mi.prompts.CONCEPTS["sentiment"]': "fruit.CONCEPT",
    "L12.resid_post": "L0.resid_post",
    "target_kl=0.5": "target_kl=0.5, texts=fruit.neutral(model)",
    "mi.prompts.openings(6)": "concept.openings(6, 0)",
    "mi.prompts.openings(3)": "concept.openings(3, 0)",
    "max_new_tokens=24": "max_new_tokens=4",
    "fitted_on=train": "fitted_on=train, damage=False, texts=0",
    '"random": 30, "random_covariance": 20, "shuffled_labels": 20': '"random": 5, "random_covariance": 5',
    "import mechint as mi": "import mechint as mi\nfrom mechint.organisms import trained\nfrom tests import fruit\n"
    "from tests.probes.critique import letters",
    "length=64": "length=32",
}
"""The real model and its texts, and what stands for them in tests."""


def code(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_thin_and_shows_its_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)

    for cell in code(notebook):
        assert len(cell.splitlines()) <= 15
        assert "def " not in cell
        assert "class " not in cell
    assert notebook.cells[0].cell_type == "markdown"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLOTLY_RENDERER", "json")
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for old, new in REPLACED.items():
                cell.source = cell.source.replace(old, new)

    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()

    errors = [out for cell in notebook.cells for out in cell.get("outputs", ()) if out.output_type == "error"]
    assert not errors


def test_every_replacement_is_of_something_that_is_there() -> None:
    everything = "\n".join(cell for path in NOTEBOOKS for cell in code(nbformat.read(path, as_version=4)))
    for old in REPLACED:
        assert old in everything, old
    assert callable(prompts.natural)
