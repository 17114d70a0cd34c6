"""The figures of steering show every token and arm where it belongs, and say what they do not show."""

import numpy as np
import pandas as pd
import pytest

from mechint.plots.figures import FIGURES, draw
from tests.plots import fake_steering as fake

TABLES = {"steering_receipt": fake.receipt, "steering_evaluation": fake.evaluation}
EVERY = [(kind, name) for kind in TABLES for name in FIGURES[kind]]


def _figure(kind, name, **changes):
    return draw(kind, TABLES[kind]() | changes)[name]


def _receipt(name, **changes):
    return _figure("steering_receipt", name, **changes)


def _evaluation(name, **changes):
    return _figure("steering_evaluation", name, **changes)


def _traces(figure, name):
    return [trace for trace in figure.data if trace.name == name]


@pytest.mark.parametrize("kind", TABLES)
def test_every_figure_is_drawn_from_full_tables(kind):
    assert tuple(draw(kind, TABLES[kind]())) == tuple(FIGURES[kind])


@pytest.mark.parametrize(
    ("kind", "table", "lost"),
    [
        ("steering_receipt", "tokens", {"texts"}),
        ("steering_receipt", "gates", {"gates"}),
        ("steering_receipt", "parts", {"gates", "parts"}),
        ("steering_evaluation", "doses", {"dose_response"}),
        ("steering_evaluation", "tests", {"against_chance"}),
        ("steering_evaluation", "texts", {"texts"}),
    ],
)
def test_a_missing_or_empty_table_costs_its_own_figures_only(kind, table, lost):
    tables = TABLES[kind]()
    without = {name: frame for name, frame in tables.items() if name != table}

    assert set(FIGURES[kind]) - set(draw(kind, without)) == lost
    assert set(FIGURES[kind]) - set(draw(kind, without | {table: tables[table].head(0)})) == lost


def test_a_plan_whose_gate_never_opened_shows_what_the_gate_saw_and_that_nothing_was_done():
    drawn = draw("steering_receipt", fake.receipt_of_a_shut_gate())

    assert list(drawn) == ["gates", "parts"]
    assert all(set(trace.marker.color) == {"white"} for trace in drawn["gates"].data)
    assert [note.text for note in drawn["parts"].layout.annotations] == ["its gate was open on none of its tokens"]
    assert len(drawn["parts"].data[0].x) == 0


def test_tokens_stand_in_order_and_are_coloured_by_the_largest_change_that_was_made_to_them():
    shuffled = fake.receipt()["tokens"].sample(frac=1, random_state=0)
    (boxes,) = _traces(_receipt("texts", tokens=shuffled), "rewritten")

    assert list(boxes.text) == [f"·w{position}" for _ in range(2) for position in range(9)]
    assert np.all(np.diff(boxes.base[:9]) > 0)
    changes = [0.1 + 0.01 * position for position in range(9)]
    np.testing.assert_allclose(boxes.marker.color, [*changes[:5], 0.9, 0.9, *changes[7:], *changes])
    assert "add &lt;mood&gt; at L1.resid_post: dose 0.500, change 0.150" in boxes.customdata[5]
    assert "add length at L2.resid_post: dose -2.000, change 0.900" in boxes.customdata[5]


def test_tokens_that_were_left_alone_are_counted_on_either_side_of_the_prompts_end():
    tokens = fake.receipt()["tokens"]
    figure = _receipt("texts", tokens=tokens[(tokens["row"] == 1) & tokens["position"].isin([1, 7, 8])])
    (gaps,), (boxes,) = _traces(figure, "left alone"), _traces(figure, "rewritten")

    assert list(gaps.text) == ["⋯1", "⋯3", "⋯2"]  # 0; 2 to 4, the prompt's end; 5 and 6, generated
    assert [shape.x0 for shape in figure.layout.shapes] == [gaps.base[2]]
    assert boxes.base[0] < gaps.base[1] < gaps.base[2] < boxes.base[1]
    assert "left alone" in figure.layout.title.text


def test_a_receipt_of_a_prompt_alone_speaks_of_no_end_of_it():
    tokens = fake.receipt()["tokens"].assign(t=lambda frame: frame["position"] - 9)
    figure = _receipt("texts", tokens=tokens)

    assert list(figure.layout.shapes) == []
    assert "prompt ends" not in figure.layout.title.text


