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
    "copy_suppression_study": (
        "A copy-suppression head attends to an earlier occurrence of a token that is about to be predicted, and lowers "
        "its logit. All heads are scanned on two-name sentences; those with the largest scores are then examined on "
        "texts that played no part in choosing them.",
        "CSPA: the head is mean-ablated on the direct path, except for what copy suppression would do: only sources "
        "whose token is predicted, only along that token's direction, only downwards. The score is the share of the "
        "head's effect on predictions (KL) that this keeps. Controls keep as much along a random other token of the "
        "text, along a shuffled vocabulary, or upwards.",
        "Every line of the table is one question about one head, its number beside that of a control. “QK only” is "
        "shown because papers show it; it is high for a head that copies, too, and is no evidence by itself.",
        "Brackets hold 95 % intervals over clusters of documents or sentences. The page tokens.html beside this one "
        "shows, token by token, where each head looks, what it lowers, and how the loss changes without it.",
    ),
    "self_repair": (
        "Self-repair is the change of the logit on ablation minus the change of the ablated component's own direct "
        "effect. Brackets hold 95 % intervals.",
    ),
    "self_repair_on_text": (
        "At every token, a component's direct effect is what it writes to the logit of the token that follows. When it "
        "is ablated the logit often changes less, because later heads and MLPs answer, and because the final norm "
        "rescales a shorter stream. Self-repair is that difference, and its three parts add up to it exactly.",
        "Most tokens need no single head. “Condensed” averages are over the few with the largest direct effect. A "
        "direct effect can be large by luck, and luck is “repaired” too; so each condensed share stands beside that of "
        "a chance fit: the same component with the output of unrelated documents, chosen by the same rule. Only the "
        "difference speaks for repair of what the component does.",
        "Ratios differ with the order of averaging, so each is named: ratio of means, mean over heads, mean of ratios, "
        "and the mean of ratios cut to 0 to 1, which noise alone makes positive.",
        "Brackets hold 95 % intervals over clusters of documents, with the chosen tokens held fixed.",
    ),
    "steering_evaluation": (
        "A steering vector is added to the model's activations while it reads or writes. The effect of a dose is the "
        "metric with steering minus the metric without, prompt by prompt. Doses are in units of the median length |h| "
        "of the activations at that site, and every control is as long as the vector.",
        "Any push of that size changes something. Three nulls show how much: random directions, random directions with "
        "the activations' own covariance, and vectors fitted to labels that mean nothing. The claim “more than chance” "
        "is tested at one dose that was named beforehand, against the hardest of them; all other doses are shown and "
        "not tested.",
        "The other arms are comparisons: the vector without the scored words' own direction (an effect that is gone "
        "there was only a bias on those words), a vector of another concept, and an instruction in the prompt without "
        "steering.",
        "Where a layer was chosen, it is the one with the largest effect at equal damage, on prompts and texts that "
        "were used for nothing else (table layers); all other numbers are from others that played no part in it.",
        "Steering costs something: KL and perplexity on neutral text, repetition and variety of generated text, at the "
        "same doses. Read the texts before you trust an effect.",
        "Intervals are 95 %, over clusters of prompts; for arms of many draws they are the middle 95 % of the draws.",
    ),
    "critique": (
        "Twins are two texts that are the same but for one number, which is true in one and wrong in the other. At R "
        "that number has just been read; at S, behind it, both texts have the same words, so what tells them apart "
        "there was carried by the model.",
        "Reading and causing are two questions. A probe may read what the model makes no use of, or what is in the "
        "text: so its AUROC on problems not learnt from stands beside baselines that know the text alone, beside "
        "labels exchanged within problems, and beside surprisal, the model's own “that number was unlikely”.",
        "Steering may push everything towards “wrong”. What counts is the difference of differences: what it changes "
        "on rows with an error minus what it changes on rows without, against 50 random directions of that length, 20 "
        "of the activations' covariance and 20 fitted to shuffled labels. Layer and dose were chosen on other "
        "problems (table candidates), with the damage to clean text held at 0.1 nats.",
        "Only measures marked as tested can carry a claim. “No effect beyond random” is a result: others found probes "
        "of errors that steer nothing (arXiv 2605.09502, 2605.05715), and steering that is a bias on labels "
        "(2608.29431).",
        "Brackets hold 95 % intervals over problems; for arms of many draws, the middle 95 % of the draws.",
    ),
    "critique_organism": (
        "A silent critic is a small model trained to know of every wrong step of simple arithmetic, and to say so (X) "
        "of one in four; of the others it says K. So there is a hidden critique, and the truth about it is known: here "
        "the method is on trial, not the model.",
        "Bars were fixed before any steering was looked at. One that is not met is a finding about the method or about "
        "the bar, and is reported as it is. The same is done to a model that was never trained, where everything has "
        "to come to nothing.",
        "Probes and vectors are fitted on some arithmetic facts, the block is chosen on others, and all numbers are of "
        "others again. Intervals are 95 %, over facts.",
    ),
    "critique_pipeline": (
        "A solution that stops at an error is put into the model's thinking, and the model goes on. Hidden critique: "
        "the thinking stays wrong, and the final answer is right. The critique vector is the mean of activations on "
        "the final answers of such texts minus that of their originals.",
        "The two sides are different texts. With matched beginnings they share everything up to the error; with the "
        "published prompts not even the question is worded alike. So a probe stands beside what length and words of "
        "the answers tell by themselves.",
        "Steering is read as a difference: the change of right answers after an error minus the change without one, "
        "beside random directions of the same length at the same block.",
        "The layer is chosen on problems of their own; steering, detection and scaling are on others.",
    ),
    "steering_receipt": (
        "A receipt lists every token whose activation a plan rewrote: by which part, at which site, with which dose, "
        "and how far, as the length of the change over the length of what was there (|Δ| / |h|).",
        "t counts from the end of the prompt: 0 is the first generated token. A part with a gate acts only while the "
        "gate is open; decisions on vectors and entropy count from the next token on.",
    ),
    "steering_vector_report": (
        "A direction that stands for a concept should tell texts with and without it apart that it was not fitted on: "
        "AUROC 1 is perfect, 0.5 is chance. Words alone may do as well; then the number says nothing about the model.",
        "Two halves of the texts should give nearly the same direction: their cosine is near 0 for noise.",
        "Telling apart is not steering: what the vector does to the text is measured by an evaluation.",
    ),
}

GENERAL = ("Brackets hold 95 % intervals: an interval that includes 0 is no evidence of an effect.",)


def guide(kind: str) -> tuple[str, ...]:
    """Return sentences on how to read findings of this kind."""
    return GUIDES.get(kind, GENERAL)
