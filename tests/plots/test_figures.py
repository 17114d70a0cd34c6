import numpy as np
import pandas as pd
import plotly.io as pio
import pytest

from mechint.errors import OutputError
from mechint.plots.captions import CAPTIONS
from mechint.plots.figures import FIGURES, draw
from mechint.plots.figures_html import fragment, pages
from tests.plots import fake

ALL = tuple(FIGURES["copy_suppression"])


def _figure(name, **changes):
    return draw("copy_suppression", fake.tables() | changes)[name]


def _trace(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def test_every_figure_of_a_scan_is_drawn_from_full_tables():
    assert tuple(draw("copy_suppression", fake.tables())) == ALL


def test_an_unknown_kind_is_an_error_that_lists_the_known_ones():
    with pytest.raises(OutputError, match="copy_suppression"):
        draw("phrenology", {})


def test_every_figure_has_a_caption_and_every_caption_a_figure():
    assert {kind: set(figures) for kind, figures in FIGURES.items()} == {
        kind: set(captions) for kind, captions in CAPTIONS.items()
    }


@pytest.mark.parametrize(
    ("table", "lost"),
    [
        ("heads", {"score_map", "scores", "direct_effect_and_ablation", "anti_induction", "own_token"}),
        ("repair", {"repair_by_component"}),
        ("repair_parts", {"repair_by_part"}),
        ("attention_examples", {"attention"}),
    ],
)
def test_a_missing_or_empty_table_costs_its_own_figures_only(table, lost):
    without = {name: frame for name, frame in fake.tables().items() if name != table}
    emptied = fake.tables() | {table: fake.tables()[table].head(0)}

    assert set(draw("copy_suppression", without)) == set(ALL) - lost
    assert set(draw("copy_suppression", emptied)) == set(ALL) - lost


def test_a_column_without_any_number_costs_its_figures_only():
    heads = fake.heads().assign(anti_induction_score=np.nan, ov_bottom_share=np.nan)

    assert set(ALL) - set(draw("copy_suppression", fake.tables() | {"heads": heads})) == {"anti_induction", "own_token"}


def test_the_map_is_white_at_zero_and_rings_the_heads_that_meet_every_criterion():
    figure = _figure("score_map")
    heat, rings = figure.data

    assert (heat.zmin, heat.zmid, heat.zmax) == (-0.8, 0, 0.8)
    assert np.asarray(heat.z).shape == (4, 3)
    assert np.asarray(heat.z)[1, 2] == 0.8
    assert (list(rings.x), list(rings.y)) == ([2], [1])
    assert "p 0.010" in np.asarray(heat.text)[1, 2]


def test_heads_that_were_not_measured_leave_gaps_in_the_map():
    heads = fake.heads()
    heads.loc[heads["label"] == "L0H0", "cs_score"] = np.nan

    figure = _figure("score_map", heads=heads)
    crosses = _trace(figure, "no value")
    assert np.isnan(np.asarray(figure.data[0].z, dtype=float)[0, 0])
    assert (list(crosses.x), list(crosses.y)) == ([0], [0])


def test_scores_stand_beside_their_controls_strongest_at_the_top_with_asymmetric_intervals():
    figure = _figure("scores")
    target, control = _trace(figure, "the target"), _trace(figure, "control: a random token of the same prompt")

    assert (target.x[0], target.x[-1]) == (-0.5, 0.8)
    assert len(control.x) == len(target.x)
    np.testing.assert_allclose(target.error_x.array, 0.1)
    np.testing.assert_allclose(target.error_x.arrayminus, 0.05)
    assert figure.layout.yaxis.ticktext[-1] == "<b>◯ L2H1</b>"


def test_the_line_of_no_repair_is_minus_x():
    line = _trace(_figure("direct_effect_and_ablation"), "no repair")

    assert [-x for x in line.x] == list(line.y)


def test_ablation_is_compared_on_the_metric_that_was_measured():
    heads = fake.heads()
    difference = _trace(_figure("direct_effect_and_ablation"), "heads")
    target = _trace(_figure("direct_effect_and_ablation", heads=heads.assign(metric="target logit")), "heads")
    fallen_back = _trace(_figure("direct_effect_and_ablation", heads=heads.assign(ablation_effect=np.nan)), "heads")

    np.testing.assert_array_equal(difference.x, heads["direct_effect_difference"])
    np.testing.assert_array_equal(target.y, heads["ablation_effect_target"])
    np.testing.assert_array_equal(fallen_back.y, heads["ablation_effect_target"])


def test_heads_that_stand_out_are_named_and_the_rest_are_not():
    named = {note.text for note in _figure("anti_induction").layout.annotations}

    assert {"L2H1", "L0H3"} <= named
    assert len(named) < 6


def test_parts_of_a_repair_are_shown_between_loss_and_remainder_for_one_average_only():
    (bars,) = _figure("repair_by_part").data

    shown = dict(zip(bars.y, bars.x, strict=True))
    assert shown == {
        "the loss itself": 0.8,
        "other heads": -0.1,
        "MLPs": -0.3,
        "final norm": 0.05,
        "all repair": -0.35,
        "change that remains": 0.45,
    }


def test_only_the_components_that_change_most_are_shown():
    (bars,) = _figure("repair_by_component").data

    assert list(bars.x) == sorted(bars.x)
    assert (len(bars.x), bars.y[0], bars.y[-1]) == (8, "M1", "M2")
    assert "M3" not in bars.y


def test_tokens_can_be_read_and_are_not_taken_for_markup():
    figure = _figure("attention")
    names = figure.layout.xaxis.ticktext

    assert names[0] == "&lt;bos&gt;"
    assert "·Mary" in names[1]
    assert "#d55e00" in names[1]
    assert names[2:4] == ("↵", "&lt;/script&gt;")
    assert names[4] == "<b>·to</b>"
    assert figure.data[0].marker.color.count("#d55e00") == 1


def test_a_long_prompt_keeps_its_target_and_where_the_head_looks_from_in_order():
    count = 200
    long = pd.DataFrame(
        {
            "prompt_id": "long",
            "label": "L0H0",
            "position": range(count),
            "token": [str(index) for index in range(count)],
            "weight": np.linspace(1, 0, count),
            "is_target": [index == 150 for index in range(count)],
            "is_destination": [index == 199 for index in range(count)],
            "target": "150",
        }
    )
    names = _figure("attention", attention_examples=long).layout.xaxis.ticktext

    assert len(names) == 28
    assert names[-2:] == ("<b><span style='color:#d55e00'>150</span></b>", "<b>199</b>")


def test_chance_is_dashed_in_both_panels_of_the_own_token():
    lines = {(line.xref, line.x0) for line in _figure("own_token").layout.shapes}

    assert {("x", 0.05), ("x2", 500.0)} <= lines


@pytest.mark.parametrize("name", ALL)
def test_every_axis_says_its_unit_and_nothing_is_smaller_than_12(name):
    figure = _figure(name)
    layout = figure.to_plotly_json()["layout"]
    titles = [axis["title"]["text"] for key, axis in layout.items() if key.startswith("xaxis") and "title" in axis]

    units = ("logits", "tokens", "0 to 1", "Layer", "attention")
    assert all(any(unit in title for unit in units) for title in titles)
    assert titles or name == "attention"
    assert figure.layout.template.layout.font.size >= 12
    assert all((note.font.size or 13) >= 12 for note in figure.layout.annotations)


def test_drawing_leaves_the_default_template_of_plotly_alone():
    before = pio.templates.default

    draw("copy_suppression", fake.tables())

    assert pio.templates.default == before


def test_drawing_leaves_the_tables_alone():
    tables = fake.tables()
    copies = {name: frame.copy() for name, frame in tables.items()}

    draw("copy_suppression", tables)

    for name, frame in tables.items():
        pd.testing.assert_frame_equal(frame, copies[name])


def test_the_other_kinds_draw_their_tables():
    effects = pd.DataFrame({"layer": [0, 0, 1], "head": [0, 1, 0], "direct_effect": [0.1, -0.4, 0.2]})
    effects = effects.assign(direct_effect_low=0.0, direct_effect_high=0.0)
    ablation = pd.DataFrame({"label": ["L0H0", "<M1>"], "ablation_effect": [0.1, -2.0]})
    ablation = ablation.assign(ablation_effect_low=0, ablation_effect_high=1)
    lens = pd.DataFrame({"layer": [1, 0], "target_rank_median": [3, 90], "target_logit": [7.0, 1.0]})

    drawn = draw("direct_effects", {"direct_effects": effects})
    assert list(drawn["direct_effects"].data[0].y) == ["L0H1", "L0H0", "L1H0"]
    assert np.asarray(drawn["direct_effect_map"].data[0].z).shape == (2, 2)
    assert list(draw("ablation", {"ablation": ablation})["ablations"].data[0].y) == ["&lt;M1&gt;", "L0H0"]
    assert list(draw("self_repair", {"repair": fake.repair()})) == ["repair_by_component"]
    assert list(draw("logit_lens", {"logit_lens": lens})["rank"].data[0].y) == [90, 3]


def test_a_page_holds_no_markup_of_a_token_and_no_address_to_load_from():
    html = fragment(_figure("attention"), "attention")

    assert html.count("</script>") == html.count("<script")
    assert "<bos>" not in html
    assert "src=" not in html
    assert set(pages({"a": _figure("attention")})) == {"a.html", "plotly.min.js"}
