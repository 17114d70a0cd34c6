from dataclasses import replace
from typing import Any

import pytest
import torch

from mechint.errors import PositionError, PromptError, SiteError
from mechint.model.base import Model
from mechint.model.loading import load
from mechint.probes.critique.recording import (
    Place,
    _selected,
    record_answers,
    record_places,
    record_twins,
    with_answers,
)
from mechint.prompts.reasoning import TokenTwins, arithmetic_problems, inject, twins
from mechint.sites import Site
from tests.families import tiny
from tests.probes.critique.toy import token_twins

TWINS = token_twins()
SITES = ["embed", "L1H2.z", "L2.resid_post"]


def alone(family: str, row: tuple[int, ...], site: str) -> torch.Tensor:
    """One row by itself, unpadded, through the whole model: [pos, width]."""
    return tiny(family).run([row], read=[site])[site][0]


def places(given: TokenTwins, at: str) -> list[list[int]]:
    stubs = [list(stub) for stub in given.stub]
    return {"result": [[r] for r in given.result], "stub": stubs, "stub_last": [s[-1:] for s in stubs]}[at]


@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
@pytest.mark.parametrize("at", ["result", "stub", "stub_last"])
def test_what_is_recorded_is_what_each_row_gives_alone(family: str, at: Place) -> None:
    kept = record_twins(tiny(family), TWINS, SITES, at)
    rows = (*TWINS.wrong, *TWINS.true)

    assert kept.sites == tuple(sorted(map(Site.parse, SITES)))
    for site in SITES:
        chosen = zip(rows, places(TWINS, at) * 2, strict=True)
        expected = torch.stack([alone(family, row, site)[where].mean(0) for row, where in chosen])
        assert torch.allclose(kept.single(site), expected, atol=1e-4)


@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
def test_places_that_are_recorded_together_are_those_recorded_alone(family: str) -> None:
    # Stubs of two lengths, so that not all rows keep equally much.
    given = replace(TWINS, stub=tuple(stub[: 2 + at % 2] for at, stub in enumerate(TWINS.stub)))
    together = record_places(tiny(family), given, SITES, ("result", "stub", "stub_last"))

    for at, found in together.items():
        alone = record_twins(tiny(family), given, SITES, at)
        assert (found.at, found.ids, found.labels, found.norms.keys()) == (
            alone.at,
            alone.ids,
            alone.labels,
            alone.norms.keys(),
        )
        for site in alone.sites:
            assert torch.allclose(found[site], alone[site], atol=1e-5)
            assert found.norms[site] == pytest.approx(alone.norms[site], rel=1e-5)


def test_wrong_rows_come_first_and_keep_their_pair_and_problem() -> None:
    kept = record_twins(tiny("llama"), TWINS, "L1.resid_post")

    assert kept.labels == (1,) * 12 + (0,) * 12
    assert kept.ids == TWINS.ids * 2
    assert kept.groups == TWINS.groups * 2
    assert kept.texts[0] == tiny("llama").tokenizer.decode(list(TWINS.wrong[0]))
    assert kept.data == {"name": "toy", "hash": TWINS.content_hash}
    assert kept.values[Site.parse("L1.resid_post")].dtype == torch.float32


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "neox"])
@pytest.mark.parametrize("at", ["stub", "stub_last"])
def test_the_embedding_of_the_stub_is_the_same_in_both_to_the_last_bit_and_what_is_carried_is_not(
    family: str, at: Place
) -> None:
    kept = record_twins(tiny(family), TWINS, ["embed", "L2.resid_post"], at)
    n = len(TWINS)

    assert torch.equal(kept["embed"][:n], kept["embed"][n:])
    assert not torch.isclose(kept["L2.resid_post"][:n], kept["L2.resid_post"][n:]).all(-1).any()


def test_what_stands_behind_the_result_does_not_change_it() -> None:
    cut = replace(
        TWINS,
        true=tuple(row[: at + 1] for row, at in zip(TWINS.true, TWINS.result, strict=True)),
        wrong=tuple(row[: at + 1] for row, at in zip(TWINS.wrong, TWINS.result, strict=True)),
        stub=((),) * len(TWINS),
    )
    whole, alone = (record_twins(tiny("llama"), one, "L2.resid_post")["L2.resid_post"] for one in (TWINS, cut))

    assert torch.allclose(whole, alone, atol=1e-5)


