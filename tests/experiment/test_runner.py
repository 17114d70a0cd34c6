import errno
import json

import pandas as pd
import pytest

from mechint.errors import OutputError
from mechint.experiment import files
from mechint.experiment.config import read_config
from mechint.experiment.runner import run
from mechint.experiment.session import Interrupted
from mechint.results import complete
from tests.experiment.toy import Log, ToyAnalysis, ToyModel, ToyPrompts, ToySettings, doors, experiment

UNITS = ["heads/0", "heads/1", "heads/2", "heads/3", "words/all", "closer/best", "closer/again"]


def _manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def _tables(folder):
    return {path.name: pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}


def _same(one, other):
    assert one.keys() == other.keys()
    for name, frame in one.items():
        pd.testing.assert_frame_equal(frame, other[name], check_exact=True)


def _interrupted(folder, at="heads/2", error=None):
    log = Log()
    log.stop_at, log.error = at, error or KeyboardInterrupt()
    with pytest.raises((type(log.error), Interrupted)) as caught:
        run(experiment(), folder, **doors(log))
    return log, caught.value


def test_a_run_leaves_tables_report_manifest_and_the_experiment(tmp_path):
    outcome = run(experiment(), tmp_path / "out", **doors(), argv=["/x/mechint", "scan"])

    names = {path.name for path in (tmp_path / "out").iterdir()}
    expected = {
        "heads.parquet",
        "words.parquet",
        "closer.parquet",
        "report.html",
        "manifest.json",
        "experiment.toml",
        "verdict.txt",
    }
    assert names == expected | {"parts"}
    manifest = _manifest(tmp_path / "out")
    assert (manifest["status"], manifest["command"]) == ("complete", "mechint scan")
    assert manifest["receipts"] == {"fired": 8}
    assert manifest["units"] == {"heads": 4, "words": 1, "closer": 2}
    assert manifest["model"]["fingerprint"] == {"weights": "abc"}
    assert manifest["data"] == {"name": "toy", "hash": "0123", "n": 3}
    assert manifest["tables"]["heads"]["hash"] == files.content_hash(outcome.findings.to_frame())
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_run_in_a_folder_gives_what_the_analysis_gives_in_memory(tmp_path):
    outcome = run(experiment(seed=3), tmp_path / "out", **doors())

    in_memory = complete(ToyAnalysis(ToySettings(), 3, Log()))
    pd.testing.assert_frame_equal(outcome.findings.to_frame(), in_memory.to_frame(), check_dtype=False)


def test_the_same_seed_gives_equal_tables_and_another_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(experiment(seed=seed), tmp_path / name, **doors())

    _same(_tables(tmp_path / "a"), _tables(tmp_path / "b"))
    assert not _tables(tmp_path / "a")["heads.parquet"].equals(_tables(tmp_path / "c")["heads.parquet"])


@pytest.mark.parametrize("at", UNITS)
def test_interrupted_and_resumed_equals_uninterrupted_and_measures_nothing_twice(tmp_path, at):
    first, _ = _interrupted(tmp_path / "a", at)
    second = Log()

    run(experiment(), tmp_path / "a", resume=True, **doors(second))
    run(experiment(), tmp_path / "b", **doors())

    assert first.measured + second.measured == UNITS
    _same(_tables(tmp_path / "a"), _tables(tmp_path / "b"))
    assert _manifest(tmp_path / "a")["receipts"] == {"fired": 8}
    assert [part["status"] for part in _manifest(tmp_path / "a")["sessions"]] == ["interrupted", "complete"]


def test_resuming_in_a_new_folder_just_starts(tmp_path):
    run(experiment(), tmp_path / "out", resume=True, **doors())

    assert _manifest(tmp_path / "out")["status"] == "complete"


def test_a_run_that_was_killed_without_warning_goes_on(tmp_path):
    _interrupted(tmp_path / "out")
    manifest = _manifest(tmp_path / "out") | {"status": "running", "sessions": []}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    log = Log()

    run(experiment(), tmp_path / "out", resume=True, **doors(log))

    assert log.measured == UNITS[2:]


def test_an_interruption_says_what_is_kept_and_is_in_the_manifest(tmp_path):
    _, stop = _interrupted(tmp_path / "out")

    assert (stop.folder, stop.done, stop.total) == (tmp_path / "out", 2, 5)
    assert _manifest(tmp_path / "out")["status"] == "interrupted"


