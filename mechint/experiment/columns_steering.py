"""What the columns of steering mean, with their units: evaluations, receipts and reports of vectors; see `columns`.

A few names stand in tables of other kinds as well; their words are in `columns` and hold for all of them.
"""

_EVALUATION: dict[str, tuple[str, str]] = {
    "arm": ("", "What was done: the vector, a control in its place, or an instruction without steering."),
    "dose": (
        "median |h| of the site",
        "Length of what was added; the same for all arms. In a receipt: how much, in the part's own unit.",
    ),
    "draws": ("vectors", "How many vectors of this arm were tried."),
    "kl_mean": (
        "nats",
        "KL divergence from the clean prediction to the steered one on neutral text; mean over tokens.",
    ),
    "kl_p95": ("nats", "The same; 95 % of tokens have less."),
    "perplexity_ratio": ("ratio", "Perplexity of neutral text, steered / clean: at 1 nothing was damaged."),
    "repetition": ("share, 0 to 1", "4-grams of tokens in generated text that came before: near 1 for a loop."),
    "distinct_2": ("share, 0 to 1", "Pairs of neighbouring words in generated text that are new."),
    "null": ("", "A control of many draws that mean nothing, against which is tested."),
    "mean": ("unit of the metric", "Mean effect of the null's draws."),
    "p": ("0 to 1", "(1 + draws with an effect at least as large as the vector's) / (draws + 1)."),
    "text": ("", "What was generated after the prompt; in a receipt, the token as text."),
    "problem": ("", "Why there is no number."),
    "measured": ("see threshold", "What was found of the criterion; none if it was not measured."),
    "met": ("yes or no", "Whether the criterion is met."),
}

_RECEIPT: dict[str, tuple[str, str]] = {
    "call": ("index from 0", "Passes that began with the first token of their texts, in order."),
    "row": ("index from 0", "Place of the text in its call."),
    "t": ("tokens", "Place from the end of the prompt: 0 is the first generated token, -1 the prompt's last one."),
    "part_name": ("", "Part of the plan that acted."),
    "where": ("", "Which tokens the part is meant for."),
    "gate": ("", "Condition under which the part acts; empty if it always does."),
    "tokens": ("tokens", "Tokens that were rewritten, counted once a site."),
    "rows": ("texts", "Texts in which some were."),
    "change_max": ("ratio", "The largest |Δ| / |h| of these tokens."),
    "signal": ("", "What a condition looks at."),
    "open": ("yes or no", "Whether the condition held after this look."),
    "look": ("index from 0", "Number of the look in its text: 0 after the prompt, then one a pass."),
}

_VECTOR_REPORT: dict[str, tuple[str, str]] = {
    "auroc": ("0.5: chance, 1: perfect", "How often x·v is larger in a positive held-out text than in a negative one."),
    "auroc_p_holm": ("0 to 1", "The p-value of the AUROC, corrected for the number of sites (Holm)."),
    "words_auroc": ("0.5: chance, 1: perfect", "The same for a probe that sees the words only."),
    "over_words": ("difference", "The first minus the second; at 0 or below, words alone explain it."),
    "length": ("median |h| of the site", "Length of the vector as it was estimated."),
    "split_half": ("-1 to 1", "Mean cosine of vectors fitted on two halves of the groups: near 0 for noise."),
    "n_positive": ("observations", "Those of the positive side."),
    "n_groups": ("groups", "Groups of texts, which are drawn together in the bootstrap."),
    "end": ("", "Whether the direction raises the token (promoted) or lowers it (suppressed)."),
}

STEERING: dict[str, tuple[str, str]] = {**_EVALUATION, **_RECEIPT, **_VECTOR_REPORT}