@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
def test_the_median_norm_leaves_out_the_first_token_of_every_row(family: str) -> None:
    site = "L2.resid_post"
    norms = torch.cat([alone(family, row, site)[1:].norm(dim=-1) for row in (*TWINS.wrong, *TWINS.true)])

    found = record_twins(tiny(family), TWINS, site).norms[Site.parse(site)]
    assert found == pytest.approx(float(norms.median()), rel=1e-4)


@pytest.mark.parametrize("family", ["gemma3", "llama"])
def test_the_last_block_is_read_before_the_final_norm(family: str) -> None:
    model = tiny(family)
    last = f"L{model.facts.n_layers - 1}.resid_post"
    kept = record_twins(model, TWINS, [last, "final_norm"])
    norm = model.norm("final")

    assert not torch.allclose(kept[last], kept["final_norm"], atol=1e-2)
    assert torch.allclose(norm(kept[last]), kept["final_norm"], atol=1e-4)


@pytest.mark.parametrize("family", ["gemma3", "llama"])
def test_an_answer_is_read_as_the_mean_over_its_tokens_in_rows_that_end_with_it(family: str) -> None:
    answers = [f"w7 w{8 + i} w9" for i in range(len(TWINS))]
    kept = record_answers(tiny(family), TWINS, answers, ["embed", "L2.resid_post"])

    for i, row in enumerate((*TWINS.wrong, *TWINS.true)):
        whole = (*row, 7, 8 + i % len(TWINS), 9)
        assert torch.allclose(
            kept.single("L2.resid_post")[i], alone(family, whole, "L2.resid_post")[-3:].mean(0), atol=1e-4
        )
    assert torch.equal(kept["embed"][: len(TWINS)], kept["embed"][len(TWINS) :])
    assert kept.at == "mean of answer"


def test_an_answer_may_be_given_as_tokens() -> None:
    as_text, as_tokens = (
        with_answers(TWINS, answers, tiny("llama").tokenizer) for answers in (["w7 w9"] * 12, [(7, 9)] * 12)
    )

    assert as_text == as_tokens
    assert as_text.true[3] == (*TWINS.true[3], 7, 9)
    assert as_text.stub[3] == (len(TWINS.true[3]), len(TWINS.true[3]) + 1)


class UnusedError(Exception):
    """A model was run."""


@pytest.fixture
def never_run(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*_: Any, **__: Any) -> None:
        raise UnusedError

    monkeypatch.setattr(type(tiny("gemma3")), "run", run)
    return tiny("gemma3")


def test_everything_that_can_be_refused_is_refused_before_the_model_runs(never_run: Any) -> None:
    with pytest.raises(UnusedError):
        record_twins(never_run, TWINS, "L1.resid_post")
    with pytest.raises(PositionError, match="expected 'result'"):
        _selected(TWINS, "end")
    with pytest.raises(PositionError, match="12 of 12 twins have no stub"):
        record_twins(never_run, replace(TWINS, stub=((),) * 12), "L1.resid_post", "stub")
    with pytest.raises(SiteError, match="No site"):
        record_twins(never_run, TWINS, [])
    with pytest.raises(SiteError, match="has blocks L0 to L5"):
        record_twins(never_run, TWINS, "L6.resid_post")
    with pytest.raises(PromptError, match="no twins"):
        record_twins(never_run, TWINS.rows([]), "L1.resid_post")
    with pytest.raises(PositionError, match="reads at most 64"):
        record_answers(never_run, TWINS, ["w7 " * 60] * 12, "L1.resid_post")
    with pytest.raises(PromptError, match="2 answers to 12 pairs"):
        record_answers(never_run, TWINS, ["w7"] * 2, "L1.resid_post")
    with pytest.raises(PromptError, match="no tokens, or unknown"):
        record_answers(never_run, TWINS, ["Paris"] * 12, "L1.resid_post")
    with pytest.raises(PromptError, match="no tokens, or unknown"):
        record_answers(never_run, TWINS, [()] * 12, "L1.resid_post")


@pytest.fixture(scope="module")
def gemma() -> Model:
    return load("gemma3-270m")


@pytest.mark.real
def test_on_gemma_the_stub_is_the_same_in_both_where_nothing_was_read_and_differs_after_the_first_block(
    gemma: Model,
) -> None:
    pairs = twins(inject(arithmetic_problems(6)), gemma.tokenizer).tokens
    kept = record_twins(gemma, pairs, ["embed", "L0.resid_post"], "stub")
    n = len(pairs)

    assert torch.equal(kept["embed"][:n], kept["embed"][n:])
    assert not torch.equal(kept["L0.resid_post"][:n], kept["L0.resid_post"][n:])
