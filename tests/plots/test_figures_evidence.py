"""Figures of evidence on text show the numbers of their tables, chosen positions before random ones."""

import numpy as np
import pandas as pd
import pytest

from mechint.plots.figures import FIGURES, draw

CONDITIONS = ("predicted", "attended", "suppressed", "all three", "same token")


def three_steps() -> pd.DataFrame:
    rows = [
        {"label": label, "chosen": chosen, "condition": condition, "n_positions": 40, "met_share": share - 0.05 * i}
        for label in ("L1H2", "L1H0")
        for chosen, share in (("top 5 %", 0.9), ("random 5 %", 0.4), ("top 1 %", 0.95))
        for i, condition in enumerate(CONDITIONS)
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(met_share_low=frame["met_share"] - 0.1, met_share_high=frame["met_share"] + 0.02)


def rank_histogram() -> pd.DataFrame:
    first = pd.DataFrame({"label": "L1H2", "ranks": ["0", "1"], "n_edges": [30, 10], "edge_share": [0.75, 0.25]})
    second = pd.DataFrame({"label": "L1H0", "ranks": ["0", "2", "10-99"], "n_edges": [5, 0, 15]})
    return pd.concat([first, second.assign(edge_share=[0.25, 0.0, 0.75])], ignore_index=True)


def loss_effects() -> pd.DataFrame:
    rows = [
        {"label": "L1H2", "effect": effect, "scale": scale, "loss_change": value, "kl": value / 10}
        | {"absolute_loss_change": 2 * value, "loss_change_low": value - 0.1, "loss_change_high": value + 0.3}
        for scale, factor in (("frozen", 1.0), ("recomputed", 0.5))
        for effect, value in (("both", 0.8 * factor), ("direct", 1.0 * factor), ("indirect", -0.2 * factor))
    ]
    return pd.DataFrame(rows)


def heads() -> pd.DataFrame:
    frame = pd.DataFrame({"layer": [0, 0, 1, 1], "head": [0, 1, 0, 1], "label": ["L0H0", "L0H1", "L1H0", "L1H1"]})
    return frame.assign(
        overconfidence_marginal=[0.1, -0.5, 0.0, 0.2],
        overconfidence_added=[0.01, -0.05, 0.0, 0.02],
        entropy_marginal=[-0.1, 0.3, 0, 0],
        entropy_difference=[-0.2, 0.4, 0, 0],
    )


def reliability() -> pd.DataFrame:
    intact = pd.DataFrame({"bin": [0, 9], "confidence": [0.05, 0.95], "accuracy": [0.1, 0.7], "n_predictions": [9, 4]})
    return pd.concat(
        [intact.assign(predictions_of="all heads intact"), intact.assign(predictions_of="L0H1 ablated", accuracy=0.5)]
    )


EVIDENCE = {"three_steps": three_steps(), "rank_histogram": rank_histogram(), "loss_effects": loss_effects()}
CALIBRATION = {"heads": heads(), "reliability": reliability()}


@pytest.mark.parametrize(
    ("kind", "tables", "names"),
    [
        ("copy_suppression_study", EVIDENCE, ["three_steps", "dynamic_ranks", "loss_effects"]),
        ("calibration", CALIBRATION, list(FIGURES["calibration"])),
    ],
)
def test_every_figure_is_drawn_from_full_tables_and_none_from_empty_ones(kind, tables, names):
    before = {name: frame.copy() for name, frame in tables.items()}

    assert list(draw(kind, tables)) == names
    assert draw(kind, {name: frame.head(0) for name, frame in tables.items()}) == {}
    assert draw(kind, {}) == {}
    for name, frame in tables.items():
        pd.testing.assert_frame_equal(frame, before[name])


def test_chosen_positions_stand_before_random_ones_and_each_head_has_a_panel():
    figure = draw("copy_suppression_study", EVIDENCE)["three_steps"]

    names = ["top 5 % of positions", "top 1 % of positions", "random 5 % of positions"]
    assert [trace.name for trace in figure.data] == names * 2
    assert [trace.showlegend for trace in figure.data] == [True] * 3 + [False] * 3
    np.testing.assert_allclose(figure.data[0].y, [0.9, 0.85, 0.8, 0.75, 0.7])
    np.testing.assert_allclose(figure.data[0].error_y.array, 0.02)
    np.testing.assert_allclose(figure.data[0].error_y.arrayminus, 0.1)
    assert [note.text for note in figure.layout.annotations] == ["<b>L1H2</b>", "<b>L1H0</b>"]


def test_ranks_stand_in_order_on_one_axis_for_all_heads():
    figure = draw("copy_suppression_study", EVIDENCE)["dynamic_ranks"]

    assert list(figure.layout.xaxis.categoryarray) == ["0", "1", "2", "10–99"]
    assert list(figure.layout.xaxis2.categoryarray) == ["0", "1", "2", "10–99"]
    assert figure.layout.xaxis.range == figure.layout.xaxis2.range == (-0.6, 3.6)
    assert list(figure.data[1].y) == [0.25, 0.0, 0.75]
    assert figure.data[0].marker.color[0] != figure.data[0].marker.color[1]
    assert "40 edges" in figure.layout.annotations[0].text


def test_effects_on_the_loss_are_shown_for_both_scales_and_all_three_measures():
    figure = draw("copy_suppression_study", EVIDENCE)["loss_effects"]

    assert len(figure.data) == 6
    frozen = [trace for trace in figure.data if trace.name == "scale of the final norm frozen"]
    assert list(frozen[0].x) == [0.8, 1.0, -0.2]
    assert list(frozen[1].x) == [1.6, 2.0, -0.4]
    assert list(frozen[2].x) == pytest.approx([0.08, 0.1, -0.02])
    assert list(frozen[0].y) == ["both", "direct", "indirect"]


def test_the_map_falls_back_to_the_difference_where_the_share_means_nothing():
    share, difference = (
        draw("calibration", {"heads": table})["overconfidence_map"].data[0]
        for table in (heads(), heads().assign(overconfidence_marginal=np.nan))
    )

    assert np.asarray(share.z)[1, 0] == -0.5
    assert np.asarray(difference.z)[1, 0] == -0.05
    assert "Share of the model's over-confidence" in share.colorbar.title.text
    assert "Share of the model's over-confidence" not in difference.colorbar.title.text


def test_reliability_stands_beside_the_line_of_perfect_calibration():
    line, intact, ablated = draw("calibration", CALIBRATION)["reliability"].data

    assert (list(line.x), list(line.y)) == ([0, 1], [0, 1])
    assert (list(intact.x), list(intact.y)) == ([0.05, 0.95], [0.1, 0.7])
    assert ablated.name == "L0H1 ablated"
