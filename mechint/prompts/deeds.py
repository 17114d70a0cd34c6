"""Everyday sentences of two classes, kind and unkind deeds, from lists that are written out here.

Who did something and what was done go together freely, so a subject tells nothing of the class, and no deed of one
class is more like a sentence than one of the other. They stand for the ETHICS sentences of published neurofeedback
experiments (Ji-An et al. 2025, arXiv 2505.13763), which are not downloaded.
"""

from mechint.errors import PromptError
from mechint.prompts.prompt import Prompt, PromptSet, check_number
from mechint.statistics.seeds import generator

_WHO = (
    "The baker", "My uncle", "A student", "The old nurse", "Our neighbour", "The driver", "A young clerk", "The farmer",
    "My sister", "The guard", "A tired cook", "The teacher", "Her cousin", "The plumber", "A sailor", "His boss",
)  # fmt: skip
_DEEDS: dict[str, tuple[str, ...]] = {
    "kind": (
        "gave her coat to a shivering child", "helped a blind man cross the road", "returned the lost wallet",
        "brought soup to a sick friend", "paid for the widow's groceries", "shared the last piece of bread",
        "sat all night with a frightened boy", "fed the stray cats in winter", "taught the new girl to read",
        "carried the heavy bags for a stranger", "apologised and mended the fence", "praised the shy apprentice",
        "drove the old couple home in the rain", "donated a month's wages to the shelter", "told the truth in court",
        "kept the promise to a dying friend", "pulled a dog out of the frozen river", "forgave the debt of a poor man",
        "planted flowers on the empty grave", "thanked everyone who had worked late", "let the others eat first",
        "comforted the team after the loss", "visited the lonely man every week", "saved a seat for the lame boy",
    ),
    "unkind": (
        "stole the coat of a shivering child", "pushed a blind man into the road", "kept the lost wallet",
        "laughed at a sick friend", "cheated the widow out of her savings", "hid the last piece of bread",
        "locked a frightened boy in the cellar", "kicked the stray cats in winter", "mocked the new girl who read",
        "tripped a stranger with heavy bags", "burned the fence out of spite", "insulted the shy apprentice",
        "left the old couple standing in the rain", "took a month's wages from the shelter", "lied in court",
        "broke the promise to a dying friend", "threw a dog into the frozen river", "robbed a poor man of his pay",
        "spat on the empty grave", "fired everyone who had worked late", "ate the food of the others",
        "blamed the team after the loss", "threatened the lonely man every week", "took the seat of the lame boy",
    ),
}  # fmt: skip


def deeds(n: int = 400, seed: int = 0) -> PromptSet:
    """Return sentences, each once, half of them of either class; the class is the cluster.

    Raises:
        PromptError: more than there are, or an odd number.

    Examples:
        >>> some = deeds(4)
        >>> sorted(one.cluster or "" for one in some)
        ['kind', 'kind', 'unkind', 'unkind']
    """
    check_number(n)
    most = 2 * len(_WHO) * len(_DEEDS["kind"])
    if n > most or n % 2:
        raise PromptError(f"{n} sentences were asked for. Expected an even number of at most {most}.")
    chosen: list[Prompt] = []
    for kind, done in _DEEDS.items():
        places = generator(seed, "deeds", kind).permutation(len(_WHO) * len(done))[: n // 2]
        chosen += [
            Prompt(f"{kind}-{seed}-{i:04d}", f"{_WHO[at % len(_WHO)]} {done[at // len(_WHO)]}.", cluster=kind)
            for i, at in enumerate(int(place) for place in places)
        ]
    order = generator(seed, "deeds", "order").permutation(n)
    return PromptSet("kind and unkind deeds", tuple(chosen[int(at)] for at in order))
