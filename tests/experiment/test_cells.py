import numpy as np
import pandas as pd
import pytest

from mechint.experiment.cells import cell, p_text, shown


@pytest.mark.parametrize(
    ("value", "low", "high", "text", "interval"),
    [
        (0.5234, 0.412, 0.631, "0.52", "[0.41, 0.63]"),
        (-0.5234, -0.53, -0.51, "−0.523", "[−0.530, −0.510]"),
        (131072.4, 120000.0, 140000.0, "131,072", "[120,000, 140,000]"),
        (0.0, -0.001, 0.001, "0.0000", "[−0.0010, 0.0010]"),
        (-0.0000001, -0.1, 0.1, "0.00", "[−0.10, 0.10]"),
    ],
)
def test_an_estimate_is_rounded_to_what_its_interval_supports(value, low, high, text, interval):
    found = cell({"x": value, "x_low": low, "x_high": high}, "x")

    assert (found.text, found.interval) == (text, interval)


def test_what_is_not_a_number_is_a_dash_and_sorts_last():
    assert [cell({"x": value}, "x").text for value in (float("nan"), None, pd.NA)] == ["–"] * 3
    assert cell({"x": np.nan}, "x").order == ""


def test_flags_words_and_whole_numbers_are_written_plainly():
    assert [cell({"x": value}, "x").text for value in (True, np.False_, "<bos>", 1234, 3.0)] == [
        "yes",
        "no",
        "<bos>",
        "1,234",
        "3",
    ]
    assert cell({"target": " Mary"}, "target").text == "·Mary"
    assert cell({"failed": ""}, "failed").text == "none"


def test_a_p_value_is_never_nought_nor_above_one():
    assert (p_text(0.0), p_text(1.7)) == ("p < 0.001", "p = 1.000")


def test_ends_of_intervals_and_p_values_take_no_columns_of_their_own():
    frame = pd.DataFrame({"x": [0.5], "x_low": [0.4], "x_high": [0.6], "x_p": [0.01], "y_low": ["kept"]})

    assert shown(frame).titles == ("X", "Y low")
    assert shown(frame).rows[0][0].note == "p = 0.010"


def test_a_column_is_written_with_one_number_of_decimals():
    frame = pd.DataFrame({"x": [0.5, 0.6, 0.75], "x_low": [0.4, 0.5, 0.2], "x_high": [0.55, 0.65, 1.9]})

    assert [row[0].text for row in shown(frame).rows] == ["0.50", "0.60", "0.75"]
