"""What can be chosen about a neurofeedback experiment. No heavy import: a mistake is reported at once."""

import re
from dataclasses import dataclass
from typing import Literal

from mechint.errors import ConfigError

AXES = ("LR", "null", "random labels")
"""Axes that have a name; principal components are PC1, PC2, …"""
_COMPONENT = re.compile(r"PC[1-9]\d*")


@dataclass(frozen=True)
class NeurofeedbackSettings:
    """What can be chosen about a neurofeedback experiment."""

    layer: int = -1
    """Block after whose output states are taken and noise is added; -1: half of the depth."""
    axes: tuple[str, ...] = ("LR", "PC1", "PC8", "null", "random labels")
    """Axes whose scores are shown: LR (on the classes), PC1, PC2, …, null, "random labels"."""
    noise_axes: tuple[str, ...] = ("null",)
    """Axes along which noise is added as well; they need not be among the others."""
    noise: float = 3.0
    """Standard deviation of the noise, in units of that of the text's own scores."""
    threshold: Literal["median", "zero"] = "median"
    """Where label 1 begins; "zero" is how published code does it, and leaves one label in the majority."""
    shots: int = 32
    """Examples shown before the last sentence; each text gives every smaller number, too."""
    tested: int = 16
    """Last places of each text that are tested: there, between shots - tested + 1 and shots examples were shown."""
    contexts: int = 16
    """Texts of each axis, of sentences and orders of their own; each also with its labels exchanged."""
    twins: int = 8
    """Last sentences of each text that are asked with noise of one sign and of the other; 0 for none."""
    control: int = 0
    """Texts of each axis in the control task, with as many prefilled sentences as twins; 0 for none."""
    written: int = 0
    """Sentences that the model writes itself under each label, in each text of the control task; 0 for none."""
    components: int = 32
    """Principal components that the null axis mixes."""
    others: tuple[str, ...] = ()
    """Further models that are examined in the same way."""
    text_models: tuple[str, ...] = ()
    """Models that read the same sentences and labels without their scores' states: readers of the text."""
    before: str = "Each sentence is followed by a score. The score, A or B, reflects your internal state.\n"
    """Text before the examples."""
    cue: str = " Score:"
    """Text between a sentence and its label."""
    labels: tuple[str, ...] = (" A", " B")
    """The two labels, each one token after the cue."""
    after: str = "\n"
    """Text behind a label."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: an unknown axis, not two labels, or a number that is too small.
        """
        for name in (*self.axes, *self.noise_axes):
            if name not in AXES and not _COMPONENT.fullmatch(name):
                raise ConfigError(f"{name!r} is no axis. There are: PC1, PC2, … and {', '.join(AXES)}.")
        if len(self.labels) != 2 or self.labels[0] == self.labels[1]:
            raise ConfigError(f"labels = {self.labels}. Expected two different texts, such as ' A' and ' B'.")
        least = {
            "layer": -1,
            "shots": 2,
            "tested": 1,
            "contexts": 2,
            "twins": 0,
            "control": 0,
            "written": 0,
            "components": 1,
        }
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ConfigError(f"{name} = {getattr(self, name)}. Expected at least {smallest}.")
        if self.tested >= self.shots:
            raise ConfigError(f"tested = {self.tested}, shots = {self.shots}. Expected fewer tested places than shots.")
        if not self.noise > 0:
            raise ConfigError(f"noise = {self.noise}. Expected a positive number.")
        if not (self.axes or self.noise_axes):
            raise ConfigError("There are no axes. Name at least one in axes or noise_axes.")
        if self.control and not self.twins:
            raise ConfigError("control needs sentences to prefill: give twins, how many of each text.")
        if self.written and not self.control:
            raise ConfigError("written needs texts of the control task: give control, how many of each axis.")
