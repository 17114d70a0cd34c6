"""What may step in between a forward pass and the next token: the interface of generation-time methods.

In each step, in this order: the forward pass with its interventions; every method looks at the state and may return an
edit; biases add up, then masks are joined; temperature and filters; one draw from the row's own generator; a non-empty
forced queue overrides the draw (which is made all the same, so that later draws do not shift); stops. Two methods that
replace the logits of one row, or force tokens on one row, are an error: nothing would say which of them had its way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.errors import InterventionError
from mechint.model.base import Model
from mechint.positions import TokenBatch
from mechint.sites import Site


@dataclass(frozen=True, eq=False)
class Edit:
    """What a method wants done in this step; `places` are those of the rows in this step's state."""

    bias: tuple[Tensor, Tensor] | None = None
    """Token ids `[column]`, and what to add to their logits `[batch, column]`, before the temperature."""
    mask: tuple[Tensor, Tensor] | None = None
    """Token ids `[column]`, and in which rows they are forbidden `[batch, column]`."""
    logits: Mapping[int, Float[Tensor, " d_vocab"]] = field(default_factory=dict[int, Tensor])
    """By place, logits that replace those of the model."""
    force: Mapping[int, Sequence[int]] = field(default_factory=dict[int, Sequence[int]])
    """By place, tokens that come next, one a step, whatever is drawn."""
    stop: Bool[Tensor, " batch"] | None = None
    """Which rows end, once their forced tokens are written."""


@dataclass(frozen=True)
class SideBranch:
    """What a row would have written."""

    tokens: tuple[int, ...]
    text: str
    entropy: tuple[float, ...]
    """Of the distribution of each token, in nats."""


@dataclass(frozen=True, eq=False)
class StepState:
    """What is known between a forward pass and the next token; to be looked at, not changed."""

    model: Model
    rows: Sequence[int]
    """Which rows of the call are still being written, in the order of every tensor here."""
    batch: TokenBatch
    """Those rows so far."""
    logits: Float[Tensor, "batch d_vocab"]
    """Of the next token, as the model gives them."""
    activations: Mapping[Site, Tensor]
    """At each row's last token, of the sites that methods asked for: `[batch, ...]`."""
    probe: Callable[..., Mapping[int, SideBranch]]
    """`probe(places, text, max_new_tokens=…, stop=…)`: see `Decoder.probe`."""

    @property
    def t(self) -> Int[Tensor, " batch"]:
        """How many tokens each row has generated."""
        return self.batch.lengths - self.batch.prompt_lengths

    def generated(self, place: int) -> list[int]:
        """Return the tokens that a row has generated."""
        return self.batch.ids[place, self.batch.real[place]][int(self.batch.prompt_lengths[place]) :].tolist()

    def text(self, place: int) -> str:
        """Return what a row has generated as text."""
        return str(self.model.tokenizer.decode(self.generated(place)))

    def entropy(self) -> Float[Tensor, " batch"]:
        """Return the entropy of the next token of each row, in nats."""
        return entropy(self.logits)

    def head(self, normalised: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Turn the output of the final norm into logits, soft-cap included."""
        cap, logits = self.model.facts.logit_cap, self.model.unembed(normalised)
        return logits if cap is None else cap * torch.tanh(logits / cap)


@runtime_checkable
class Method(Protocol):
    """A method that steps in while tokens are generated."""

    sites: Sequence[str | Site]
    """What it wants to see of the last token."""

    def start(self, model: Model, n_rows: int) -> None:
        """Begin a call: forget the one before; keep what is remembered of rows by their number, `state.rows`."""
        ...

    def step(self, state: StepState) -> Edit | None:
        """Look, and say what is to be done."""
        ...


class LogitsMethod:
    """A method that only looks at how far a row is, and has no state: also usable in transformers' own loop."""

    sites: Sequence[str | Site] = ()

    def start(self, model: Model, n_rows: int) -> None:
        """Nothing is remembered."""
        del model, n_rows

    def step(self, state: StepState) -> Edit | None:
        """See `edit`."""
        return self.edit(state.t)

    def edit(self, t: Int[Tensor, " batch"]) -> Edit | None:
        """Return the edit for rows that have generated t tokens."""
        raise NotImplementedError


def merged(logits: Float[Tensor, "batch d_vocab"], edits: Sequence[Edit]) -> Float[Tensor, "batch d_vocab"]:
    """Carry out replacements, then all biases, then all masks.

    Raises:
        InterventionError: two edits replace the logits of one row, or an edit is not finite.
    """
    if not any(e.bias is not None or e.mask is not None or e.logits for e in edits):
        return logits
    logits = logits.clone()
    replaced: set[int] = set()
    for edit in edits:
        for place, values in edit.logits.items():
            if place in replaced:
                raise InterventionError(f"Two methods replace the logits of row {place} in one step.")
            replaced.add(place)
            logits[place] = values.to(logits.dtype)
    for ids, values in (edit.bias for edit in edits if edit.bias is not None):
        if not bool(torch.isfinite(values).all()):
            raise InterventionError("A bias on logits is NaN or infinite. Use a mask to forbid tokens.")
        # Not logits[:, ids] += …, which would count a token that is named twice once.
        logits.index_add_(1, ids, values.to(logits.dtype).expand(len(logits), len(ids)))
    for ids, forbidden in (edit.mask for edit in edits if edit.mask is not None):
        logits[:, ids] = logits[:, ids].masked_fill(forbidden, -torch.inf)
    if bool((logits == -torch.inf).all(-1).any()):
        raise InterventionError("Masks forbid every token of a row, so nothing can follow.")
    return logits


def entropy(logits: Float[Tensor, "batch d_vocab"]) -> Float[Tensor, " batch"]:
    """Return the entropy of each row's softmax in nats; summed in float64, since vocabularies are long."""
    return entropy_of(logits.double().log_softmax(-1))


def entropy_of(log_p: Float[Tensor, "batch d_vocab"]) -> Float[Tensor, " batch"]:
    """Return the entropy of each row of log-probabilities in nats; a token that is forbidden adds nothing."""
    return -(log_p.exp() * log_p.clamp(min=-1e4)).sum(-1).float()


def as_logits_processor(methods: Sequence[Method]) -> Any:
    """Return a transformers `LogitsProcessor` that does what these methods do, for those who keep their own loop.

    Only methods without state fit there: transformers hands over padded ids and logits, nothing else. The first call
    tells how long the prompt is, so make a new one for every call of `generate`.

    Raises:
        InterventionError: a method needs more than that.
    """
    from transformers import LogitsProcessor

    if unfit := [type(m).__name__ for m in methods if not isinstance(m, LogitsMethod)]:
        raise InterventionError(
            f"{', '.join(unfit)} looks at activations, text or side branches, which transformers does not give to a "
            "logits processor. Use model.generate(..., methods=[...])."
        )

    fit = [method for method in methods if isinstance(method, LogitsMethod)]

    class Processor(LogitsProcessor):
        def __init__(self) -> None:
            self._prompt: int | None = None

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # pyright: ignore
            self._prompt = input_ids.shape[1] if self._prompt is None else self._prompt
            t = torch.full((len(scores),), input_ids.shape[1] - self._prompt)
            return merged(scores, [edit for method in fit if (edit := method.edit(t)) is not None])

    return Processor()
