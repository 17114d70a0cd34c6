"""The two ends of a path: senders, which take a counterfactual value, and receivers, through which it is let in."""

from collections.abc import Sequence

from mechint.effects.ablation import Component, chosen
from mechint.errors import InterventionError, SiteError
from mechint.model.model_facts import ModelFacts
from mechint.positions import Positions, everywhere
from mechint.sites import Site, head_label, parse_head

EMBEDDING = "embed"
"""The sender that enters block 0: token embedding, and position embedding where there is one."""
LOGITS = "final_norm"
"""The receiver at the end of the direct path."""

Sender = str | Component
"""A component of the model, or `EMBEDDING`."""
_RECEIVERS = ("q", "k", "v", "resid_pre", "resid_post", LOGITS)


def head_inputs(facts: ModelFacts, head: str, which: str = "q") -> tuple[Site, ...]:
    """Return the places through which a query head takes its input, as receivers.

    Args:
        facts: of the model; they say which query heads share keys and values.
        head: such as `"L10H7"`.
        which: any of the letters q, k and v.

    Raises:
        SiteError: no such head, or another letter.
    """
    layer, number = parse_head(head)
    facts.check(Site("z", layer, number))
    if not which or set(which) - set("qkv"):
        raise SiteError(f"Inputs {which!r} of {head}: expected some of the letters q, k and v, such as 'qk'.")
    shared = number // (facts.n_heads // facts.n_kv_heads)
    return tuple(Site(letter, layer, number if letter == "q" else shared) for letter in which)


def read_senders(facts: ModelFacts, senders: Sequence[Sender]) -> list[Sender]:
    """Read senders, and make sure that this model has them.

    Raises:
        SiteError: none is given, one is given twice, cannot be read, or is not in this model.
    """
    components = [sender for sender in senders if sender != EMBEDDING]
    if components or not senders:
        components = chosen(facts, components)
    return [EMBEDDING, *components] if EMBEDDING in senders else [*components]


def read_receivers(facts: ModelFacts, receivers: Sequence[str | Site], at: Positions) -> tuple[Site, ...]:
    """Read receivers, and make sure that all of them can be patched together.

    Args:
        facts: of the model.
        receivers: sites of `q`, `k`, `v`; or one alone of `resid_pre`, `resid_post`, `final_norm`.
        at: the positions that are patched.

    Raises:
        SiteError: none is given, or it is not a place of this kind in this model.
        InterventionError: a stream beside others, or the logits at positions of one's own.
    """
    found = tuple(dict.fromkeys(facts.check(site) for site in receivers))
    wrong = [str(site) for site in found if site.component not in _RECEIVERS]
    if wrong or not found:
        raise SiteError(f"Receivers: {', '.join(wrong) or 'none'}. Expected sites of {', '.join(_RECEIVERS)}.")
    if len(found) > 1 and any(site.component not in "qkv" for site in found):
        raise InterventionError(
            f"Receivers {', '.join(map(str, found))}: a stream that is patched replaces whatever the others do to it. "
            "Give one stream alone, or queries, keys and values of heads."
        )
    if Site(LOGITS) in found and at is not everywhere:
        raise InterventionError(f"The path to the logits ends at the last position; receiver_at = {at} has no meaning.")
    return found


def sites_of(senders: Sequence[Sender]) -> set[Site]:
    """Return the places at which senders write."""
    return {site for one in senders for site in ((Site(EMBEDDING),) if isinstance(one, str) else one.sites)}


def first_layer(senders: Sequence[Sender]) -> int:
    """Return the block from which on a run differs when these senders do."""
    return min(site.layer or 0 for site in sites_of(senders))


def label_of(senders: Sequence[Sender]) -> str:
    """Name senders that are patched together.

    Examples:
        >>> label_of(["embed", Component(9, 6)])
        'embed+L9H6'
    """
    return "+".join(one if isinstance(one, str) else one.label for one in senders)


def heads_reached(facts: ModelFacts, receivers: Sequence[Site]) -> tuple[str, ...]:
    """List the query heads that take their input through these receivers."""
    shared = facts.n_heads // facts.n_kv_heads
    reached: set[tuple[int, int]] = set()
    for site in receivers:
        if site.layer is None or not site.per_head:
            continue
        for head in range(facts.n_heads):
            if site.head in (None, head // shared if site.of_kv_head else head):
                reached.add((site.layer, head))
    return tuple(head_label(layer, head) for layer, head in sorted(reached))
