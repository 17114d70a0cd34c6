"""What the columns of privileged access and self-description mean, with their units; see `columns`."""

PRIVILEGED_ACCESS: dict[str, tuple[str, str]] = {
    "pair": ("", "Whose answers are predicted / the other model, which was told the same facts."),
    "accuracy_self": ("share, 0 to 1", "Held-out questions about itself that the model answers right."),
    "accuracy_cross": ("share, 0 to 1", "The same questions, answered by the other model."),
    "accuracy_mode": ("share, 0 to 1", "The same, by the most frequent value of the facts trained on."),
    "accuracy_readers": ("share, 0 to 1", "The same, by the better of two classifiers that read the question alone."),
    "privilege": ("difference of shares", "Accuracy of self minus that of the other model, question by question."),
    "against": ("", "Who is compared with: another predictor, or another fine-tuning."),
    "advantage": (
        "difference of shares",
        "Accuracy of self minus that of who stands in the row, question by question.",
    ),
    "highest": ("unit of the row", "Upper end of the 90 % interval: below the margin, the effect is excluded."),
    "mcnemar": ("0 to 1", "p of McNemar's exact test; takes properties of one question as independent."),
    "equivalence": ("0 to 1", "p of two one-sided tests: small means equal to 0 within the margin."),
    "detectable": ("unit of the row", "Smallest effect that would have been found with 80 % power at .05, two-sided."),
    "predicted_by": (
        "",
        "self: the model, told facts about itself; cross: the other model, told the same; before: the model, told "
        "nothing; mode, words, embeddings: classifiers told the same facts.",
    ),
    "scope": ("", "Questions of which no fact was told; or properties of which none was, on these questions."),
    "compliance": ("share, 0 to 1", "Answers that are a value of the property asked about; others count as wrong."),
    "accuracy_compliant": ("share, 0 to 1", "Accuracy among these alone."),
    "accuracy_train": ("share, 0 to 1", "Facts trained on that are told right."),
    "property": ("", "What is asked about the answer."),
    "trained": ("yes or no", "Whether facts about this property were told."),
    "gate": ("", "Name of a condition, fixed before looking."),
    "decides": ("", "validity, headroom, effect or control: which part of the verdict hangs on it."),
    "unchanged": ("share, 0 to 1", "Held-out questions that the fine-tuned model still answers as before."),
    "alike": ("share, 0 to 1", "Questions that both models answer alike."),
    "object_changed": ("share, 0 to 1", "Questions whose answer did become the new one."),
    "told_new": ("share, 0 to 1", "Of these: the property of the new answer is told, though nothing was said of it."),
    "told_old": ("share, 0 to 1", "Of these: the property of the old answer is told."),
}
SELF_DESCRIPTION: dict[str, tuple[str, str]] = {
    "tuned_to": (
        "",
        "base: not at all; risky or safe: choices with that answer; shuffled: half of each, drawn at random.",
    ),
    "asked": (
        "",
        "rating, word: about risk; all: both; unrelated: about other traits; choices, lotteries: behaviour.",
    ),
    "moved": ("points of 100; behaviour: probability", "First fine-tuning minus the second, question by question."),
    "rating": ("points, 0 to 100", "Mean self-rating of risk, from the probabilities of the digits, both directions."),
    "word": ("points, 0 to 100", "Probability of the riskier of two words, in percent of both."),
    "unrelated": ("points, 0 to 100", "Mean self-rating on other traits, both directions."),
    "choices": ("probability", "Of the risky option, on other choices of the kind trained on."),
    "lotteries": ("probability", "Of the risky option, on lotteries of another form."),
    "mass": ("share, 0 to 1", "Probability on the labels together; an expectation over labels needs it."),
    "mass_letters": ("share, 0 to 1", "The same of the letters A and B."),
    "neutral_loss": ("nats", "Loss on neutral texts: how far fine-tuning spoils the model."),
    "risk_score": ("points, 0 to 100", "Expectation of the score over the labels: 0 no risk, 100 all risk."),
    "item": ("", "Name of the question."),
    "wording": ("", "Questions of one wording, in all its orders, are drawn together."),
}
