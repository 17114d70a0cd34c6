"""What a model that speaks the silent critic's language does with errors, under whatever plan is in force.

D, F         mean P(X) right after a wrong and a right result, of X and K alone: sigmoid of their log odds
greedy D, F  share of rows in which X is likelier than K
H            2 D (1 - F) / (D + 1 - F): how well errors are flagged and right steps are not
next = true  after K on a wrong step: P(the next step goes on from the true result)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.model.base import Logits, Model
from mechint.organisms.critic_language import ERROR_WORD, OK_WORD, Habits, answer, document, vocabulary, word_ids
from mechint.probes.critique.measures import AtResult, Row, TokenMargin, by_length, sequence_log_prob
from mechint.prompts.reasoning import TokenTwins
from mechint.statistics import generator
from mechint.steering.generation import generate

_CLEAN = 128
_FAULTLESS = Habits(false_alarm=0.0, every_step=0.0)
_LONGEST = 32
"""Tokens after a step: three steps of seven, two that are flagged, and the answer."""


def margin(model: Model) -> AtResult:
    """Return the log odds of X against K right after the result."""
    x, k = verdict_tokens(model)
    return AtResult(TokenMargin((x,), (k,), name="log odds of X"))


def verdict_tokens(model: Model) -> tuple[int, int]:
    """Return the tokens of X and of K."""
    x, k = (int(model.tokenizer.convert_tokens_to_ids(word)) for word in (ERROR_WORD, OK_WORD))
    return x, k


def last_logits(model: Model, rows: Sequence[Row]) -> Float[Tensor, "batch d_vocab"]:
    """Return the logits after each row."""
    out: Tensor | None = None
    for part in by_length([len(row) for row in rows]):
        logits = model.run([rows[at] for at in part], logits=Logits()).logits
        assert logits is not None
        out = torch.empty(len(rows), logits.shape[-1]) if out is None else out
        out[part] = logits[:, 0]
    assert out is not None
    return out


def knowledge(model: Model, twins: TokenTwins) -> dict[str, float]:
    """Return how often results are computed right, and put right after X."""
    x, _ = verdict_tokens(model)
    true = torch.tensor([row[at] for row, at in zip(twins.true, twins.result, strict=True)])
    before = [row[:at] for row, at in zip(twins.true, twins.result, strict=True)]
    flagged = [(*row[: at + 1], x) for row, at in zip(twins.wrong, twins.result, strict=True)]
    found = {"step_accuracy": before, "correction_accuracy": flagged}
    return {name: float((last_logits(model, rows).argmax(-1) == true).float().mean()) for name, rows in found.items()}


def next_operand(model: Model, stubs: TokenTwins, *, bias: float = 0.0) -> Float[np.ndarray, " prompt"]:
    """Return, after `K ;` on a wrong step, the probability that the next step goes on from the true result.

    Args:
        model: to be asked.
        stubs: twins with a stub; see `goes_on`.
        bias: added to the logit of X, which at this place nobody says.
    """
    logits = last_logits(model, stubs.wrong).double()
    logits[:, verdict_tokens(model)[0]] += bias
    true = torch.tensor([row[at] for row, at in zip(stubs.true, stubs.result, strict=True)])
    return logits.softmax(-1).gather(1, true[:, None])[:, 0].numpy()


def goes_on(stubs: TokenTwins) -> TokenTwins:
    """Keep the twins whose step is not the last of its problem, so that a next one follows."""
    words = vocabulary()
    kept: list[int] = []
    for at, row in enumerate(stubs.true):
        text = [words[token] for token in row]
        moves = sum(word in "+-" for word in text[: text.index("?")])
        if text.count(";") < moves:
            kept.append(at)
    return stubs.rows(kept)


def clean_losses(model: Model) -> Float[np.ndarray, " prompt"]:
    """Return the loss per token, in nats, of solutions without an error."""
    names = word_ids()
    written = [document(generator(0, "silent-critic", "clean", at), _FAULTLESS) for at in range(_CLEAN)]
    rows = [tuple(names[word] for word in one.words) for one in written]
    cuts = [one.words.index("?") + 1 for one in written]
    heads = [row[:cut] for row, cut in zip(rows, cuts, strict=True)]
    tails = [row[cut:] for row, cut in zip(rows, cuts, strict=True)]
    return -sequence_log_prob(model, heads, tails) / np.array([len(tail) for tail in tails])


def answers(model: Model, twins: TokenTwins, *, wrong: bool, seed: int) -> Float[np.ndarray, " prompt"]:
    """Write each solution on from its result at temperature 1; return whether it ends in the problem's answer."""
    words = vocabulary()
    texts = [" ".join(words[token] for token in row[1:]) for row in twins.side(wrong=wrong)]
    how: dict[str, Any] = {"max_new_tokens": _LONGEST, "temperature": 1.0, "seed": seed, "batch_size": 64}
    found = generate(model, texts, progress=False, stop="<eos>", **how)
    asked = [text[: text.index("?") + 1].split() for text in texts]
    right = [_answer(text) == answer(problem) for text, problem in zip(found.texts, asked, strict=True)]
    return np.array(right, dtype=float)


def _answer(text: str) -> str:
    """Return the digit after the A, or nothing."""
    after = text.split("A")
    return after[-1].split()[0] if len(after) > 1 and after[-1].split() else ""
