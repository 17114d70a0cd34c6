"""Self-repair on text: averages mean what their names say, the controls control, and nothing is claimed of noise."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

import mechint as mi
from mechint.effects.documents import Documents
from mechint.effects.text_repair import repair_on_documents
from mechint.errors import ConfigError, PromptError, SiteError
from mechint.experiment.columns import meaning
from mechint.experiment.leading import LEADING
from mechint.experiment.registry import ANALYSES
from mechint.plots.figures import FIGURES
from mechint.probes.self_repair import averages, resampling, summary
from mechint.probes.self_repair.averages import (
    CHANCE,
    CONDENSED,
    FULL,
    MEASURES,
    OTHER_DRAWS,
    SAME_DRAW,
    Chosen,
    Measured,
)
from mechint.probes.self_repair.criteria import judge
from mechint.probes.self_repair.on_text import TextRepairAnalysis, components_of, self_repair_on_text
from mechint.probes.self_repair.settings import TextRepairSettings
from mechint.prompts import Prompt, PromptSet
from mechint.results import Findings, complete
from mechint.statistics import generator
from tests.families import tiny

N_DOCUMENTS, LENGTH, TOP = 20, 10, 0.1
SMALL: dict[str, Any] = {"length": LENGTH, "positions": 4, "top": TOP, "neurons": 2, "progress": False}


def texts(n: int = N_DOCUMENTS, words: int = 12) -> PromptSet:
    made = [
        Prompt(f"t{i}", " ".join(f"w{j}" for j in generator(0, "text", i).integers(2, 50, words)), cluster=f"c{i // 2}")
        for i in range(n)
    ]
    return PromptSet("random words", tuple(made))


@pytest.fixture(scope="module")
def found() -> Findings:
    return self_repair_on_text(tiny("gpt2"), texts(), components=("heads", "mlps", "layers"), **SMALL)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    model = tiny("gpt2")
    documents = Documents.cut(texts(), model, LENGTH)
    components = components_of(model.facts, TextRepairSettings(components=("heads", "mlps", "layers")))
    return repair_on_documents(model, documents, components, per_document=4, draws=2)


def a_component(values: dict[str, np.ndarray], label: str = "L0H0") -> Measured:
    """Tokens with these values; two of a document, and what is not given is 0."""
    n, draws = next(iter(values.values())).shape
    whole = {name: values.get(name, np.zeros((n, draws))) for name in MEASURES} | {"norm_ratio": np.ones((n, draws))}
    whole["logit_change"] = whole["self_repair"] + whole["direct_effect_ablated"] - whole["direct_effect"]
    return Measured(label, "head", 0, 0, np.arange(n) // 2, np.zeros(n, dtype=int), whole)


def ratio(chosen: Chosen) -> float:
    return float(chosen.values["self_repair"].mean() / chosen.values["direct_effect"].mean())


def noisy_draws(seed: int, share: float = 0.3, effect: float = 0.5, n: int = 4000) -> Measured:
    """Every token loses and regains alike, but for what its replacements happen to write: noise of its own a draw."""
    rng = generator(seed, "noise")
    luck, change = rng.normal(0, 1, (n, 2)), rng.normal(0, 0.3, (n, 2))
    return a_component(
        {
            "direct_effect": np.full((n, 2), effect),
            "direct_effect_ablated": -luck,
            "self_repair": share * effect + luck + change,
        }
    )


def test_choosing_by_a_noisy_loss_is_biased_and_measuring_on_another_draw_is_not() -> None:
    share = 0.3
    naive, split = zip(
        *(
            (ratio(chosen[SAME_DRAW]), ratio(chosen[OTHER_DRAWS]))
            for chosen in (averages.averages(noisy_draws(seed, share), 0.02) for seed in range(12))
        ),
        strict=True,
    )

    error = np.std(split) / np.sqrt(len(split))
    assert min(naive) > share + 3  # the luckiest 2 % of unit noise lie above 2, four times the effect
    assert abs(np.mean(split) - share) < 4 * error
    assert error < 0.2


def test_an_effect_that_the_logit_does_not_feel_looks_like_perfect_repair_and_so_does_its_null() -> None:
    """Mathematical coupling: the logit changes at random, and direct effects are other random numbers."""
    rng = generator(0, "coupling")
    n = 2400
    before, after = np.repeat(rng.normal(0, 1, (n, 1)), 2, axis=1), rng.normal(0, 1, (n, 2))
    change = rng.normal(0, 1, (n, 2))
    one = a_component({"direct_effect": before, "direct_effect_ablated": after, "self_repair": change - after + before})
    found = {"L0H0": averages.averages(one, 0.05)}
    table = judged(found, one, n)

    assert ratio(found["L0H0"][CONDENSED]) == pytest.approx(1, abs=0.15)
    assert ratio(found["L0H0"][CHANCE]) == pytest.approx(1, abs=0.15)
    assert table["condensed_ratio_low"] > 0.1
    assert table["condensed_self_repair_p"] < 0.05
    assert not table["repaired"]
    assert table["failed"] == "more than for a chance fit"


def test_repair_of_what_the_component_does_is_told_from_that_of_a_chance_fit() -> None:
    rng = generator(0, "true repair")
    n = 2400
    before = np.repeat(rng.normal(0, 1, (n, 1)), 2, axis=1)
    after, noise = rng.normal(0, 1, (n, 2)), rng.normal(0, 0.5, (n, 2))
    one = a_component({"direct_effect": before, "direct_effect_ablated": after, "self_repair": 0.6 * before + noise})
    found = {"L0H0": averages.averages(one, 0.05)}
    table = judged(found, one, n)

    assert table["condensed_ratio_low"] < 0.6 < table["condensed_ratio_high"]
    assert table["chance_ratio_low"] < 0 < table["chance_ratio_high"]
    assert table["ratio_excess_low"] < 0.6 < table["ratio_excess_high"]
    assert table["repaired"]


def judged(found: dict[str, dict[str, Chosen]], one: Measured, n: int) -> Any:
    clusters = {document: document for document in range(n // 2)}
    about = summary.about_components([one], 2)
    table = summary.condensed_table(found, about, clusters, 0)
    return summary.components_table(found, table, about, clusters, 0).iloc[0]


def test_each_average_is_its_definition_token_by_token(rows: pd.DataFrame) -> None:
    for one in list(averages.measured(rows))[:3]:
        mine = rows[rows["label"] == one.label]
        first, second = (
            mine[mine["draw"] == draw].sort_values(["document", "position"]).reset_index(drop=True) for draw in (0, 1)
        )
        n = len(first)
        size = round(TOP * n)
        found = averages.averages(one, TOP)

        mean = (first["self_repair"] + second["self_repair"]) / 2
        most = first["direct_effect"].nlargest(size).index
        assert found[FULL].values["self_repair"].mean() == pytest.approx(mean.mean(), abs=1e-6)
        assert found[CONDENSED].values["self_repair"].mean() == pytest.approx(mean[most].mean(), abs=1e-6)
        same, other, chance = [], [], []
        for own, elsewhere in ((first, second), (second, first)):
            lost = (own["direct_effect"] - own["direct_effect_ablated"]).nlargest(size).index
            same += own.loc[lost, "self_repair"].tolist()
            other += elsewhere.loc[lost, "self_repair"].tolist()
            lucky = own["direct_effect_ablated"].nlargest(size).index
            chance += (elsewhere.loc[lucky, "self_repair"] - own.loc[lucky, "self_repair"]).tolist()
        for name, expected in ((SAME_DRAW, same), (OTHER_DRAWS, other), (CHANCE, chance)):
            np.testing.assert_allclose(np.sort(found[name].values["self_repair"]), np.sort(expected), atol=1e-6)


def test_the_parts_add_up_in_every_average(found: Findings) -> None:
    for name in ("condensed", "layers"):
        table = found.to_frame(name)
        assert set(table["average"]) == {FULL, CONDENSED, SAME_DRAW, OTHER_DRAWS, CHANCE}
        parts = table["heads_part"] + table["mlps_part"] + table["norm_part"]
        np.testing.assert_allclose(parts, table["self_repair"], atol=1e-5)
        lost = table["direct_effect_ablated"] - table["direct_effect"]
        np.testing.assert_allclose(table["logit_change"] - lost, table["self_repair"], atol=1e-5)


def test_each_ratio_is_what_its_name_says(found: Findings, rows: pd.DataFrame) -> None:
    single = {one.label: averages.averages(one, TOP)[CONDENSED] for one in averages.measured(rows)}
    table = found.to_frame("condensed")
    table = table[table["average"] == CONDENSED].set_index("label")
    for label, chosen in single.items():
        repair, direct = chosen.values["self_repair"], chosen.values["direct_effect"]
        assert table.loc[label, "repair_ratio_of_means"] == pytest.approx(repair.mean() / direct.mean(), rel=1e-5)
        assert table.loc[label, "repair_mean_of_ratios"] == pytest.approx((repair / direct).mean(), rel=1e-5)
        clipped = np.clip(repair / direct, 0, 1)
        assert table.loc[label, "repair_clipped"] == pytest.approx(clipped.mean(), rel=1e-5)
        assert table.loc[label, "mlps_part_clipped"] == pytest.approx(
            np.clip(chosen.values["mlps_part"] / direct, 0, 1).mean(), rel=1e-5, abs=1e-9
        )
    layers = found.to_frame("layers")
    mine = layers[(layers["layer"] == 1) & (layers["part"] == "head") & (layers["average"] == CONDENSED)].iloc[0]
    heads = [single[f"L1H{head}"] for head in range(4)]
    sums = [(one.values["self_repair"].mean(), one.values["direct_effect"].mean()) for one in heads]
    assert mine["repair_mean_over_heads"] == pytest.approx(np.mean([above / below for above, below in sums]), rel=1e-5)
    of_means = np.mean([above for above, _ in sums]) / np.mean([below for _, below in sums])
    assert mine["repair_ratio_of_means"] == pytest.approx(of_means, rel=1e-5)
    assert mine["repair_mean_over_heads"] != pytest.approx(mine["repair_ratio_of_means"], rel=1e-3)


def test_clipping_makes_noise_look_like_repair() -> None:
    rng = generator(0, "clip")
    n = 2000
    one = a_component({"direct_effect": np.ones((n, 1)), "self_repair": rng.normal(0, 1, (n, 1))})

    chosen = averages.averages(one, 0.5)[CONDENSED]

    assert abs(chosen.ratio().mean()) < 0.15
    assert chosen.clipped_ratio().mean() > 0.25


def test_the_slope_is_that_of_least_squares_and_covers_what_was_planted() -> None:
    rng = generator(0, "slope")
    cluster = np.repeat(np.arange(40), 10)
    direct = rng.normal(0, 1, 400)
    total = 0.7 * direct + 0.2 + rng.normal(0, 0.3, 400) + rng.normal(0, 0.2, 40)[cluster]

    (value, low, high), intercept, fit = resampling.slope(direct, total, cluster, 0)

    expected = np.polyfit(direct, total, 1)
    assert (value, intercept) == pytest.approx(tuple(expected))
    assert fit == pytest.approx(np.corrcoef(direct, total)[0, 1] ** 2)
    assert low < 0.7 < high
    assert high - low < 0.15


def test_compensation_regresses_the_fall_of_the_logit_on_the_direct_effect(found: Findings, rows: pd.DataFrame) -> None:
    table = found.to_frame("compensation").set_index("label")
    assert set(table.index) == {"M0", "M1", "M2", "L0", "L1", "L2"}
    for label in ("M1", "L0"):
        mean = rows[rows["label"] == label].groupby(["document", "position"])[["direct_effect", "logit_change"]].mean()
        slope = np.polyfit(mean["direct_effect"], -mean["logit_change"], 1)[0]
        assert table.loc[label, "slope"] == pytest.approx(slope, rel=1e-4)


def test_a_mean_of_ratios_has_the_interval_of_a_plain_bootstrap() -> None:
    rng = generator(0, "ratios")
    below = rng.uniform(1, 2, (30, 3))
    above = below * [0.2, 0.5, 0.8] + rng.normal(0, 0.2, (30, 3))

    value, low, high = resampling.mean_of_ratios(above, below, 0)

    drawn = [rng.integers(30, size=30) for _ in range(4000)]
    plain = [(above[i].sum(0) / below[i].sum(0)).mean() for i in drawn]
    assert value == pytest.approx((above.sum(0) / below.sum(0)).mean())
    assert (low, high) == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])), abs=0.01)


def test_a_ratio_over_nothing_has_no_interval() -> None:
    rng = generator(0, "nothing")
    below, above = rng.normal(0, 1, (30, 2)), rng.normal(0, 1, (30, 2))

    assert np.isnan(resampling.mean_of_ratios(above, below, 0)[1:]).all()
    assert np.isnan(resampling.difference_of_ratios(above, below, 0)[1:]).all()


def test_where_nothing_is_planted_nothing_is_claimed(found: Findings) -> None:
    table = found.to_frame()

    assert not table["repaired"].any()
    assert (table["failed"] != "").all()
    assert found.verdict.startswith("None found: no component of tiny-gpt2 meets all five conditions")


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_without_draws_there_is_no_control_and_no_claim(ablation: str) -> None:
    findings = self_repair_on_text(tiny("llama"), texts(), components="L1H2", ablation=ablation, **SMALL)

    assert set(findings.to_frame("condensed")["average"]) == {FULL, CONDENSED}
    assert not findings.to_frame()["repaired"].any()
    assert "more than for a chance fit" in findings.to_frame()["failed"].iloc[0]
    assert findings.verdict.startswith("No claim is made about tiny-llama")


def test_a_head_that_does_nothing_is_judged_without_a_ratio() -> None:
    one = a_component({"direct_effect": np.zeros((40, 2)), "self_repair": np.zeros((40, 2))})

    table = judged({"L0H0": averages.averages(one, 0.1)}, one, 40)

    assert np.isnan(table["condensed_ratio"])
    assert not table["repaired"]


@pytest.mark.parametrize(
    ("column", "value", "failed"),
    [
        ("n_condensed", 19, "enough tokens"),
        ("n_clusters", 7, "enough tokens"),
        ("condensed_direct_effect", 0.09, "needed"),
        ("condensed_ratio", 0.09, "size"),
        ("condensed_self_repair_p", 0.05, "beyond chance"),
        ("ratio_excess_low", 0.0, "more than for a chance fit"),
        ("ratio_excess_low", np.nan, "more than for a chance fit"),
    ],
)
def test_each_condition_is_needed(column: str, value: float, failed: str) -> None:
    good = {"n_condensed": 20, "n_clusters": 8, "condensed_direct_effect": 0.1, "condensed_ratio": 0.1}
    good |= {"condensed_self_repair_p": 0.049, "ratio_excess_low": 1e-9}

    assert judge(pd.DataFrame([good]))["repaired"].iloc[0]
    spoilt = judge(pd.DataFrame([good | {column: value}])).iloc[0]
    assert (spoilt["repaired"], spoilt["failed"]) == (False, failed)


def test_neurons_are_those_of_the_last_mlp_and_fair_shares_are_smaller(found: Findings) -> None:
    table, single = found.to_frame("neurons"), found.to_frame("neuron_tokens")
    components = found.to_frame().set_index("label")

    assert set(table["mlp"]) == {2}
    assert len(table) == 2
    largest = components[components["part"] == "head"]["condensed_direct_effect"].nlargest(2).index
    assert set(table["label"]) == set(largest)
    for _, row in table.iterrows():
        mine = single[single["label"] == row["label"]]
        assert row["n_tokens"] == len(mine) == components.loc[row["label"], "n_condensed"]
        assert row["direct_effect"] == pytest.approx(components.loc[row["label"], "condensed_direct_effect"], rel=1e-5)
        assert row["self_repair"] == pytest.approx(components.loc[row["label"], "condensed_self_repair"], abs=1e-5)
        assert row["mlp_share"] == pytest.approx(row["mlp_repair"] / row["self_repair"], rel=1e-4)
        rise, fair = (row[f"top_ablated{end}"] - row[f"top_clean{end}"] for end in ("", "_elsewhere"))
        assert rise > fair
    ranks = found.to_frame("neuron_ranks").set_index(["label", "rank", "share_of_effect"])["tokens_above"]
    for (label, rank, share), value in ranks.items():
        if rank > 1:
            assert value <= ranks[label, rank - 1, share]
        if share > 0.01:
            assert value <= ranks[label, rank, 0.01]


@pytest.mark.parametrize("family", ["neox", "gptj"])
def test_in_parallel_blocks_no_head_of_the_last_is_asked_about_the_mlp_beside_it(family: str) -> None:
    model = tiny(family)
    analysis = TextRepairAnalysis(
        model, texts(), TextRepairSettings(components=("heads",), length=LENGTH, positions=2, neurons=12, top=TOP)
    )

    units = analysis.follow_up({"tokens": pd.concat([analysis.measure(unit) for unit in analysis.units()])})

    assert {unit.inputs["label"] for unit in units} == {f"L{layer}H{head}" for layer in (0, 1) for head in range(4)}


def test_units_can_be_measured_in_any_order_and_alone() -> None:
    def analysis() -> TextRepairAnalysis:
        settings = TextRepairSettings(components=("heads",), length=LENGTH, positions=3, top=TOP, neurons=1)
        return TextRepairAnalysis(tiny("gemma2"), texts(60), settings)

    whole, alone = analysis(), analysis()
    units = list(whole.units())
    assert len(units) == 2 * 3
    forward = [whole.measure(unit) for unit in units]
    backward = [alone.measure(unit) for unit in units[::-1]][::-1]

    for one, other in zip(forward, backward, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_the_same_seed_gives_the_same_tables_and_another_draws_anew() -> None:
    def run(seed: int) -> Findings:
        return self_repair_on_text(tiny("llama"), texts(), components=("L1H2",), seed=seed, **SMALL)

    first, second, other = run(0), run(0), run(1)

    for name, table in first.tables.items():
        pd.testing.assert_frame_equal(table, second.tables[name])
    assert not first.to_frame("condensed")["self_repair"].equals(other.to_frame("condensed")["self_repair"])


def test_components_are_words_labels_or_layers() -> None:
    facts = tiny("gpt2").facts

    def labels(**settings: Any) -> list[str]:
        return [one.label for one in components_of(facts, TextRepairSettings(**settings))]

    assert len(labels()) == 3 * 4 + 3
    assert labels(components=("mlps", "M1", "L2H3")) == ["M0", "M1", "L2H3", "M2"]
    assert labels(components=("layers",), layers=(1,)) == ["L1"]
    with pytest.raises(SiteError, match=r"Layer 9: tiny-gpt2 has blocks 0 to 2\."):
        labels(layers=(9,))
    with pytest.raises(SiteError, match="None of M1 is in layers 2"):
        labels(components=("M1",), layers=(2,))
    with pytest.raises(SiteError, match="Cannot read 'nose'"):
        labels(components=("nose",))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"draws": 0}, "draws = 0"),
        ({"top": 0.0}, r"top = 0\.0"),
        ({"length": 3}, "length = 3"),
        ({"ablation": "soft"}, "ablation = 'soft'"),
        ({"components": ()}, r"components = \[\]"),
        ({"depht": 3}, "'depht' is not a setting"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        self_repair_on_text(tiny("gpt2"), texts(), **(SMALL | settings))


def test_texts_that_are_too_short_are_refused() -> None:
    with pytest.raises(PromptError, match="texts in 'random words' have 40 tokens"):
        self_repair_on_text(tiny("gpt2"), texts(), **(SMALL | {"length": 40}))


def test_every_column_is_explained_and_every_figure_drawn(found: Findings) -> None:
    for name, table in found.tables.items():
        for column in table.columns:
            base = column.removesuffix("_low").removesuffix("_high")
            assert meaning(base) is not None, f"{name}.{column}"
    assert set(LEADING["self_repair_on_text"]) <= set(found.to_frame().columns)
    assert list(found.figures()) == list(FIGURES["self_repair_on_text"])


def test_it_can_be_named_in_an_experiment_file() -> None:
    kind = ANALYSES["self_repair_on_text"]
    settings = kind.settings()(components=("L1H0",), length=LENGTH, positions=2, neurons=0)

    findings = complete(kind.build(tiny("gpt2"), texts(), settings, 0), progress=False)

    assert findings.kind == "self_repair_on_text"
    assert findings.to_frame()["label"].tolist() == ["L1H0"]


@pytest.mark.parametrize("name", ["organism:copy-suppression", "organism:copy-suppression-unplanted"])
def test_the_planted_suppressor_gives_way_when_the_mover_goes(name: str) -> None:
    """A mover writes a name, the suppressor against it: without the mover it lets up. In the twin, nothing does."""
    from mechint.organisms import copy_suppression as organism
    from mechint.organisms.words import vocabulary

    model = mi.load(name)
    prompts = PromptSet(
        "names", tuple(Prompt(p.id, f"{p.prompt}{p.target} {vocabulary()[30]}") for p in organism.prompts(24).prompts)
    )
    n = len(model.tokenize(prompts[0].prompt))
    findings = self_repair_on_text(
        model, prompts, components="L0H1", length=n, positions=0, ablation="zero", top=0.08, neurons=0, progress=False
    )

    table = findings.to_frame("condensed").set_index("average").loc[CONDENSED]
    if name.endswith("unplanted"):
        assert abs(table["heads_part"]) < 0.05 * table["direct_effect"]
    else:
        assert table["heads_part"] > 0.2 * table["direct_effect"]
