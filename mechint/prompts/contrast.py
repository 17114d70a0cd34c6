"""Contrast data: texts that show a concept beside texts that do not, and splits that keep what belongs together.

Texts of one group (two phrasings of one fact, say) always land in one part of a split: otherwise a test would ask for
what was learned by heart. By default a pair is its own group, and texts that are equal are in one.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from mechint.errors import PromptError
from mechint.prompts.files import read_text
from mechint.prompts.prompt import listed
from mechint.statistics.seeds import generator


@dataclass(frozen=True)
class Side:
    """One text of a contrast."""

    id: str
    """Of its pair; or its own, where texts are not paired."""
    text: str
    group: str


@dataclass(frozen=True)
class ContrastPairs:
    """Positive texts, which show a concept, and negative ones, which do not; paired where their ids are the same.

    Raises:
        PromptError: a side is empty, a text is blank, or ids occur twice or are shared by some texts only.

    Examples:
        >>> pairs = contrast(["I love it", "What a joy"], ["I hate it", "What a pity"])
        >>> pairs
        ContrastPairs 'contrast': 2 pairs in 2 groups
        >>> sorted(len(part) for part in pairs.split(train=0.5, test=0.5).parts.values())
        [1, 1]
    """

    name: str
    positive: tuple[Side, ...]
    negative: tuple[Side, ...]

    def __post_init__(self) -> None:
        for side, texts in (("positive", self.positive), ("negative", self.negative)):
            if not texts:
                raise PromptError(
                    f"{self.name!r} has {len(self.positive)} positive and {len(self.negative)} negative texts. "
                    "A contrast needs both: give at least one of each."
                )
            blank = [one.id for one in texts if not one.text.strip()]
            if blank:
                raise PromptError(f"{self.name!r}: {side} text {blank[0]!r} is blank. Give some text.")
            if len({one.id for one in texts}) < len(texts):
                raise PromptError(f"{self.name!r}: ids of {side} texts occur twice. Give each its own.")
        ids = [one.id for one in self.positive], [one.id for one in self.negative]
        if ids[0] != ids[1] and set(ids[0]) & set(ids[1]):
            raise PromptError(
                f"{self.name!r}: some ids are on both sides and some on one. Paired texts have the same ids in the "
                "same order, unpaired ones have none in common."
            )
        if self.paired and any(a.group != b.group for a, b in zip(self.positive, self.negative, strict=True)):
            raise PromptError(f"{self.name!r}: a pair lies in two groups. Its texts belong together: give it one.")

    def __len__(self) -> int:
        """Return the number of pairs; of texts, where they are not paired."""
        return len(self.positive) if self.paired else len(self.positive) + len(self.negative)

    def __repr__(self) -> str:
        what = f"{len(self)} pairs" if self.paired else f"{len(self.positive)} + {len(self.negative)} unpaired texts"
        return f"ContrastPairs {self.name!r}: {what} in {len(self.groups)} groups"

    @property
    def paired(self) -> bool:
        """Whether each positive text belongs to the negative one at its place."""
        return self.positive[0].id == self.negative[0].id

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups, in the order in which they first occur."""
        return tuple(dict.fromkeys(one.group for one in (*self.positive, *self.negative)))

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of pairs, or of all texts where they are not paired."""
        return tuple(dict.fromkeys(one.id for one in (*self.positive, *self.negative)))

    @property
    def content_hash(self) -> str:
        """SHA-256 of the texts with ids and groups, as hexadecimal digits; the name of the set does not count."""
        content = [[[one.id, one.text, one.group] for one in side] for side in (self.positive, self.negative)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def pick(self, groups: Collection[str], name: str | None = None) -> "ContrastPairs":
        """Return the texts of some groups.

        Raises:
            PromptError: nothing of one side is in them.
        """
        wanted = set(groups)
        sides = (tuple(one for one in side if one.group in wanted) for side in (self.positive, self.negative))
        return ContrastPairs(name or self.name, *sides)

    def split(self, *, train: float = 0.0, select: float = 0.0, test: float = 0.0, seed: int = 0) -> "Split":
        """Divide the groups at random into parts for fitting, choosing (site, dose) and testing.

        Args:
            train: share of the texts to fit on; shares add up to 1, and a part with share 0 is not made.
            select: share to choose settings on.
            test: share to judge on.
            seed: of the draw.

        Raises:
            PromptError: shares that do not add up to 1, or too few groups for the parts.
        """
        shares = {part: share for part, share in (("train", train), ("select", select), ("test", test)) if share}
        if any(share < 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-9:
            raise PromptError(
                f"Shares of {train:g}, {select:g} and {test:g} were asked for. Expected shares that add up to 1, "
                "such as train=0.6, select=0.2, test=0.2."
            )
        rng, taken = generator(seed, "split"), {part: set[str]() for part in shares}
        for groups in self._by_sides():
            total, filled = sum(groups.values()), dict.fromkeys(shares, 0)
            for at in rng.permutation(len(groups)):
                name, size = list(groups.items())[int(at)]
                part = max(shares, key=lambda part: shares[part] * total - filled[part])
                taken[part].add(name)
                filled[part] += size
        try:
            return Split({part: self.pick(groups, f"{self.name}/{part}") for part, groups in taken.items()})
        except PromptError as error:
            raise PromptError(
                f"{len(self.groups)} groups of {self.name!r} are too few for {len(shares)} parts with positive and "
                f"negative texts each. Give more groups, or fewer parts. ({error})"
            ) from None

    def _by_sides(self) -> list[dict[str, int]]:
        """List groups with their sizes, apart by which sides they hold, so that every part gets of each."""
        kinds: dict[tuple[bool, bool], dict[str, int]] = {}
        sides = [{one.group for one in side} for side in (self.positive, self.negative)]
        for one in (*self.positive, *self.negative):
            kind = kinds.setdefault((one.group in sides[0], one.group in sides[1]), {})
            kind[one.group] = kind.get(one.group, 0) + 1
        return [kinds[kind] for kind in sorted(kinds)]


@dataclass(frozen=True)
class Split:
    """Parts of a contrast set that have no group in common.

    Raises:
        PromptError: two parts share a group.
    """

    parts: Mapping[str, ContrastPairs]

    def __post_init__(self) -> None:
        named = list(self.parts.items())
        for at, (one, mine) in enumerate(named):
            for other, theirs in named[:at]:
                require_apart(mine.groups, theirs.groups, f"{one} and {other}")

    @property
    def train(self) -> ContrastPairs:
        """The part to fit on."""
        return self._part("train")

    @property
    def select(self) -> ContrastPairs:
        """The part to choose settings on."""
        return self._part("select")

    @property
    def test(self) -> ContrastPairs:
        """The part to judge on."""
        return self._part("test")

    def _part(self, name: str) -> ContrastPairs:
        if name not in self.parts:
            raise PromptError(f"No share for {name!r} was asked for. There are: {', '.join(self.parts)}.")
        return self.parts[name]


def require_apart(one: Iterable[str], other: Iterable[str], what: str) -> None:
    """Refuse folds that share a group.

    Raises:
        PromptError: they do; the message names the first.
    """
    if shared := sorted(set(one) & set(other)):
        raise PromptError(
            f"{len(shared)} groups are in both {what} (first: {shared[0]!r}), so the test would see what was fitted. "
            "Split by group: pairs.split(train=…, test=…)."
        )


def contrast(
    positive: Sequence[str],
    negative: Sequence[str],
    *,
    paired: bool = True,
    groups: Sequence[str] | None = None,
    name: str = "contrast",
) -> ContrastPairs:
    """Make contrast data of two lists of texts.

    Args:
        positive: texts that show the concept.
        negative: texts that do not.
        paired: whether texts at one place of the lists belong together.
        groups: one for each pair, or for each positive and then each negative text; by default a pair is its own.
        name: of the set.

    Raises:
        PromptError: an empty list, or lists and groups that do not fit one another.
    """
    if paired and len(positive) != len(negative):
        raise PromptError(
            f"{len(positive)} positive and {len(negative)} negative texts are no pairs. Give equally many, or "
            "paired=False."
        )
    n = len(positive) if paired else len(positive) + len(negative)
    if groups is not None and len(groups) != n:
        raise PromptError(f"{len(groups)} groups for {n} {'pairs' if paired else 'texts'}. Give one for each.")
    contents = [f"{a}\0{b}" for a, b in zip(positive, negative, strict=True)] if paired else [*positive, *negative]
    hashes = [hashlib.sha256(content.encode()).hexdigest()[:16] for content in contents]
    owners, ids = groups or hashes, _numbered(hashes)
    if paired:
        rows = list(zip(ids, owners, strict=True))
        sides = [
            tuple(Side(i, text, group) for (i, group), text in zip(rows, texts, strict=True))
            for texts in (positive, negative)
        ]
        return ContrastPairs(name, *sides)
    rows = [Side(i, text, group) for i, text, group in zip(ids, contents, owners, strict=True)]
    return ContrastPairs(name, tuple(rows[: len(positive)]), tuple(rows[len(positive) :]))


def read_contrast(path: str | Path) -> ContrastPairs:
    """Read pairs from JSON lines: `{"positive": "…", "negative": "…"}`, optionally with `id` and `group`.

    Raises:
        PromptError: the file is missing, empty or no UTF-8, or lines in it cannot be used; the first five are named.
    """
    path, rows, problems = Path(path), list[dict[str, str]](), list[str]()
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                rows.append(_fields(line))
            except PromptError as error:
                problems.append(f"{path}, line {number}: {error}")
    if problems:
        raise PromptError(listed(problems))
    if not rows:
        raise PromptError(f"{path} holds no pairs. Give one JSON object a line, at least one.")
    made = contrast([row["positive"] for row in rows], [row["negative"] for row in rows], name=path.stem)
    sides = [
        tuple(
            Side(row.get("id", one.id), one.text, row.get("group", one.group))
            for row, one in zip(rows, side, strict=True)
        )
        for side in (made.positive, made.negative)
    ]
    return ContrastPairs(path.stem, *sides)


def _fields(line: str) -> dict[str, str]:
    try:
        given = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise PromptError(f"no JSON ({error}). Give one object a line.") from None
    allowed = ("positive", "negative", "id", "group")
    if not isinstance(given, dict) or not set(cast("dict[str, Any]", given)) <= set(allowed):
        raise PromptError(f"expected a JSON object with keys of {', '.join(allowed)}, got {line[:80]}.")
    fields = {str(k): str(v) if k in ("id", "group") and isinstance(v, int) else v for k, v in given.items()}
    if not {"positive", "negative"} <= set(fields) or not all(isinstance(value, str) for value in fields.values()):
        raise PromptError("'positive' and 'negative' are required, and all values are text in quotation marks.")
    return cast("dict[str, str]", fields)


def _numbered(names: Sequence[str]) -> list[str]:
    """Tell equal names apart: the second `a` becomes `a-2`."""
    seen: dict[str, int] = {}
    out: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return out
