"""What can be chosen about privileged access and self-description. No heavy import: a mistake is reported at once."""

from dataclasses import dataclass, field
from typing import Literal

from mechint.errors import ConfigError


def at_least(settings: object, **least: float) -> None:
    """Refuse numbers that are too small.

    Raises:
        ConfigError: names the first of them.
    """
    for name, bound in least.items():
        if getattr(settings, name) < bound:
            raise ConfigError(f"{name} = {getattr(settings, name)}. Expected at least {bound:g}.")


@dataclass(frozen=True)
class Lora:
    """How a model is fine-tuned (see `tuning`)."""

    rank: int = 8
    """Of the adapters; alpha is twice as much."""
    steps: int = 400
    rows: int = 64
    """Examples of one step."""
    rate: float = 3e-3
    """Largest learning rate."""
    targets: tuple[str, ...] = ()
    """Names of the linear maps that are adapted, such as "q_proj"; by default all of every block."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: a number that is too small.
        """
        at_least(self, rank=1, steps=1, rows=1, rate=1e-9)


@dataclass(frozen=True)
class PrivilegedAccessSettings:
    """What can be chosen about self- against cross-prediction."""

    other: str = ""
    """The model that is trained on the facts of the first one; needed unless `pairs` are given."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Further (model, other), each measured in the same way; for organisms."""
    questions: Literal["symbols", "text"] = "symbols"
    """What is asked: the organisms' language, or texts to be continued (the experiment's prompts)."""
    properties: tuple[str, ...] = ()
    """Properties of the answer that facts are about; by default all of the kind of questions but the held-out."""
    held_out: tuple[str, ...] = ()
    """Properties that are asked about without having been trained on."""
    train: float = 0.5
    """Share of the questions whose facts are trained on; the others are asked about."""
    items: int = 400
    """Questions in all, at most."""
    lora: Lora = field(default_factory=Lora)
    change: int = 0
    """Held-out questions whose object-level answer is changed by a further fine-tuning, before the hypothetical
    questions are asked again; 0: none."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: no other model, a share outside (0, 1), or a number that is too small.
        """
        at_least(self, items=8, change=0)
        if not self.other and not self.pairs:
            raise ConfigError('No model to compare with. Give other = "NAME": it is trained on the same facts.')
        if not 0 < self.train < 1:
            raise ConfigError(f"train = {self.train}. Expected a share between 0 and 1: the rest is asked about.")
        if both := sorted(set(self.properties) & set(self.held_out)):
            raise ConfigError(f"{', '.join(both)}: trained on and held out. Name a property in one of the two.")


@dataclass(frozen=True)
class SelfDescriptionSettings:
    """What can be chosen about "tell me about yourself"."""

    examples: int = 192
    """Choices that are trained on."""
    lotteries: int = 40
    """Choices on which behaviour is measured, of the form trained on and of another."""
    lora: Lora = field(default_factory=lambda: Lora(rank=8, steps=48, rows=4, rate=3e-4))
    damage_texts: int = 4
    """Neutral texts (the experiment's prompts) on which the damage of fine-tuning is measured."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: a number that is too small.
        """
        at_least(self, examples=8, lotteries=8, damage_texts=1)
