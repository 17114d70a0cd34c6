"""What the columns of confidence experiments mean, with their units; see `columns`."""

_CONFIDENCES: dict[str, tuple[str, str]] = {
    "readout": (
        "",
        "Which confidence: is_right, how_sure (stated); token (probability of the answer among the two), sampling, "
        "probe, consistency (read in the model); input_only, cross (without the model).",
    ),
    "source": ("", "Whether the model states it, it is read in the model, or the model is not needed for it."),
    "auroc_right": ("0.5: chance, 1: perfect", "How often a right answer has a higher confidence than a wrong one."),
    "over_baseline": ("AUROC", "The same minus that of the best baseline, draw by draw."),
    "partial_auroc": (
        "0.5: chance, 1: perfect",
        "AUROC of what lengths, the prior of the answer and the baselines leave of the confidence.",
    ),
    "smallest_auroc": ("0.5: chance, 1: perfect", "What would have been told from .5 with 80 % power."),
    "mean_confidence": ("share, 0 to 1", "Mean over the answers; above the share that is right, it is over-confident."),
    "ece": ("share, 0 to 1", "Expected calibration error, bins of equal width: how far confidence is from accuracy."),
    "ece_calibrated": ("share, 0 to 1", "What a perfectly calibrated forecaster exceeds in 5 % of such samples."),
    "ece_15": ("share, 0 to 1", "The error with 15 bins."),
    "ace": ("share, 0 to 1", "The error with bins of equal mass."),
    "ace_calibrated": ("share, 0 to 1", "As ece_calibrated, for bins of equal mass."),
    "squared_error": ("share²", "Squared calibration error without its bias; below 0 by chance."),
    "brier": ("0: perfect", "Brier score: mean of (confidence - right)²."),
    "reliability": ("0: calibrated", "Part of the Brier score: squared distance of accuracy and confidence in bins."),
    "resolution": ("at most uncertainty", "Part of the Brier score that lowers it: how far bins differ in accuracy."),
    "uncertainty": ("at most 0.25", "Brier score of always saying the share that is right."),
    "within": ("Brier score", "What bins leave out: brier = reliability - resolution + uncertainty + within."),
    "skill": ("1: perfect, 0: none", "1 - brier / uncertainty; below 0, the share that is right is the better guess."),
    "aurc": ("share, 0 to 1", "Area under risk and coverage: mean risk among the surest."),
    "words_mass": ("share, 0 to 1", "Probability of all words in which it may be stated."),
    "coverage": ("share, 0 to 1", "Share of the answers that are kept, the surest first."),
    "risk": ("share, 0 to 1", "Share of these that is wrong."),
}

_GATES: dict[str, tuple[str, str]] = {
    "decides_on": ("", "Part of the verdict that hangs on the gate: validity, headroom, effect or control."),
    "statistic": ("", "What is measured for the gate."),
    "alternative": ("", "What explains the answers as well if the gate is not passed."),
    "excluded": ("yes or no", "Whether an effect of the size asked for is ruled out (90 % interval)."),
    "smallest_effect": ("unit of the statistic", "Difference from the null that would have been found, power .8."),
    "equivalence_p": ("0 to 1", "p of two one-sided tests: small if the effect lies within the margin of none."),
    "claim": ("", "What the gates are for: that the model …"),
    "verdict": ("", "invalid, inconclusive, no evidence, partial, evidence."),
}

_DEPTH: dict[str, tuple[str, str]] = {
    "agreement_right": ("share, 0 to 1", "Right answers that the lens at this block gives too, calibrated by block."),
    "agreement_wrong": ("share, 0 to 1", "Wrong answers that it gives too."),
    "agreement_raw": ("share, 0 to 1", "All answers that it gives too, as it is."),
    "lens_accuracy": ("share, 0 to 1", "Questions of which the lens at this block gives the right answer."),
    "partial_rank": (
        "-1 to 1",
        "Rank correlation of what is stated with internal consistency, given the probability of the answer.",
    ),
    "partial_rank_within": ("-1 to 1", "The same given kind of question, lengths, prior and baselines too."),
    "consistency_beyond": ("0.5: chance, 1: perfect", "AUROC of what is left of consistency given what is stated."),
    "consistency_added": ("AUROC", "What consistency adds to what is stated, learnt on other facts."),
    "answered_by": ("", "The likelier answer; or the majority of samples, plain or weighted by consistency."),
}

_FAITHFUL: dict[str, tuple[str, str]] = {
    "mfg": ("1: perfect", "Mean of 1 - |stated - agreement of samples|."),
    "cmfg": ("1: perfect", "The same, each filled bin of agreement counting alike."),
    "cmfg_star": ("1: perfect", "The same with bins of equal mass, weighted by their width."),
    "cmfg_star_error": ("standard error", "Of cmfg_star, stratified."),
    "empty_bins": ("bins", "Bins without an answer, left out of cmfg."),
}

_ANSWERS: dict[str, tuple[str, str]] = {
    "question_kind": ("", "Kind of question."),
    "cluster": ("", "The fact that is asked for; questions of one fact are drawn together."),
    "given": ("", "The answer that is likelier of the two."),
    "thought": ("", "What the model wrote before its answer, if it was let think."),
    "chain_tokens": ("tokens", "Length of that."),
    "is_right": ("share, 0 to 1", "Probability of saying that the answer is right, of right and wrong."),
    "how_sure": ("share, 0 to 1", "Mean of the words for how sure it is, from 0 to 1."),
    "sampling": ("share, 0 to 1", "Drawn answers that agree with the given one."),
    "probe": ("share, 0 to 1", "Probability of being right by a probe of the stream, learnt on other facts."),
    "consistency": ("share, 0 to 1", "Blocks before the last whose lens agrees with the given answer."),
    "input_only": ("share, 0 to 1", "Probability of being right learnt from question and answer as written."),
    "cross": ("share, 0 to 1", "Another model's probability of the given answer among the two."),
    **{f"mean_{name}": ("share, 0 to 1", f"Mean of {name} over these.") for name in ("is_right", "how_sure", "token")},
}

SELF_KNOWLEDGE: dict[str, tuple[str, str]] = {**_CONFIDENCES, **_GATES, **_DEPTH, **_FAITHFUL, **_ANSWERS}
