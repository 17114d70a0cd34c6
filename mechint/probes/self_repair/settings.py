"""What can be chosen about self-repair on text. No heavy import: a mistake is reported at once."""

from dataclasses import dataclass

from mechint.effects.kinds import require_kind
from mechint.errors import ConfigError

EVERY = {"heads": "head", "mlps": "mlp", "layers": "layer"}
"""Words for all components of a kind."""


@dataclass(frozen=True)
class TextRepairSettings:
    """What can be chosen about self-repair on text."""

    length: int = 64
    """Tokens of each document, BOS included; shorter texts are left out."""
    components: tuple[str, ...] = ("heads", "mlps")
    """What is ablated, one at a time: `heads`, `mlps`, `layers` (whole blocks), or single ones: `L10H7`, `M3`, `L3`."""
    layers: tuple[int, ...] = ()
    """Only the components of these blocks; none given: all."""
    ablation: str = "resample"
    """What a component is set to: `zero`, `mean` (at its position, over these documents) or `resample`."""
    centred: bool = False
    """Watch the next token's logit minus the mean logit of the vocabulary, as studies with centred weights do."""
    draws: int = 2
    """Other documents that each is resampled from. The controls need two."""
    positions: int = 32
    """Positions of each document that are looked at, drawn at random; 0 for all of them."""
    top: float = 0.02
    """Share of the tokens, those with the largest direct effect, over which "condensed" means are taken."""
    neurons: int = 3
    """Heads for which the neurons of the last MLP are looked at; 0 for none."""
    scattered: int = 4
    """Heads for which single tokens are kept for a figure."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: an unknown ablation, or a number that is too small or too large.
        """
        require_kind(self.ablation)
        least = {"length": 4, "draws": 1, "positions": 0, "neurons": 0, "scattered": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name} = {getattr(self, name)}. Expected at least {bound}.")
        if not 0 < self.top <= 1:
            raise ConfigError(f"top = {self.top}. Expected a share of the tokens, above 0 and at most 1.")
        if not self.components:
            raise ConfigError(f"components = []. Expected {', '.join(EVERY)}, or labels such as 'L10H7', 'M3', 'L3'.")