def test_long_texts_are_wrapped_without_overlap_and_the_rest_is_said_to_be_missing():
    one = fake.receipt()["tokens"].query("row == 0 and site == 'L1.resid_post' and position == 0")
    long = pd.concat([one.assign(row=row, position=i, t=i, text=" ab日本") for row in range(10) for i in range(250)])
    figure = _receipt("texts", tokens=long)
    (boxes,), (rest,) = _traces(figure, "rewritten"), _traces(figure, "left alone")

    assert len(boxes.text) == 8 * 200
    assert list(rest.text) == ["…"] * 8
    assert "first 8 of 10 texts" in figure.layout.title.text
    left, right = np.array(boxes.base), np.array(boxes.base) + np.array(boxes.x)
    same_line = np.diff(boxes.y) == 0
    assert np.all(left[1:][same_line] >= right[:-1][same_line] - 1e-9)
    assert right.max() <= figure.layout.xaxis.range[1]
    assert max(boxes.y) < figure.layout.yaxis.range[0]


def test_tokens_cannot_be_taken_for_markup():
    tokens = fake.receipt()["tokens"].assign(text="<i>&")
    (boxes,) = _traces(_receipt("texts", tokens=tokens), "rewritten")

    assert set(boxes.text) == {"&lt;i&gt;&amp;"}
    assert all("<i>" not in hover for hover in boxes.customdata)


def test_a_gate_is_drawn_for_each_text_in_order_filled_where_it_held_over_its_own_threshold():
    figure = _receipt("gates")

    assert [trace.name for trace in figure.data] == ["text 0", "text 1"]
    for trace in figure.data:
        assert list(trace.x) == list(range(6))
        assert [colour != "white" for colour in trace.marker.color] == [False, False, True, True, False, False]
    assert [shape.y0 for shape in figure.layout.shapes] == [1.5]
    assert "entropy &gt; 1.5 &amp; not text has 'x'" in figure.layout.title.text


def test_signals_have_panels_and_thresholds_of_their_own():
    looks = fake.receipt()["gates"]
    mood = looks.assign(signal="mood (v2) at L3.resid_post", value=-1.0, threshold=-0.25)
    parts = fake.receipt()["parts"].assign(gate=["mood (v2) at L3.resid_post < -0.25", "entropy > 1.5"])
    figure = _receipt("gates", gates=pd.concat([looks, mood]), parts=parts)

    thresholds = {shape.yref: shape.y0 for shape in figure.layout.shapes}
    assert thresholds == {"y": 1.5, "y2": -0.25}


def test_each_part_has_its_mean_and_its_largest_change():
    (dots,) = _receipt("parts").data

    assert list(dots.x) == [0.14, 0.9]
    np.testing.assert_allclose(dots.error_x.array, [0.04, 0.0], atol=1e-9)
    assert "mean dose -2.000 |v|" in dots.text[1]
    assert list(dots.y) == ["add &lt;mood&gt; · L1.resid_post", "add length · L2.resid_post"]


def test_the_vector_is_the_boldest_line_and_nulls_are_bands_of_their_quantiles():
    figure = _evaluation("dose_response")
    top = [trace for trace in figure.data if trace.yaxis in (None, "y")]
    lines = {trace.legendgroup: trace for trace in top if trace.fill is None}
    bands = {trace.legendgroup: trace for trace in top if trace.fill}

    assert max(lines, key=lambda arm: lines[arm].line.width) == "vector"
    assert set(bands) == {"random", "random_covariance", "shuffled_labels"}
    assert len({trace.line.color for trace in lines.values()}) == len(lines) == 7
    np.testing.assert_allclose(lines["vector"].y, [5.0 * dose for dose in fake.DOSES])
    np.testing.assert_allclose(lines["vector"].error_y.array, 0.5)
    np.testing.assert_allclose(lines["vector"].error_y.arrayminus, 0.3)
    edges = dict(
        zip(bands["random"].x[:4], zip(bands["random"].y[:4], bands["random"].y[::-1], strict=False), strict=True)
    )
    np.testing.assert_allclose(edges[0.8], [0.08 - 0.3, 0.08 + 0.5])
    assert "50 draws" in lines["random"].name


def test_an_instruction_has_no_dose_so_it_is_a_level_across_all_of_them():
    (level,) = [trace for trace in _evaluation("dose_response").data if trace.legendgroup == "prompt_only"]

    assert (list(level.x), list(level.y)) == ([0, 0.8], [1.5, 1.5])


