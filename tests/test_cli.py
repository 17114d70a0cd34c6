import re
import subprocess
import sys
from dataclasses import dataclass

import pytest

import mechint
from mechint.cli import main
from mechint.errors import ConfigError
from tests.experiment.toy import Log, doors

TOML = 'question = "Is there anything in it?"\nanalysis = "toy"\nmodel = "toy-model"\n'


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "claim.toml"
    path.write_text(TOML)
    return path


@dataclass(frozen=True)
class Result:
    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def call(capsys):
    def run(*words, log=None, **changes):
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words], **(doors(log) | changes))
        printed = capsys.readouterr()
        return Result(int(caught.value.code or 0), printed.out, printed.err)

    return run


def test_a_run_prints_the_verdict_the_top_of_the_table_and_where_the_report_is(call, file, tmp_path):
    result = call("run", file, "--out", tmp_path / "out")

    assert result.exit_code == 0
    assert "Nothing beyond <chance> & noise." in result.stdout
    assert "Score" in result.stdout
    assert f"Report: {tmp_path / 'out' / 'report.html'}" in result.stdout


def test_without_out_a_new_folder_is_made_each_time_and_named(call, file, tmp_path):
    for _ in range(2):
        result = call("run", file)
        assert re.search(r"Results: results/claim-\d{8}-\d{6}", result.stderr)

    assert len(list((tmp_path / "results").iterdir())) == 2


def test_our_errors_are_one_message_and_exit_code_2(call, file, tmp_path):
    file.write_text(TOML + "sede = 1\n")

    result = call("run", file, "--out", tmp_path / "out")

    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert "Did you mean 'seed'?" in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_shows_where_an_error_comes_from(tmp_path):
    with pytest.raises(ConfigError):
        main(["run", str(tmp_path / "none.toml"), "--debug"])


def test_ctrl_c_is_exit_code_130_and_the_command_it_prints_goes_on(call, file, tmp_path):
    log = Log()
    log.stop_at = "heads/2"

    stopped = call("run", file, "--out", tmp_path / "out", log=log)
    command = stopped.stderr.strip().splitlines()[-1].split()
    again = Log()
    resumed = call(*command[1:], log=again)

    assert stopped.exit_code == 130
    assert "2 of 5 units are kept" in stopped.stderr
    assert command[0] == "mechint"
    assert (resumed.exit_code, again.measured[0]) == (0, "heads/2")


def test_resume_without_out_is_an_error(call, file):
    result = call("run", file, "--resume")

    assert (result.exit_code, "--resume needs --out" in result.stderr) == (2, True)


def test_a_dry_run_counts_units_and_leaves_no_folder(call, file, tmp_path):
    result = call("run", file, "--out", tmp_path / "out", "--dry-run")

    assert "heads: 4 units, 0 measured already" in result.stdout
    assert not (tmp_path / "out").exists()


def test_overrides_replace_what_the_file_says(call, file, tmp_path):
    call("run", file, "--out", tmp_path / "out", "--seed", 7, "--model", "other")

    stored = (tmp_path / "out" / "experiment.toml").read_text()
    assert "seed = 7" in stored
    assert 'model = "other"' in stored


def test_scan_is_an_experiment_made_of_flags(call, tmp_path):
    toy = doors()["analyses"]["toy"]
    result = call("scan", "--out", tmp_path / "out", "--dry-run", analyses={"copy_suppression": toy})

    # The toy has no setting `top`: the flags reached its settings and were checked there.
    assert result.exit_code == 2
    assert "[settings] of copy_suppression has no 'top'" in result.stderr


def test_verify_and_plot_work_on_a_finished_run_and_refuse_anything_else(call, file, tmp_path):
    call("run", file, "--out", tmp_path / "out")
    (tmp_path / "out" / "report.html").unlink()

    assert call("plot", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "report.html").exists()
    good = call("verify", tmp_path / "out", "--remeasure", 2)
    assert (good.exit_code, "Result: passed" in good.stdout) == (0, True)
    (tmp_path / "out" / "heads.parquet").unlink()
    bad = call("verify", tmp_path / "out")
    assert (bad.exit_code, "critical: table heads" in bad.stdout) == (1, True)
    assert call("plot", tmp_path).exit_code == 2


def test_the_version_is_printed(call):
    assert call("--version").stdout == f"mechint {mechint.__version__}\n"


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['mechint', '--help']\n"
        "from mechint.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'plotly', 'transformers', 'pydantic', 'scipy', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "mechint", "--version"], capture_output=True, text=True, check=True)

    assert done.stdout == f"mechint {mechint.__version__}\n"
