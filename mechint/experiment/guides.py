"""How to read a report, in a few sentences for each kind of finding."""

GUIDES: dict[str, tuple[str, ...]] = {
    "copy_suppression": (
        "Suppose a token is about to be predicted and has occurred in the text before. A copy-suppression head attends "
        "to that earlier occurrence and lowers the token's logit. The score says by how many logits; above 0, lower.",
        "Each score stands beside a control: the same head, the same prompts, a random other token. A head is called a "
        "copy-suppression head only if it meets every criterion below, all of them fixed before looking.",
        "Ablating a head often changes the output less than its own contribution would suggest, because later "
        "components make it good. That difference is self-repair, and it is split by who does it.",
        "Brackets hold 95 % intervals. An interval that includes 0 is no evidence of an effect; many heads were "
        "tested, so p-values are corrected for that.",
    ),
    "self_repair": (
        "Self-repair is the change of the logit on ablation minus the change of the ablated component's own direct "
        "effect. Brackets hold 95 % intervals.",
    ),
}

GENERAL = ("Brackets hold 95 % intervals: an interval that includes 0 is no evidence of an effect.",)


def guide(kind: str) -> tuple[str, ...]:
    """Return sentences on how to read findings of this kind."""
    return GUIDES.get(kind, GENERAL)
