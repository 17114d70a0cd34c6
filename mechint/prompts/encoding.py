"""From text to tokens, with every check that text allows.

A row is the tokenizer's own encoding, with exactly one beginning-of-sequence token in front where the tokenizer
defines one, and nothing after the text. A label is the token that the tokenizer makes of it *after its prompt*, and
has to be exactly one.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from mechint.errors import PromptError, TokenError
from mechint.prompts.prompt import Prompt, PromptSet, listed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast as Tokenizer
else:
    Tokenizer = Any  # annotations are checked under pytest, and transformers is not loaded for them

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """The tokens of a prompt set under one tokenizer, one entry a prompt."""

    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    """The cluster of each prompt; its id where it names none."""
    tokens: tuple[tuple[int, ...], ...]
    """Token ids, beginning-of-sequence token included; rows differ in length."""
    target: tuple[int | None, ...]
    distractor: tuple[int | None, ...]
    counterfactual: tuple[tuple[int, ...] | None, ...]
    """Token ids; where present, as many as the prompt has."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def target_positions(self) -> tuple[int | None, ...]:
        """Where the target first occurs in its own prompt; position 0, where heads rest, does not count."""
        return tuple(
            next((at for at, token in enumerate(row) if at > 0 and token == target), None)
            for row, target in zip(self.tokens, self.target, strict=True)
        )


def tokenize(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the tokens of a text with one beginning-of-sequence token (if the tokenizer has one) and no end token."""
    bare, full = bare_tokens(text, tokenizer), tuple(tokenizer(text, add_special_tokens=True)["input_ids"])
    start = next((at for at in range(len(full) - len(bare) + 1) if full[at : at + len(bare)] == bare), 0)
    row, bos = (*full[:start], *bare), cast("int | None", tokenizer.bos_token_id)
    if bos is None or (bos in full[:start] and row[0] != bos):
        return row
    while row and row[0] == bos:
        row = row[1:]
    return (bos, *row)


def bare_tokens(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the tokens of a piece of text, without those that begin or end one."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def token_of(text: str, tokenizer: Tokenizer, *, after: str = "") -> int:
    """Return the one token that a text is when it follows another.

    Raises:
        TokenError: it is several tokens, none, or unknown.
    """
    before, together = tokenize(after, tokenizer), tokenize(after + text, tokenizer)
    pieces = bare_tokens(text, tokenizer)
    if after and together[:-1] == before:
        pieces = together[-1:]
    if len(pieces) == 1 and not _unknown(pieces, tokenizer):
        return pieces[0]
    raise TokenError(_not_one_token(text, pieces, tokenizer))


def encode(prompts: PromptSet, tokenizer: Tokenizer, *, n_ctx: int | None = None) -> Encoded:
    """Return the tokens of every prompt, label and counterfactual, after checking them all.

    Args:
        prompts: at least one.
        tokenizer: a transformers tokenizer.
        n_ctx: the most tokens that the model reads; None: no limit.

    Raises:
        TokenError: a target or distractor is not exactly one token, or both are the same one.
        PromptError: no prompts; a prompt longer than `n_ctx` or with unknown words; a counterfactual with another
            number of tokens than its prompt. The message lists the first five problems of the set.

    Examples:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> words = Tokenizer(models.WordLevel({"[B]": 0, "[U]": 1, "to": 2, "Mary": 3}, unk_token="[U]"))
        >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="[B]", unk_token="[U]")
        >>> encoded = encode(PromptSet("demo", (Prompt("a", "Mary to", " Mary"),)), tokenizer)
        >>> encoded.tokens, encoded.target, encoded.target_positions
        (((0, 3, 2),), (3,), (1,))
    """
    if not prompts:
        raise PromptError(f"There are no prompts in {prompts.name!r}. Give at least one.")
    rows: list[_Row] = []
    problems: list[PromptError] = []
    for prompt in prompts:
        try:
            rows.append(_row(prompt, tokenizer, n_ctx))
        except PromptError as error:
            problems.append(error)
    if problems:
        raise type(problems[0])(listed([str(problem) for problem in problems]))
    _warn_of_fused_labels(prompts, tokenizer)
    return Encoded(
        ids=tuple(prompt.id for prompt in prompts),
        clusters=tuple(prompt.cluster or prompt.id for prompt in prompts),
        tokens=tuple(row.tokens for row in rows),
        target=tuple(row.target for row in rows),
        distractor=tuple(row.distractor for row in rows),
        counterfactual=tuple(row.counterfactual for row in rows),
    )


@dataclass(frozen=True)
class _Row:
    tokens: tuple[int, ...]
    target: int | None
    distractor: int | None
    counterfactual: tuple[int, ...] | None


def _row(prompt: Prompt, tokenizer: Tokenizer, n_ctx: int | None) -> _Row:
    tokens = _checked_tokens(prompt.id, prompt.prompt, tokenizer, n_ctx)
    target, distractor = (_label(prompt, name, tokenizer) for name in ("target", "distractor"))
    if target is not None and target == distractor:
        raise TokenError(
            f"Prompt {prompt.id!r}: target {prompt.target!r} and distractor {prompt.distractor!r} are one and the same "
            "token. Give two different ones; their difference would always be 0."
        )
    if prompt.counterfactual is None:
        return _Row(tokens, target, distractor, None)
    counterfactual = _checked_tokens(f"{prompt.id} (counterfactual)", prompt.counterfactual, tokenizer, n_ctx)
    if len(counterfactual) != len(tokens):
        raise PromptError(
            f"Prompt {prompt.id!r} has {len(tokens)} tokens and its counterfactual {len(counterfactual)}. "
            "They are compared position by position: replace words by others of as many tokens."
        )
    return _Row(tokens, target, distractor, counterfactual)


def _checked_tokens(name: str, text: str, tokenizer: Tokenizer, n_ctx: int | None) -> tuple[int, ...]:
    tokens = tokenize(text, tokenizer)
    if n_ctx is not None and len(tokens) > n_ctx:
        raise PromptError(f"Prompt {name!r} has {len(tokens)} tokens; the model reads at most {n_ctx}. Shorten it.")
    if _unknown(tokens, tokenizer):
        words = [word for word in text.split() if _unknown(bare_tokens(word, tokenizer), tokenizer)]
        raise PromptError(
            f"Prompt {name!r} has words that this tokenizer does not know: {', '.join(words[:5]) or repr(text)}. "
            "The model would read them all as one unknown token; use words of its vocabulary."
        )
    return tokens


def _label(prompt: Prompt, name: str, tokenizer: Tokenizer) -> int | None:
    text: str | None = getattr(prompt, name)
    if text is None:
        return None
    try:
        return token_of(text, tokenizer, after=prompt.prompt)
    except TokenError as error:
        raise TokenError(f"Prompt {prompt.id!r}: the {name} {error}") from None


def _unknown(tokens: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Whether a token stands for unknown text. In GPT-2 one id is both that and the end of a document: no sign."""
    unknown = tokenizer.unk_token_id
    return unknown is not None and unknown not in (tokenizer.bos_token_id, tokenizer.eos_token_id) and unknown in tokens


