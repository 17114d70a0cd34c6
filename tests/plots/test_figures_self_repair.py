"""The figures of self-repair on text show the right rows of the right tables, and say their units."""

import numpy as np
import pandas as pd
import pytest

from mechint.plots.figures import FIGURES, draw

KIND = "self_repair_on_text"
ALL = tuple(FIGURES[KIND])


def _components() -> pd.DataFrame:
    labels = [("head", layer, head) for layer in range(3) for head in range(2)] + [
        ("mlp", layer, -1) for layer in (0, 1)
    ]
    frame = pd.DataFrame(labels, columns=["part", "layer", "head"])
    frame["label"] = [f"L{x}H{h}" if part == "head" else f"M{x}" for part, x, h in labels]
    return frame.assign(depth=frame["layer"] / 2)


def _condensed() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frames = []
    for average in ("full", "condensed", "chance fit"):
        frame = _components().assign(average=average, ablation="resample")
        frame["direct_effect"] = rng.uniform(0.2, 1, len(frame)) * (1 if average == "condensed" else 0.1)
        for name in ("logit_change", "self_repair"):
            frame[name] = -0.5 * frame["direct_effect"]
            frame[f"{name}_low"], frame[f"{name}_high"] = frame[name] - 0.1, frame[name] + 0.2
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _layers() -> pd.DataFrame:
    rows = pd.DataFrame(
        [
            {"part": part, "layer": layer, "depth": layer / 2, "average": average}
            for part in ("head", "mlp")
            for layer in (2, 0, 1)
            for average in ("full", "condensed", "chance fit")
        ]
    )
    size = rows["average"].map({"full": 0.01, "condensed": 0.5, "chance fit": 0.2}) * (1 + rows["layer"])
    names = ("direct_effect", "direct_effect_ablated", "heads_part", "mlps_part", "norm_part", "repair_ratio_of_means")
    for name in names:
        rows[name], rows[f"{name}_low"], rows[f"{name}_high"] = size, size - 0.1, size + 0.2
    return rows.assign(ablation="resample")


def tables() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(1)
    edges = np.linspace(0.9, 1.1, 11)
    histogram = pd.DataFrame({"norm_ratio_from": edges[:-1], "norm_ratio_to": edges[1:], "share_of_tokens": 0.1})
    heads = pd.DataFrame({"label": ["L0H1", "L1H0"], "layer": [0, 1], "head": [1, 0], "mlp": 2})
    for name, value in (("top5_share", 0.9), ("top5_share_elsewhere", 0.4)):
        heads = heads.assign(**{name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.2})
    tokens = pd.DataFrame({"direct_effect": rng.normal(0, 1, 30), "self_repair": rng.normal(0, 1, 30)})
    tokens = tokens.assign(token="<b>&", condensed=tokens["direct_effect"] > 1, layer=0, head=1)
    single = pd.DataFrame({"mlp_share_of_token": rng.normal(0, 3, 20), "top_clean": rng.normal(0, 1, 20)})
    ratio = _components().assign(condensed_ratio=0.3, condensed_ratio_low=0.2, condensed_ratio_high=0.5)
    return {
        "components": ratio.assign(chance_ratio=0.1, ablation="resample"),
        "layers": _layers(),
        "condensed": _condensed(),
        "compensation": pd.DataFrame(
            {"label": ["M0", "L0"], "part": ["mlp", "layer"], "layer": 0, "slope": [0.7, 0.9], "r_squared": 0.5}
        ).assign(slope_low=0.6, slope_high=1.0),
        "neurons": heads,
        "neuron_ranks": pd.DataFrame(
            [
                {"label": label, "rank": rank, "share_of_effect": share, "tokens_above": 0.5 / rank}
                for label in ("L0H1", "L1H0")
                for rank in (1, 2)
                for share in (0.5, 0.025)
            ]
        ).assign(tokens_above_low=0.1, tokens_above_high=0.6),
        "neuron_tokens": pd.concat([single.assign(top_ablated=0.0, label=label) for label in ("L0H1", "L1H0")]),
        "norm_ratio_histogram": pd.concat(
            [histogram.assign(average=average, layer=2, n_tokens=10) for average in ("full", "condensed")]
        ),
        "per_token": pd.concat([tokens.assign(label=f"L{i}H1") for i in range(5)]),
    }


def _traces(name: str, **changes: pd.DataFrame) -> dict:
    figure = draw(KIND, tables() | changes)[name]
    return {trace.name: trace for trace in figure.data}


