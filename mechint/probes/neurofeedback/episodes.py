"""Texts of a neurofeedback session: sentences, each followed by a cue and by the label of its score.

    {before}{sentence}{cue}{label}{after}{sentence}{cue}{label}{after} …

Texts are joined as tokens, so that a sentence has the same tokens wherever it stands. The label of a sentence is
predicted at the last token of the cue before it; so one teacher-forced pass over N examples gives the prediction after
every n <= N of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.errors import TokenError
from mechint.interventions import Intervention
from mechint.model.base import Model
from mechint.positions import Positions, TokenBatch
from mechint.prompts.encoding import bare_tokens


@dataclass(frozen=True)
class Wording:
    """What stands around sentences, as tokens."""

    before: tuple[int, ...]
    """With BOS, if the model has one."""
    cue: tuple[int, ...]
    labels: tuple[int, int]
    after: tuple[int, ...]

    @classmethod
    def of(cls, model: Model, before: str, cue: str, labels: Sequence[str], after: str) -> "Wording":
        """Turn texts into tokens.

        Raises:
            TokenError: a label is not one token after the cue. SentencePiece makes two of " 0", a blank and a digit:
                the score would be read where the blank is predicted.
        """
        asked = plain(model, cue)
        if not asked:
            raise TokenError(f"The cue {cue!r} has no tokens. Give one, such as ' Score:'.")
        found: list[int] = []
        for label in labels:
            joined = plain(model, cue + label)
            if joined[: len(asked)] != asked or len(joined) != len(asked) + 1:
                shown = [str(model.tokenizer.convert_ids_to_tokens(token)) for token in joined]
                raise TokenError(
                    f"Label {label!r} is not one token after {cue!r} for {model.facts.name}: together they are "
                    f"{shown}. Expected the cue's own tokens and one more. Use letters: ' A' and ' B'."
                )
            found.append(joined[-1])
        bos = model.tokenizer.bos_token_id
        first = () if bos is None else (int(bos),)
        return cls((*first, *plain(model, before)), asked, (found[0], found[1]), plain(model, after))


def plain(model: Model, text: str) -> tuple[int, ...]:
    """Return the tokens of a text, without BOS."""
    return bare_tokens(text, model.tokenizer) if text else ()


@dataclass(frozen=True)
class Episode:
    """One text, and where what is in it."""

    tokens: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    """Of each sentence: its first token, and the one behind its last."""
    cues: tuple[int, ...]
    """Where the label of each sentence is predicted."""


def episode(wording: Wording, sentences: Sequence[Sequence[int]], labels: Sequence[int]) -> Episode:
    """Write a text.

    Args:
        wording: what stands around sentences.
        sentences: their tokens.
        labels: 0 or 1 of each sentence; that of the last may be left out, as it is not needed to predict it.
    """
    tokens, spans, cues = list(wording.before), list[tuple[int, int]](), list[int]()
    for at, sentence in enumerate(sentences):
        spans.append((len(tokens), len(tokens) + len(sentence)))
        tokens += [*sentence, *wording.cue]
        cues.append(len(tokens) - 1)
        if at < len(labels):
            tokens += [wording.labels[labels[at]], *wording.after]
    return Episode(tuple(tokens), tuple(spans), tuple(cues))


def noise(
    episodes: Sequence[Episode], amounts: Sequence[Sequence[float]], axis: Float[Tensor, " d_model"]
) -> Intervention:
    """Return the addition of ε_i · axis at every token of sentence i, in raw units of the activation.

    Rows are those of the batch. Places are counted from each row's first token, so that padding and a key/value cache
    change nothing.

    Args:
        episodes: of each row of the batch.
        amounts: ε of each sentence of each row.
        axis: a unit vector.
    """
    longest = max(len(one.tokens) for one in episodes)
    sizes, inside = torch.zeros(len(episodes), longest), torch.zeros(len(episodes), longest, dtype=torch.bool)
    for row, (one, own) in enumerate(zip(episodes, amounts, strict=True)):
        for (start, stop), size in zip(one.spans, own, strict=True):
            sizes[row, start:stop], inside[row, start:stop] = float(size), True

    def resolve(batch: TokenBatch) -> Tensor:
        return inside.gather(1, batch.offset.clamp(max=longest - 1)) & (batch.offset < longest)

    def rewrite(h: Tensor, offset: Tensor) -> Tensor:
        return h + sizes.gather(1, offset.clamp(max=longest - 1))[..., None].to(h.dtype) * axis.to(h.dtype)

    return Intervention("noise along an axis", rewrite, Positions("sentences", resolve))


def span_means(
    values: Float[Tensor, "pos d_model"], spans: Sequence[tuple[int, int]]
) -> Float[Tensor, "sentence d_model"]:
    """Return the mean over each span."""
    return torch.stack([values[start:stop].mean(0) for start, stop in spans])
