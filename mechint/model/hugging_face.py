"""What every backend around a transformers model has in common: its identity, what it is given, its logits."""

import functools
from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import DynamicCache

from mechint.errors import SiteError
from mechint.interventions import Intervention
from mechint.model.access import Access
from mechint.model.agreement import Reference, agreement
from mechint.model.base import Logits, Read, Restart, Rows, Write
from mechint.model.bridge_weights import BridgeWeights
from mechint.model.fingerprint import fingerprint_of
from mechint.model.past import Past
from mechint.model.steered import Steering, following, merged
from mechint.positions import TokenBatch
from mechint.sites import Site

TOLERANCE = 1e-3
"""Of the largest number: float32 noise is 1e-6, a forgotten scale or bias is 1e-2 or more."""


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest number that was expected."""
    return float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


class HuggingFaceModel(BridgeWeights):
    """A transformers model behind a backend; the backend's class fills in the attributes, and runs it."""

    _reference: Reference
    _steerings: list[Steering]
    _own_pass: bool
    _block_output_length: int | None
    """How many things a block returns; None if it returns a tensor."""

    @functools.cached_property
    def fingerprint(self) -> Mapping[str, str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Hashes of weights and tokenizer, attention implementation, number format."""
        return fingerprint_of(self._reference.config, self._reference.state, self.tokenizer)

    @functools.cached_property
    def agreement(self) -> Mapping[str, float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The agreement with plain transformers on the same weights in another process; measured once, then kept."""
        return agreement(
            self.all_logits,
            self._reference,
            dict(self.fingerprint),
            vocabulary=self.facts.d_vocab,
            context=self.facts.n_ctx,
            bos=self.tokenizer.bos_token_id,
        )

    @property
    def placement(self) -> Mapping[str, str]:
        """Device, number format and attention implementation."""
        weight = self._head.weight
        return {
            "device": str(weight.device),
            "dtype": str(weight.dtype).removeprefix("torch."),
            "attention": str(self._hf.config._attn_implementation),
        }

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a text, as transformers' own `generate` has them."""
        ids = self._hf.generation_config.eos_token_id
        ids = self.tokenizer.eos_token_id if ids is None else ids
        return frozenset([] if ids is None else [ids] if isinstance(ids, int) else ids)

    @property
    def hf_model(self) -> Any:
        """The instrumented transformers model."""
        return self._hf

    def new_past(self) -> Past:
        """Return an empty past, with sliding windows where this model has them."""
        return Past(DynamicCache(config=self._hf.config))

    @property
    def steerings(self) -> Sequence[Steering]:
        """What is in force."""
        return tuple(self._steerings)

    @contextmanager
    def steered(self, steering: Steering) -> Generator[None]:
        """Let a steering act on every pass, those of `hf_model.generate` included; see `Model.steered`."""
        self._steerings.append(steering)
        try:
            with following(
                self._hf.base_model, self.tokenizer, lambda: self._own_pass, self._visited_by_others, steering
            ):
                yield
        finally:
            self._steerings.remove(steering)

    @abstractmethod
    def _visited_by_others(
        self, batch: TokenBatch, start: int, writes: Mapping[Site, Sequence[Intervention]]
    ) -> AbstractContextManager[None]:
        """Let writes act on the pass of somebody else that begins now."""

    @contextmanager
    def _as_own_pass(self) -> Generator[None]:
        before, self._own_pass = self._own_pass, True
        try:
            yield
        finally:
            self._own_pass = before

    def _planned(
        self,
        tokens: Rows,
        read: Read,
        write: Write | None,
        logits: Logits | None,
        from_: Restart | None,
        stop_after: str | Site | None,
        past: Past | None,
    ) -> tuple[TokenBatch, Write, Access]:
        """Check and resolve what a run is asked for: its batch, its writes with those of plans, and its accounting."""
        batch = self.batch(tokens)
        last = None if stop_after is None else self.facts.check(stop_after)
        self._check_kind(batch, logits, from_, last, past)
        start = 0 if past is None else past.length
        writes = merged(self._steerings, batch, start, last, write or {})
        return batch, writes, Access(self.facts, read, writes, batch, from_, last, start)

    def _watched_pass(self, ids: Int[Tensor, "batch pos"], block: nn.Module) -> Tensor:
        """Return the logits of the model's own forward pass, and take note of what its blocks return."""
        lengths: list[int | None] = []

        def note(module: nn.Module, args: Any, output: Any) -> None:
            del module, args
            lengths.append(len(output) if isinstance(output, tuple) else None)

        handle = block.register_forward_hook(note)
        try:
            logits = self._hf(ids, use_cache=False).logits
        finally:
            handle.remove()
        self._block_output_length = lengths[0]
        return logits

    def _check_kind(
        self, batch: TokenBatch, logits: Logits | None, from_: Restart | None, last: Site | None, past: Past | None
    ) -> None:
        """Refuse arguments of a run that exclude one another."""
        if last is not None and logits is not None:
            raise SiteError(f"Logits need the whole model, but this run stops after {last}. Ask for one or the other.")
        if past is not None:
            past.check(batch)
            if from_ is not None or last is not None:
                raise SiteError("A run that goes on from a past runs the whole model: no from_, no stop_after.")

    def _inputs(self, batch: TokenBatch, past: Past | None) -> dict[str, Any]:
        """Return what the transformers model is given; a past takes note that these columns are being read."""
        if past is not None:
            start = past.grow(batch)
            inputs: dict[str, Any] = {
                "input_ids": batch.ids[:, start:],
                "position_ids": batch.offset[:, start:],
                "past_key_values": past.cache,
                "use_cache": True,
            }
            return inputs | ({"attention_mask": batch.real.long()} if batch.padded_left else {})
        inputs = {"input_ids": batch.ids, "use_cache": False}
        if batch.visible is not None:
            least = torch.finfo(torch.float32).min
            inputs["attention_mask"] = torch.where(batch.visible, 0.0, least)[:, None]
        elif batch.padded_left:
            inputs["attention_mask"] = batch.real.long()
        return inputs | ({"position_ids": batch.offset} if "attention_mask" in inputs else {})

    def _logits(self, chosen: Tensor, logits: Logits) -> Tensor:
        """Unembed the outputs of the final norm [batch, at, d_model] at the chosen positions."""
        if logits.columns is None:
            values = self.unembed(chosen)
        else:
            self.facts.check_columns(logits.columns, *chosen.shape[:2])
            directions = self.unembedding(logits.columns)
            if logits.columns.ndim == 1:
                values = torch.einsum("bad,cd->bac", chosen, directions)
            else:
                directions = directions.expand(*chosen.shape[:2], *directions.shape[-2:])
                values = torch.einsum("bad,bacd->bac", chosen, directions)
            values = values + self.output_bias(logits.columns)
        cap = self.facts.logit_cap
        return values if cap is None or not logits.capped else cap * torch.tanh(values / cap)
