"""One sentence beneath each figure, on how to read it."""

from mechint.plots.captions_introspection import INTROSPECTION, INTROSPECTION_ORGANISMS
from mechint.plots.captions_self_knowledge import CONFIDENCE

_REPAIR = {
    "repair_by_part": (
        "For each ablated head: the direct effect that went with it, what other heads, MLPs and the final norm put "
        "back, and the change of the logit that remains; repair with the sign opposite to the loss undoes it."
    ),
    "repair_by_component": (
        "The single components whose own direct effect changes most once the head is ablated; bars whose interval "
        "includes 0 cannot be told from no change."
    ),
}

_SCAN: dict[str, str] = {
    "score_map": (
        "Every head of the model: the darker the rust, the further the head lowers the target through its "
        "attention to the target's earlier occurrence; rings mark heads that meet every criterion."
    ),
    "scores": (
        "A head suppresses copies when its point lies right of zero and clear of its own control (grey), which "
        "is the same measurement on a random token of the same prompt; ◯ marks heads that meet every criterion."
    ),
    "attention": (
        "How the attention of a top head, looking from the place where it suppresses, is spread over the prompt's "
        "tokens; a copy suppressor looks at the target (rust)."
    ),
    "direct_effect_and_ablation": (
        "Each point is a head; the vertical distance from the dashed line is what the rest of the model put back "
        "(self-repair), and on the line nothing was."
    ),
    **_REPAIR,
    "anti_induction": (
        "Heads at the upper right lower repeats both in these prompts and in meaningless random repeats, so "
        "their suppression does not depend on the meaning of the text."
    ),
    "own_token": (
        "What the head's OV circuit alone, without attention, does to the token it reads: far right of chance on "
        "the left, and far left of chance on the right, mean that it pushes that very token down."
    ),
}

_CSPA: dict[str, str] = {
    "rules": (
        "Copy suppression explains the head as far as the rust point lies from 0 and from the grey controls; a high "
        "score of the QK half alone says only that the head looks at few tokens, and a copying head has it too."
    ),
    "buckets": (
        "Positions sorted by how much they need the head, means over each hundredth: rust near 0 where copy "
        "suppression accounts for what the head does, on the dashed line where it does not."
    ),
}

_EVIDENCE: dict[str, str] = {
    "three_steps": (
        "Where the head's loss would hurt most, a copy suppressor looks at a content word that the model was about "
        "to repeat, and lowers that very word; rust far above grey on the right means that it does all three."
    ),
    "dynamic_ranks": (
        "Each edge from a position to one that the head attends to: at rank 0 no token of the whole vocabulary is "
        "lowered more than the attended one; a head that does nothing of the kind spreads over the far right."
    ),
    "loss_effects": (
        "A positive change of the loss means that the head helped; what remains under “indirect” is due to later "
        "components that answer it, and the random direction shows what any change of that size does."
    ),
}

