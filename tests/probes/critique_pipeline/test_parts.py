"""Vectors, probes, writing, thinking on, and sizes: each against what is known by construction."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from mechint.errors import ConfigError, InterventionError
from mechint.model.base import Logits
from mechint.plots import figures_critique_pipeline
from mechint.positions import everywhere
from mechint.probes.critique_pipeline.experiment import CritiquePipeline
from mechint.probes.critique_pipeline.generation import write
from mechint.probes.critique_pipeline.judge import OUT_OF_TOKENS, Judgement
from mechint.probes.critique_pipeline.scaling import scaled
from mechint.probes.critique_pipeline.settings import Machine, PipelineSettings, Shape
from mechint.probes.critique_pipeline.size import pipeline_size
from mechint.probes.critique_pipeline.tasks import Item
from mechint.probes.critique_pipeline.vectors import (
    Answers,
    answer_means,
    as_vector,
    differences,
    lens,
    probe,
    random_direction,
    split_half,
    surface,
)
from mechint.prompts import Prompt, PromptSet
from mechint.results import join_parts
from mechint.statistics import generator
from tests.families import CONFIGS, random_rows, tiny
from tests.probes.critique_pipeline.toy import Coins

NEUTRAL = PromptSet("neutral", (Prompt("n", "w5 w6"),))
GROUPS = tuple(f"g{at}" for at in range(40))
SHAPE = Shape(n_layers=2, d_model=16, n_heads=2, n_kv_heads=1, d_head=8, d_mlp=24, d_vocab=50)


def planted(strength, *, noise=1.0, seed=0):
    """Pairs of rows that differ along the first axis; what a problem adds is the same on both its sides."""
    rng = generator(seed, "planted")
    x = noise * rng.normal(size=(80, 12)) + np.repeat(3 * rng.normal(size=(40, 12)), 2, axis=0)
    x[0::2, 0] += strength
    return x


def answers(rows, starts, texts=None):
    return Answers(tuple(f"g{i}" for i in range(len(rows))), rows, starts, texts or (("a", "a"),) * len(rows))


def test_a_planted_direction_is_found_by_vector_probe_and_halves():
    x = planted(20.0)

    v = differences(x[:, None])[0]
    held = probe(x, GROUPS, 5, 0)

    assert abs(v[0]) / np.linalg.norm(v) > 0.99
    assert held.auroc > 0.95
    assert held.low > 0.9
    assert split_half(x[:, None], 0)[0] > 0.95


def test_where_the_sides_differ_in_nothing_nothing_is_found():
    draws = [planted(0.0, seed=seed) for seed in range(10)]

    assert np.mean([probe(x, GROUPS, 5, 0).auroc for x in draws]) == pytest.approx(0.5, abs=0.06)
    assert np.mean([split_half(x[:, None], 0)[0] for x in draws]) == pytest.approx(0.0, abs=0.2)


def test_a_problem_told_apart_by_its_own_quirks_does_not_count():
    # Each problem has an axis of its own along which its sides differ: in-sample perfect, held out nothing.
    x = np.zeros((80, 40))
    x[np.arange(0, 80, 2), np.arange(40)] = 9.0
    x[1::2] = -x[0::2]

    assert 0.3 < probe(x, GROUPS, 5, 0).auroc <= 0.7


def test_exchanging_the_sides_turns_the_vector_round():
    x = planted(1.0)
    turned = x.reshape(40, 2, 12)[:, ::-1].reshape(80, 12)

    np.testing.assert_allclose(differences(turned[:, None]), -differences(x[:, None]))


def test_means_are_those_of_block_outputs_over_the_answer_alone():
    model = tiny("llama")
    rows = tuple((tuple(a), tuple(b)) for a, b in zip(random_rows(3, 9, 1), random_rows(3, 7, 2), strict=True))
    starts = ((5, 4), (8, 1), (3, 6))

    x, lengths = answer_means(model, answers(rows, starts), [0, 2])

    assert x.shape == (6, 2, 32)
    with torch.no_grad():
        plain = model.run([list(rows[1][1])], read=["L2.resid_post"])["L2.resid_post"][0, 1:]
    np.testing.assert_allclose(x[3, 1], plain.mean(0), atol=1e-5)
    assert (lengths > 0).all()


def test_the_last_block_is_read_before_the_final_norm_so_that_it_can_be_added_back():
    model = tiny("llama")
    row = tuple(random_rows(1, 8)[0])

    x, _ = answer_means(model, answers(((row, row),), ((7, 7),)), [2])

    with torch.no_grad():
        norm = model.norm("final")
        logits = model.run([list(row)], logits=Logits(at=everywhere)).logits[0, -1]
        torch.testing.assert_close(model.unembed(norm(torch.from_numpy(x[0]))[0]), logits, atol=1e-4, rtol=1e-4)


def test_random_directions_are_as_long_as_the_vector_and_differ():
    like = np.arange(1.0, 33.0)
    first, again, second = (random_direction(like, draw, 0) for draw in (0, 0, 1))

    np.testing.assert_array_equal(first, again)
    assert np.linalg.norm(second) == pytest.approx(np.linalg.norm(like))
    assert abs(first @ second) / (like @ like) < 0.9


def test_no_difference_is_no_vector():
    with pytest.raises(InterventionError, match="no vector"):
        as_vector(np.zeros(4), 0, 1.0)


def test_the_lens_without_the_norm_is_the_product_with_the_unembedding():
    model = tiny("llama")
    v = generator(0, "lens").normal(size=32).astype(np.float32)

    found = lens(model, v, 1)

    logits = model.unembedding(slice(None)) @ torch.from_numpy(v)
    bare = found[found["final_norm"] == "without"]
    np.testing.assert_allclose(bare["lens_logit"], logits.topk(10).values, rtol=1e-4)
    # Norms scale a vector: what is promoted behind one does not depend on the vector's length.
    again = lens(model, 100 * v, 1)
    behind = [one.loc[one["final_norm"] == "with", "token"].tolist() for one in (found, again)]
    assert behind[0] == behind[1]


def test_length_and_words_of_the_answers_are_told_where_they_give_the_sides_away():
    rows = tuple(((0,) * (9 + at % 3), (0,) * (5 + at % 3)) for at in range(12))
    told = surface(answers(rows, ((1, 1),) * 12, (("wait no", "yes"),) * 12), 4, 0).set_index("surface")["probe_auroc"]
    alike = surface(answers(rows, ((8, 4),) * 12, (("same", "same"),) * 12), 4, 0).set_index("surface")["probe_auroc"]

    assert told["length"] == told["words"] == 1.0
    assert alike["words"] == alike["length"] == 0.5


def how(**changes):
    return {"max_new_tokens": 5, "temperature": 0.0, "batch": 8, "seed": 0, **changes}


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_what_is_written_depends_on_no_company(temperature):
    model, rows = tiny("llama"), [random_rows(1, 4 + at, at)[0] for at in range(5)]
    names = [f"row {at}" for at in range(5)]

    together = write(model, rows, names, **how(temperature=temperature))
    alone = [
        write(model, [row], [name], **how(temperature=temperature))[0] for row, name in zip(rows, names, strict=True)
    ]

    assert together == alone
    assert write(model, rows, names, **how(temperature=temperature, batch=2)) == together


def test_a_row_that_fills_the_context_gets_nothing_and_a_long_one_what_fits():
    model = tiny("llama")
    rows = [random_rows(1, 64)[0], random_rows(1, 62)[0], random_rows(1, 5)[0]]

    full, long, short = write(model, rows, ["a", "b", "c"], **how(batch=1))

    assert (len(full), len(long), len(short)) == (0, 2, 5)


class Endless(Coins):
    """A thinking that ends only where it is closed, by token 12."""

    def judge(self, item: Item, run: str, row: tuple[int, ...]) -> Judgement:
        found = super().judge(item, run, row)
        return found if 12 in row else replace(found, final=OUT_OF_TOKENS, answer_start=-1)

    def closed(self, row: tuple[int, ...]) -> tuple[int, ...]:
        return (*row, 12)


@pytest.mark.parametrize(("task", "most"), [(Coins((2, 2, 2)), [9, 9, 9]), (Endless((2, 2, 2)), [9, 4, 9, 4, 9, 4])])
def test_a_thinking_that_does_not_end_is_closed_and_answered_and_the_next_stack_goes_on_from_it(task, most):
    asked: list[tuple[list[tuple[int, ...]], list[str], int]] = []

    def fake(rows, names, most):
        asked.append((list(rows), list(names), most))
        return [(11,)] * len(rows)

    items = task.items("test")
    rows = scaled(task, items, fake, stacks=2, most=9, answer=4)

    assert [row["stack"] for row in rows] == [0, 0, 1, 1, 2, 2]
    assert [row["closed_by_force"] for row in rows] == [isinstance(task, Endless)] * 6
    assert all(row["final"] != OUT_OF_TOKENS for row in rows)
    assert [number for _, _, number in asked] == most
    assert asked[0][0] == [task.row(item, "injected") for item in items]
    assert asked[-1 if most[-1] == 9 else -2][0] == [
        task.waiting(item, "injected", task.row(item, "injected")) for item in items
    ]
    # Every draw has a name of its own: equal names would be drawn alike.
    names = [name for _, given, _ in asked for name in given]
    assert len(set(names)) == len(names)


def test_parameters_of_a_shape_are_those_of_the_model_but_for_norms():
    config = CONFIGS["llama"]()
    model = transformers.AutoModelForCausalLM.from_config(config)
    shape = Shape(config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.num_key_value_heads,
                  config.head_dim, config.intermediate_size, config.vocab_size)  # fmt: skip

    counted = sum(p.numel() for name, p in model.named_parameters() if "norm" not in name)

    assert shape.parameters == counted


def test_the_estimate_counts_the_units_and_rows_that_there_are():
    settings = PipelineSettings(
        problems=8, select=4, test=6, max_new_tokens=2, unit_rows=4, random=3, stacks=2, alphas=(-1.0, 0.0, 1.0),
        fewest_pairs=2, folds=2, teacher_forced=True, shape=SHAPE, layers=(0, 1),
    )  # fmt: skip
    analysis = CritiquePipeline(tiny("llama"), NEUTRAL, settings, task=Coins((8, 4, 6)))
    units = list(analysis.units())
    raw = join_parts({"runs": [analysis.measure(unit) for unit in units]})
    effects = [analysis.measure(unit) for unit in analysis.follow_up(raw) if unit.table == "layer_effect"]
    units += analysis.follow_up(raw | join_parts({"layer_effect": effects}))

    size = {row["table"]: row for row in pipeline_size(settings)}

    assert set(size) == {"runs", "vectors", "layer_effect", "steering", "scaling"}
    for table in ("runs", "layer_effect", "steering", "scaling"):
        assert size[table]["units"] == sum(unit.table == table for unit in units)
    assert size["runs"]["rows"] == len(raw["runs"])


def test_the_estimate_grows_with_what_is_asked_and_needs_a_shape():
    settings = PipelineSettings(shape=SHAPE)
    small = {row["table"]: row for row in pipeline_size(settings)}
    large = {row["table"]: row for row in pipeline_size(replace(settings, max_new_tokens=2 * settings.max_new_tokens))}
    slow = {row["table"]: row for row in pipeline_size(replace(settings, machine=Machine(1e9, 1e9)))}

    assert all(large[table]["flops"] > small[table]["flops"] for table in ("runs", "steering", "scaling"))
    assert all(slow[table]["seconds"] > row["seconds"] > 0 for table, row in small.items())
    assert "layer_effect" not in {row["table"] for row in pipeline_size(replace(settings, layer=1))}
    assert pipeline_size(replace(settings, shape=None)) is None
    with pytest.raises(ConfigError, match="the shape has 2"):
        pipeline_size(replace(settings, layers=(0, 5)))


def test_each_further_weight_costs_two_operations_for_each_token_that_is_read():
    settings = PipelineSettings(shape=SHAPE)
    wider = replace(settings, shape=replace(SHAPE, d_mlp=SHAPE.d_mlp + 1))
    (row, more) = (next(row for row in pipeline_size(s) if row["table"] == "vectors") for s in (settings, wider))

    weights = wider.shape.parameters - SHAPE.parameters
    assert weights == 3 * SHAPE.n_layers * SHAPE.d_model
    assert more["flops"] - row["flops"] == 2 * row["tokens"] * weights
    assert more["bytes"] - row["bytes"] == 4 * weights


def test_lines_that_lie_upon_each_other_have_one_label() -> None:
    blocks = pd.DataFrame({"layer": [0, 1], "probe_auroc": [0.5, 0.9], "probe_auroc_low": 0.4, "probe_auroc_high": 1.0})
    alike, apart = (
        figures_critique_pipeline.layers(
            {"layers": blocks, "surface": pd.DataFrame({"surface": ["length", "words"], "probe_auroc": aurocs})}
        )
        for aurocs in ([0.5, 0.5], [0.5, 0.8])
    )

    assert alike is not None
    assert apart is not None
    assert [note["text"] for note in alike.layout["annotations"] if "length" in note["text"]] == ["length, words"]
    assert {"length", "words"} <= {note["text"] for note in apart.layout["annotations"]}
