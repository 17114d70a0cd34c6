"""A vector that was fitted on our own problems is scored on the errors of a file, beside what the text tells."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mechint.errors import PromptError
from mechint.probes.critique import transferring
from mechint.probes.critique.experiment import CritiqueExperiment
from mechint.probes.critique.recording import record_twins
from mechint.prompts.reasoning import load_published_pairs, twins
from mechint.results import Unit
from mechint.sites import Site
from mechint.vectors.fit import fit
from mechint.vectors.vector import SteeringVector
from tests.probes.critique.letters import model
from tests.probes.critique.test_experiment import SETTINGS, pairs

SITE = Site("resid_post", 2)
SUMS = [(11 + 2 * k, 23 + 3 * k) for k in range(12)]


def traces(folder: Path) -> Path:
    """Published traces: sums that are one too large."""
    rows = [
        {"id": k, "question": "How many?", "ground_truth": str(a + b), "search": f"So {a} + {b} = {a + b + 1}.\n\n"}
        for k, (a, b) in enumerate(SUMS)
    ]
    return written(folder / "traces.jsonl", rows)


def solutions(folder: Path) -> Path:
    """Steps of which the second is false."""
    rows = [
        {"input": f"{a} + {b} =", "steps": [f"A = {a}.", f"A + {b} = {a} + {b} = {a + b + 1}."], "target": str(a + b),
         "answer": str(a + b + 1), "mistake_index": 1}
        for a, b in SUMS
    ]  # fmt: skip
    return written(folder / "steps.jsonl", rows)


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def experiment() -> CritiqueExperiment:
    return CritiqueExperiment(model(), pairs(), replace(SETTINGS, layers=(1, 2), resamples=200), seed=0)


def scored(experiment: CritiqueExperiment, vector: SteeringVector, path: Path) -> pd.DataFrame:
    settings = replace(experiment.settings, transfer=str(path))
    known, blocks = experiment._recordings, experiment._parts.blocks  # pyright: ignore[reportPrivateUsage]
    return transferring.measure(model(), vector, known, blocks, settings, 0).set_index("what")


@pytest.mark.parametrize("kind", [traces, solutions], ids=["error traces", "big bench"])
def test_the_errors_of_a_file_are_scored_beside_their_baselines(
    experiment: CritiqueExperiment, kind: Any, tmp_path: Path
) -> None:
    path = kind(tmp_path)
    others = twins(load_published_pairs(path), model().tokenizer).tokens
    # The same texts under other names: a vector is not scored on problems that it was fitted on.
    named = replace(others, ids=tuple(f"own-{i}" for i in others.ids), groups=tuple(f"own-{g}" for g in others.groups))
    own = fit(record_twins(model(), named, SITE, progress=False), concept="critique", folds=0)
    found, opposite = (scored(experiment, v, path) for v in (own, -1 * own))

    assert list(found.index) == [
        "projection", "projection without surprisal", "length", "literal", "words", "surprisal",
    ]  # fmt: skip
    assert (found["n"] == 2 * len(others)).all()
    # Twins are as long as each other; along what these very texts differ by they differ, and the other way round.
    assert found.loc["length", "auroc"] == 0.5
    assert found.loc["projection", "auroc"] > 0.5
    assert found.loc["projection", "auroc"] + opposite.loc["projection", "auroc"] == pytest.approx(1)
    assert found.loc["projection", "d"] == pytest.approx(-opposite.loc["projection", "d"])
    pd.testing.assert_frame_equal(found.iloc[2:], opposite.iloc[2:])


def test_a_file_that_settings_name_is_a_unit_of_the_experiment(experiment: CritiqueExperiment, tmp_path: Path) -> None:
    settings = replace(experiment.settings, transfer=str(traces(tmp_path)), transfer_pairs=6)
    asking = CritiqueExperiment(model(), pairs(), settings, seed=0)

    assert "transfer" in {unit.table for unit in asking.units()}
    assert "transfer" not in {unit.table for unit in experiment.units()}
    found = asking.measure(Unit("transfer", "transfer"))
    assert (found["n"] == 12).all()
    right = [{"id": 0, "question": "?", "ground_truth": "2", "search": "So 1 + 1 = 2."}]
    path = written(tmp_path / "right.jsonl", right)
    with pytest.raises(PromptError, match="no row has a pair"):
        load_published_pairs(path)