CAPTIONS: dict[str, dict[str, str]] = {
    "copy_suppression": _SCAN,
    "direct_effects": {
        "direct_effect_map": "Every head of the model, coloured by what it writes along the target's direction.",
        "direct_effects": "The components that write most for or against the target; blue raises it, rust lowers it.",
    },
    "ablation": {"ablations": "The change of the logit when a component is ablated; left of zero it was needed."},
    "self_repair": _REPAIR,
    "self_repair_on_text": {
        "effect_and_change": (
            "Each point is a component, on the tokens where it writes most; the vertical distance from the dashed line "
            "is self-repair, and a point above the line lost less than it wrote."
        ),
        "share_by_depth": (
            "The black line is what the rest of the model puts back of a layer's heads; only where it lies above the "
            "dotted control is more put back than of any output that happens to fit the next token."
        ),
        "parts_by_layer": (
            "Direct effect before and after ablation (greys), and the three parts of what is put back; the parts add "
            "up to the self-repair."
        ),
        "norm_ratio": (
            "The final norm divides by the length of the stream; where a head made up much of it, ablating the head "
            "shortens the stream, and everything left counts for more."
        ),
        "tokens": (
            "Self-repair is noisy: on the dashed line all of the direct effect is put back, at 0 nothing is, and below "
            "0 the loss is made worse."
        ),
        "mlp_erasure": (
            "Top: how much of the repair the last MLP does, and how many of its neurons matter. Bottom: the five "
            "neurons that rise most against the whole MLP, chosen under the same ablation and under another (the fair "
            "one), and the top neuron before and after; above the dashed line and left of 0 it erased, and erases less."
        ),
        "compensation": (
            "At 1 the logit falls by what the layer wrote; below 1 later layers make some of it good (Hydra effect)."
        ),
    },
    "cspa": _CSPA,
    "copy_suppression_study": {
        "evidence": (
            "Each line of evidence that is a share, for each chosen head: rust far from its grey control, with "
            "intervals that do not meet, is evidence; the table has those in logits and nats as well."
        ),
        **_SCAN,
        "cspa_map": (
            "Every head of the model on the texts: rust where copy suppression accounts for what the head does to "
            "predictions, white where it accounts for nothing of it; rings mark heads that meet the criteria of CSPA."
        ),
        **_CSPA,
        **_EVIDENCE,
        "qk_grid": (
            "Small numbers: the head attends to the very token that its query stands for. Look at the column “after "
            "block 0” of the row “unembedding”: what the head sees of a token, asked for by a prediction of it."
        ),
    },
    "calibration": {
        "overconfidence_map": (
            "Every head of the model, coloured by the over-confidence that it adds; blue heads keep the model from "
            "being surer than it is right."
        ),
        "entropy_marginal_map": (
            "Every head of the model, coloured by how much less certain the model's predictions are because of it."
        ),
        "entropy_difference_map": (
            "The same, measured on what the stream before the head would predict, with the head's own term alone added."
        ),
        "reliability": (
            "Points on the dashed line are right as often as they claim; below it the model is over-confident."
        ),
    },
    "logit_lens": {
        "rank": "Where the target stands among all tokens if the model stopped at this layer; higher up is better.",
        "logit": "The target's logit if the model stopped at this layer.",
    },
    "ioi_self_repair": {
        "share": (
            "How much of the name movers' loss each negative head puts back, by a change of its own direct effect; the "
            "grey bar is what other heads of the same layers do on average in their place."
        ),
        "before_after": (
            "Points on the dashed line do the same with and without the name movers; negative heads that rise above "
            "it were held down by what the movers write."
        ),
        "interventions": (
            "If a head changes as much when only the target's direction (IO) of the movers' output is removed as when "
            "all of it is, that direction is what it answers to; bold heads are the negative ones."
        ),
        "queries": (
            "The same question asked of the query alone: a head that moves off the dashed line decides where to look "
            "by that part of the movers' output."
        ),
    },
    "steering_receipt": {
        "texts": (
            "The tokens whose activations a plan rewrote, in the order of the text; point at one to see which parts "
            "did what. Tokens that were left alone are counted, not shown."
        ),
        "gates": (
            "What each condition saw after each pass, for each text: a decision on a vector or on entropy counts from "
            "the next token on, one on a text at once."
        ),
        "parts": (
            "A change near 1 is as long as what was there before, and little of that is left; a part whose gate was "
            "open on none of its tokens changed nothing."
        ),
    },
    "steering_evaluation": {
        "dose_response": (
            "Top: the vector (bold) works only where it leaves the bands, which are pushes of the same length that "
            "mean nothing. Bottom: what the same doses cost; an effect that is bought with broken text is none."
        ),
        "against_chance": (
            "Tested at one dose that was named beforehand. The vector has an effect beyond chance if its interval lies "
            "above 0 and the largest of these p-values is below 0.05."
        ),
        "texts": "Samples to read: the concept should become clearer from dose to dose before the language breaks.",
    },
    "critique": {
        "reading": (
            "At the result the two texts differ in the number just read; at the stub they do not, so what is read "
            "there was carried. A curve says something only where it lies above the best baseline (dashed)."
        ),
        "baselines": "What the text tells by itself, and surprisal: the model's own “that number was unlikely”.",
        "dose_response": (
            "The difference has to leave the band of directions that mean nothing; where both sides move together it "
            "is a push, not critique."
        ),
        "angles": "Near 0, two ways of estimating the direction have found different things.",
    },
    "introspection": INTROSPECTION,
    "introspection_organisms": INTROSPECTION_ORGANISMS,
    "critique_organism": {
        "curve": (
            "A silent critic flags one error in four, and none at temperature 0. A vector that brings out more of what "
            "it knows lifts the line of errors and leaves that of right steps alone. One that only makes right steps "
            "look wrong lifts theirs, up to the other line and no further. An untrained model does not move."
        ),
        "reading": (
            "At the result the two rows differ in the digit just read; at the stub they do not, so what can be read "
            "there was carried by the model, and the embedding is at exactly 0.5."
        ),
        "against_chance": (
            "The vector has to lie outside what directions that mean nothing do at the same length; of an untrained "
            "model it must not."
        ),
    },
    "privileged_access": {
        "accuracy": (
            "A model with privileged access (red) is right where the other model, told the same facts, is not better "
            "than the most frequent value. Where classifiers that only read the question do as well, the text tells "
            "the answer, and predicting it says nothing about the model."
        ),
        "privilege": "All intervals must lie to the right of 0: against the other model, and against every classifier.",
        "changed": (
            "Some answers were trained to be others, and no word was said about them. A model that reads its own "
            "computation tells the new ones (green); one that keeps a description of itself, the old ones."
        ),
    },
    "self_description": {
        "reports": (
            "Behaviour (right) has to move before a description can. The report is the distance between risky and "
            "shuffled on the left: both saw the same choices. Other traits should stay where they are."
        ),
    },
    "neurofeedback": {
        "accuracy": (
            "The model (red) has to be right more often than every reader of the text (blue); with hidden noise, more "
            "often than the best possible one (black bar). Where the oracle (green) is no further right than the blue "
            "marks, the axis can show nothing."
        ),
        "curves": (
            "A line that rises learns from the examples what the label means; one that stays on the dotted line does "
            "not. Labels as they are and exchanged are averaged, so a habit of saying one label lifts nothing."
        ),
        "control": (
            "The sentence is the same whatever is asked for; an interval clear of 0, and farther out than on other "
            "axes, would mean that the request moves the state along the axis."
        ),
    },
    "confidence": CONFIDENCE,
    "critique_pipeline": {
        "outcomes": (
            "Hidden critique is a right answer after a wrong thinking (orange). Beside it, the same solutions without "
            "the error and the problems alone: how often that happens anyway."
        ),
        "layers": (
            "A probe near 1 says little where length or words of the answers reach the same: the two sides are "
            "different texts. The steered block was chosen by the orange curve, on problems used for nothing else."
        ),
        "steering": (
            "Critique would raise the line after an error and leave the other one alone; where both fall or rise, or "
            "random directions do the same, it is a push."
        ),
        "detection": (
            "Where lines rise while crosses fall, the model has not learnt to find mistakes: it claims them more often."
        ),
        "scaling": "At equal thinking, a dose that helps lies above dose 0.",
    },
    "steering_vector_report": {
        "auroc": (
            "At 1 the direction tells every pair of held-out texts apart. Where the grey ring is as high, the words of "
            "the texts alone do so, and the number says nothing about the model."
        ),
        "tokens": (
            "Tokens that the direction would raise or lower if it went straight to the output; words of the concept on "
            "the right, and of its contrary on the left, make it plausible."
        ),
    },
}
"""By kind of finding and name of figure; the names are those of `figures.FIGURES`."""
