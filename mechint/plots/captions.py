"""One sentence beneath each figure, on how to read it."""

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

CAPTIONS: dict[str, dict[str, str]] = {
    "copy_suppression": {
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
    },
    "direct_effects": {
        "direct_effect_map": "Every head of the model, coloured by what it writes along the target's direction.",
        "direct_effects": "The components that write most for or against the target; blue raises it, rust lowers it.",
    },
    "ablation": {"ablations": "The change of the logit when a component is ablated; left of zero it was needed."},
    "self_repair": _REPAIR,
    "logit_lens": {
        "rank": "Where the target stands among all tokens if the model stopped at this layer; higher up is better.",
        "logit": "The target's logit if the model stopped at this layer.",
    },
}
"""By kind of finding and name of figure; the names are those of `figures.FIGURES`."""
