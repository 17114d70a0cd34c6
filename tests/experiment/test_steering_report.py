"""Findings of steering, as they really come: every column is explained, every figure drawn, every kind introduced."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from mechint.capture.activations import record
from mechint.experiment.columns import COLUMNS, meaning
from mechint.experiment.guides import GENERAL, guide
from mechint.experiment.leading import LEADING
from mechint.experiment.manifest import start_manifest
from mechint.experiment.report import write_report
from mechint.model.transformer_lens import TransformerLensModel
from mechint.plots.captions import CAPTIONS
from mechint.plots.figures import FIGURES
from mechint.prompts import Prompt, PromptSet, contrast
from mechint.results import Findings
from mechint.sites import Site
from mechint.steering import evaluation
from mechint.steering.gates import gate
from mechint.steering.generation import generate
from mechint.steering.metrics import WordPreference
from mechint.steering.parts import add
from mechint.vectors.damage import NeutralTexts
from mechint.vectors.fit import fit
from mechint.vectors.report import report
from tests.experiment.toy import ToyModel, ToyPrompts, experiment
from tests.families import random_rows, tiny
from tests.steering.few import NO_END, PROMPTS

SITE = Site("resid_post", 1)
KINDS = ("steering_evaluation", "steering_receipt", "steering_vector_report")


def _words(n: int, seed: int) -> list[str]:
    return [" ".join(f"w{token}" for token in row[1:]) for row in random_rows(n, 6, seed=seed)]


@pytest.fixture(scope="module")
def findings() -> dict[str, Findings]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransformerLensModel, "end_tokens", NO_END)
        return _findings(patch)


def _findings(patch: pytest.MonkeyPatch) -> dict[str, Findings]:
    model, texts = tiny("llama"), _words(24, 9)
    pairs = contrast([f"{text} w5" for text in texts], [f"{text} w7" for text in texts], name="five")
    split = pairs.split(train=0.5, test=0.5)
    data, held_out = record(model, split.train, [SITE]), record(model, split.test, [SITE])
    vector = fit(data)
    prompts = PromptSet("words", tuple(Prompt(str(i), text) for i, text in enumerate(_words(4, 4))))
    neutral = PromptSet("neutral", tuple(Prompt(f"n{i}", f"{text} w9 w10 w11") for i, text in enumerate(_words(4, 5))))
    patch.setattr(
        evaluation, "NeutralTexts", lambda model, seed: NeutralTexts(model, neutral, length=8, positions=4, seed=seed)
    )
    evaluated = evaluation.evaluate(
        model, vector, prompts, WordPreference((" w5", " w6"), (" w7", " w8")), fitted_on=data, other=-vector,
        instruction="w9 ", controls={"random": 2, "random_covariance": 2, "shuffled_labels": 2, "orthogonal": 1,
                                     "other_concept": 1},
        doses=(0.1, 0.3), texts=2, max_new_tokens=4, progress=False,
    )  # fmt: skip
    found = generate(model, PROMPTS, add(vector, 0.5).when(gate("entropy", ">", 0.0)), max_new_tokens=4, progress=False)
    assert found.receipt is not None
    judged = report(vector, held_out, train=data, model=model, progress=False)
    return {one.kind: one for one in (evaluated, found.receipt, judged)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_column_is_explained(findings: dict[str, Findings], kind: str) -> None:
    names = {str(name) for frame in findings[kind].tables.values() for name in frame}
    bare = {name for name in names if name.removesuffix("_low").removesuffix("_high") not in names - {name}}

    assert {name for name in bare if meaning(name) is None} == set()


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_drawn(findings: dict[str, Findings], kind: str) -> None:
    assert list(findings[kind].figures()) == list(FIGURES[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_guide_of_its_own(kind: str) -> None:
    assert guide(kind) != GENERAL


def test_leading_columns_are_those_of_the_main_table(findings: dict[str, Findings]) -> None:
    leading = LEADING["steering_evaluation"]

    assert set(leading) <= set(findings["steering_evaluation"].to_frame())
    assert set(leading) <= set(COLUMNS)


class _Words(HTMLParser):
    """The words of a page, scripts and styles left out."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.words = False, list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = False

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.words.append(data)


def test_the_report_of_an_evaluation_holds_guide_captions_and_meanings(
    findings: dict[str, Findings], tmp_path: Path
) -> None:
    kind, reader = "steering_evaluation", _Words()
    manifest = start_manifest(experiment(), model=ToyModel(), prompts=ToyPrompts(), argv=["mechint"])

    reader.feed(write_report(tmp_path, findings[kind], manifest | {"status": "complete"}).read_text(encoding="utf-8"))
    text = " ".join(" ".join(reader.words).split())

    for sentence in (*guide(kind), *CAPTIONS[kind].values(), COLUMNS["kl_p95"][1], COLUMNS["effect"][1]):
        assert sentence in text
