"""The figures of a vector's report show the right rows, and nothing where there is nothing."""

import pandas as pd

from mechint.plots import figures_vectors

SITES = pd.DataFrame({"site": ["L1.resid_post", "L2.resid_post"], "auroc": [0.9, 0.8], "words_auroc": [0.6, 0.6]})
SITES = SITES.assign(auroc_low=SITES["auroc"] - 0.1, auroc_high=SITES["auroc"] + 0.05)
TOKENS = pd.DataFrame(
    [
        {"site": "L1.resid_post", "end": "promoted", "rank": 0, "token": " early", "id": 4, "value": 9.0},
        {"site": "L2.resid_post", "end": "promoted", "rank": 0, "token": "<b>", "id": 5, "value": 2.0},
        {"site": "L2.resid_post", "end": "suppressed", "rank": 0, "token": " bad", "id": 6, "value": -1.0},
    ]
)


def test_auroc_stands_beside_the_words_and_above_chance() -> None:
    figure = figures_vectors.auroc({"sites": SITES})

    assert figure is not None
    assert [trace.name for trace in figure.data] == ["words alone", "along the vector"]
    assert list(figure.data[1].y) == [0.9, 0.8]
    assert figure.data[1].error_y.array.round(3).tolist() == [0.05, 0.05]
    assert figure.layout.shapes[0].y0 == 0.5


def test_words_that_could_not_be_tried_are_left_out() -> None:
    figure = figures_vectors.auroc({"sites": SITES.assign(words_auroc=float("nan"))})

    assert figure is not None
    assert [trace.name for trace in figure.data] == ["along the vector"]


def test_tokens_are_those_of_the_last_site_with_their_markup_made_harmless() -> None:
    figure = figures_vectors.tokens({"sites": SITES, "tokens": TOKENS})

    assert figure is not None
    assert list(figure.data[0].y) == ["·bad (6)", "&lt;b&gt; (5)"]


def test_without_tables_there_are_no_figures() -> None:
    assert figures_vectors.auroc({}) is None
    assert figures_vectors.tokens({"sites": SITES}) is None