def test_damage_stands_on_the_same_doses_and_the_tested_one_is_marked_in_every_panel():
    figure = _evaluation("dose_response")
    axes = {axis: [t for t in figure.data if t.yaxis == axis] for axis in ("y2", "y3", "y4", "y5")}
    (repetition,) = axes["y4"]

    assert [len(traces) for traces in axes.values()] == [6, 6, 1, 1]
    assert list(repetition.x) == list(fake.DOSES)
    np.testing.assert_allclose(repetition.y, [0.5 * dose for dose in fake.DOSES])
    marked = [shape for shape in figure.layout.shapes if shape.x0 == shape.x1]
    assert [shape.x0 for shape in marked] == [fake.TESTED] * 5
    ranges = {tuple(figure.layout[f"xaxis{number}"].range) for number in ("", 2, 3, 4, 5)}
    assert len(ranges) == 1


def test_costs_of_many_sizes_share_a_log_scale_and_infinite_ones_are_said_to_be_missing():
    doses = fake.evaluation()["doses"]
    broken = doses.assign(perplexity_ratio=[np.inf if arm == "random" else 2.0 for arm in doses["arm"]])
    figure, whole = _evaluation("dose_response", doses=broken), _evaluation("dose_response")

    assert [figure.layout[f"yaxis{number}"].type for number in (2, 3, 4, 5)] == ["log", "log", "linear", "linear"]
    assert "Infinite costs" in figure.layout.title.text
    assert "Infinite costs" not in whole.layout.title.text


def test_the_vector_lies_on_top_and_comes_first_in_the_legend():
    top = [trace for trace in _evaluation("dose_response").data if trace.yaxis == "y"]

    assert top[-1].legendgroup == "vector"
    assert min(top, key=lambda trace: trace.legendrank or 1000).legendgroup == "vector"


def test_without_damage_texts_and_tests_the_effect_is_drawn_alone():
    doses = fake.evaluation()["doses"][["arm", "dose", "draws", "effect", "effect_low", "effect_high"]]
    drawn = draw("steering_evaluation", {"doses": doses, "tests": fake.evaluation()["tests"].head(0)})
    figure = drawn["dose_response"]

    assert list(drawn) == ["dose_response"]
    assert {trace.yaxis for trace in figure.data} == {"y"}
    assert [shape for shape in figure.layout.shapes if shape.x0 == shape.x1] == []


def test_the_vector_stands_above_its_nulls_with_the_p_of_each():
    figure = _evaluation("against_chance")

    assert [trace.x[0] for trace in figure.data] == [2.0, 0.04, -0.2]
    assert figure.data[0].error_x.array[0] == pytest.approx(0.5)
    notes = {note.y: note.text for note in figure.layout.annotations}
    assert notes == {"random directions": "p = 0.02, 50 draws", "fitted to shuffled labels": "p = 0.048, 20 draws"}
    assert figure.layout.yaxis.categoryarray[-1] == "<b>the vector</b>"


def test_texts_go_from_no_steering_to_the_largest_dose_for_three_prompts_and_are_no_markup():
    (table,) = _evaluation("texts").data
    doses, texts = table.cells["values"]

    assert list(doses) == ["", "none", "0.1", "0.2"] * 3
    assert texts[0] == "<b>It was &lt;so&gt;↵  and …</b>"
    assert texts[3] == "good&lt;/b&gt;↵ 0.2"


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_axis_says_its_unit_and_nothing_is_smaller_than_12(kind, name):
    figure = _figure(kind, name)
    layout = figure.to_plotly_json()["layout"]
    titles = [axis["title"]["text"] for key, axis in layout.items() if key[1:5] == "axis" and "title" in axis]

    units = ("median |h|", "nats of odds", "nats", "ratio", "0 to 1", "Pass")
    assert titles or name == "texts"
    assert all(any(unit in title for unit in units) for title in titles)
    assert all((note.font.size or 13) >= 12 for note in figure.layout.annotations)


@pytest.mark.parametrize("kind", TABLES)
def test_drawing_leaves_the_tables_alone(kind):
    given = TABLES[kind]()
    copies = {name: frame.copy() for name, frame in given.items()}

    draw(kind, given)

    for name, frame in given.items():
        pd.testing.assert_frame_equal(frame, copies[name])
