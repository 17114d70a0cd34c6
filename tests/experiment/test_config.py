import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechint.errors import ConfigError
from mechint.experiment.config import parse_config, read_config
from mechint.experiment.toml import to_toml
from tests.experiment.toy import doors, experiment

ANALYSES = doors()["analyses"]
GOOD = {"question": "Is there anything in it?", "analysis": "toy", "model": "toy-model"}


def _error(**changes):
    with pytest.raises(ConfigError) as caught:
        parse_config(GOOD | changes, origin="x.toml", analyses=ANALYSES)
    return str(caught.value)


def test_every_default_is_filled_in_so_that_the_stored_experiment_is_complete():
    config = parse_config(GOOD, origin="x.toml", analyses=ANALYSES)

    assert config.settings == {"scale": 1.0, "ablation": "mean", "layers": [0, 1]}
    assert (config.prompts.kind, config.prompts.n) == ("ioi", 64)


def test_a_misspelt_setting_is_an_error_that_names_file_key_choices_and_the_nearest():
    message = _error(settings={"scael": 2.0})

    assert all(part in message for part in ("x.toml", "'scael'", "Did you mean 'scale'?", "scale, ablation, layers"))


def test_a_misspelt_key_of_the_file_is_an_error_with_the_nearest():
    assert "Did you mean 'seed'?" in _error(sede=1)
    assert "Did you mean 'kind'?" in _error(prompts={"kinf": "ioi"})
    assert "Did you mean 'value'?" in _error(
        expect=[{"table": "t", "column": "c", "value": 1, "valeu": 2, "source": "s"}]
    )


def test_a_missing_question_is_an_error():
    with pytest.raises(ConfigError, match="'question' is missing"):
        parse_config({"analysis": "toy", "model": "m"}, origin="x", analyses=ANALYSES)


def test_an_unknown_analysis_is_an_error_that_lists_the_known_ones():
    assert "Did you mean 'toy'? Known: toy" in _error(analysis="toyy")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": "0"}, "'seed'"),
        ({"seed": -1}, "'seed'"),
        ({"settings": {"scale": float("inf")}}, "finite"),
        ({"settings": {"ablation": "median"}}, "'mean' or 'zero'"),
        ({"settings": {"scale": "big"}}, 'given: "big"'),
        ({"prompts": {"kind": "file"}}, "needs file"),
        ({"prompts": {"kind": "ioi", "file": "x"}}, "file cannot go with"),
        ({"prompts": {"n": 0}}, "prompts.n"),
        ({"run": {"engine": "moon"}}, "run.engine"),
    ],
)
def test_an_impossible_value_is_an_error_that_says_where_and_what(changes, said):
    assert said in _error(**changes)


def test_what_is_no_toml_or_not_there_is_an_error(tmp_path):
    (tmp_path / "bad.toml").write_text("question = ")

    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        read_config(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match="There is no experiment file"):
        read_config(tmp_path / "none.toml")


def test_the_uid_changes_with_what_changes_numbers_and_with_nothing_else():
    uid = experiment().uid()

    same = [{"question": "Another wording of it?"}, {"run": {"threads": 4}}, {"settings": {"scale": 1.0}}]
    assert all(experiment(**changes).uid() == uid for changes in same)
    other = [{"seed": 1}, {"model": "b"}, {"settings": {"scale": 2.0}}, {"prompts": {"kind": "ioi", "n": 8}}]
    assert len({uid, *(experiment(**changes).uid() for changes in other)}) == 5


def test_a_file_of_prompts_is_meant_from_the_folder_of_the_experiment(tmp_path):
    text = (
        'question = "Is there anything?"\nanalysis = "toy"\nmodel = "m"\n[prompts]\nkind = "file"\nfile = "p.jsonl"\n'
    )
    (tmp_path / "e.toml").write_text(text)

    config = read_config(tmp_path / "e.toml", analyses=ANALYSES)

    assert config.prompts.file == str(tmp_path / "p.jsonl")
    assert config.uid() == experiment(model="m", prompts={"kind": "file", "file": "elsewhere.jsonl"}).uid()


def test_an_expectation_is_of_the_model_of_its_file_even_when_another_is_run():
    expect = [{"table": "heads", "column": "score", "value": 1.0, "source": "here"}]

    config = experiment(expect=expect).override(model="other")

    assert (config.model, config.expect[0].model) == ("other", "toy-model")


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=30)


@given(
    question=words,
    scale=st.floats(allow_nan=False, allow_infinity=False),
    layers=st.lists(st.integers(-(2**40), 2**40), max_size=3),
)
def test_an_experiment_survives_being_written_and_read(tmp_path_factory, question, scale, layers):
    where = {"a b": question, string.punctuation: True}
    expect = [{"table": "t", "where": where, "column": "c", "value": scale, "source": question}]
    settings = {"scale": scale, "layers": layers}
    before = experiment(question=question, settings=settings, expect=expect, not_run_here=question)
    path = tmp_path_factory.mktemp("toml") / "e.toml"
    path.write_text(to_toml(before), encoding="utf-8", newline="\n")

    assert read_config(path, analyses=ANALYSES) == before