def _not_one_token(text: str, pieces: Sequence[int], tokenizer: Tokenizer) -> str:
    if not pieces:
        return f"{text!r} is no token at all. Give the text of exactly one token, such as ' Mary'."
    if _unknown(pieces, tokenizer):
        return f"{text!r} is not in the vocabulary of this tokenizer. Give the text of exactly one of its tokens."
    shown = [str(tokenizer.decode([piece])) for piece in pieces]
    if not text.startswith(" ") and len(bare_tokens(" " + text, tokenizer)) == 1:
        advice = f"With a leading space it is one: {' ' + text!r}"
    else:
        advice = f"Choose another word, or compare its first piece: {next((p for p in shown if p.strip()), shown[0])!r}"
    pieces_shown = " + ".join(repr(piece) for piece in shown)
    return f"{text!r} is {len(pieces)} tokens ({pieces_shown}); expected exactly one. {advice}."


def _warn_of_fused_labels(prompts: PromptSet, tokenizer: Tokenizer) -> None:
    """Warn where a label would continue the prompt's last word, as "Mary" does after "gave it to"."""
    fused = [
        prompt.id
        for prompt in prompts
        if prompt.target is not None
        and re.search("[A-Za-z]$", prompt.prompt)
        and re.match("[A-Za-z]", prompt.target)
        and bare_tokens(prompt.target, tokenizer) != bare_tokens(" " + prompt.target, tokenizer)
    ]
    if fused:
        logger.warning(
            "%d prompts end in a word that their target would continue (first: %r). "
            "If the target is a word of its own, give it a leading space.",
            len(fused),
            fused[0],
        )
