"""An evaluation finds what is planted, finds nothing where nothing is, and counts draws as it says."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mechint.capture.activations import record
from mechint.errors import ConfigError, PromptError, TokenError
from mechint.positions import generated
from mechint.prompts import Prompt, PromptSet, contrast
from mechint.sites import Site
from mechint.steering import evaluation_summary as summary
from mechint.steering.arms import Arms, unrelated_labels
from mechint.steering.evaluation import evaluate
from mechint.steering.metrics import TextScore, WordPreference, distinct, repetition, word_balance
from mechint.vectors.estimators.means import mean_difference
from mechint.vectors.fit import fit
from mechint.vectors.samples import Samples
from mechint.vectors.vector import SteeringVector
from tests.families import random_rows, tiny

SITE = Site("resid_post", 1)
METRIC = WordPreference((" w5", " w6"), (" w7", " w8"))
PROMPTS = PromptSet(
    "words",
    tuple(Prompt(str(i), " ".join(f"w{t}" for t in row[1:])) for i, row in enumerate(random_rows(10, 8, seed=4))),
)
QUICK: dict[str, Any] = {"damage": False, "texts": 0, "doses": (0.1, 0.3, 0.6), "progress": False}


def planted(family: str = "llama") -> SteeringVector:
    """A vector that pushes the words of the metric, found by its gradient: finite differences along every axis."""
    model = tiny(family)
    rows = [model.tokenize(p.prompt) for p in PROMPTS]
    clean = model.run(rows, read=[SITE])[SITE]
    norm = float(clean.norm(dim=-1).median())
    from mechint.interventions import add
    from mechint.model.base import Logits

    columns = torch.tensor([*METRIC.tokens(model, METRIC.positive), *METRIC.tokens(model, METRIC.negative)])
    slopes = []
    for axis in torch.eye(32):
        run = model.run(rows, write={SITE: add(axis, 0.05 * norm)}, logits=Logits(columns=columns)).logits
        assert run is not None
        slopes.append(float((run[..., :2].logsumexp(-1) - run[..., 2:].logsumexp(-1)).mean()))
    base = METRIC(model, PROMPTS).mean()
    identity = {"name": "tiny", "weights": str(model.fingerprint["weights"])}
    return SteeringVector({SITE: torch.tensor(slopes) - base}, {SITE: norm}, "w5 and w6", "gradient", identity)


def test_a_planted_effect_is_found_beyond_its_nulls() -> None:
    found = evaluate(tiny("llama"), planted(), PROMPTS, METRIC, **QUICK)

    assert found.verdict.startswith("More than chance: at dose 0.3")
    tests = found.to_frame("tests").set_index("null")
    assert tests.loc["random", "p"] == pytest.approx(1 / 51)
    doses = found.to_frame().set_index(["arm", "dose"])
    assert doses.loc[("vector", 0.1), "effect"] < doses.loc[("vector", 0.6), "effect"]
    assert doses.loc[("vector", 0.3), "effect_low"] > doses.loc[("random", 0.3), "effect_high"]


def test_a_vector_that_means_nothing_has_no_effect_beyond_chance() -> None:
    model = tiny("llama")
    direction = torch.randn(32, generator=torch.Generator().manual_seed(11))
    nothing = replace(planted(), directions={SITE: direction}, concept="nothing")

    found = evaluate(model, nothing, PROMPTS, METRIC, **QUICK)

    assert found.verdict.startswith("No effect beyond chance")


def test_an_effect_of_the_contrary_sign_is_no_success() -> None:
    found = evaluate(tiny("llama"), -planted(), PROMPTS, METRIC, **QUICK)

    assert found.verdict.startswith("No effect beyond chance")
    assert found.to_frame("tests")["p"].max() == 1


def test_every_arm_is_there_with_its_draws_and_is_as_long_as_the_vector() -> None:
    model = tiny("llama")
    rows = [" ".join(f"w{t}" for t in row[1:]) for row in random_rows(24, 6, seed=9)]
    pairs = contrast([f"{r} w5" for r in rows[:12]], [f"{r} w7" for r in rows[:12]], name="five")
    data = record(model, pairs, [SITE])
    vector = fit(data)
    other = fit(model, contrast([f"{r} w30" for r in rows[12:]], [f"{r} w31" for r in rows[12:]]), [SITE])
    draws = {"random": 3, "random_covariance": 2, "shuffled_labels": 4, "orthogonal": 1, "other_concept": 1}
    arms = Arms(vector, data, other, METRIC.token_direction(model))

    found = evaluate(
        model, vector, PROMPTS, METRIC, fitted_on=data, other=other, controls=draws, instruction="w9 w9 ", **QUICK
    )

    counted = found.to_frame().groupby("arm")["draws"].first().to_dict()
    assert counted == {"vector": 1, **draws, "prompt_only": 1}
    lengths = {float(arms.make(arm, 0).step(SITE, 0.3).norm()) for arm in ("vector", *draws)}
    assert max(lengths) - min(lengths) < 1e-4
    assert len({tuple(arms.make("shuffled_labels", k)[SITE].tolist()) for k in range(4)}) == 4
    direction = METRIC.token_direction(model)
    assert abs(float(arms.make("orthogonal", 0).unit(SITE) @ direction / direction.norm())) < 1e-5
    assert "instruction alone" in found.verdict


def test_labels_that_mean_nothing_are_not_the_true_ones_in_disguise() -> None:
    """With few groups, labels exchanged at random often agree with most of the true ones: the vector, but shorter."""
    rng = np.random.default_rng(0)
    y, groups = np.tile([1, 0], 24), np.repeat(np.arange(6), 8)
    x = rng.standard_normal((48, 40)) + 5.0 * y[:, None]
    samples = Samples(x, y, groups, np.repeat(np.arange(24), 2))
    vector = mean_difference(samples)

    def likeness(shuffled: Samples) -> float:
        direction = mean_difference(shuffled)
        return abs(float(direction @ vector / direction.norm() / vector.norm()))

    drawn = [samples.shuffled(seed) for seed in range(20)]
    unrelated = [unrelated_labels(samples, seed) for seed in range(20)]

    assert max(map(likeness, drawn)) > 0.9
    assert max(map(likeness, unrelated)) < 0.5  # three times 1 / sqrt(40), the likeness of random directions
    assert len({tuple(one.y.tolist()) for one in unrelated}) > 10
    assert all(one.y[::2].tolist() == (1 - one.y[1::2]).tolist() for one in unrelated)  # pairs stay pairs


def test_the_token_direction_pushes_the_words_at_the_end_of_the_stream() -> None:
    model = tiny("gemma3")
    last = Site("resid_post", model.facts.n_layers - 1)
    norm = {last: 10.0}
    own = {"name": "tiny", "weights": str(model.fingerprint["weights"])}
    vector = SteeringVector({last: METRIC.token_direction(model)}, norm, "w5 and w6", "unembedding", own)

    found = evaluate(model, vector, PROMPTS, METRIC, controls={"random": 20}, **QUICK)

    assert found.verdict.startswith("More than chance")


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_the_token_direction_is_what_the_logits_read_of_the_stream(family: str) -> None:
    model = tiny(family)
    final, direction = model.norm("final"), METRIC.token_direction(model)
    ids = [torch.tensor(METRIC.tokens(model, side)) for side in (METRIC.positive, METRIC.negative)]
    difference = model.unembedding(ids[0]).mean(0) - model.unembedding(ids[1]).mean(0)
    stream = 3 * torch.randn(5, 32, generator=torch.Generator().manual_seed(1)) + 2  # far from centred
    assert final is not None

    logits = final(stream) @ difference - (0 if final.bias is None else final.bias @ difference)

    torch.testing.assert_close((stream @ direction)[:, None] / final.scale(stream), logits[:, None])


def test_damage_and_texts_stand_beside_the_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    from mechint.steering import evaluation
    from mechint.vectors.damage import NeutralTexts

    texts = PromptSet("w", tuple(Prompt(f"n{i}", p.prompt + " w9 w10 w11") for i, p in enumerate(PROMPTS)))
    monkeypatch.setattr(
        evaluation, "NeutralTexts", lambda model, seed: NeutralTexts(model, texts, length=10, positions=4, seed=seed)
    )
    settings = {**QUICK, "damage": True, "texts": 3, "max_new_tokens": 5}
    found = evaluate(tiny("llama"), planted(), PROMPTS, METRIC, controls={"random": 3}, **settings)

    doses = found.to_frame().set_index(["arm", "dose"])
    assert doses.loc[("vector", 0.6), "kl_p95"] > doses.loc[("vector", 0.1), "kl_p95"] > 0
    assert np.isfinite(doses.loc[("random", 0.3), "perplexity_ratio"])
    texts_table = found.to_frame("texts")
    assert sorted(set(texts_table["dose"])) == [0.0, 0.1, 0.3, 0.6]
    assert len(texts_table) == 12
    assert "Cost on neutral text" in found.verdict


def test_the_share_of_null_draws_is_counted_with_the_draw_itself() -> None:
    ids = [str(i) for i in range(6)]

    def rows(arm: str, draw: int, value: float) -> pd.DataFrame:
        return pd.DataFrame(
            {"arm": arm, "draw": draw, "dose": 0.0 if arm == "none" else 0.5, "id": ids, "value": value}
        )

    effects = pd.concat([rows("none", 0, 1.0), rows("vector", 0, 3.0), *(rows("random", k, 1.0 + k) for k in range(4))])

    tests = summary.tests(effects, 0.5, {i: i for i in ids}, 0)

    assert tests["effect"].tolist() == [2.0]
    assert tests["p"].tolist() == [(1 + 2) / 5]  # draws with effects 0, 1, 2, 3: two of them reach 2
    assert tests["mean"].tolist() == [1.5]


def test_the_hardest_null_decides() -> None:
    doses = pd.DataFrame({"arm": ["vector"], "dose": [0.5], "effect": [2.0], "effect_low": [1.0], "effect_high": [3.0]})
    nulls = {"null": ["random", "shuffled_labels"], "draws": 50, "mean_high": [0.1, 0.2], "p": [0.02, 0.3]}
    tests = pd.DataFrame(nulls)

    assert summary.verdict("x", METRIC, 0.5, doses, tests).startswith("No effect beyond chance")
    assert summary.verdict("x", METRIC, 0.5, doses, tests.assign(p=0.04)).startswith("More than chance")
    assert "compared with nothing" in summary.verdict("x", METRIC, 0.5, doses, tests.iloc[:0])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"doses": (0.1,)}, ConfigError, "two or more positive"),
        ({"doses": (0.1, -0.2)}, ConfigError, "two or more positive"),
        ({"doses": (0.1, 0.2), "test_dose": 0.3}, ConfigError, "none of the doses"),
        ({"controls": "none"}, ConfigError, "Expected 'standard'"),
        ({"controls": {"placebo": 3}}, ConfigError, "Expected 'standard'"),
        ({"dose": 0.3}, ConfigError, "Unknown setting 'dose'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        evaluate(tiny("llama"), planted(), PROMPTS, METRIC, **settings)


def test_prompts_and_words_that_cannot_serve_are_refused() -> None:
    model = tiny("llama")
    with pytest.raises(PromptError, match="at least two"):
        evaluate(model, planted(), PROMPTS[:1], METRIC, **QUICK)
    with pytest.raises(TokenError, match="on both sides"):
        evaluate(model, planted(), PROMPTS, WordPreference((" w5",), (" w5",)), **QUICK)
    with pytest.raises(TokenError):
        evaluate(model, planted(), PROMPTS, WordPreference((" unheard",), (" w5",)), **QUICK)


def test_a_plan_that_a_metric_never_meets_is_an_error() -> None:
    from mechint.errors import NeverFiredError

    with pytest.raises(NeverFiredError):
        evaluate(tiny("llama"), planted(), PROMPTS, METRIC, where=generated(), **QUICK)


def test_generated_texts_can_be_scored() -> None:
    model = tiny("llama")
    sides = {"w5": 1, "w6": 1, "w7": -1, "w8": -1}
    metric = TextScore(
        lambda text: float(sum(sides.get(word, 0) for word in text.split())),
        "words of one side",
        max_new_tokens=6,
        samples=2,
        temperature=1.0,
    )

    found = evaluate(model, planted(), PROMPTS, metric, controls={"random": 5}, **{**QUICK, "doses": (0.5, 1.0)})

    doses = found.to_frame().set_index(["arm", "dose"])
    assert doses.loc[("vector", 1.0), "effect"] > doses.loc[("random", 1.0), "effect"]


def test_scores_of_texts_are_what_they_say() -> None:
    assert word_balance([" Great"], [" bad"])("") == 0
    assert word_balance([" Great"], [" bad"])("great, GREAT; bad") == pytest.approx(100 / 3)
    assert distinct("a b a b a b", 2) == 2 / 5
    assert distinct("a", 2) == 1
    assert repetition([1, 2, 3, 4], 4) == 0
    assert repetition([1, 1, 1, 1, 1, 1], 2) == pytest.approx(4 / 5)
