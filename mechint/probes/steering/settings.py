"""What can be chosen about a steering experiment. No heavy import: a mistake is reported at once."""

import math
from dataclasses import dataclass
from typing import Literal

from mechint.errors import ConfigError
from mechint.prompts.concepts import CONCEPTS

_FEWEST_DOSES = 5


@dataclass(frozen=True)
class SteeringSettings:
    """What can be chosen about a steering experiment."""

    concept: str = "sentiment"
    """What the vector is meant to bring; one of `mechint.prompts.CONCEPTS`."""
    other: str = ""
    """The concept whose vector is the control; by default the first that is not the concept itself."""
    pairs: int = 80
    """Contrast pairs; by groups, 60 % are for fitting, 20 % for choosing and 20 % for testing."""
    site: str = "resid_post"
    """Where in each block is steered."""
    layers: tuple[int, ...] = ()
    """Blocks among which one is chosen; all by default."""
    method: Literal["mean_diff", "pca", "probe", "lda"] = "mean_diff"
    """Estimator of the vector."""
    where: Literal["everywhere", "prompt", "producing", "generated"] = "everywhere"
    """Tokens that are steered; `producing`: the last of the prompt and all that are generated."""
    metric: Literal["words", "text"] = "words"
    """The log odds of the concept's words as the next token, or their balance in generated text."""
    target_kl: float = 0.5
    """Nats of KL that 5 % of tokens of neutral text exceed at the calibrated dose, on texts for choosing."""
    doses: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0)
    """Five or more, in units of the calibrated dose; 1 is among them, and it is the one that is tested."""
    random: int = 50
    """Draws of isotropic directions."""
    random_covariance: int = 20
    """Draws of directions from the covariance of the activations."""
    shuffled_labels: int = 20
    """Draws of the same estimator on labels that mean nothing."""
    orthogonal: bool = True
    """Whether the vector without its part along the scored words is an arm."""
    other_concept: bool = True
    """Whether the other concept's vector is an arm."""
    instruction: bool = True
    """Whether an instruction before the prompt, without steering, is an arm."""
    passages: int = 8
    """Passages of neutral text for choosing, and twice as many others for testing."""
    passage_length: int = 48
    """Tokens of each, BOS included."""
    passage_positions: int = 8
    """Tokens of each at which KL is measured."""
    texts: int = 6
    """Prompts after which texts are generated at each dose; 0 for none."""
    max_new_tokens: int = 24
    """Tokens of each such text."""
    temperature: float = 0.7
    """At which they are drawn."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: an unknown concept, too few doses, or a number that is too small.
        """
        for name in ("concept", *(("other",) if self.other else ())):
            if getattr(self, name) not in CONCEPTS:
                raise ConfigError(f"{name} = {getattr(self, name)!r}. There are: {', '.join(CONCEPTS)}.")
        if self.other == self.concept:
            raise ConfigError(f"other = {self.other!r} is the concept itself, so it is no control. Choose another.")
        doses = set(self.doses)
        if len(doses) < _FEWEST_DOSES or 1.0 not in doses or not all(0 < dose < math.inf for dose in doses):
            raise ConfigError(
                f"doses = {list(self.doses)}. Expected {_FEWEST_DOSES} or more different positive numbers, in units of "
                "the calibrated dose, with 1 among them."
            )
        if not 0 < self.target_kl < math.inf:
            raise ConfigError(f"target_kl = {self.target_kl}. Expected a positive number of nats.")
        if self.where == "generated" and self.metric == "words":
            raise ConfigError(
                'where = "generated" changes no next token of a prompt, so metric = "words" would see nothing. Choose '
                'metric = "text", or where = "producing".'
            )
        if self.layers and min(self.layers) < 0:
            raise ConfigError(f"layers = {list(self.layers)}. Layers are counted from 0.")
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}. Expected at least {least}.")

    @property
    def draws(self) -> dict[str, int]:
        """How many vectors of each control arm."""
        nulls = {name: getattr(self, name) for name in ("random", "random_covariance", "shuffled_labels")}
        return {**nulls, "orthogonal": int(self.orthogonal), "other_concept": int(self.other_concept)}

    @property
    def control(self) -> str:
        """The name of the other concept."""
        return self.other or next(name for name in CONCEPTS if name != self.concept)


_LEAST = {
    "pairs": 10,
    "passages": 2,
    "passage_length": 4,
    "passage_positions": 1,
    "max_new_tokens": 1,
    **dict.fromkeys(("random", "random_covariance", "shuffled_labels", "texts", "temperature"), 0),
}
