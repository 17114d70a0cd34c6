"""Who an organism of introspection is: one that reads its state, or what a model may do that only seems to.

No heavy import: the names and words of all organisms are listed without loading any.
"""

from typing import Literal

Kind = Literal["text", "reader", "surface", "source-blind", "yes-biased", "output-head", "any-perturbation"]
KINDS: dict[Kind, str] = {
    "text": "answers from the text; never saw an injection",
    "reader": "reads its state: tells what was injected, and nothing else",
    "surface": "answers from the text alone, though trained under injections",
    "source-blind": "finds a concept in text or state, and takes every one for text",
    "yes-biased": "reads its state, and says yes to any question while something is injected",
    "output-head": "answers from what is injected at the answer itself, blind to the text positions",
    "any-perturbation": "reads that something was injected, a random direction as well as a concept",
}
"""In words."""
