"""What the columns of critique experiments mean, with their units; see `columns`."""

_READING: dict[str, tuple[str, str]] = {
    "at": ("", "Tokens that go into a vector: the last of the result, or the mean over the stub behind it."),
    "read_at": ("", "result: R, the last token of the result; stub: S, fixed words behind it; answer: A, after both."),
    "bar": ("0.5: chance, 1: perfect", "AUROC of the best surface baseline on the same rows, 0.5 at least."),
    "bar_name": ("", "Which baseline that is."),
    "found": ("yes or no", "Signal: the interval lies above the bar, and the corrected p is below 0.05."),
    "sentence": ("", "The same in words."),
    "cv_auroc": ("0.5: chance, 1: perfect", "Mean AUROC in folds of the training problems; alone chooses the layer."),
    "shuffled": ("0.5: chance, 1: perfect", "The same with labels exchanged within problems; mean of repetitions."),
    "shuffled_sd": ("AUROC", "Standard deviation of these."),
    "n_train": ("rows", "Rows that are learnt from, two a pair."),
    "n_train_groups": ("problems", "Problems that are learnt from."),
    "what": ("", "What tells wrong from true rows: a baseline, or the projection on the vector."),
    "from_text": ("yes or no", "Whether it is known from the text, without the model."),
    "stratum": (
        "",
        "all; knows: pairs whose true result is the likelier one (m > 0); does not know: the others; or all without "
        "what surprisal tells.",
    ),
    "operation": ("", "Arithmetic operation of the step."),
    "known": ("share, 0 to 1", "Pairs whose true result is the likelier one, given what stands before it (M1)."),
    "mean_margin": ("nats", "Mean of m = log p(true result) - log p(wrong result)."),
    "check": ("", "What must hold whatever the model does; where it fails, something leaks."),
    "d": ("standard deviations", "Cohen's d of the projection."),
}

_CAUSES: dict[str, tuple[str, str]] = {
    "outcome": ("", "What steering is measured on: recompute (M5), answer (M6), verdict (M4)."),
    "mode": ("", "add: the vector is added; ablate: its direction is set to its mean over true rows."),
    "side": ("", "wrong: rows with an error; true: those without; difference: wrong minus true, pair by pair."),
    "relative_dose": ("median |h| of the site", "Length of what was added."),
    "loss_rise": ("nats", "Loss on clean text under steering minus loss without; of candidates, of the worse sign."),
    "p_corrected": ("0 to 1", "p corrected for the measures that are tested (Holm); of the others, p itself."),
    "beaten": ("yes or no", "Whether the corrected p is small enough: 0.02 at most of random directions, below 0.05."),
    "tested": ("yes or no", "Whether a claim may rest on this measure; the others are described."),
    "wrong": ("unit of the metric", "Effect at the dose minus effect at minus the dose, on rows with an error."),
    "true": ("unit of the metric", "The same on rows without."),
    "difference": ("unit of the metric", "The first minus the second: this chooses the layer."),
    "recovered": ("share, 1: all", "rho: how much of the log p that errors cost the answer a dose gives back."),
    "lost": ("nats", "What errors cost the answer, on average."),
    "skipped": ("pairs", "Those that lose less than 0.1 nats, which do not count for rho."),
    "hit_rate": ("share, 0 to 1", "Wrong steps that are called wrong."),
    "false_alarm_rate": ("share, 0 to 1", "True steps that are called wrong."),
    "d_prime": ("standard deviations", "d′: how well both are told apart, whatever the threshold."),
    "criterion_change": ("standard deviations", "Change of the criterion against no steering."),
    "auroc_change": ("AUROC", "Change of the AUROC against no steering: 0 if only the threshold moves."),
}

_GEOMETRY: dict[str, tuple[str, str]] = {
    "participation": ("dimensions", "Over how many dimensions the vector is spread."),
    "largest_share": ("share, 0 to 1", "Share of |v|² in its three largest dimensions."),
    "activations_largest_share": ("share, 0 to 1", "The same of the mean of h²: near 1 where a few dimensions rule."),
    "lda_split_half": ("-1 to 1", "Cosine of discriminants fitted on two halves of the problems."),
    "cos_lda": ("-1 to 1", "Cosine of mean difference and discriminant."),
    "one": ("", "A direction."),
    "other": ("", "Another one."),
    "cosine": ("-1 to 1", "Cosine of both at the site."),
}

CRITIQUE: dict[str, tuple[str, str]] = {**_READING, **_CAUSES, **_GEOMETRY}
