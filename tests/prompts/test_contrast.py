from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechint.errors import PromptError
from mechint.prompts import ContrastPairs, Side, Split, contrast, read_contrast


def pairs(n: int = 20, groups: list[str] | None = None) -> ContrastPairs:
    return contrast([f"good {i}" for i in range(n)], [f"bad {i}" for i in range(n)], groups=groups)


@given(st.lists(st.integers(0, 9), min_size=12, max_size=40), st.integers(0, 5))
def test_a_split_cuts_no_group_and_loses_no_text(groups: list[int], seed: int) -> None:
    whole = pairs(len(groups), [str(group) for group in groups])
    try:
        split = whole.split(train=0.5, select=0.25, test=0.25, seed=seed)
    except PromptError:
        assert len(whole.groups) < 6
        return
    parts = [split.train, split.select, split.test]

    assert sorted(side.id for part in parts for side in part.positive) == sorted(whole.ids)
    assert sum(len(part.groups) for part in parts) == len(whole.groups)


def test_shares_are_kept_as_well_as_groups_allow() -> None:
    split = pairs(100).split(train=0.6, select=0.2, test=0.2)

    assert (len(split.train), len(split.select), len(split.test)) == (60, 20, 20)


def test_every_part_of_unpaired_texts_has_both_sides() -> None:
    loose = contrast([f"good {i}" for i in range(3)], [f"bad {i}" for i in range(30)], paired=False)
    for seed in range(20):
        split = loose.split(train=0.34, select=0.33, test=0.33, seed=seed)
        assert [len(part.positive) for part in split.parts.values()] == [1, 1, 1]


def test_a_split_depends_on_its_seed_alone() -> None:
    def split(seed: int) -> tuple[str, ...]:
        return pairs().split(train=0.5, test=0.5, seed=seed).train.ids

    assert split(0) == split(0) != split(1)


def test_equal_pairs_are_told_apart_and_kept_together() -> None:
    twice = contrast(["a", "a", "b"], ["c", "c", "d"])

    assert len(set(twice.ids)) == 3
    assert len(twice.groups) == 2


def test_the_hash_is_of_the_content() -> None:
    assert (
        pairs().content_hash
        == contrast([f"good {i}" for i in range(20)], [f"bad {i}" for i in range(20)], name="another").content_hash
    )
    assert pairs().content_hash != pairs(19).content_hash
    assert contrast(["a"], ["b"]).content_hash != contrast(["b"], ["a"]).content_hash


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("positive", "negative"), [([], []), (["a"], []), ([], ["b"])])
def test_an_empty_or_one_sided_set_is_refused(positive: list[str], negative: list[str], paired: bool) -> None:
    with pytest.raises(PromptError, match=r"needs both|are no pairs"):
        contrast(positive, negative, paired=paired)


def test_sides_that_do_not_fit_are_refused() -> None:
    a, b = Side("1", "a", "g"), Side("2", "b", "g")
    with pytest.raises(PromptError, match="are no pairs"):
        contrast(["a", "b"], ["c"])
    with pytest.raises(PromptError, match="3 groups for 1 pairs"):
        contrast(["a"], ["b"], groups=["x", "y", "z"])
    with pytest.raises(PromptError, match="blank"):
        contrast(["a"], [" "])
    with pytest.raises(PromptError, match="occur twice"):
        ContrastPairs("x", (a, a), (b,))
    with pytest.raises(PromptError, match="on both sides and some on one"):
        ContrastPairs("x", (a, b), (a,))
    with pytest.raises(PromptError, match="lies in two groups"):
        ContrastPairs("x", (a,), (Side("1", "c", "other"),))


def test_folds_that_share_a_group_are_refused() -> None:
    with pytest.raises(PromptError, match="20 groups are in both test and train"):
        Split({"train": pairs(), "test": pairs()})


def test_impossible_shares_and_too_few_groups_are_refused() -> None:
    with pytest.raises(PromptError, match="add up to 1"):
        pairs().split(train=0.5)
    with pytest.raises(PromptError, match="1 groups of 'contrast' are too few for 2 parts"):
        pairs(4, ["g"] * 4).split(train=0.5, test=0.5)
    with pytest.raises(PromptError, match="No share for 'select'"):
        _ = pairs().split(train=0.5, test=0.5).select


def test_a_file_is_read_with_its_ids_and_groups(tmp_path: Path) -> None:
    path = tmp_path / "joy.jsonl"
    path.write_text(
        '{"positive": "a", "negative": "b", "id": 7, "group": "g"}\n\n{"positive": "c", "negative": "d"}\n',
        encoding="utf-8",
    )
    read = read_contrast(path)

    assert (read.name, read.paired, read.ids[0], read.groups[0]) == ("joy", True, "7", "g")
    assert [side.text for side in read.negative] == ["b", "d"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("nonsense", "no JSON"),
        ('{"positive": "a"}', "are required"),
        ('{"positive": "a", "negative": 3}', "are required"),
        ('{"positive": "a", "negative": "b", "colour": "red"}', "keys of positive, negative, id, group"),
        ("[1]", "expected a JSON object"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "joy.jsonl"
    path.write_text(f'{{"positive": "a", "negative": "b"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(PromptError, match=rf"line 2: .*{why}"):
        read_contrast(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "joy.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(PromptError, match="holds no pairs"):
        read_contrast(tmp_path / "joy.jsonl")
