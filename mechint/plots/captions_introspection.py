"""How to read the figures of the battery of introspection; see `captions`."""

INTROSPECTION: dict[str, str] = {
    "gates": (
        "Green: the gate rules its explanation out. Red: it does not, and pointing at it tells which explanation "
        "is left. One red gate is enough to withhold “evidence”."
    ),
    "unrelated": (
        "If the red point stands among the blue ones, an injection makes the model say yes to anything, and what "
        "looked like detection is a bias."
    ),
    "graded": (
        "Right answers here need something that was carried from the injection to the question; red beside blue "
        "tells whether directions of words are reported better than any other of the same length."
    ),
    "development": "Chosen on other concepts than those reported on, so that the choice flatters nothing.",
}
INTROSPECTION_ORGANISMS: dict[str, str] = {
    "verdicts": (
        "The reader must get evidence, and nobody else may where it is not so. One that notices any perturbation "
        "does not detect concepts, and yet tells which one it was, and that it was in no text."
    ),
    "mutation": "A gate without a bar is implied by the others here; the names say whom each one stops.",
    "chance": (
        "Networks that know nothing. An injection moves their numbers in some direction, so a gate taken alone can "
        "be passed far more often than in one case of twenty; losing no accuracy is easy for who has none. All "
        "gates together are the claim."
    ),
    "doses": "A report that depends on the state must grow with it, and must not with a random direction.",
}
