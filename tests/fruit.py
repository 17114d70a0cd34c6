"""A concept for the trained organism, whose vocabulary has no praise: fruit as against tools."""

import mechint as mi
from mechint.organisms import trained

FRUIT = ("banana", "cherry", "lime", "carrot", "celery", "potato")
TOOLS = ("lamp", "shovel", "rake", "knife", "shelf", "boot")
DEEDS = ("visited", "measured", "drank", "wore", "drove")


def pairs(n: int, seed: int) -> mi.prompts.ContrastPairs:
    """Sentences about fruit beside the same about tools; deeds are groups."""
    del seed
    rows = [(f"Alice {d} the {a}", f"Alice {d} the {b}", d) for d in DEEDS for a, b in zip(FRUIT, TOOLS, strict=True)]
    positive, negative, groups = zip(*rows[:n], strict=True)
    return mi.prompts.contrast(positive, negative, groups=groups, name="fruit")


def openings(n: int, seed: int) -> mi.prompts.PromptSet:
    """Beginnings that end before a noun."""
    del seed
    nouns = (*FRUIT, *TOOLS)[:n]
    return mi.prompts.PromptSet("nouns", tuple(mi.prompts.Prompt(a, f"the {a} the", cluster=a) for a in nouns))


CONCEPT = mi.prompts.Concept("fruit", pairs, (" banana",), (" lamp",), "Alice visited ", openings)


def neutral(model: mi.Model) -> mi.NeutralTexts:
    """Texts that the organism was trained on."""
    return mi.NeutralTexts(model, trained.documents(n=8, seed=3), length=24, positions=8)
