"""What each column of a table means, with its unit. `x_low` and `x_high` are the ends of a 95 % interval of `x`."""

Meaning = tuple[str, str]

COLUMNS: dict[str, Meaning] = {
    "layer": ("index from 0", "Block of the model; -1 where there is none."),
    "head": ("index from 0", "Query head within its block."),
    "label": ("", "Layer and head in one word: L17H2 is head 2 of layer 17."),
    "n_prompts": ("prompts", "Prompts that were measured."),
    "n_with_target": ("prompts", "Prompts in which the target occurs before the place where it is predicted."),
    "cs_score": (
        "logits",
        "Copy-suppression score: how far the head lowers the target's logit through its attention to the target's "
        "earlier occurrence alone. Above 0 it lowers it.",
    ),
    "cs_control": ("logits", "The same through its attention to a random other token of the same prompt."),
    "cs_excess": ("logits", "Copy-suppression score minus its control."),
    "cs_over_layer": ("logits", "Copy-suppression score minus the mean of the other heads of its layer."),
    "anti_induction_score": (
        "logits",
        "The same measure on random tokens repeated once: how far the head lowers the token that followed last time.",
    ),
    "attention": ("share, 0 to 1", "Attention weight from the last position to the target's earlier occurrence."),
    "direct_effect_target": ("logits", "What the head writes along the target's direction of the unembedding."),
    "direct_effect_difference": ("logits", "The same for target minus distractor."),
    "ov_rank_median": (
        "tokens, 0 to d_vocab",
        "Where the token that the head reads stands among all tokens that it writes, 0 being the most suppressed; "
        "the median over sampled tokens.",
    ),
    "ov_bottom_share": (
        "share, 0 to 1",
        "Sampled tokens for which the head puts that very token among the 5 % it suppresses most. Chance is 0.05.",
    ),
    "ov_rows": ("tokens", "Tokens sampled for the two OV measures."),
    "ov_ties": ("tokens", "Sampled tokens whose rank was shared with others; the middle rank is used."),
    "ablation": ("", "What a head's output was replaced with."),
    "metric": ("", "What the effect of ablation is measured on."),
    "ablation_effect": ("logits", "Ablated minus intact, of the metric: below 0 the head was helping."),
    "ablation_effect_target": ("logits", "Ablated minus intact, of the target's logit."),
    "self_repair": (
        "logits",
        "Change of the metric on ablation minus the change of the head's own direct effect: what the rest of the "
        "model put back.",
    ),
    "suppresses": ("yes or no", "Whether the head meets every criterion."),
    "failed": ("", "Which criteria it does not meet."),
    "d_vocab": ("tokens", "Size of the vocabulary."),
    "ablated": ("", "The head that was taken away."),
    "component": ("", "L17H3: a head; M17: the MLP of layer 17; final norm: its change of scale."),
    "part": ("", "The kind of component: heads, MLPs, final norm, or the total of all."),
    "repair": ("logits", "Change of the component's direct effect when the head is ablated."),
    "direct_effect_change": ("logits", "Change of the ablated head's own direct effect."),
    "logit_change": ("logits", "Change of the metric that was measured: loss plus all repair."),
    "average": ("", "How prompts were averaged."),
    "prompt_id": ("", "Id of the prompt."),
    "id": ("", "Id of the prompt."),
    "prompt": ("", "The text."),
    "target": ("", "The token whose logit is measured."),
    "distractor": ("", "The token it is compared with."),
    "n_tokens": ("tokens", "Length with the beginning-of-sequence token."),
    "target_position": ("index from 0", "Where the target occurs; none if it does not."),
    "logit_target": ("logits", "The target's logit at the end of the prompt."),
    "logit_distractor": ("logits", "The distractor's logit there."),
    "correct": ("yes or no", "Whether the target's logit is above the distractor's."),
    "position": ("index from 0", "Place of the token in the prompt."),
    "token": ("", "The token."),
    "weight": ("share, 0 to 1", "Attention weight."),
    "is_target": ("yes or no", "Whether this is the target's earlier occurrence."),
    "is_destination": ("yes or no", "Whether the head looks from here."),
    "direct_effect": ("logits", "What the component writes along the target's direction."),
    "target_rank_median": ("tokens", "Place of the target among all tokens, 0 being first; the median over prompts."),
    "target_logit": ("logits", "The target's logit, read from the stream at this place."),
    "site": ("", "Place in the network that is read."),
    "criterion": ("", "Name of a criterion, fixed before looking."),
    "threshold": ("", "What it asks."),
    "meaning": ("", "Why it is asked."),
}

TITLES: dict[str, str] = {
    "label": "Head",
    "cs_score": "Copy-suppression score",
    "cs_control": "Control: random token",
    "cs_excess": "Score minus control",
    "anti_induction_score": "Anti-induction score",
    "attention": "Attention to target",
    "direct_effect_target": "Direct effect on target",
    "direct_effect_difference": "Direct effect on difference",
    "ablation_effect": "Effect of ablation",
    "ablation_effect_target": "Effect of ablation on target",
    "self_repair": "Self-repair",
    "ov_bottom_share": "Own token in lowest 5 %",
    "ov_rank_median": "Own token's median rank",
    "suppresses": "Meets all criteria",
    "failed": "Criteria not met",
}
"""Headings that are more than the column's name."""

LEADING: dict[str, tuple[str, ...]] = {
    "copy_suppression": (
        "label", "cs_score", "cs_excess", "attention", "direct_effect_target", "ablation_effect", "self_repair",
        "ov_bottom_share", "failed",
    ),
}  # fmt: skip
"""Columns of the main table that fit a page; all others are in the files."""

ORDER: dict[str, str] = {"copy_suppression": "cs_score"}
"""Column by which the main table is ordered, the highest first."""


def title(column: str) -> str:
    """Return a heading for a column.

    Examples:
        >>> title("cs_score"), title("n_tokens")
        ('Copy-suppression score', 'N tokens')
    """
    return TITLES.get(column, column.replace("_", " ").capitalize())


def unit(column: str) -> str:
    """Return the unit of a column, or nothing."""
    return COLUMNS.get(column, ("", ""))[0]


def meaning(column: str) -> Meaning | None:
    """Return unit and meaning of a column, or None if it is an end of an interval or not known."""
    if column.endswith("_p"):
        return ("0 to 1", f"p-value of {column[:-2]}, corrected for the number of tests where there are several.")
    return COLUMNS.get(column)
