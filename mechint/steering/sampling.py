"""From logits to the next token: the usual filters, and one draw a row from that row's own generator.

    repetition penalty r   z / r where z > 0, else z r, for tokens that the row holds already (Keskar et al. 2019)
    temperature T          z / T; 0 takes the largest, without a draw
    top-k                  the k largest stay
    top-p                  the fewest that together reach p stay (Holtzman et al. 2019)
    min-p                  those stay that have at least m times the largest probability (Nguyen et al. 2024)

The order is that of transformers, so the filtered distribution is the same; the draws cannot be, since here every row
has its own generator: a row's text does not depend on its company. One uniform number is drawn for each row and token,
and turned into a token by the inverse of the cumulative distribution.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.errors import ConfigError
from mechint.statistics import derive_seed

_MANY = 1024


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Raises:
        ConfigError: a number outside its range.
    """

    temperature: float = 0.0
    """0: the most likely token."""
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (self.temperature, 0 <= self.temperature < math.inf, "0 or more"),
            "top_k": (self.top_k, self.top_k is None or self.top_k >= 1, "at least 1"),
            "top_p": (self.top_p, self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (self.min_p, self.min_p is None or 0 <= self.min_p <= 1, "from 0 to 1"),
            "repetition_penalty": (self.repetition_penalty, 0 < self.repetition_penalty < math.inf, "above 0"),
        }
        for name, (value, fine, expected) in ranges.items():
            if not fine:
                raise ConfigError(f"{name} is {value}. Expected a number {expected}.")

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0


def penalised(
    logits: Float[Tensor, "batch d_vocab"], rows: Iterable[Tensor], penalty: float
) -> Float[Tensor, "batch d_vocab"]:
    """Make the tokens that each row holds already less likely; without a penalty the rows are not asked for."""
    if penalty == 1:
        return logits
    logits = logits.clone()
    for row, ids in enumerate(rows):
        held = ids.unique()
        z = logits[row, held]
        logits[row, held] = torch.where(z > 0, z / penalty, z * penalty)
    return logits


def filtered(logits: Float[Tensor, "batch d_vocab"], how: Sampling) -> Float[Tensor, "batch d_vocab"]:
    """Divide by the temperature and put minus infinity where a token is filtered out.

    Raises:
        ConfigError: the temperature is 0, which has no distribution.
    """
    if how.greedy:
        raise ConfigError("Temperature 0 takes the largest logit; there is no distribution to filter.")
    z = logits / how.temperature
    if how.top_k is not None and how.top_k < z.shape[-1]:
        z = z.masked_fill(z < z.topk(how.top_k).values[:, -1:], -torch.inf)
    if how.top_p is not None and how.top_p < 1:
        z = z.masked_fill(z < _nucleus(z, how.top_p), -torch.inf)
    if how.min_p:
        z = z.masked_fill(z < z.amax(-1, keepdim=True) + math.log(how.min_p), -torch.inf)
    return z


def draw(logits: Float[Tensor, "batch d_vocab"], generators: Sequence[torch.Generator]) -> Int[Tensor, " batch"]:
    """Draw a token for each row with its own generator: one uniform number, the inverse cumulative distribution."""
    cumulative = logits.double().softmax(-1).cumsum(-1)
    u = torch.stack([torch.rand((), generator=generator, dtype=torch.float64) for generator in generators])
    drawn = torch.searchsorted(cumulative, u[:, None].to(logits.device) * cumulative[:, -1:], right=True)[:, 0]
    # Rounding can put u beyond the last token that has any probability.
    last = (logits > -torch.inf).long().cumsum(-1).argmax(-1)
    return torch.minimum(drawn, last)


def generators(names: Sequence[str], seed: int) -> list[torch.Generator]:
    """Make a generator for each row, from the seed, its name, and how often that name came before.

    So a row is drawn the same alone and in company, and the same prompt given twice is drawn differently.
    """
    seen: dict[str, int] = {}
    made: list[torch.Generator] = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        made.append(torch.Generator().manual_seed(derive_seed(seed, "sampling", name, seen[name])))
    return made


def _nucleus(z: Tensor, p: float) -> Tensor:
    """Return the smallest logit that top-p keeps in each row; sorts only as many as are needed."""
    total = z.logsumexp(-1, keepdim=True)
    some = min(_MANY, z.shape[-1])
    while True:
        values = z.topk(some).values if some < z.shape[-1] else z.sort(descending=True).values
        before = (values - total).exp().cumsum(-1) - (values - total).exp()
        kept = (before < p).sum(-1, keepdim=True)  # those before which less than p has been reached
        if some == z.shape[-1] or bool((kept < some).all()):
            return values.gather(-1, kept - 1)
        some = min(some * 16, z.shape[-1])
