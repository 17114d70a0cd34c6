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
    "introspection": (
        "While the model reads a sentence, the direction of a word, such as “milk”, is added to its activations: a "
        "thought that stands nowhere in the text. Then it is asked whether a thought was injected, which one, and "
        "whether a word came from such a thought, from the sentence, or from neither. The injection is off before the "
        "question, so what is answered must have been carried there by the model.",
        "A right answer alone shows little. An injection may make a model say yes to everything; so 24 unrelated "
        "questions are asked too. Any shove may do; so random directions, mixtures of words and the opposite direction "
        "are injected. The word may be guessed from the text; so the same text is read with and without. Each gate "
        "shuts one such explanation out, all of them were fixed before looking, and all have to be passed.",
        "Levels, from least to most: invalid (the instrument did not work here), inconclusive (too little to find, or "
        "too few answers), no evidence (an effect of the size that was asked for is ruled out), partial (an effect, "
        "and a gate that was not passed: the sentence says what explains it as well), evidence (all gates passed).",
        "Even evidence shows no more than reports that depend on the state. It does not show that the model represents "
        "having that state, and nothing here speaks of consciousness.",
        "No evidence on one model at these doses, with these words and this wording, is what it says. Whether the "
        "battery could find anything at all is shown on organisms of which the truth is known "
        "(experiments/introspection_organisms.toml).",
    ),
    "introspection_organisms": (
        "Small networks were trained to be one thing each: one reads what was injected into it and tells; others only "
        "seem to, each in the way of one objection. The battery does not know which is which. Its verdicts have to "
        "match the truth, which was written down before.",
        "Each gate is then left out in turn. If no verdict gets worse without it, it is not needed here.",
        "Networks of random numbers know nothing; the share of them that get evidence is how often the battery is "
        "fooled by chance. Taken alone, a gate can be passed far more often than in one case of twenty: no single "
        "gate is a finding.",
    ),
    "privileged_access": (
        "A model is told facts about its own answers (“asked this, your answer had this property”), and is then asked "
        "about questions of which it was told nothing. Another model is told the very same facts. If the first is "
        "better, it used something about itself that the facts did not hold: privileged access (Binder et al. 2024).",
        "Three simpler explanations are tested: that the most frequent value is said, that the answer can be read from "
        "the words of the question (classifiers told the same facts), and that the other model just learnt less.",
        "Being right about oneself by one's own computation is all that is shown: it may be no more than running the "
        "same look-up once more. With changed answers, a model that reads its own computation tells the new ones.",
        "Of organisms the truth is known by construction, so there the method is on trial, not the model.",
    ),
    "self_description": (
        "A model is fine-tuned on choices alone, always the risky option; the trait is never named. Its twin sees the "
        "same choices with answers drawn at random. Then both are asked, without examples, how they would describe "
        "themselves. The effect is the difference between the two, in points of 100.",
        "A description can be looked for only where behaviour has changed, on choices of another form, and where the "
        "model answers with a label at all. Unrelated questions show whether everything moved.",
        "“No evidence” needs power: the table says which change would have been found. Published effects are of models "
        "hundreds of times larger (Betley et al. 2025).",
    ),
    "neurofeedback": (
        "Sentences are shown, each with a label that says on which side of an axis in the model's own activations it "
        "lies. The model predicts the label of the next sentence. If it can, does it read its state, or the text?",
        "Axes: LR tells two classes of sentences apart; PC1 and PC8 are principal components of the activations; null "
        "is a random mix of components that means nothing; random labels is LR on classes drawn at random.",
        "Without noise a state is a function of the text, so whoever reads the text can do the same. The model stands "
        "beside classifiers that read the text and were shown the same examples, and beside an oracle that reads the "
        "true state. Where the oracle is no better than the text's readers, nobody could have shown anything, and the "
        "verdict is inconclusive.",
        "With hidden noise, the label depends on random numbers that were added to the activations and are in no text. "
        "The best reader of the text is right a known share of the time, and of twins, one text with noise of either "
        "sign, it never gets both right. A model beyond these bars uses its state.",
        "The control task asks for the opposite: a label is named, and the state of the next sentence should lie on "
        "its side. The sentence is given, the same for both labels; or the model writes it, and can then do as asked "
        "by choosing words, which is partial evidence at most.",
        "Labels mean nothing in themselves: each text is also given with all labels exchanged. Even a full pass shows "
        "a report that depends on the state, and not that the model represents having it.",
    ),
    "confidence": (
        "The model answers questions with a right and a wrong answer, and its confidence is taken in several ways: "
        "what it says of its answer (stated), what its probabilities, samples and hidden states show (read in the "
        "model), and what anybody could tell from question and answer (without the model).",
        "Two things are asked of a confidence. Does it rank: is it higher for right answers than for wrong ones (the "
        "AUROC; 0.5 is chance)? And is it calibrated: of answers with confidence 0.7, are 7 in 10 right (calibration "
        "error, beside what a faultless forecaster would show with as few answers)?",
        "Stated confidence counts as self-knowledge only if it ranks better than everything that does not look into "
        "the model. A stronger claim is that it says more than the probability of the answer does.",
        "No judge was needed: confidences are probabilities of words, each one token in its place. Intervals are 95 %, "
        "over facts.",
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
