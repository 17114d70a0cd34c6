"""What each column of a table means, with its unit. `x_low` and `x_high` are the ends of a 95 % interval of `x`."""

from mechint.experiment.columns_critique import CRITIQUE
from mechint.experiment.columns_critique_organism import CRITIQUE_ORGANISM
from mechint.experiment.columns_critique_pipeline import CRITIQUE_PIPELINE
from mechint.experiment.columns_introspection import INTROSPECTION
from mechint.experiment.columns_neurofeedback import NEUROFEEDBACK
from mechint.experiment.columns_privileged_access import PRIVILEGED_ACCESS, SELF_DESCRIPTION
from mechint.experiment.columns_self_knowledge import SELF_KNOWLEDGE
from mechint.experiment.columns_self_repair import SELF_REPAIR
from mechint.experiment.columns_steering import STEERING
from mechint.experiment.columns_study import STUDY

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
    "n_heads": ("heads", "Heads of the model."),
    "n_suppressing": ("heads", "Heads that meet every criterion."),
    "largest_cs_score": ("logits", "The largest copy-suppression score of all heads."),
    "largest_label": ("", "The head that has it."),
    "d_vocab": ("tokens", "Size of the vocabulary."),
    "ablated": ("", "The head that was taken away."),
    "component": ("", "L17H3: a head; M17: the MLP of layer 17; final norm: its change of scale."),
    "part": (
        "",
        "The kind of component: head, mlp, layer (a whole block); heads, MLPs, final norm, or all of them. Of a plan: "
        "its part.",
    ),
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
    "position": ("index from 0", "Place of the token in its text."),
    "token": ("", "The token; in a receipt its number in the vocabulary."),
    "weight": ("share, 0 to 1", "Attention weight."),
    "is_target": ("yes or no", "Whether this is the target's earlier occurrence."),
    "is_destination": ("yes or no", "Whether the head looks from here."),
    "direct_effect": ("logits", "What the component writes along the target's direction."),
    "target_rank_median": ("tokens", "Place of the target among all tokens, 0 being first; the median over prompts."),
    "target_logit": ("logits", "The target's logit, read from the stream at this place."),
    "site": ("", "Place in the network that is read."),
    **SELF_REPAIR,
    "direct_effect_ablated": ("logits", "Direct effect in the ablated run."),
    "added_up": ("", "Which heads are added up in this row."),
    "role": ("", "Name mover, negative head, or any other component."),
    "put_back": ("logits", "Sum of these heads' changes of direct effect when the name movers are resampled."),
    "put_back_by_all_heads": ("logits", "The same over all heads but the name movers."),
    "share": ("ratio", "Mean of what these heads put back over the mean of what all heads but the movers put back."),
    "excess": ("logits", "What these heads put back, over the mean of the other heads of the same layers."),
    "repairs": ("yes or no", "Whether these heads meet every condition for repairing the loss."),
    "direct_effect_clean": ("logits", "What the component writes for target minus distractor in the clean run."),
    "direct_effect_resampled": ("logits", "The same with the name movers resampled."),
    "direct_effect_after": ("logits", "The same after the edit, or with the query changed."),
    "change": (
        "logits; ratio",
        "Direct effect after minus direct effect in the clean run, in logits. Of steering: |Δ| / |h|, length of the "
        "change over length of the activation.",
    ),
    "intervention": ("", "What the movers' output at the last position is set to; IO is the target's direction."),
    "removed": ("", "Part of the movers' output that is taken out of the head's query."),
    "chosen": (
        "",
        "Positions with the largest change of the loss, or as many random ones of the same documents; of layers, "
        "whether it is the one that is tested.",
    ),
    "condition": (
        "",
        "What is asked of a position: that a token of the text is predicted, attended, suppressed, or all.",
    ),
    "met_share": ("share, 0 to 1", "Positions at which the condition is met."),
    "n_met": ("positions", "The same as a number."),
    "n_positions": ("positions", "Positions that were looked at."),
    "loss": ("nats", "Loss of the next token in the clean run."),
    "loss_change": ("nats", "Loss with the head ablated minus clean loss: above 0 the head helps."),
    "absolute_loss_change": ("nats", "The same regardless of sign, position by position."),
    "kl": ("nats", "KL divergence from the clean prediction to the ablated or steered one."),
    "effect": (
        "",
        "Of ablation: direct (the head's own term), indirect (what answers it), or both (the head ablated in a run). "
        "Of steering: the metric with steering minus the metric without, in the metric's unit; mean over prompts.",
    ),
    "scale": ("", "Scale of the final norm: frozen at the clean run's, or recomputed."),
    "words": ("", "Which attended tokens count: all, or those that are no function words."),
    "n_edges": ("edges", "Pairs of a position and one that it attends to."),
    "n_sources": ("positions", "Positions that are attended to."),
    "rank_mean": ("tokens", "Place of the attended token among all that the head lowers there, 0 being the most."),
    "rank_median": ("tokens", "The same, the median over edges."),
    "share_rank_0": ("share, 0 to 1", "Edges on which the attended token is lowered most of the vocabulary."),
    "share_rank_below_10": ("share, 0 to 1", "Edges on which it is among the ten that are lowered most."),
    "share_rank_1_to_9": ("share, 0 to 1", "The same without the first."),
    "related_share": ("share, 0 to 1", "Of these, edges whose most lowered token is a form of the same word."),
    "cosine_mean": ("-1 to 1", "Cosine of that token's direction of the unembedding and the attended token's."),
    "ranks": ("tokens", "Places that are counted together."),
    "edge_share": ("share, 0 to 1", "Edges on which the attended token has such a place."),
    "overconfidence": ("0: calibrated, 1: right half of the time", "Over-confidence of the three likeliest tokens."),
    "calibration_error": ("share, 0 to 1", "Expected calibration error of the likeliest token."),
    "n_predictions": ("predictions", "Tokens whose probability was compared with how often they came."),
    "overconfidence_added": ("", "Over-confidence of the model minus that without the head."),
    "overconfidence_added_control": ("", "The same for a random direction in the head's place."),
    "overconfidence_marginal": ("share", "Over-confidence that the head adds, as a share of the model's."),
    "overconfidence_marginal_control": ("share", "The same for a random direction in the head's place."),
    "calibration_error_added": ("share", "Expected calibration error of the model minus that without the head."),
    "calibration_error_added_control": ("share", "The same for a random direction in the head's place."),
    "entropy_marginal": ("nats", "Entropy of the prediction minus that without the head."),
    "entropy_marginal_control": ("nats", "The same for a random direction in the head's place."),
    "entropy_marginal_excess": ("nats", "The first minus the second."),
    "entropy_difference": ("nats", "Entropy of the logit lens with the head's term added, minus that without it."),
    "entropy_difference_control": ("nats", "The same for a random direction in the head's place."),
    "entropy_difference_excess": ("nats", "The first minus the second."),
    "tempers": ("yes or no", "Whether the head makes the model less certain and less over-confident, beyond chance."),
    "sharpens": ("yes or no", "Whether it makes it more certain and more over-confident, beyond chance."),
    "predictions_of": ("", "Which output is meant: the model's, or that without a head."),
    "bin": ("index from 0", "Bin of probability."),
    "confidence": ("share, 0 to 1", "Mean probability in the bin."),
    "accuracy": ("share, 0 to 1", "How many of these predictions came true."),
    "rule": ("", "What is kept of the head: both (CSPA), one half of it (ov, qk: no evidence alone), or a control."),
    "baseline": ("", "What the rest of the head is set to; the full ablation beside it is to the same."),
    "score": ("share, 1: all, 0: none", "1 - mean KL of the rule / mean KL of the full ablation: effect that is kept."),
    "score_top": ("share", "The same over the 1 % of positions at which the full ablation has the largest KL."),
    "score_loss": ("share", "The same for the change of the loss, with its sign: wild where gains and losses cancel."),
    "score_absolute_loss": ("share", "The same for the change of the loss regardless of sign."),
    "score_squared_loss": ("share", "The same for its square."),
    "margin": ("share", "How much more of the effect the rule both keeps: its score minus this one's."),
    "defined": ("yes or no", "Whether the full ablation changes predictions at all; otherwise there is no score."),
    "kl_ablated": ("nats", "KL divergence from the clean prediction to that of the full ablation."),
    "loss_change_ablated": ("nats", "Loss under the full ablation minus clean loss."),
    "absolute_loss_change_ablated": ("nats", "The same regardless of sign, position by position."),
    "squared_loss_change": ("nats²", "Square of the change of the loss, added up over positions."),
    "squared_loss_change_ablated": ("nats²", "The same under the full ablation."),
    "n_large": ("positions", "Positions at which the loss changes by more than 0.5 nats."),
    "n_large_ablated": ("positions", "The same under the full ablation."),
    "bucket": ("index from 0", "Positions of about equal effect of the full ablation, from the smallest."),
    "measure": ("", "The effect by which positions are sorted and that is averaged."),
    "bucket_ablated": ("nats", "Mean effect of the full ablation in the bucket."),
    "bucket_cspa": ("nats", "Mean effect of the rule in the bucket: 0 if all of the head's effect is kept."),
    **CRITIQUE,
    **STUDY,
    **STEERING,
    **CRITIQUE_PIPELINE,
    "criterion": ("", "Name of a criterion, fixed before looking."),
    "threshold": ("", "What the criterion asks; of a gate, what its signal is compared with."),
    "meaning": ("", "Why it is asked."),
}