def test_a_crash_is_raised_as_it_is_and_is_in_the_manifest(tmp_path):
    _interrupted(tmp_path / "out", error=ZeroDivisionError("by nought"))

    manifest = _manifest(tmp_path / "out")
    assert manifest["status"] == "failed"
    assert manifest["sessions"][0]["error"] == "ZeroDivisionError: by nought"


def test_the_stored_experiment_resumes_the_run(tmp_path):
    _interrupted(tmp_path / "out")

    config = read_config(tmp_path / "out" / "experiment.toml", analyses=doors()["analyses"])
    run(config, tmp_path / "out", resume=True, **doors())

    assert _manifest(tmp_path / "out")["status"] == "complete"


@pytest.mark.parametrize("harm", [b"", b"PAR1 not parquet", None])
def test_a_part_that_is_damaged_or_altered_is_measured_again(tmp_path, harm, caplog):
    run(experiment(), tmp_path / "out", **doors())
    before = _tables(tmp_path / "out")
    victim = next(p for p in (tmp_path / "out" / "parts").glob("*.parquet") if "score" in pd.read_parquet(p))
    altered = pd.read_parquet(victim)
    altered["score"] += 1
    altered.to_parquet(victim, index=False) if harm is None else victim.write_bytes(harm)
    log = Log()

    run(experiment(), tmp_path / "out", resume=True, **doors(log))

    assert len(log.measured) == 1
    assert "again" in caplog.text
    _same(_tables(tmp_path / "out"), before)


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(OutputError, match="not empty"):
        run(experiment(), tmp_path, **doors())
    with pytest.raises(OutputError, match=r"no manifest\.json"):
        run(experiment(), tmp_path, resume=True, **doors())
    with pytest.raises(OutputError, match="is a file"):
        run(experiment(), tmp_path / "thesis.txt", **doors())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_finished_run_is_not_overwritten_and_the_message_says_how_to_go_on(tmp_path):
    run(experiment(), tmp_path / "out", **doors())

    with pytest.raises(OutputError, match="--resume"):
        run(experiment(), tmp_path / "out", **doors())


def test_another_experiment_model_or_data_cannot_be_mixed_into_a_run(tmp_path):
    run(experiment(), tmp_path / "out", **doors())

    with pytest.raises(OutputError, match="seed was 0 and is now 1"):
        run(experiment(seed=1), tmp_path / "out", resume=True, **doors())
    with pytest.raises(OutputError, match="model is not the one"):
        run(experiment(), tmp_path / "out", resume=True, **doors(model=ToyModel({"weights": "other"})))
    with pytest.raises(OutputError, match="prompts are not those"):
        run(experiment(), tmp_path / "out", resume=True, **doors(prompts=ToyPrompts(content_hash="9")))


def test_a_dry_run_tells_what_there_is_to_do_and_writes_nothing(tmp_path):
    log = Log()
    outcome = run(experiment(), tmp_path / "out", dry_run=True, **doors(log))

    assert outcome.plan.to_dict("list") == {"table": ["heads", "words"], "units": [4, 1], "measured": [0, 0]}
    assert (log.measured, (tmp_path / "out").exists()) == ([], False)

    _interrupted(tmp_path / "out")
    outcome = run(experiment(), tmp_path / "out", dry_run=True, resume=True, **doors())
    assert outcome.plan["measured"].tolist() == [2, 0]


def test_a_full_disk_is_our_error_and_loses_nothing(tmp_path, monkeypatch):
    real, log = files.os.fsync, Log()

    def full(handle: int) -> None:
        if len(log.measured) >= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        run(experiment(), tmp_path / "out", **doors(log))
    monkeypatch.setattr(files.os, "fsync", real)
    again = Log()
    run(experiment(), tmp_path / "out", resume=True, **doors(again))

    assert again.measured == UNITS[2:]


def test_two_processes_cannot_write_to_one_folder(tmp_path):
    from filelock import FileLock

    _interrupted(tmp_path / "out")
    with FileLock(tmp_path / "out" / "parts" / ".lock"), pytest.raises(OutputError, match="Another process"):
        run(experiment(), tmp_path / "out", resume=True, **doors())


def test_a_file_of_prompts_is_copied_beside_the_results(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"prompt": "x"}\n')
    config = experiment(prompts={"kind": "file", "file": str(tmp_path / "mine.jsonl")})

    run(config, tmp_path / "out", **doors())

    assert (tmp_path / "out" / "prompts.jsonl").read_text() == '{"prompt": "x"}\n'
    assert str(tmp_path) not in (tmp_path / "out" / "experiment.toml").read_text()
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()
