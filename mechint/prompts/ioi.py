"""Two-name prompts: indirect object identification.

"When Mary and John went to the store, John gave a drink to" calls for the name that occurs once (the indirect object,
" Mary") and not for the repeated one (the subject, " John"). The task is that of Wang et al. 2022, "Interpretability
in the Wild" (arXiv 2211.00593); sentences and names here are our own. Half of the prompts name the indirect object
first (ABB), half second (BAB). In the counterfactual three other names take the three places, none repeated (ABC), so
that no name is called for.
"""

from collections.abc import Sequence

from mechint.errors import TokenError
from mechint.prompts.encoding import Tokenizer, token_of
from mechint.prompts.prompt import Prompt, PromptSet, check_number
from mechint.statistics import generator

_NAMES = """
Aaron Adam Alan Alex Alice Amanda Amy Andrea Andrew Angela Anna Anne Anthony Barbara Benjamin Brandon Brian
Carol Charles Christina Christine Christopher Daniel David Donald Edward Elizabeth Emily Emma Eric George
Hannah Harry Helen Henry Jack Jacob James Jane Jason Jennifer Jeremy Jessica John Jonathan Joseph Joshua Julia
Julie Justin Karen Kate Keith Kevin Larry Laura Lauren Linda Lisa Lucy Maria Marie Martin Mary Matthew Michael
Michelle Nancy Nathan Nicholas Nicole Patrick Paul Peter Rachel Rebecca Richard Robert Ryan Samantha Samuel
Sarah Simon Stephanie Stephen Steven Susan Thomas Timothy William
"""
_PLACES = "store park school station library market museum office garden beach hospital restaurant theater harbor"
_THINGS = "drink book letter ring ball key map ticket flower basket sandwich camera coat guitar"

NAMES: tuple[str, ...] = tuple(_NAMES.split())
"""Common first names that are no ordinary words, and one token with a leading space in most tokenizers."""

PLACES: tuple[str, ...] = tuple(_PLACES.split())

THINGS: tuple[str, ...] = tuple(f"a {thing}" for thing in _THINGS.split())

TEMPLATES: tuple[str, ...] = (
    "When {first} and {second} went to the {place}, {giver} gave {thing} to",
    "After {first} and {second} arrived at the {place}, {giver} handed {thing} to",
    "While {first} and {second} were waiting at the {place}, {giver} passed {thing} to",
    "Because {first} and {second} were both at the {place}, {giver} decided to give {thing} to",
    "Yesterday {first} and {second} met at the {place}, and {giver} offered {thing} to",
    "Last week {first} and {second} walked to the {place}. On the way, {giver} showed {thing} to",
    "The {place} was quiet when {first} and {second} came in. Later, {giver} lent {thing} to",
    "Once {first} and {second} had found the {place}, {giver} sold {thing} to",
)
"""Every name stands after a space, so that it is the same token in each place."""


def ioi(n: int = 64, seed: int = 0, tokenizer: Tokenizer | None = None) -> PromptSet:
    """Return n two-name prompts with target, distractor and counterfactual.

    Prompt i depends on the seed and on i, not on n; even i are ABB, odd i BAB. Its cluster is the unordered pair of
    names: prompts that share both names share what the model thinks of the two, whatever the sentence, and count as
    one draw. Templates are few and fixed; claims are about them.

    Args:
        n: number of prompts.
        seed: of all choices.
        tokenizer: if given, only names that are one token of it are drawn, so that `encode` never refuses a prompt.

    Raises:
        PromptError: n is not positive.
        TokenError: fewer than five names are one token of this tokenizer.

    Examples:
        >>> prompt = ioi(n=1)[0]
        >>> prompt.prompt.count(prompt.target), prompt.prompt.count(prompt.distractor)
        (1, 2)
    """
    check_number(n)
    names = NAMES if tokenizer is None else single_token_names(tokenizer, NAMES)
    if len(names) < 5:
        raise TokenError(
            f"Only {len(names)} of {len(NAMES)} common first names are one token of this tokenizer; a prompt and its "
            "counterfactual need 5. Write prompts of your own in its vocabulary (mechint.prompts.read)."
        )
    return PromptSet("ioi", tuple(_prompt(index, seed, names) for index in range(n)))


def single_token_names(tokenizer: Tokenizer, names: Sequence[str] = NAMES) -> tuple[str, ...]:
    """Return the names that, after a space, are exactly one token of this tokenizer."""
    return tuple(name for name in names if _is_one_token(f" {name}", tokenizer))


def _is_one_token(text: str, tokenizer: Tokenizer) -> bool:
    try:
        token_of(text, tokenizer, after="and")
    except TokenError:
        return False
    return True


def _prompt(index: int, seed: int, names: Sequence[str]) -> Prompt:
    rng = generator(seed, "ioi", index)
    indirect_object, subject, *others = (str(names[drawn]) for drawn in rng.permutation(len(names))[:5])
    template, place, thing = (str(rng.choice(choices)) for choices in (TEMPLATES, PLACES, THINGS))
    first, second = (indirect_object, subject) if index % 2 == 0 else (subject, indirect_object)
    return Prompt(
        id=f"ioi-{seed}-{index:04d}",
        prompt=template.format(first=first, second=second, giver=subject, place=place, thing=thing),
        target=f" {indirect_object}",
        distractor=f" {subject}",
        counterfactual=template.format(first=others[0], second=others[1], giver=others[2], place=place, thing=thing),
        cluster="+".join(sorted([indirect_object, subject])),
    )
