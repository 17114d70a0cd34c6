"""The same prompts without and with a plan, in Python and on the command line."""

import re
from pathlib import Path

import pytest
import torch

import mechint as mi
from mechint.cli import main
from mechint.errors import ConfigError, InterventionError
from mechint.steering.side_by_side import side_by_side
from tests.families import tiny
from tests.steering.few import PRODUCING, PROMPTS, vector

ORGANISM = "organism:trained-copy-suppression"
SITE = mi.Site("resid_post", 0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vector of the organism that says "banana" and nothing else."""
    model = mi.load(ORGANISM)
    direction = model.unembedding(torch.tensor([model.tokenizer.get_vocab()["banana"]]))[0]
    about = {"name": ORGANISM, "weights": model.fingerprint["weights"]}
    one = mi.SteeringVector({SITE: direction}, {SITE: 10.0}, "banana", "by hand", about)
    return one.save(tmp_path_factory.mktemp("vectors") / "banana.safetensors")


def steer(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["steer", "--model", ORGANISM, *map(str, words)])
    return int(caught.value.code or 0)


def test_each_side_is_what_generate_gives() -> None:
    model, plan = tiny("llama"), mi.add(vector(), 2.0, where=PRODUCING)
    found = side_by_side(model, PROMPTS, plan, max_new_tokens=5, temperature=1.0, seed=3)

    settings = {"max_new_tokens": 5, "temperature": 1.0, "seed": 3}
    assert found.to_frame()["unsteered"].tolist() == model.generate(PROMPTS, **settings).texts
    assert found.to_frame()["steered"].tolist() == model.generate(PROMPTS, plan, **settings).texts
    assert found.to_frame()["prompt"].tolist() == PROMPTS
    assert found.receipt.table()["tokens"].tolist() == [5 * len(PROMPTS)]


def test_markup_in_texts_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = side_by_side(tiny("llama"), PROMPTS[:1], mi.add(vector(), 1.0), max_new_tokens=2)
    written = found.to_frame().assign(steered="<b>bold</b>")
    monkeypatch.setattr(type(found), "to_frame", lambda self: written)

    assert "&lt;b&gt;bold" in found._repr_html_()
    assert "<b>bold" not in found._repr_html_()
    assert "steered:<b>bold</b>" in repr(found)


def test_with_dose_zero_both_sides_are_the_same() -> None:
    found = side_by_side(tiny("gemma3"), PROMPTS, mi.add(vector(), 0.0), max_new_tokens=5)

    assert (found.to_frame()["unsteered"] == found.to_frame()["steered"]).all()


def test_the_command_prints_both_texts_and_the_receipt(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert steer("--vector", saved, "--dose", 8, "--max-new-tokens", 4, "Alice visited the", "the church") == 0

    printed = capsys.readouterr().out
    assert "Alice visited the" in printed
    assert re.search(r"unsteered +steered *\n", printed)
    assert "banana banana banana banana" in " ".join(printed.split())
    assert re.search(r"Receipt: In 1 call: add banana at L0\.resid_post: \d+ tokens in 2 texts, ", printed)


def test_the_picture_is_a_page_of_its_own_and_replaces_nothing(saved: Path, tmp_path: Path) -> None:
    page = tmp_path / "receipt.html"
    words = ("--vector", saved, "--dose", 1, "--max-new-tokens", 3, "--picture", page, "the church")

    assert steer(*words) == 0
    assert "plotly" in page.read_text(encoding="utf-8")
    assert steer(*words) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--where", "nowhere"), "--where nowhere is not known"),
        (("--unit", "metres"), "'metres' is no unit of dose"),
        (("--norm", "loose"), "norm='loose'"),
        (("--dose", "nan"), "the dose is nan"),
        (("--where", "generated", "--max-new-tokens", "1"), "never acted"),
        (("--unit", "calibrated"), "not calibrated"),
    ],
)
def test_what_makes_no_sense_is_one_message(
    words: tuple[str, ...], told: str, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = steer("--vector", saved, "--dose", "1", *words, "the church"), capsys.readouterr()

    assert code == 2
    assert printed.err.startswith("Error: ")
    assert told in printed.err


def test_a_vector_of_another_width_is_refused() -> None:
    with pytest.raises(InterventionError, match="7 numbers"):
        side_by_side(tiny("llama"), PROMPTS, mi.add(vector(width=7), 1.0), max_new_tokens=2)


def test_a_dose_needs_a_unit_that_the_vector_knows() -> None:
    with pytest.raises(InterventionError, match="Give a dose"):
        mi.add(vector())
    with pytest.raises(ConfigError, match="temperature"):
        side_by_side(tiny("llama"), PROMPTS, mi.add(vector(), 1.0), temperature=-1.0)
