"""What the columns of neurofeedback mean, with their units; see `columns`."""

NEUROFEEDBACK: dict[str, tuple[str, str]] = {
    "trial": (
        "",
        "natural: the state as the text makes it; hidden noise: noise along the axis is added to it, and counts.",
    ),
    "axis": (
        "",
        "Direction whose scores are shown. LR: between the classes of sentences; PCk: k-th principal component; null: "
        "a mix of components that means nothing; random labels: between classes drawn at random.",
    ),
    "reader": (
        "",
        "Who predicts the next label. words, tf-idf, embedding: classifiers that read the text; state: the oracle, "
        "which reads the true state; majority: the label shown more often; the name of a model: another one that is "
        "shown the same sentences and labels.",
    ),
    "examples": ("", "What it learnt from: the same examples as the model, or half of all sentences."),
    "right_share": ("share, 0 to 1", "Labels that are predicted right; labels as they are and exchanged count alike."),
    "above_reader": ("difference of shares", "What the model gets right less what this reader does."),
    "mcnemar_exact": (
        "0 to 1",
        "p of McNemar's exact test of that, two-sided: takes places for independent, and leaves out those that the "
        "model gets right under one labelling only. The interval does neither.",
    ),
    "above_text_p": (
        "0 to 1",
        "p of “no better than the best reader of the text with the same examples”: signs of whole texts flipped, "
        "corrected by Holm over the model's claims.",
    ),
    "n_from": ("examples", "Fewest examples shown before the label that is predicted."),
    "n_to": ("examples", "Most of them."),
    "label_loss": ("nats", "-log of the right label's share of the probability of both: 0.693 is a guess."),
    "label_mass": ("probability", "Probability of both labels together, of the whole vocabulary."),
    "formatted": ("share, 0 to 1", "Places where the likeliest token of all is a label."),
    "right_as_is": ("share, 0 to 1", "Labels predicted right in texts with their labels as they are."),
    "right_exchanged": ("share, 0 to 1", "The same in the same texts with labels exchanged: a habit shows here."),
    "decides_on": (
        "",
        "What hangs on the gate: validity of the run, headroom, the effect, or a control that shuts out what else "
        "explains it.",
    ),
    "needed": ("", "The condition."),
    "words_accuracy": (
        "share, 0 to 1",
        "Labels that a bag-of-words reader of half of all sentences gets right on the other half.",
    ),
    "variance_share": ("share, 0 to 1", "Variance of the scores over that of states in all directions."),
    "spread": ("raw units", "Standard deviation of the scores."),
    "correlation": ("-1 to 1", "Of scores of lone sentences, which labels are made of, with those within the text."),
    "same_label": ("share, 0 to 1", "Sentences that would have had the same label within the text."),
    "both_right": (
        "share, 0 to 1",
        "Twins, one text with noise of either sign on its last sentence, of which both are right: exactly 0 for "
        "whoever reads the text alone.",
    ),
    "coin": ("share, 0 to 1", "The same for a coin that says “high” as often as the model does."),
    "right_up": ("share, 0 to 1", "Twins with noise above that are right."),
    "right_down": ("share, 0 to 1", "Twins with noise below that are right."),
    "receipt_error": ("share of its length", "How far the noise that arrived is from the noise that was asked for."),
    "elsewhere": ("raw units", "Largest change at any other token; it must be 0."),
    "noise_size": ("share of |h|", "Mean size of the noise over the length of the activation."),
    "noisy_tokens": ("tokens", "Tokens at which noise was added."),
    "context": ("index from 0", "Which text."),
    "control": (
        "",
        "Whose sentence has the score that was asked for. given: prefilled, the same for both scores; written: by the "
        "model itself.",
    ),
    "measured_on": ("", "Axis on which the sentences of the control task are looked at."),
    "target": ("", "The score that was asked for: 1 high, 0 low."),
    "shift_d": (
        "standard deviations",
        "Cohen's d: scores of the sentences when high ones were asked for, less when low ones were.",
    ),
    "published_low": ("standard deviations", "Lower end of the interval as published: takes sentences as independent."),
    "published_high": ("standard deviations", "Its upper end."),
    "precision": ("ratio", "|d| on the axis that was asked for over the mean of |d| on all axes; 1 means no aim."),
}