TITLES: dict[str, str] = {
    "kl_mean": "KL, mean",
    "kl_p95": "KL, 95th percentile",
    "perplexity_ratio": "Perplexity, steered / clean",
    "distinct_2": "Distinct pairs of words",
    "tempers": "Less certain through it",
    "sharpens": "More certain through it",
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
    "condensed_direct_effect": "Direct effect (condensed)",
    "condensed_self_repair": "Self-repair (condensed)",
    "condensed_ratio": "Put back (condensed)",
    "chance_ratio": "Put back of a chance fit",
    "ratio_excess": "Difference",
    "repaired": "Meets all criteria",
    "ov_bottom_share": "Own token in lowest 5 %",
    "ov_rank_median": "Own token's median rank",
    "suppresses": "Meets all criteria",
    "cspa_score": "Explained by copy suppression (CSPA)",
    "cspa_random_token": "Control of CSPA: random token",
    "cspa_kl_ablated": "KL of ablation on texts",
    "cspa_explained": "CSPA criteria met",
    "control_value": "Control's value",
    "failed": "Criteria not met",
    "trusting": "With validity left out",
    "above_text_p": "Better than text: p",
}
"""Headings that are more than the column's name."""


OF_KIND: dict[str, dict[str, Meaning]] = {
    "confidence": SELF_KNOWLEDGE,
    "critique_organism": CRITIQUE_ORGANISM,
    "introspection": INTROSPECTION,
    "introspection_organisms": INTROSPECTION,
    "neurofeedback": NEUROFEEDBACK,
    "privileged_access": PRIVILEGED_ACCESS,
    "self_description": SELF_DESCRIPTION,
}
"""Columns of one kind of finding, some of which mean something else in others."""


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


def meaning(column: str, kind: str = "") -> Meaning | None:
    """Return unit and meaning of a column of a kind of finding; None for ends of intervals and what is not known."""
    own = OF_KIND.get(kind, {})
    if column in own:
        return own[column]
    if column.endswith("_p"):
        return ("0 to 1", f"p-value of {column[:-2]}, corrected for the number of tests where there are several.")
    return COLUMNS.get(column)
