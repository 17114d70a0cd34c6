import json
import subprocess
import sys

import pandas as pd
import pytest

from mechint.errors import OutputError
from mechint.experiment.replot import replot
from mechint.experiment.runner import run
from mechint.experiment.verify import verify
from tests.experiment.toy import Log, ToyModel, doors, experiment


@pytest.fixture
def folder(tmp_path):
    run(experiment(), tmp_path / "out", **doors())
    return tmp_path / "out"


def _row(found, check):
    return found.checks.set_index("check").loc[check]


def _rewrite(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_a_fresh_run_passes_also_when_measured_again(folder):
    found = verify(folder, remeasure=5, **doors())

    assert found.status == "passed"
    assert found.differing() == []
    assert sum(found.checks["check"].str.startswith("again")) == 5


def test_a_table_that_was_changed_by_hand_is_critical(folder):
    frame = pd.read_parquet(folder / "heads.parquet")
    frame.loc[0, "score"] += 0.001
    frame.to_parquet(folder / "heads.parquet", index=False)

    found = verify(folder)

    assert (found.status, _row(found, "table heads")["severity"]) == ("failed", "critical")
    assert _row(found, "table words")["status"] == "pass"


def test_a_missing_table_is_critical(folder):
    (folder / "heads.parquet").unlink()

    assert "missing" in _row(verify(folder), "table heads")["note"]


@pytest.mark.parametrize(
    ("package", "version", "severity", "status"),
    [("numpy", "1.0.0", "warning", "warnings"), ("plotly", "1.0.0", "info", "passed")],
)
def test_versions_that_can_change_numbers_are_warnings_and_others_are_not(folder, package, version, severity, status):
    _rewrite(folder, lambda manifest: manifest["environment"]["packages"].update({package: version}))

    found = verify(folder)

    assert (found.status, _row(found, f"version of {package}")["severity"]) == (status, severity)


def test_other_weights_and_other_numbers_are_critical_when_measured_again(folder):
    other = verify(folder, remeasure=1, **doors(model=ToyModel({"weights": "other"})))
    assert (other.status, _row(other, "model fingerprint")["severity"]) == ("failed", "critical")

    class Louder(Log):
        pass

    changed = doors(Louder())
    kind = changed["analyses"]["toy"]
    louder = type(kind)(kind.settings, lambda m, p, s, seed: kind.build(m, p, type(s)(scale=s.scale * 1.01), seed))
    found = verify(folder, remeasure=2, **(changed | {"analyses": {"toy": louder}}))
    assert (found.status, _row(found, "again: heads/0")["severity"]) == ("failed", "critical")


def test_known_numbers_pass_within_their_tolerance_fail_beyond_and_are_not_run_on_another_model(tmp_path):
    run(experiment(), tmp_path / "first", **doors())
    score = float(pd.read_parquet(tmp_path / "first" / "heads.parquet")["score"].iloc[0])
    base = {"table": "heads", "where": {"layer": 0, "head": 0}, "column": "score", "source": "s", "tolerance": 0.01}
    expect = [
        base | {"value": score + 0.005},
        base | {"value": score + 0.02},
        base | {"value": score, "model": "gpt2"},
        base | {"value": score, "where": {"layer": 0}},
        base | {"value": score, "table": "tails"},
    ]
    run(experiment(expect=expect), tmp_path / "out", **doors())

    checks = verify(tmp_path / "out").checks
    known = checks[checks["check"].str.startswith("expected")]
    assert known["status"].tolist() == ["pass", "fail", "not run here", "fail", "fail"]
    assert "2 rows" in known["note"].tolist()[3]
    assert "no table 'tails'" in known["note"].tolist()[4]


def test_a_missing_table_of_an_experiment_that_cannot_run_here_is_not_a_failure(tmp_path):
    expect = [{"table": "tails", "column": "x", "value": 1, "source": "s"}]
    run(experiment(expect=expect, not_run_here="No weights."), tmp_path / "out", **doors())

    assert verify(tmp_path / "out").status == "passed"


def test_an_unfinished_run_fails_and_a_folder_of_something_else_is_an_error(folder, tmp_path):
    _rewrite(folder, lambda manifest: manifest.update(status="interrupted"))
    assert verify(folder).status == "failed"

    with pytest.raises(OutputError, match="not a folder of mechint results"):
        verify(tmp_path)


def test_drawing_again_gives_the_same_page_without_torch_or_transformers(folder):
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    code = (
        "import sys; from mechint.experiment.replot import replot; replot(sys.argv[1]);"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
    assert (folder / "report.html").read_text() == before


def test_an_unfinished_run_cannot_be_drawn(folder):
    _rewrite(folder, lambda manifest: manifest.pop("tables"))

    with pytest.raises(OutputError, match="has not finished"):
        replot(folder)
