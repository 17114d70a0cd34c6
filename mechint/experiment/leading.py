"""Which columns of a main table a report shows, and in which order its rows stand."""

LEADING: dict[str, tuple[str, ...]] = {
    "confidence": ("readout", "source", "auroc_right", "over_baseline", "mean_confidence", "ece", "ece_calibrated",
                   "brier", "skill", "aurc"),
    "critique_organism": ("id", "check", "threshold", "model", "measured", "met"),
    "privileged_access": (
        "pair", "level", "accuracy_self", "accuracy_cross", "accuracy_readers", "accuracy_mode", "privilege", "failed",
    ),
    "self_description": ("level", "moved", "detectable", "equivalence", "failed"),
    "introspection": ("claim", "level", "failed", "trusting", "sentence"),
    "introspection_organisms": ("model", "claim", "level", "expected", "matches", "failed"),
    "neurofeedback": ("model", "trial", "axis", "level", "failed", "above_text_p", "detectable"),
    "critique": ("read_at", "site", "auroc", "bar", "bar_name", "auroc_p", "found"),
    "critique_pipeline": ("run", "subset", "n", "answer_right", "hidden", "corrected", "out_of_tokens"),
    "steering_evaluation": (
        "arm", "dose", "draws", "effect", "unit", "kl_p95", "perplexity_ratio", "repetition", "distinct_2",
    ),
    "calibration": (
        "label", "overconfidence_added", "overconfidence_marginal", "calibration_error_added", "entropy_marginal",
        "entropy_marginal_control", "entropy_difference", "tempers", "sharpens",
    ),
    "copy_suppression": (
        "label", "cs_score", "cs_excess", "attention", "direct_effect_target", "ablation_effect", "self_repair",
        "ov_bottom_share", "failed",
    ),
    "copy_suppression_study": (
        "label", "cs_score", "cs_excess", "ov_bottom_share", "cspa_score", "cspa_random_token", "cspa_kl_ablated",
        "ablation_effect", "cspa_explained", "failed",
    ),
    "self_repair_on_text": (
        "label", "direct_effect", "self_repair", "condensed_direct_effect", "condensed_self_repair", "condensed_ratio",
        "chance_ratio", "ratio_excess", "failed",
    ),
}  # fmt: skip
"""Columns of the main table that fit a page; all others are in the files."""

ORDER: dict[str, str] = {
    "calibration": "entropy_marginal",
    "copy_suppression": "cs_score",
    "copy_suppression_study": "cs_score",
    "self_repair_on_text": "condensed_self_repair",
}
"""Column by which the main table is ordered, the highest first."""
