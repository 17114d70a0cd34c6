"""Positions are counted in the text: padding, on either side, changes nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechint import positions
from mechint.errors import PositionError
from mechint.positions import Positions, TokenBatch, after, everywhere, generated, prompt, rows, tokens
from tests.families import tokenizer

bounds = st.none() | st.integers(-8, 8)
steps = st.none() | st.sampled_from([-2, -1, 1, 2])
selections = st.one_of(
    st.just(everywhere),
    st.builds(prompt, st.none() | st.integers(-8, 8) | st.builds(slice, bounds, bounds, steps)),
    st.builds(lambda start, more: generated(start, start + more), st.integers(0, 5), st.integers(0, 5)),
    st.builds(generated, st.integers(0, 5)),
    st.builds(tokens, st.sets(st.integers(2, 6))),
    st.builds(after, st.sampled_from(["w2", "w3 w4", "bos", "w9"])),
)
ROW = st.lists(st.integers(2, 6), min_size=1, max_size=7)


@st.composite
def texts(draw: st.DrawFn) -> tuple[list[list[int]], list[int]]:
    """Rows of different lengths, and how much of each is prompt."""
    drawn = draw(st.lists(ROW, min_size=1, max_size=4))
    return drawn, [draw(st.integers(1, len(row))) for row in drawn]


def batch_of(given_rows: list[list[int]], lengths: list[int], *, pad_left: bool = False) -> TokenBatch:
    return TokenBatch.from_rows(given_rows, prompt_lengths=lengths, pad_left=pad_left, tokenizer=tokenizer())


def places(where: Positions, batch: TokenBatch) -> list[list[int]]:
    """Which tokens of its own text each row selects."""
    mask = where.mask(batch)
    return [sorted(batch.offset[i][mask[i]].tolist()) for i in range(len(mask))]


@given(texts(), selections, selections)
def test_padding_on_either_side_changes_nothing(
    given_texts: tuple[list[list[int]], list[int]], one: Positions, other: Positions
) -> None:
    given_rows, lengths = given_texts
    for where in (one, one | other, one & other, one - other, everywhere - one):
        alone = [places(where, batch_of([row], [n]))[0] for row, n in zip(given_rows, lengths, strict=True)]

        assert places(where, batch_of(given_rows, lengths)) == alone
        assert places(where, batch_of(given_rows, lengths, pad_left=True)) == alone


@given(texts(), st.booleans(), selections)
def test_padding_is_never_selected(
    given_texts: tuple[list[list[int]], list[int]], pad_left: bool, where: Positions
) -> None:
    batch = batch_of(*given_texts, pad_left=pad_left)

    for selection in (where, everywhere - where):
        assert not (selection.mask(batch) & ~batch.real).any()


@given(texts(), selections, selections, selections)
def test_selections_obey_the_algebra_of_sets(
    given_texts: tuple[list[list[int]], list[int]], a: Positions, b: Positions, c: Positions
) -> None:
    batch = batch_of(*given_texts)

    def same(x: Positions, y: Positions) -> bool:
        return torch.equal(x.mask(batch), y.mask(batch))

    assert same(a - (b | c), (a - b) & (a - c))
    assert same(a - (b & c), (a - b) | (a - c))
    assert same(a & (b | c), (a & b) | (a & c))
    assert same(a | b, b | a)
    assert same(a & b, b & a)
    assert same((a - b) | (a & b), a)
    assert same(a & everywhere, a)
    assert not ((a - b) & b).mask(batch).any()


@given(texts(), st.none() | st.integers(-8, 8) | st.builds(slice, bounds, bounds, steps))
def test_prompt_selects_what_python_indexing_selects(
    given_texts: tuple[list[list[int]], list[int]], select: int | slice | None
) -> None:
    given_rows, lengths = given_texts
    expected: list[list[int]] = []
    for n in lengths:
        if isinstance(select, int):
            expected.append([range(n)[select]] if -n <= select < n else [])
        else:
            expected.append(sorted(range(n)[select or slice(None)]))

    assert places(prompt(select), batch_of(given_rows, lengths)) == expected


@given(texts(), st.integers(0, 5), st.none() | st.integers(0, 5))
def test_generated_tokens_are_counted_from_the_end_of_the_prompt(
    given_texts: tuple[list[list[int]], list[int]], start: int, more: int | None
) -> None:
    given_rows, lengths = given_texts
    stop = None if more is None else start + more
    expected = [list(range(n, len(row)))[start:stop] for row, n in zip(given_rows, lengths, strict=True)]

    assert places(generated(start, stop), batch_of(given_rows, lengths)) == expected


@given(texts())
def test_prompt_and_generated_part_the_text(given_texts: tuple[list[list[int]], list[int]]) -> None:
    batch = batch_of(*given_texts)

    assert torch.equal((prompt() | generated()).mask(batch), batch.real)
    assert not (prompt() & generated()).mask(batch).any()


def test_tokens_are_selected_by_id_wherever_they_stand() -> None:
    assert places(tokens({7, 9}), TokenBatch.from_rows([[7, 5, 9, 7], [5]])) == [[0, 2, 3], []]
    assert places(tokens({0}), TokenBatch.from_rows([[5, 6], [5]], pad_left=True)) == [[], []]  # padding has id 0


def test_after_starts_behind_the_end_of_the_first_occurrence() -> None:
    batch = batch_of([[2, 3, 4, 3, 5], [2, 2], [4, 3]], [5, 2, 2])

    assert places(after("w3"), batch) == [[2, 3, 4], [], []]
    assert places(after("w3 w4"), batch) == [[3, 4], [], []]
    assert places(after("w"), batch)[0] == [1, 2, 3, 4]
    with pytest.raises(PositionError, match="expected a text"):
        after("")


def test_after_needs_a_tokenizer() -> None:
    with pytest.raises(PositionError, match="make the batch with its tokenizer"):
        after("w3").mask(TokenBatch.from_rows([[2, 3]]))


@pytest.mark.parametrize("bad", [(-1, None), (-1, 4), (3, 2)])
def test_generated_refuses_bounds_that_depend_on_what_comes_later(bad: tuple[int, int | None]) -> None:
    with pytest.raises(PositionError, match="expected 0 <= start <= stop"):
        generated(*bad)


@pytest.mark.parametrize("pad_left", [False, True])
def test_index_lists_the_selected_columns(pad_left: bool) -> None:
    batch = TokenBatch.from_rows([[5, 6, 7], [8, 9]], pad_left=pad_left)

    index = prompt(slice(-2, None)).index(batch)

    assert batch.ids.gather(1, index).tolist() == [[6, 7], [8, 9]]


@pytest.mark.parametrize("where", [everywhere, prompt(2), tokens({99})])
def test_index_refuses_a_selection_that_is_empty_or_uneven(where: Positions) -> None:
    with pytest.raises(PositionError, match="equally many in every row"):
        where.index(TokenBatch.from_rows([[5, 6, 7], [8]]))


def test_rows_select_whole_rows() -> None:
    batch = TokenBatch.from_rows([[5, 6], [7], [8, 9]])

    assert places(rows([2, 0]), batch) == [[0, 1], [], [0, 1]]
    assert places(rows([1]) & prompt(-1), batch) == [[], [0], []]
    assert places(rows([]), batch) == [[], [], []]


@pytest.mark.parametrize("which", [[3], [-1], [0, 3]])
def test_rows_outside_the_batch_are_refused(which: list[int]) -> None:
    with pytest.raises(PositionError, match="this batch has rows 0 to 2"):
        rows(which).mask(TokenBatch.from_rows([[5, 6], [7], [8, 9]]))


def test_columns_select_places_of_the_batch_row_by_row() -> None:
    batch = TokenBatch.from_rows([[5, 6, 7], [8, 9, 4]])

    assert places(positions.columns(torch.tensor([[0, 2], [1, 2]])), batch) == [[0, 2], [1, 2]]
    assert places(positions.columns(torch.tensor([[1]])), batch) == [[1], [1]]


def test_columns_come_in_the_order_of_the_text_each_once() -> None:
    batch = TokenBatch.from_rows([[5, 6, 7]])

    assert positions.columns(torch.tensor([[2, 0, 2]])).index(batch).tolist() == [[0, 2]]


@pytest.mark.parametrize("index", [[[3]], [[-1]], [[0], [1], [2]]])
def test_columns_outside_the_batch_are_refused(index: list[list[int]]) -> None:
    with pytest.raises(PositionError, match="Expected 1 or 2 rows of places from 0 to 2"):
        positions.columns(torch.tensor(index)).mask(TokenBatch.from_rows([[5, 6, 7], [8, 9, 4]]))


@pytest.mark.parametrize("bad", [[], [[]], [[5], []]])
def test_a_batch_needs_tokens_in_every_row(bad: list[list[int]]) -> None:
    with pytest.raises(PositionError, match="rows of at least one token each"):
        TokenBatch.from_rows(bad)


@pytest.mark.parametrize("lengths", [[3, 1, 1], [4, 1], [-1, 1]])
def test_prompt_lengths_must_fit_the_rows(lengths: list[int]) -> None:
    with pytest.raises(PositionError, match="a prompt length for each of 2 rows"):
        TokenBatch.from_rows([[5, 6, 7], [8]], prompt_lengths=lengths)


def test_repeating_a_batch_stacks_copies_of_its_rows() -> None:
    batch = TokenBatch.from_rows([[5, 6, 7], [8]], prompt_lengths=[2, 1], pad_left=True)

    twice = batch.repeat(2)

    assert twice.ids.tolist() == batch.ids.tolist() * 2
    assert twice.lengths.tolist() == [3, 1, 3, 1]
    assert places(prompt(-1), twice) == [[1], [0], [1], [0]]


def test_a_selection_prints_as_it_is_written() -> None:
    assert str(prompt(-1) | generated(0, 64)) == "(prompt(-1) | generated(0, 64))"
    assert str(everywhere - prompt(slice(1, None))) == "(everywhere - prompt(1:))"
