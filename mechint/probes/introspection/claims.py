"""Three claims and the gates of each, fixed before any model was looked at; those of the instrument: `validity`.

    detects      says yes when a concept is injected, and not otherwise
    identifies   says which
    attributes   says that it came from its state, of a text without it; from the text, of one that has it

All gates of a claim have to be passed, so no correction is needed for their number (an intersection of tests); levels
are those of 95 % intervals of the crossed bootstrap.

    G1 effect        with the injection held up to the answer: AUROC > .55 and yes .10 more often; named 1/N + .05 and
                     said .10 more often; source macro-accuracy > 2/3
    G5 output head   the same with the injection off before the question; in letters whose meaning is swapped, right
                     under both meanings > .25
    G2 yes-bias      rise of yes beyond that of 24 unrelated questions > 0, above all but 1 in 20 of them, which are
                     answered no more than .05 worse
    G3 specificity   AUROC against an isotropic direction, a mixture of concepts, and minus the concept > .5; which
                     concept is named depends on which was injected
    G4 not the text  the same text with and without (or with another concept): right on both more often than a coin of
                     the same rate, q (1 - q); source: macro-accuracy > 2/3, AUROC of state over text and over nothing
                     > .5
    G6 headroom      a nearest centroid reads the concept from the stream at 1/N + .05

2/3 is what a reader of the text alone can reach on three sources of which two have the same text. Margins of
equivalence: AUROC .075, named .06, yes .10.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from mechint.probes.gates import Gate, Role
from mechint.probes.introspection.battery import CONCEPT, MENTION, MINUS, MIXTURE, NONE, RANDOM
from mechint.probes.introspection.cells import Cells, over_orders
from mechint.prompts.introspection.material import NO, NOTHING, STATE, TEXT, YES
from mechint.statistics import generator
from mechint.statistics.drawn import Drawn
from mechint.statistics.equivalence import equivalence_p, smallest_detectable

CLAIMS: dict[str, str] = {
    "detects": "detects an injected concept",
    "identifies": "identifies the injected concept",
    "attributes": "tells an injected concept from one in the text",
}
"""By name, in words that finish "that it …"."""
LEAST_AUROC, LEAST_RATE, BEYOND_CHANCE, TEXT_ONLY = 0.55, 0.10, 0.05, 2 / 3
MARGIN_AUROC, MARGIN_NAMED = 0.075, 0.06
_PERMUTATIONS = 1999
_OUTPUT_HEAD = "what is injected at the answer itself reaches the output without being read by anything"


def gates_of(claim: str, cells: Cells, readable: Float[np.ndarray, "concept carrier"], *, held: bool) -> list[Gate]:
    """Return the gates of a claim but those of validity.

    Args:
        claim: one of `CLAIMS`.
        cells: the answers, read with the injection off before the question.
        readable: 1 where a nearest centroid read the concept from the stream.
        held: whether `cells` are read with the injection held instead, as a battery without gate G5 would.
    """
    own: dict[str, Callable[[Cells], list[Gate]]] = {
        "detects": _detects,
        "identifies": _identifies,
        "attributes": lambda _: [],
    }
    effects = _effects(claim, cells, "G1 effect", True)
    if not held:
        effects += _effects(claim, cells, "G5 output head", False)
    return [_headroom(cells, readable), *effects, *_yes_bias(claim, cells), *own[claim](cells), *_not_the_text(cells)]


def _gate(name: str, statistic: str, found: Drawn, bar: float, alternative: str, role: Role = "control") -> Gate:
    """Return a gate that asks the lower end of an interval to be above a bar."""
    words = f"low end above {bar:.3g}"
    return Gate(name, role, statistic, found.value, found.low, found.high, words, found.low > bar, alternative)


def _effect(
    name: str, statistic: str, found: Drawn, passes: tuple[str, bool], null: float, margin: float, alternative: str
) -> Gate:
    """Return a gate on an effect, with what a null would be worth: the margin is what counts as one."""
    words, passed = passes
    return Gate(
        name, "effect", statistic, found.value, found.low, found.high, words, passed, alternative,
        excluded=found.ends(0.9)[1] < null + margin, smallest=smallest_detectable(found.error),
        equivalence_p=equivalence_p(found.draws, null, margin),
    )  # fmt: skip


def _effects(claim: str, cells: Cells, name: str, held: bool) -> list[Gate]:
    alternative = "chance" if held else _OUTPUT_HEAD

    def above(statistic: str, found: Drawn, bar: float, null: float, margin: float) -> Gate:
        return _effect(name, statistic, found, (f"low end above {bar:.3g}", found.low > bar), null, margin, alternative)

    def more_often(statistic: str, found: Drawn) -> Gate:
        passes = (f"at least {LEAST_RATE:g}, low end above 0", found.value >= LEAST_RATE and found.low > 0)
        return _effect(name, statistic, found, passes, 0.0, LEAST_RATE, alternative)

    if claim == "detects":
        auroc = cells.auroc("detect", CONCEPT, NONE, held=held)
        rate = cells.hit_less_false_alarm("detect", CONCEPT, held)
        return [
            more_often("yes, less yes of the plain text", rate),
            above("AUROC of yes, injected against plain", auroc, LEAST_AUROC, 0.5, MARGIN_AUROC),
        ]
    if claim == "identifies":
        chance, right = 1 / len(cells.concepts), cells.mean(named(cells, held))
        rate = cells.mean(_said_own(cells, CONCEPT, held) - _said_own(cells, NONE, held))
        words = "named, corrected for what is said of the plain text"
        return [
            more_often("the concept is said, less that of the plain text", rate),
            above(words, right, chance + BEYOND_CHANCE, chance, MARGIN_NAMED),
        ]
    alternative = "the text, and one guess for two sources of the same text"
    return [above("macro-accuracy of the source", _macro(cells, held), TEXT_ONLY, TEXT_ONLY, BEYOND_CHANCE)]


def _yes_bias(claim: str, cells: Cells) -> list[Gate]:
    name, alternative = "G2 yes-bias", "an injection makes it say yes, or err, whatever is asked"
    asked = cells.questions("unrelated")
    shifts = [cells.shift(question, CONCEPT) for question in asked]
    before = over_orders([cells.of(q, NONE, "right").astype(float) for q in asked])
    after = over_orders([cells.of(q, CONCEPT, "right").astype(float) for q in asked])
    loss = cells.mean(before - after)
    worse = Gate(
        name, "control", f"accuracy lost on {len(asked)} unrelated questions", loss.value, loss.low, loss.high,
        "at most .05", loss.value <= BEYOND_CHANCE, alternative,
    )  # fmt: skip
    if claim != "detects":
        return [worse]
    own = cells.shift("detect", CONCEPT)
    net = cells.mean(own - over_orders(shifts))
    above = (1 + sum(float(shift.mean()) >= float(own.mean()) for shift in shifts)) / (1 + len(shifts))
    rank = Gate(
        name, "control", "share of unrelated questions whose yes rises as much (+1)", above, float("nan"), float("nan"),
        "at most .05", above <= 0.05, alternative,
    )  # fmt: skip
    return [_gate(name, "rise of yes beyond unrelated questions, nats", net, 0.0, alternative), rank, worse]


def _detects(cells: Cells) -> list[Gate]:
    specific = [
        _gate("G3 specificity", f"AUROC of yes, concept against {words}", cells.auroc("detect", CONCEPT, arm), 0.5, how)
        for arm, words, how in (
            (RANDOM, "an isotropic direction", "any push of that size is reported"),
            (MIXTURE, "a mixture of concepts", "any push within the concepts' span is reported"),
            (MINUS, "minus the concept", "the size is reported, and not the direction"),
        )
    ]
    on, off = cells.said("detect", CONCEPT, YES), cells.said("detect", NONE, NO)
    rates = [cells.said("detect", CONCEPT, YES), cells.said("detect", NONE, YES)]
    twins = cells.beyond(on * off, rates)
    flipped = "right under both meanings of the letters"
    both = "same text, with and without: both right, less a coin's"
    return [
        *specific,
        _gate("G5 output head", flipped, _flips(cells), 0.25, "one direction raises one token"),
        _gate("G4 not the text", both, twins, 0.0, "a guess from the text"),
    ]


def _flips(cells: Cells) -> Drawn:
    right = [cells.said(q, CONCEPT, YES) * cells.said(q, NONE, NO) for q in cells.questions("flip")]
    return cells.mean(np.prod(right, axis=0))


def _identifies(cells: Cells) -> list[Gate]:
    p = _exchanged(cells.of("identify", CONCEPT, "named"), cells.concepts)
    depends = Gate(
        "G3 specificity", "control", "p of which concept is named, concepts exchanged within a text", p, float("nan"),
        float("nan"), "below .05", p < 0.05, "it names a concept, and not the one that was injected",
    )  # fmt: skip
    over, under = cells.numbers("identify", CONCEPT, "over_next"), cells.numbers("identify", CONCEPT, "over_previous")
    # Cell k: the same text with concept k and with concept k + 1, each preferred to the other where it is injected.
    pairs = (over > 0) & (np.roll(under, -1, axis=0) > 0)
    twins = _gate(
        "G4 not the text",
        "same text, two concepts: both right",
        cells.mean(pairs.astype(float)),
        0.25,
        "a coin, or the text",
    )
    return [depends, twins]


def _exchanged(named: np.ndarray, concepts: list[str]) -> float:
    right = np.array(concepts)
    observed, rng = (named == right[:, None]).mean(), generator(0, "introspection", "exchanged")
    as_good = 0
    for _ in range(_PERMUTATIONS):
        shuffled = np.stack([rng.permutation(right) for _ in range(named.shape[1])], axis=1)
        as_good += (named == shuffled).mean() >= observed
    return float((1 + as_good) / (1 + _PERMUTATIONS))


def _not_the_text(cells: Cells) -> list[Gate]:
    name, orders = "G4 not the text", cells.questions("source")

    def scores(arm: str, column: str) -> np.ndarray:
        return over_orders([cells.numbers(question, arm, column) for question in orders])

    alternative = "it notices a concept, and cannot tell its state from the text"
    against_text = cells.draws.auroc(scores(CONCEPT, "state_text"), scores(MENTION, "state_text"))
    against_none = cells.draws.auroc(scores(CONCEPT, "state_nothing"), scores(NONE, "state_nothing"))
    return [
        _gate(name, "macro-accuracy of the source", _macro(cells, None), TEXT_ONLY, alternative),
        _gate(name, "AUROC of state over text, injected against mentioned", against_text, 0.5, alternative),
        _gate(name, "AUROC of state over nothing, injected against plain", against_none, 0.5, alternative),
    ]


def _macro(cells: Cells, held: bool | None) -> Drawn:
    """Return the mean accuracy over the three sources."""
    truth = {NONE: NOTHING, CONCEPT: STATE, MENTION: TEXT}
    right = [cells.said(q, arm, label, held) for q in cells.questions("source") for arm, label in truth.items()]
    return cells.mean(over_orders(right))


def named(cells: Cells, held: bool | None = None) -> Float[np.ndarray, "concept carrier"]:
    """Return 1 where the injected concept rises most, among all, over what is said of the plain text."""
    return (cells.of("identify", CONCEPT, "named", held) == np.array(cells.concepts)[:, None]).astype(float)


def _said_own(cells: Cells, arm: str, held: bool) -> Float[np.ndarray, "concept carrier"]:
    return (cells.of("identify", arm, "said", held) == np.array(cells.concepts)[:, None]).astype(float)


def _headroom(cells: Cells, readable: Float[np.ndarray, "concept carrier"]) -> Gate:
    bar = 1 / len(cells.concepts) + BEYOND_CHANCE
    found = cells.mean(readable)
    statistic = "concept read from the stream by a nearest centroid"
    return _gate("G6 headroom", statistic, found, bar, "there is too little in the stream to report", "headroom")
