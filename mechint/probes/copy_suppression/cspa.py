r"""Copy-suppression-preserving ablation (CSPA): how much of a head's effect is copy suppression.

The head is mean-ablated, except for what an account of it as a copy suppressor may keep. With A the attention, f_d o'_s
what the head writes for source s (`effects.head_outputs`), μ_d its mean output at position d, and û_t the unit vector
along U[t] = C_final(g_final * W_U[:, t]), its output splits into terms of sources, T_ds = A_ds f_d o'_s, and their
ablated values A_ds μ_d, which add up to μ_d. Kept of T_ds - A_ds μ_d is

    OV   its projection on û of the source's own token: the head acts on the token it looks at
    QK   only that of sources whose token the stream already predicts (`context_tokens`): it looks at predicted ones
    neg  the projection only where it is negative: it suppresses

    c_ds = M_ds min(0, A_ds (f_d o'_s · û_s - μ_d · û_s))            h'_d = μ_d + Σ_s c_ds û_s

which needs no tensor [batch, query, key, d_model]. With several forms of a token (plural, capitalised) the projection
is that on the span of the forms that are kept, by the Gram matrix of their directions. The change h' - h goes along the
direct path, all norms frozen. Its KL from the clean prediction, against that of the full ablation, gives

    score = 1 - mean KL(clean || CSPA) / mean KL(clean || ablated)

which is 1 if all of the head's effect is kept and 0 if none is.

McDougall et al. 2023, "Copy Suppression: Comprehensively Understanding an Attention Head", section 3.3.

QK alone is no evidence: it keeps whatever the head does to the few sources it looks at, and scores high for a head that
*copies*, too. It is reported beside the others only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechint.errors import ConfigError
from mechint.probes.copy_suppression.context_tokens import SHARE

Sign = Literal["negative", "positive", "any"]
Directions = Literal["own", "random token", "shuffled targets"]
Baseline = Literal["mean", "shuffled mean", "zero"]


@dataclass(frozen=True)
class Rule:
    """What is kept of a head when it is ablated."""

    name: str
    ov: bool = True
    """Keep the projection on the directions only, not everything that a kept source writes."""
    qk: bool = True
    """Keep sources only that the stream predicts."""
    sign: Sign = "negative"
    """Which projections are kept."""
    directions: Directions = "own"
    """Of which tokens: the source's own; controls: another token of the document, or a fixed permutation's."""
    baseline: Baseline = "mean"
    """What the rest of the head is set to: its mean at the position, at another position (a control), or zero."""
    forms: int = 1
    """Most forms of a token whose span is projected on."""
    share: float = SHARE
    """Share of the context that QK keeps; 0 keeps nothing."""

    def __post_init__(self) -> None:
        """Refuse what is not defined.

        Raises:
            ConfigError: a share outside 0 to 1, no form, or the sign of a projection on several directions.
        """
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share = {self.share} in rule {self.name!r}. Expected 0 to 1, such as {SHARE}.")
        if self.forms < 1:
            raise ConfigError(f"forms = {self.forms} in rule {self.name!r}. Expected at least 1, the token itself.")
        if self.forms > 1 and (self.sign != "any" or self.directions != "own" or not self.ov):
            raise ConfigError(
                f"Rule {self.name!r} projects on the span of {self.forms} forms: that has no sign, and no control. "
                'Give sign="any", directions="own" and ov=True.'
            )


BOTH = Rule("both")
OV = Rule("ov", qk=False)
QK = Rule("qk", ov=False)
KEEP_ALL = Rule("keep all", ov=False, qk=False)
KEEP_NONE = Rule("keep none", share=0.0)
ZERO = Rule("both, from zero", baseline="zero")
CONTROLS: tuple[Rule, ...] = (
    Rule("random token", directions="random token"),
    Rule("shuffled targets", directions="shuffled targets"),
    Rule("positive only", sign="positive"),
    Rule("shuffled mean", baseline="shuffled mean"),
)
RULES: tuple[Rule, ...] = (BOTH, OV, QK, *CONTROLS)
"""CSPA, its halves, and its controls. What another token's direction, or the opposite sign, keeps is no suppression of
the attended token; the shuffled mean shows how much hangs on the mean."""


def check_rules(rules: Sequence[Rule]) -> None:
    """Refuse rules that cannot be told apart, and QK alone, which would be read as evidence.

    Raises:
        ConfigError: two rules of one name, or "qk" without "both" and "ov" beside it.
    """
    names = [rule.name for rule in rules]
    if len(set(names)) < len(names):
        raise ConfigError(f"Rules of one name: {', '.join(names)}. Give each a name of its own.")
    alone = [rule.name for rule in rules if rule.qk and not rule.ov]
    if alone and not (BOTH in rules and OV in rules):
        raise ConfigError(
            f"Rule {alone[0]!r} keeps all that a head writes for the few sources it looks at: it scores high for heads "
            "that copy, too. Measure it beside 'both' and 'ov' (cspa.BOTH, cspa.OV)."
        )


def keep_projections(
    attention: Float[Tensor, "batch query key"],
    sources: Float[Tensor, "batch key d_model"],
    post_factor: Float[Tensor, "batch query"],
    mean: Float[Tensor, "query d_model"],
    directions: Float[Tensor, "batch key d_model"],
    kept: Bool[Tensor, "batch query key"],
    sign: Sign = "negative",
) -> Float[Tensor, "batch query d_model"]:
    """Return h'_d: the mean, and of each kept source its projection on one unit vector.

    Args:
        attention: A; sums to 1 over sources.
        sources: o'_s.
        post_factor: f_d.
        mean: μ_d; zeros for an ablation to zero.
        directions: û_s, of length 1 (or 0: nothing is kept of this source).
        kept: M_ds.
        sign: which projections are kept.
    """
    along = post_factor[..., None] * (sources * directions).sum(-1)[:, None]
    coefficients = attention * (along - torch.einsum("qd,bkd->bqk", mean, directions))
    if sign == "negative":
        coefficients.clamp_(max=0)
    elif sign == "positive":
        coefficients.clamp_(min=0)
    return mean + (coefficients * kept) @ directions


def keep_span(
    attention: Float[Tensor, "batch query key"],
    sources: Float[Tensor, "batch key d_model"],
    post_factor: Float[Tensor, "batch query"],
    mean: Float[Tensor, "query d_model"],
    directions: Float[Tensor, "batch key form d_model"],
    kept: Bool[Tensor, "batch query key form"],
) -> Float[Tensor, "batch query d_model"]:
    """Return h'_d: the mean, and of each source its projection on the span of its kept directions.

    Args: as in `keep_projections`; only the coefficients are computed for every pair of positions.
    """
    along = post_factor[:, :, None, None] * torch.einsum("bkd,bkfd->bkf", sources, directions)[:, None]
    products = attention[..., None] * (along - torch.einsum("qd,bkfd->bqkf", mean, directions))
    n_batch, _, n_key, n_form = kept.shape
    gram = torch.einsum("bkfd,bkgd->bkfg", directions, directions)
    # Few of the 2^forms subsets occur at a source, so each is inverted once.
    bits = (kept * 2 ** torch.arange(n_form)).sum(-1)
    source = torch.arange(n_batch * n_key).view(n_batch, 1, n_key)
    code, which = (source * 2**n_form + bits).unique(return_inverse=True)
    mask = (code[:, None] >> torch.arange(n_form) & 1).to(gram.dtype)
    subset = gram.flatten(0, 1)[code >> n_form] * mask[:, :, None] * mask[:, None, :]
    inverse = torch.linalg.pinv(subset, hermitian=True)
    coefficients = torch.zeros_like(products)
    at = kept.any(-1).nonzero(as_tuple=True)
    coefficients[at] = torch.einsum("nfg,ng->nf", inverse[which[at]], products[at] * kept[at])
    return mean + torch.einsum("bqkf,bkfd->bqd", coefficients, directions)


def keep_sources(
    attention: Float[Tensor, "batch query key"],
    sources: Float[Tensor, "batch key d_model"],
    post_factor: Float[Tensor, "batch query"],
    mean: Float[Tensor, "query d_model"],
    kept: Bool[Tensor, "batch query key"],
) -> Float[Tensor, "batch query d_model"]:
    """Return h'_d: everything that kept sources write, the mean in the place of all others.

    Args: as in `keep_projections`.
    """
    written = post_factor[..., None] * ((attention * kept) @ sources)
    return written + mean * (attention * ~kept).sum(-1, keepdim=True)


def unit(vectors: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
    """Return vectors scaled to length 1; zeros stay zeros."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)
