"""What was learned: copy suppression where a noun rarely comes twice, and nothing of the kind where it may."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import mechint as mi
from mechint.errors import CorruptModelError, PromptError
from mechint.model.base import Model
from mechint.organisms import trained
from mechint.organisms.language import KINDS, NOUNS, kind_of, token_rows, vocabulary
from mechint.organisms.training import RECIPES, best_noun_loss
from mechint.prompts import encode
from mechint.results import Findings

NAMES = tuple(RECIPES)
SETTINGS: dict[str, Any] = {"induction_rows": 8, "examples": 1, "progress": False}
HELD_OUT = 11
"""A seed that nothing was trained on or chosen by."""


@pytest.fixture(scope="module")
def organism() -> Model:
    return mi.load("organism:trained-copy-suppression")


@pytest.fixture(scope="module")
def twin() -> Model:
    return mi.load("organism:trained-no-suppression")


@pytest.fixture(scope="module")
def scanned(organism: Model) -> Findings:
    return mi.copy_suppression(organism, trained.prompts(48, HELD_OUT), **SETTINGS)


@pytest.fixture(scope="module")
def heads(scanned: Findings) -> pd.DataFrame:
    return scanned.to_frame().set_index("label")


def losses(model: Model, rows: torch.Tensor) -> tuple[float, float]:
    """Mean over all tokens, and over nouns."""
    logits = model.all_logits(rows.tolist())[:, :-1].double().log_softmax(-1)
    loss = -logits.gather(-1, rows[:, 1:, None])[..., 0]
    nouns = torch.tensor([word in NOUNS for word in vocabulary()])[rows[:, 1:]]
    return float(loss.mean()), float(loss[nouns].mean())


@pytest.mark.parametrize("name", NAMES)
def test_held_out_loss_is_below_the_unigram_entropy_and_near_the_recorded_one(name: str) -> None:
    about = trained.header(name)
    rows = token_rows(64, about["repeat"], HELD_OUT, "held-out")
    share = torch.bincount(rows[:, 1:].flatten()).double() / rows[:, 1:].numel()
    entropy = -float((share[share > 0] * share[share > 0].log()).sum())

    token, noun = losses(mi.load(f"organism:{name}"), rows)

    assert token < entropy / 2
    assert token == pytest.approx(about["loss"], abs=0.05)
    assert noun == pytest.approx(about["noun_loss"], abs=0.08)


def test_the_organism_gains_most_of_what_the_rule_offers_on_nouns_and_the_twin_has_nothing_to_gain(
    organism: Model, twin: Model
) -> None:
    rows = token_rows(64, 0.1, HELD_OUT, "held-out")
    best, blind = best_noun_loss(rows, 0.1), math.log(12)

    assert losses(organism, rows)[1] < blind - (blind - best) / 2
    assert losses(twin, rows)[1] > blind - 0.02


def test_a_mentioned_noun_is_lowered_against_a_new_one_in_the_organism_alone(organism: Model, twin: Model) -> None:
    data = trained.prompts(64, HELD_OUT)
    tokens = encode(data, organism.tokenizer)
    gaps: dict[str, float] = {}
    for model in (organism, twin):
        found = [
            (logits := model.run([row], logits=mi.Logits()).logits)[0, 0, target] - logits[0, 0, distractor]
            for row, target, distractor in zip(tokens.tokens, tokens.target, tokens.distractor, strict=True)
        ]
        gaps[model.facts.name] = float(torch.stack(found).mean())

    # The language says -ln 10, which is -2.3, and 0.
    assert -3 < gaps["organism:trained-copy-suppression"] < -1
    assert abs(gaps["organism:trained-no-suppression"]) < 0.2


def test_the_scan_finds_copy_suppression_in_the_last_block(scanned: Findings, heads: pd.DataFrame) -> None:
    found = heads[heads["suppresses"]]

    assert len(found) >= 1
    assert set(found["layer"]) == {1}
    assert (found["cs_score_low"] > 0.1).all()
    assert (found["ov_bottom_share_low"] > 0.5).all()
    assert scanned.verdict.startswith(f"{len(found)} of 8 heads of organism:trained-copy-suppression")


def test_without_the_strongest_head_mentioned_nouns_come_back(heads: pd.DataFrame) -> None:
    strongest = heads.loc[heads["cs_score"].idxmax()]

    assert strongest["suppresses"]
    assert strongest["ablation_effect_low"] > 0.1
    assert strongest["direct_effect_difference_high"] < -0.1


def test_it_attends_to_nouns_of_the_kind_that_is_called_for_and_not_to_other_nouns(
    organism: Model, heads: pd.DataFrame
) -> None:
    layer, head = (int(heads.loc[heads["cs_score"].idxmax(), axis]) for axis in ("layer", "head"))
    data, words = trained.prompts(48, HELD_OUT), vocabulary()
    called_for: list[float] = []
    others: list[float] = []
    for one, row in zip(data, encode(data, organism.tokenizer).tokens, strict=True):
        kind = kind_of(str(one.target).strip())
        pattern = organism.run([row], read={f"L{layer}.pattern": mi.prompt(-1)})[f"L{layer}.pattern"][0, head, 0]
        for token, weight in zip(row, pattern.tolist(), strict=True):
            if words[token] in NOUNS:
                (called_for if words[token] in kind else others).append(weight)

    assert len(others) > 100
    assert sum(called_for) / len(called_for) > 5 * sum(others) / len(others)


def test_the_scan_finds_nothing_in_the_twin(twin: Model) -> None:
    findings = mi.copy_suppression(twin, trained.prompts(48, HELD_OUT), **SETTINGS)

    assert not findings.to_frame()["suppresses"].any()
    assert findings.to_frame()["cs_score"].max() < 0.1
    assert findings.verdict.startswith("None found")


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_file_is_small_and_says_how_it_was_made(name: str) -> None:
    path = Path(trained.__file__).parent / "weights" / f"{name}.safetensors"
    about, recipe = trained.header(name), RECIPES[name]

    assert path.stat().st_size < 1_500_000
    assert {key: about[key] for key in ("repeat", "seed", "steps", "rows", "rate", "decay")} == {
        key: getattr(recipe, key) for key in ("repeat", "seed", "steps", "rows", "rate", "decay")
    }
    assert about["data"].startswith("sha256:")
    assert {"loss", "noun_loss", "best_noun_loss", "torch", "config"} <= set(about)


def test_prompts_ask_for_a_noun_whose_kind_has_one_mentioned_and_one_new() -> None:
    for one in trained.prompts(60, HELD_OUT):
        words = one.prompt.replace(",", " ,").replace(".", " .").split(" ")
        target, distractor = str(one.target).strip(), str(one.distractor).strip()
        assert words[-1] == "the"
        assert words.count(target) == 1
        assert words.count(distractor) == 0
        verb = next(word for word in reversed(words) if word in KINDS)
        assert {target, distractor} <= set(KINDS[verb])
        assert kind_of(target) == kind_of(distractor)


def test_prompts_and_documents_do_not_depend_on_their_number() -> None:
    assert trained.prompts(5, 3)[:2].prompts == trained.prompts(2, 3).prompts
    assert trained.documents(5, 3)[:2].prompts == trained.documents(2, 3).prompts
    assert trained.documents(5, 3).content_hash != trained.documents(5, 4).content_hash
    with pytest.raises(PromptError, match="0 were asked for"):
        trained.prompts(0)
    with pytest.raises(PromptError, match="0 were asked for"):
        trained.documents(0)


def test_documents_are_long_enough_for_texts_and_fit_the_model(organism: Model) -> None:
    texts = trained.documents(100, HELD_OUT)

    rows = encode(texts, organism.tokenizer, n_ctx=organism.facts.n_ctx).tokens  # refuses unknown words and long rows

    assert all(sum(word.strip(",.").isalpha() for word in one.prompt.split()) >= 64 for one in texts)
    assert min(map(len, rows)) > 64


def test_a_file_that_is_missing_or_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "FOLDER", tmp_path)

    with pytest.raises(CorruptModelError, match=r"cannot be read .*python -m mechint\.organisms\.training"):
        trained.build()
    (tmp_path / "trained-copy-suppression.safetensors").write_bytes(b"not weights")
    with pytest.raises(CorruptModelError, match="'trained-copy-suppression' cannot be read"):
        trained.build()
