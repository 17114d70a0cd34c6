r"""Which source tokens a head may act on: those in context that the stream already predicts.

At destination d, with x_d the stream before the head and U[t] the output direction of token t,

    l_ds  = x_d · U[t_s]                                                   logit lens of the source token
    K_d   = ceil(share · (d + 1))                                          share of the context, 5 % in the paper
    theta = the K_d-th largest l_ds over first occurrences of eligible tokens
    M_ds  = eligible_ds and l_ds >= theta                                  every occurrence of a kept token is kept

Eligible is what the head can see (s <= d, itself included, within a sliding window) and what copy suppression is about:
no special tokens, nothing at position 0, no function words. With fewer eligible tokens than K_d all of them are kept,
and never anything else. Any positive scale of x_d gives the same M. With several forms s* of each token the pairs
(s, s*) compete for the same K_d places. McDougall et al. 2023, "Copy Suppression", section 3.3 and appendix.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.probes.copy_suppression.word_forms import token_texts

SHARE = 0.05
"""Share of the context that is kept."""

_WORDS = """
a an the this that these those it its itself he him his himself she her hers herself they them their theirs
themselves i me my mine myself we us our ours ourselves you your yours yourself yourselves who whom whose which what
where when why how whether and or but nor so yet if then than because although though while unless until since as
of in on at by for with without within to from into onto upon out off over under between among through during before
after above below about against toward towards across along around behind beside besides beyond despite near per via
up down again further here there now just only also too very more most much many less least few some any each every
either neither both all another other others such same own not no none never ever always often be am is are was were
been being have has had having do does did doing done will would shall should can could may might must ought
s t d m ll re ve don didn doesn isn aren wasn weren won wouldn couldn shouldn hasn haven hadn
"""
FUNCTION_WORDS: tuple[str, ...] = tuple(_WORDS.split())
"""English words that carry grammar rather than content, and what tokenizers leave of their contractions."""

PUNCTUATION: tuple[str, ...] = (
    *".,;:!?-–—…'\"‘’“”`()[]{}<>/\\|_*#&+=~^%$@\n\t",
    *("\n\n", "...", "--", "''", "``", "'s", "'t", "'m", "'d", "'ll", "'re", "'ve", "n't", '."', ',"', "),", ")."),
)


def function_tokens(
    tokenizer: Any, d_vocab: int, words: Iterable[str] = (*FUNCTION_WORDS, *PUNCTUATION)
) -> Int[Tensor, " column"]:
    """Return the tokens that are a function word, punctuation or special; words of several tokens have none.

    A word counts with and without a space before it, in lower case and capitalised. Tokens are compared by their text,
    so the list serves every tokenizer. Tokens of spaces alone count too.

    Args:
        tokenizer: a transformers tokenizer.
        d_vocab: entries of the model's vocabulary.
        words: another list, such as that of another language.
    """
    given = set(words)
    given |= {word.capitalize() for word in given}
    special = set(tokenizer.all_special_ids)
    texts = token_texts(tokenizer, d_vocab)
    found = [
        i
        for i, text in enumerate(texts)
        if i in special or text is None or text.removeprefix(" ") in given or (text and not text.strip(" "))
    ]
    return torch.tensor(found, dtype=torch.long)


def eligible_sources(
    tokens: Int[Tensor, "batch key"], excluded: Int[Tensor, " column"], window: int | None = None
) -> Bool[Tensor, "batch query key"]:
    """Say which sources are eligible at which destination.

    Args:
        tokens: rows of token ids; position 0 is never eligible.
        excluded: tokens that are not, such as `function_tokens`.
        window: how many positions the head sees, itself included; None: all.
    """
    place = torch.arange(tokens.shape[1])
    distance = place[:, None] - place[None, :]
    visible = (distance >= 0) & (place > 0)
    if window is not None:
        visible &= distance < window
    return visible & ~torch.isin(tokens, excluded)[:, None]


def kept_sources(
    lens: Float[Tensor, "batch query key form"],
    tokens: Int[Tensor, "batch key"],
    eligible: Bool[Tensor, "batch query key"],
    share: float = SHARE,
) -> Bool[Tensor, "batch query key form"]:
    """Select the pairs of a source and a form of its token that the stream at the destination predicts most.

    Args:
        lens: logit lens at the destination of the forms of the source token (the first: the token itself); -inf where
            a token has fewer forms.
        tokens: rows of token ids.
        eligible: see `eligible_sources`; what a head sees must have no gaps but excluded tokens.
        share: of the context, from 0 (nothing is kept) to 1.
    """
    n_query = lens.shape[1]
    same = tokens[:, :, None] == tokens[:, None, :]
    # Products of different shapes differ in their last bits: one value for all occurrences of a token.
    first = same.int().argmax(-1)
    lens = lens.gather(2, first[:, None, :, None].expand_as(lens))
    earlier = torch.tril(same, diagonal=-1)
    latest = (earlier * torch.arange(1, tokens.shape[1] + 1)).amax(-1) - 1
    # A token counts once: where the occurrence before it can be seen as well, it is no first one.
    before = eligible.gather(2, latest.clamp(min=0)[:, None].expand_as(eligible)) & (latest >= 0)[:, None]
    counted = (eligible & ~before)[..., None] & ~lens.isneginf()
    ranked = lens.masked_fill(~counted, -torch.inf).flatten(2).sort(-1, descending=True).values
    # The small number undoes roundings such as 0.07 · 100 = 7.000000000000001.
    places = (share * torch.arange(1, n_query + 1, dtype=torch.float64) - 1e-9).ceil().long()
    last = (places.clamp(1, ranked.shape[-1]) - 1)[None, :, None].expand(len(lens), -1, -1)
    kept = lens >= ranked.gather(-1, last)[..., None]
    return kept & eligible[..., None] & ~lens.isneginf() & (places > 0)[:, None, None]
