"""Texts without labels: natural English that is always at hand, the user's own, and Hugging Face datasets."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mechint.errors import PromptError
from mechint.prompts.files import read_text
from mechint.prompts.prompt import Prompt, PromptSet, check_number
from mechint.statistics import derive_seed, generator

_BUFFER = 10_000  # documents among which a streamed data set is shuffled
_PLAIN = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "…": "..."})


def natural(n: int = 64, seed: int = 0, *, min_words: int = 30, joined: bool = False) -> PromptSet:
    """Return n paragraphs of English prose, drawn from the reference manual in Python's own standard library.

    No network is needed. Code, tables, lists, headings and footnotes are left out. Paragraph i does not depend on n.
    A paragraph's cluster is its chapter. The text belongs to the running Python version; `content_hash` tells.

    Args:
        n: number of paragraphs, or passages.
        seed: of the drawing.
        min_words: words of each, at least.
        joined: join neighbouring paragraphs of a chapter to passages of `min_words` words, instead of leaving out
            paragraphs that are shorter. Meant for documents of a hundred tokens and more.

    Raises:
        PromptError: fewer than n paragraphs have `min_words` words, or this Python has no manual.

    Examples:
        >>> natural(n=3)[:2] == natural(n=2)
        True
    """
    check_number(n)
    paragraphs = list(_passages(min_words) if joined else _paragraphs(min_words))
    if n > len(paragraphs):
        what = "passages" if joined else "paragraphs"
        raise PromptError(f"{n} {what} were asked for; {len(paragraphs)} have {min_words} words. Ask for fewer.")
    order = generator(seed, "natural").permutation(len(paragraphs))[:n]
    return PromptSet("natural", tuple(paragraphs[index] for index in order))


def texts(path: str | Path) -> PromptSet:
    """Return the documents of a text file, one a line, or of a folder, one a `.txt` file.

    Raises:
        PromptError: nothing there, nothing in it, or not UTF-8.
    """
    path = Path(path)
    if path.is_dir():
        documents = {file.name: read_text(file).replace("\r\n", "\n") for file in sorted(path.glob("*.txt"))}
    else:
        documents = {f"line-{k}": line.strip("\r") for k, line in enumerate(read_text(path).split("\n"), start=1)}
    prompts = tuple(Prompt(name, text) for name, text in documents.items() if text.strip())
    if not prompts:
        raise PromptError(f"{path} holds no text. Give a file with one document a line, or a folder of .txt files.")
    return PromptSet(path.stem, prompts)


def from_dataset(
    name: str, *, split: str = "train", column: str = "text", n: int = 64, seed: int = 0, config: str | None = None
) -> PromptSet:
    """Return n texts of a Hugging Face data set, streamed and shuffled in a buffer of 10,000.

    Args:
        name: id on the hub, or a local folder that `datasets` can read.
        split: part of the data set.
        column: where the text is.
        n: number of texts; blank ones do not count.
        seed: of the shuffle.
        config: name of the configuration, for data sets that have several.

    Raises:
        PromptError: the data set cannot be had (no such name, no network), has no such column, or too few texts.
    """
    from datasets import load_dataset

    check_number(n)
    prompts: list[Prompt] = []
    try:
        rows: Any = load_dataset(name, config, split=split, streaming=True)
        for row in rows.shuffle(seed=derive_seed(seed, "dataset") % 2**32, buffer_size=_BUFFER):
            if column not in row:
                raise PromptError(f"{name!r} has no column {column!r}. There are: {', '.join(row)}.")
            if isinstance(row[column], str) and row[column].strip():
                prompts.append(Prompt(f"{split}-{len(prompts):04d}", row[column]))
            if len(prompts) == n:
                return PromptSet(f"{name}/{split}", tuple(prompts))
    except PromptError:
        raise
    except Exception as error:  # datasets lets through whatever its many readers raise
        raise PromptError(
            f"The data set {name!r} (split {split!r}) cannot be had: {type(error).__name__}: {error} "
            "Check the name, and the network if it is not a local folder; mechint.prompts.natural needs neither."
        ) from error
    raise PromptError(f"{name!r} (split {split!r}) has {len(prompts)} texts; {n} were asked for.")


def _paragraphs(min_words: int) -> Iterator[Prompt]:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise PromptError("This Python comes without its manual (pydoc_data). Use mechint.prompts.texts.") from None
    seen: set[str] = set()
    for chapter, manual in sorted(topics.items()):
        for number, block in enumerate(re.split(r"\n\s*\n", manual)):
            text = _prose(block)
            if text is not None and len(text.split()) >= min_words and text not in seen:
                seen.add(text)
                yield Prompt(f"{chapter}-{number}", text, cluster=chapter)


def _passages(min_words: int) -> Iterator[Prompt]:
    """Join neighbouring paragraphs of a chapter until they have so many words; what is left over is left out."""
    waiting: list[Prompt] = []
    for paragraph in _paragraphs(5):
        if waiting and waiting[0].cluster != paragraph.cluster:
            waiting = []
        waiting.append(paragraph)
        text = "\n\n".join(part.prompt for part in waiting)
        if len(text.split()) >= min_words:
            yield Prompt(waiting[0].id, text, cluster=paragraph.cluster)
            waiting = []


def _prose(block: str) -> str | None:
    """Return a paragraph of the manual without its markup; None if it is code, a table, a list, a note or a heading."""
    if re.search(r"^(\s|[-+|*=~^#\[]|\d+\. )|::=|>>>|\|\||--", block, flags=re.MULTILINE):
        return None
    text = re.sub(r"\s+", " ", block).translate(_PLAIN)
    text = re.sub(r"(?<![\w*])\*{1,2}([^\s*\"](?:[^*\"]*[^\s*\"])?)\*{1,2}(?![\w*])", r"\1", text)
    text = re.sub(r" ?\[\d+\]", "", text)
    return text if re.search(r"[a-z)\"]\.\)?$", text) else None