def test_every_figure_is_drawn_from_full_tables() -> None:
    assert tuple(draw(KIND, tables())) == ALL


@pytest.mark.parametrize(
    ("table", "lost"),
    [
        ("components", {"share_by_depth"}),
        ("layers", {"share_by_depth", "parts_by_layer"}),
        ("condensed", {"effect_and_change"}),
        ("compensation", {"compensation"}),
        ("neurons", {"mlp_erasure"}),
        ("neuron_ranks", {"mlp_erasure"}),
        ("neuron_tokens", {"mlp_erasure"}),
        ("norm_ratio_histogram", {"norm_ratio"}),
        ("per_token", {"tokens"}),
    ],
)
def test_a_missing_or_empty_table_costs_its_own_figures_only(table: str, lost: set[str]) -> None:
    without = {name: frame for name, frame in tables().items() if name != table}

    assert set(ALL) - set(draw(KIND, without)) == lost
    assert set(ALL) - set(draw(KIND, without | {table: tables()[table].head(0)})) == lost


def test_heads_are_circles_and_mlps_diamonds_on_condensed_tokens_under_the_line_of_no_repair() -> None:
    traces = _traces("effect_and_change")
    condensed = _condensed().query("average == 'condensed'")

    np.testing.assert_allclose(traces["circle"].x, condensed.query("part == 'head'")["direct_effect"])
    np.testing.assert_allclose(traces["diamond"].y, condensed.query("part == 'mlp'")["logit_change"])
    assert traces["diamond"].marker.symbol == "diamond"
    assert [-x for x in traces["no repair"].x] == list(traces["no repair"].y)


def test_the_line_by_depth_is_that_of_layers_in_order_beside_its_control() -> None:
    traces = _traces("share_by_depth")
    line, control = (next(t for name, t in traces.items() if name.startswith(start)) for start in ("heads", "control"))

    assert list(line.x) == list(control.x) == [0, 0.5, 1]
    np.testing.assert_allclose(line.y, [0.5, 1.0, 1.5])
    np.testing.assert_allclose(control.y, [0.2, 0.4, 0.6])
    assert len(traces["one head"].x) == 6
    np.testing.assert_allclose(line.error_y.array, 0.2)


def test_bars_by_layer_are_the_means_over_heads_on_condensed_tokens() -> None:
    traces = _traces("parts_by_layer")

    assert list(traces) == ["direct effect", "after ablation", "other heads", "MLPs", "final norm"]
    for trace in traces.values():
        assert list(trace.x) == [0, 1, 2]
        np.testing.assert_allclose(trace.y, [0.5, 1.0, 1.5])


def test_tokens_are_not_taken_for_markup_and_large_effects_are_marked() -> None:
    figure = draw(KIND, tables())["tokens"]
    shown = [trace for trace in figure.data if trace.name == "tokens with the largest direct effect"]

    assert len(shown) == 4
    assert all(min(trace.x) > 1 for trace in shown)
    assert "&lt;b&gt;&amp;" in shown[0].text[0]


def test_fair_and_unfair_shares_of_five_neurons_stand_side_by_side() -> None:
    traces = _traces("mlp_erasure")

    assert set(traces["under the same draw"].y) == {0.9}
    assert set(traces["under another draw"].y) == {0.4}
    assert "2.5 % of the effect" in traces
    shares = [trace for trace in draw(KIND, tables())["mlp_erasure"].data if trace.type == "box"]
    assert all(np.abs(np.asarray(trace.x, dtype=float)).max() == 2 for trace in shares)


@pytest.mark.parametrize("name", ALL)
def test_every_axis_says_its_unit_and_nothing_is_smaller_than_12(name: str) -> None:
    figure = draw(KIND, tables())[name]
    layout = figure.to_plotly_json()["layout"]
    titles = [axis["title"]["text"] for key, axis in layout.items() if key[1:5] == "axis" and "title" in axis]

    units = ("logits", "0 to 1", "share", "Layer", "ratio", "rank", "Depth", "Ablated head", "slope")
    assert titles
    assert all(any(unit in title for unit in units) for title in titles)
    assert all((note.font.size or 13) >= 12 for note in figure.layout.annotations)


def test_drawing_leaves_the_tables_alone() -> None:
    given = tables()
    copies = {name: frame.copy() for name, frame in given.items()}

    draw(KIND, given)

    for name, frame in given.items():
        pd.testing.assert_frame_equal(frame, copies[name])
