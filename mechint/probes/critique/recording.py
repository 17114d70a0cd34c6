"""Activations of twins: at the result, at the stub, and at an answer that both are made to give.

    R  the last token of the result, where the twins differ in what was read
    S  the stub, a fixed text behind it: its tokens are the same in both, so what tells them apart was carried there
    A  the tokens of one and the same final answer, appended to both: mean over them

A is the contrast of "Decoding the Critique Mechanism in Large Reasoning Models" (2026), there taken between two
different answers that the model wrote itself. Both rows of a pair run in one pass, padded to one length, so that what
is equal in them is equal to the last bit.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from mechint.capture.activations import Activations, identity, median_norms
from mechint.capture.passes import TOKENS_A_BUCKET, Passes, Sites, width_at
from mechint.capture.texts import Texts
from mechint.errors import PositionError, PromptError, SiteError
from mechint.model.base import Model
from mechint.positions import everywhere
from mechint.prompts.reasoning import TokenTwins
from mechint.sites import Site

Place = Literal["result", "stub", "stub_last"]


def record_twins(
    model: Model, twins: TokenTwins, sites: Sites, at: Place = "result", progress: bool | None = None
) -> Activations:
    """Run a model on both rows of every pair and keep one vector of each at some sites.

    Args:
        model: to be read.
        twins: at least one pair.
        sites: one or several, each with one vector a token; `embed` is what the tokens alone tell.
        at: R, the mean over S, or the last token of S.
        progress: show a progress bar on standard error; by default only in a terminal.

    Returns:
        The wrong rows (label 1), then the true ones (label 0), in the order of the pairs; the two of a pair have one
        id, and the pairs of a problem one group. The median |h| leaves out the first token of every row.

    Raises:
        SiteError: the model has no such site, or it holds more than one vector a token.
        PositionError: no such place, twins without a stub, or rows that the model cannot read.
        PromptError: there are no twins.
    """
    return record_places(model, twins, sites, (at,), progress)[at]


def record_places(
    model: Model, twins: TokenTwins, sites: Sites, places: Sequence[Place], progress: bool | None = None
) -> dict[Place, Activations]:
    """Record several places in one pass over every row; arguments and errors as in `record_twins`."""
    if not len(twins):
        raise PromptError(f"There are no twins in {twins.name!r} to record. Give at least one pair.")
    given = [sites] if isinstance(sites, str | Site) else list(sites)
    if not given:
        raise SiteError("No site was given. Name at least one, such as 'L9.resid_post'.")
    chosen = tuple(sorted({model.facts.check(site) for site in given}))
    widths = tuple(width_at(model, site) for site in chosen)
    rows = [list(row) for row in (*twins.wrong, *twins.true)]
    model.batch(rows)  # refuses what cannot be read before anything runs
    selected: dict[Place, list[list[int]]] = {place: _selected(twins, place) for place in places}
    kept = [sorted({at for one in of_pair for at in one}) for of_pair in zip(*selected.values(), strict=True)]
    within = {
        place: [[all_.index(at) for at in one] for one, all_ in zip(ones, kept, strict=True)] * 2
        for place, ones in selected.items()
    }
    texts = Texts(
        twins.name,
        twins.content_hash,
        tuple(str(model.tokenizer.decode(row)) for row in rows),
        twins.ids * 2,
        twins.groups * 2,
        (1,) * len(twins) + (0,) * len(twins),
    )
    passes = Passes(model, texts, chosen, widths, rows, everywhere, None, kept * 2, _buckets(twins, kept))
    values = {
        place: {site: torch.empty(len(rows), 1, width) for site, width in zip(chosen, widths, strict=True)}
        for place in selected
    }
    norms: dict[Site, list[torch.Tensor]] = {site: [] for site in chosen}
    for bucket in passes.run(progress):
        for site in chosen:
            for place, at in within.items():
                for row, found in zip(bucket.rows, bucket.values[site], strict=True):
                    values[place][site][row, 0] = found[at[row]].mean(0)
            norms[site].append(bucket.norms[site])
    medians = median_norms(norms)
    return {
        place: Activations(
            values[place],
            texts.ids,
            texts.groups,
            texts.labels,
            texts.texts,
            None if place == "stub" else torch.tensor(ones * 2),
            "mean of stub" if place == "stub" else place,
            medians,
            identity(model),
            passes.data,
        )
        for place, ones in selected.items()
    }


def record_answers(
    model: Model,
    twins: TokenTwins,
    answers: Sequence[str] | Sequence[Sequence[int]],
    sites: Sites,
    progress: bool | None = None,
) -> Activations:
    r"""Append an answer to both rows of every pair and keep the mean over its tokens: A.

    Args:
        model: to be read.
        twins: at least one pair; what stands behind R (a stub, say) stays there, before the answer.
        answers: for each pair, as text such as "\n\nThe final answer is 72.", or as tokens.
        sites: as in `record_twins`.
        progress: as in `record_twins`.

    Raises:
        PromptError: not one answer a pair, an empty one, or one with words that the tokenizer does not know.
        SiteError: as in `record_twins`.
        PositionError: as in `record_twins`.
    """
    answered = with_answers(twins, answers, model.tokenizer)
    return replace(record_twins(model, answered, sites, "stub", progress), at="mean of answer")


def with_answers(twins: TokenTwins, answers: Sequence[str] | Sequence[Sequence[int]], tokenizer: Any) -> TokenTwins:
    """Append an answer to both rows of every pair; its tokens become the stub.

    Raises:
        PromptError: not one answer a pair, an empty one, or one with words that the tokenizer does not know.
    """
    if len(answers) != len(twins):
        raise PromptError(f"{len(answers)} answers to {len(twins)} pairs of {twins.name!r}. Give one for each pair.")
    tokens = [_tokens(answer, tokenizer) for answer in answers]
    return replace(
        twins,
        true=tuple(row + answer for row, answer in zip(twins.true, tokens, strict=True)),
        wrong=tuple(row + answer for row, answer in zip(twins.wrong, tokens, strict=True)),
        stub=tuple(
            tuple(range(len(row), len(row) + len(answer))) for row, answer in zip(twins.true, tokens, strict=True)
        ),
    )


def _tokens(answer: str | Sequence[int], tokenizer: Any) -> tuple[int, ...]:
    text = isinstance(answer, str)
    tokens = tuple(tokenizer(answer, add_special_tokens=False)["input_ids"] if text else answer)
    unknown = tokenizer.unk_token_id
    # In GPT-2 one id is unknown text and the end of a document.
    if not tokens or (text and unknown not in (None, tokenizer.eos_token_id) and unknown in tokens):
        raise PromptError(f"The answer {answer!r} is no tokens, or unknown ones. Give text in the model's own words.")
    return tokens


def _selected(twins: TokenTwins, at: str) -> list[list[int]]:
    """Return the positions that go into the vector of each pair."""
    if at not in ("result", "stub", "stub_last"):
        raise PositionError(f"at={at!r}: expected 'result', 'stub' (the mean over it) or 'stub_last'.")
    if at == "result":
        return [[place] for place in twins.result]
    if bare := [name for name, stub in zip(twins.ids, twins.stub, strict=True) if not stub]:
        raise PositionError(
            f"{len(bare)} of {len(twins)} twins have no stub (first: {bare[0]!r}). Make them with one: "
            "twins(pairs, tokenizer, stub=…), or record at='result'."
        )
    return [list(stub) if at == "stub" else [max(stub)] for stub in twins.stub]


def _buckets(twins: TokenTwins, kept: Sequence[Sequence[int]]) -> list[list[int]]:
    """Group pairs of like length that keep equally much, both rows together, within the budget with their padding."""
    lengths, counts, n = [len(row) for row in twins.true], list(map(len, kept)), len(twins)
    buckets: list[list[int]] = [[]]
    for pair in sorted(range(n), key=lambda pair: (counts[pair], lengths[pair])):
        full = lengths[pair] * (len(buckets[-1]) + 2) > TOKENS_A_BUCKET
        if buckets[-1] and (full or counts[pair] != counts[buckets[-1][0]]):
            buckets.append([])
        buckets[-1] += [pair, n + pair]
    return buckets
