"""The whole pipeline: recoveries by construction, none at all, resumed, and through the command line."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechint.cli.commands import main
from mechint.errors import SiteError
from mechint.experiment.columns import meaning
from mechint.experiment.config import parse_config, read_config
from mechint.experiment.registry import ANALYSES
from mechint.experiment.runner import run
from mechint.experiment.session import Interrupted
from mechint.plots.figures import FIGURES
from mechint.probes.critique_pipeline import summary
from mechint.probes.critique_pipeline.experiment import CritiquePipeline
from mechint.probes.critique_pipeline.recoveries import FORCED, RECOVERIES
from mechint.probes.critique_pipeline.settings import PipelineSettings
from mechint.prompts import Prompt, PromptSet, natural
from mechint.results import complete
from tests.families import tiny
from tests.probes.critique_pipeline.toy import Coins, byte_llama

EXPERIMENTS = sorted(Path("experiments").glob("critique_paper_*.toml"))
NEUTRAL = PromptSet(
    "neutral", tuple(Prompt(f"n{at}", " ".join(f"w{5 + (at * k) % 40}" for k in range(40))) for at in range(4))
)
COINS = PipelineSettings(
    fewest_pairs=5,
    folds=3,
    max_new_tokens=3,
    answer_tokens=2,
    alphas=(-1.0, 0.0, 1.0),
    random=2,
    stacks=1,
    batch=64,
)
BYTES = replace(
    COINS, problems=8, select=2, test=4, teacher_forced=True, layers=(0, 1), max_new_tokens=2, answer_tokens=2, batch=64
)


def coins(settings: PipelineSettings = COINS, task: Any = None) -> CritiquePipeline:
    return CritiquePipeline(tiny("llama"), NEUTRAL, settings, 0, task=task or Coins())


def bbm(path: Path) -> str:
    rows = [
        {"input": f"{at} + 1", "steps": ["a", "b"], "target": "2", "answer": "2", "mistake_index": at} for at in (0, 1)
    ]
    path.write_text("\n".join(map(json.dumps, [*rows, {**rows[0], "mistake_index": None}])))
    return str(path)


@pytest.fixture(scope="module")
def recovered():
    return complete(coins(), progress=False)


def test_the_vector_is_of_hidden_recoveries_and_their_originals_alone(recovered):
    analysis, task, model = coins(), Coins(), tiny("llama")
    raw = pd.concat([analysis.measure(unit) for unit in analysis.units()], ignore_index=True)
    analysis.follow_up({"runs": raw})
    rows = {(one["run"], one["id"]): [int(t) for t in one["tokens"].split()] for one in raw.to_dict("records")}
    written = {key: row[5:] for key, row in rows.items()}
    hidden = [
        item.id
        for item in task.items("train")
        if sum(written["injected", item.id]) % 2 == 0 and written["injected", item.id] and written["matched", item.id]
    ]

    means = {
        run: np.mean([model.run([rows[run, name]], read=["L1.resid_post"])["L1.resid_post"][0, 5:].numpy().mean(0)
                      for name in hidden], axis=0)
        for run in ("injected", "matched")
    }  # fmt: skip
    row = recovered.tables["layers"].set_index("layer").loc[1]

    assert 5 <= len(hidden) < 40
    assert row["n_pairs"] == len(hidden)
    assert row["vector_length"] == pytest.approx(np.linalg.norm(means["injected"] - means["matched"]), rel=1e-4)
    assert RECOVERIES in recovered.verdict


def test_outcomes_count_what_happened(recovered):
    table = recovered.tables["outcomes"].set_index(["run", "subset"])

    assert table.loc[("matched", "train"), "corrected"] == 1.0
    assert table.loc[("injected", "train"), "corrected"] == 0.0
    assert table.loc[("injected", "train"), "hidden"] == table.loc[("injected", "train"), "answer_right"]
    crossed = recovered.tables["crossed"]
    assert crossed.groupby("run")["n"].sum().tolist() == [50, 50, 50]


def test_dose_0_is_the_run_without_steering_and_only_others_change(recovered):
    texts, doses = recovered.tables["texts"], recovered.tables["steering"]
    plain = texts[(texts["run"] == "injected") & (texts["subset"] == "test")]

    at_0 = doses[(doses["alpha"] == 0) & (doses["run"] == "injected")].iloc[0]
    assert at_0["answer_right"] == (plain["final"] == "correct").mean()
    assert (doses.loc[doses["alpha"] == 0, "change_right"] == 0).all()
    assert recovered.tables["damage"].set_index("alpha").loc[0.0, ["kl_mean", "perplexity_ratio"]].tolist() == [
        0.0,
        1.0,
    ]
    assert (recovered.tables["damage"].set_index("alpha").loc[[-1.0, 1.0], "kl_mean"] > 0).all()


def test_random_directions_stand_beside_the_vector_at_both_ends(recovered):
    random = recovered.tables["steering"].query("arm == 'random'")

    assert sorted(set(random["alpha"])) == [-1.0, 1.0]
    assert set(random["draws"]) == {2}
    tests = recovered.tables["tests"]
    assert set(tests["contrast"]) == {"difference", "error", "original"}
    # With two draws nothing can be beyond chance, and it is not said to be.
    assert (tests["p"] >= 1 / 3).all()
    assert "not beyond random directions" in recovered.verdict


def test_the_layer_is_chosen_on_other_problems_than_those_that_are_reported():
    analysis = coins()
    raw = {"runs": pd.concat([analysis.measure(unit) for unit in analysis.units()], ignore_index=True)}
    first = analysis.follow_up(raw)
    effects = [analysis.measure(unit) for unit in first if unit.table == "layer_effect"]
    raw["layer_effect"] = pd.concat(effects, ignore_index=True)
    units = {unit.table: unit for unit in analysis.follow_up(raw)}
    ids = {name: set(analysis.measure(units[name])["id"]) for name in ("layer_effect", "steering", "scaling")}

    assert not ids["layer_effect"] & ids["steering"]
    assert ids["steering"] == ids["scaling"]
    train = raw["runs"].loc[raw["runs"]["subset"] == "train", "id"]
    assert not ids["layer_effect"] & set(train)

    # What is steered is named by the table alone, so that a resumed run measures no layer effect again.
    assert {unit.table for unit in first} == {"vectors", "lens", "surface", "layer_effect"}
    chosen = {units[name].inputs["layer"] for name in ("steering", "damage", "scaling")}
    assert chosen == {summary.best_layer(raw["layer_effect"])}


def test_a_given_layer_is_steered_and_nothing_is_measured_to_choose_one():
    found = complete(coins(replace(COINS, layer=2)), progress=False)

    layers = found.tables["layers"]
    assert layers.loc[layers["chosen"], "layer"].tolist() == [2]
    assert "layer_effect" not in layers
    stages = found.tables["stages"].set_index("stage")
    assert (stages.loc["layer_effect", "n"], stages.loc["layer_effect", "problem"]) == (0, "layer = 2 is given")


def test_a_layer_that_the_model_has_not_is_an_error():
    with pytest.raises(SiteError):
        coins(replace(COINS, layer=9))


class Right(Coins):
    """Nobody ever errs, so nothing is recovered, and both sides of a forced answer are one."""

    def row(self, item: Any, run: str) -> tuple[int, ...]:
        return super().row(item, "matched")

    def judge(self, item: Any, run: str, row: tuple[int, ...]) -> Any:
        return super().judge(item, "matched", row)


@pytest.mark.parametrize("forced", [False, True])
def test_without_recoveries_there_is_no_vector_and_that_is_the_finding(forced):
    found = complete(coins(replace(COINS, teacher_forced=forced), Right()), progress=False)

    assert "0 pairs: no vector (at least 5 are needed" in found.verdict
    assert "layers" not in found.tables
    stages = found.tables["stages"].set_index("stage")
    assert stages.loc["steering", "problem"] == "no vector"
    assert list(found.figures()) == ["outcomes"]


def test_without_recoveries_given_answers_take_their_place_only_if_asked(tmp_path):
    model, texts = byte_llama(), natural(3, 0, min_words=40, joined=True)
    found = complete(
        CritiquePipeline(model, texts, replace(BYTES, bbm=(bbm(tmp_path / "b.jsonl"),)), 0), progress=False
    )
    bare = complete(CritiquePipeline(model, texts, replace(BYTES, teacher_forced=False), 0), progress=False)

    assert FORCED in found.verdict
    assert any("not the paper's contrast" in note for note in found.notes)
    assert (found.tables["stages"]["n"] > 0).all()
    assert list(found.figures()) == list(FIGURES["critique_pipeline"])
    # Given answers are the same words on both sides: nothing outside the model can tell them apart.
    assert found.tables["surface"]["probe_auroc"].tolist() == [0.5, 0.5]
    assert "no vector" in bare.verdict
    for name, table in found.tables.items():
        for column in table.columns:
            base = str(column).removesuffix("_low").removesuffix("_high")
            assert meaning(base) is not None, (name, column)


def doors(**changes: Any) -> dict[str, Any]:
    def build(model: Any, prompts: Any, settings: Any, seed: int) -> Any:
        return CritiquePipeline(tiny("llama"), NEUTRAL, settings, seed, task=changes.get("task") or Coins())

    kind = replace(ANALYSES["critique_pipeline"], build=build)
    return {"analyses": {"critique_pipeline": kind}, "load_model": lambda config: tiny("llama"),
            "make_prompts": lambda config, model: NEUTRAL}  # fmt: skip


def test_an_interrupted_run_goes_on_and_gives_the_same(tmp_path, monkeypatch):
    settings = {
        "fewest_pairs": 5,
        "folds": 3,
        "max_new_tokens": 3,
        "alphas": [-1.0, 0.0, 1.0],
        "random": 2,
        "batch": 64,
        "layers": [0, 1],
        "stacks": 1,
    }
    told = {
        "question": "Is there hidden critique?",
        "analysis": "critique_pipeline",
        "model": "tiny",
        "settings": settings,
    }
    config = parse_config(told, origin="test")
    whole = run(config, tmp_path / "whole", progress=False, **doors())
    measure = CritiquePipeline.measure
    measured: list[str] = []

    def counting(self: CritiquePipeline, unit: Any) -> pd.DataFrame:
        measured.append(unit.name)
        return measure(self, unit)

    def stopping(self: CritiquePipeline, unit: Any) -> pd.DataFrame:
        if unit.name.startswith("steering/random/1"):
            raise KeyboardInterrupt
        return counting(self, unit)

    with monkeypatch.context() as patched:
        patched.setattr(CritiquePipeline, "measure", stopping)
        with pytest.raises(Interrupted):
            run(config, tmp_path / "parts", progress=False, **doors())
    with monkeypatch.context() as patched:
        patched.setattr(CritiquePipeline, "measure", counting)
        resumed = run(config, tmp_path / "parts", resume=True, progress=False, **doors())

    assert len(measured) == len(set(measured))
    assert any(name.startswith("layer_effect") for name in measured)
    assert whole.findings is not None
    assert resumed.findings is not None
    assert resumed.findings.verdict == whole.findings.verdict
    for name, table in whole.findings.tables.items():
        pd.testing.assert_frame_equal(table, resumed.findings.tables[name])


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda path: path.stem)
def test_a_dry_run_of_a_paper_experiment_tells_its_cost_without_the_model(file, tmp_path, capsys):
    def refused(*_: Any) -> Any:
        raise AssertionError("a dry run asked for the model")

    with pytest.raises(SystemExit) as ended:
        main(["run", str(file), "--dry-run", "--out", str(tmp_path / "out")], load_model=refused, make_prompts=refused)

    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert [line.split(":")[0] for line in lines][0:2] == ["runs", "vectors"]
    assert all(word in lines[0] for word in ("units", "rows", "tokens", "GiB", "FLOPs"))
    assert lines[-1].startswith("An estimate")
    assert not (tmp_path / "out").exists()


def test_there_is_a_file_for_each_model_and_no_number_in_it_claims_to_be_seen_here():
    assert len(EXPERIMENTS) == 5
    for file in EXPERIMENTS:
        config = read_config(file)
        assert config.not_run_here
        assert config.settings["shape"] is not None
        assert all("2603.16331" in item.source for item in config.expect)


def steered(rows: list[tuple[str, str, float, int, str, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["run", "arm", "alpha", "draw", "id", "final"])
    return frame.assign(group=frame["id"])


def case(right: Mapping[tuple[str, str, float, int], int], n: int = 10) -> pd.DataFrame:
    """Judgements in which so many of n answers are right, for each run, arm, dose and draw."""
    return steered(
        [(*key, f"p{at}", "correct" if at < count else "incorrect") for key, count in right.items() for at in range(n)]
    )


def test_a_push_that_moves_both_sides_alike_is_no_difference():
    both = {(run, "vector", 0.0, 0): 2 for run in ("injected", "matched")}
    both |= {(run, "vector", 1.0, 0): 9 for run in ("injected", "matched")}
    both |= {(run, "random", 1.0, draw): 2 for run in ("injected", "matched") for draw in range(30)}

    found = summary.tests(case(both), "matched").set_index("contrast")

    assert found.loc["error", "change_right"] == pytest.approx(0.7)
    assert found.loc["error", "p"] == pytest.approx(1 / 31)
    assert found.loc["difference", "change_right"] == pytest.approx(0.0)
    assert found.loc["difference", "p"] == 1.0


def test_answers_that_flip_are_counted_both_ways_with_mcnemars_p():
    finals = {0.0: "iiiiiiccc", 1.0: "cccccicci", -1.0: "iiiiiiccc"}
    rows = [
        ("injected", "vector", alpha, 0, f"p{at}", {"c": "correct", "i": "incorrect"}[letter])
        for alpha, letters in finals.items()
        for at, letter in enumerate(letters)
    ]

    table = summary.steering(steered(rows), 0).set_index("alpha")[["put_right", "put_wrong", "mcnemar_exact"]]

    # Of six that flip, five to right: 2 (1 + 6) / 2^6.
    assert table.loc[1.0].tolist() == pytest.approx([5, 1, 14 / 64])
    assert table.loc[-1.0].tolist() == [0, 0, 1.0]
    assert table.loc[0.0].isna().all()


def test_the_layer_with_the_largest_difference_of_both_ends_is_chosen_and_the_first_of_equals():
    rows = []
    for layer, (up, down) in {0: (5, 5), 3: (9, 2), 4: (9, 2), 5: (10, 8)}.items():
        for alpha, count in ((1.0, up), (-1.0, down)):
            rows += [(layer, alpha, f"p{at}", f"p{at}", "correct" if at < count else "incorrect") for at in range(10)]
    effects = pd.DataFrame(rows, columns=["layer", "alpha", "id", "group", "final"])

    assert summary.best_layer(effects) == 3
    assert summary.layer_effects(effects)["layer_effect"].tolist() == pytest.approx([0.0, 0.7, 0.7, 0.2])


def test_who_always_names_the_same_step_has_no_f1():
    truth = [0, 1, 2, None] * 40
    raw = pd.DataFrame({"file": "f", "alpha": 0.0, "id": range(160), "group": range(160),
                        "mistake": pd.Series(truth, dtype=float), "said": 1.0})  # fmt: skip

    row = summary.detection(raw, 0).iloc[0]

    assert (row["acc1"], row["acc2"], row["f1"], row["n_without"]) == (pytest.approx(1 / 3), 0.0, 0.0, 40)
    few = summary.detection(raw.head(40), 0).iloc[0]
    assert np.isnan(few["f1"])
