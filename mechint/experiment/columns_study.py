"""What the columns of a copy-suppression study mean, beyond those of the scan it begins with."""

_CONTROLS = {
    "random_token": "a random other token of the text in the place of each attended one",
    "shuffled_targets": "a fixed permutation of the vocabulary",
    "positive_only": "positive components in the place of negative ones",
}

STUDY: dict[str, tuple[str, str]] = {
    "question": ("", "What is asked of the head."),
    "unit": ("", "Unit of the value and of its control; in a receipt, what a dose of 1 is."),
    "value": (
        "see unit",
        "The number, with its 95 % interval. In a receipt: the signal that a gate saw. Of a vector's tokens: change of "
        "the logit, on an arbitrary scale.",
    ),
    "control": ("", "What the number is compared with."),
    "control_value": ("see unit", "The same number for the control; between other heads: mean, lowest and highest."),
    "n": ("observations", "Tokens, sentences, edges or positions that went in."),
    "cspa_score": (
        "share, 1: all, 0: none",
        "Share of the KL of mean-ablating the head directly that a copy-suppression-preserving ablation keeps.",
    ),
    "cspa_kl_ablated": ("nats", "Mean KL of mean-ablating the head along the direct path, on texts."),
    "cspa_defined": ("yes or no", "Whether the head does anything on the texts, so that there is a score."),
    **{f"cspa_{name}": ("share", f"The same score with {words}: a control.") for name, words in _CONTROLS.items()},
    "cspa_explained": (
        "yes or no",
        "Whether the criteria of CSPA are met: it explains most of what the head does.",
    ),
    "qk_rank_median": (
        "tokens, 0 to d_vocab",
        "Place of a token's own key among all keys, for a query that stands for it; 0: attended most. Median.",
    ),
    "qk_top_share": ("share, 0 to 1", "Sampled tokens whose own key is among the 5 % that the head prefers."),
    "qk_below_10": ("share, 0 to 1", "Sampled tokens whose own key is among the first ten."),
    "qk_rows": ("tokens", "Tokens sampled for the static QK ranks."),
    "qk_ties": ("tokens", "Sampled tokens whose rank was shared with others; the middle rank is used."),
    "rotation": ("", "Distances over which the rotation of queries against keys is averaged."),
    "query": ("", "What the query is: the unembedding of a token, its embedding, or what block 0 makes of it."),
    "key": ("", "What the key is made of: what block 0 makes of a token, MLP 0 alone, or the embedding."),
    "entropy_change": ("nats", "Entropy of the model's prediction minus that without the head, mean over positions."),
    "control_entropy_change": ("nats", "The same for a random direction of the same length in the head's place."),
    "document": ("", "Id of the text."),
    "next_token": ("", "The token that follows."),
    "loss_change_kept": ("nats", "Loss with only copy suppression kept of the head, minus clean loss."),
    "suppressed": ("JSON", "The tokens that the head lowers most, with logits."),
    "boosted": ("JSON", "The tokens that the head raises most, with logits."),
    "predicted": ("JSON", "The likeliest next tokens, with probabilities."),
    "predicted_without": ("JSON", "The same without the head."),
    "in_context": ("JSON", "Tokens of the text that the stream before the head predicts most."),
    "steps": ("JSON", "Tokens of the text that are predicted, attended to, suppressed, or all three."),
}
