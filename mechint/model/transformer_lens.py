"""The reference backend: TransformerLens' bridge around a transformers model, with raw weights.

The only module that imports TransformerLens. What it adds to the bridge: site names are checked (the bridge ignores
a misspelt hook name without a word), hooks are removed whatever happens, a run can start in the middle, logits are
computed for the asked positions and columns alone, and every intervention is accounted for. On construction the
architecture is checked against its own forward pass; one that is not reproduced exactly is refused.

Traps met (TransformerLens 3.9): assigning `bridge.blocks[i].forward` silently lands on the wrapped module and stays;
`ln2.hook_in` sees the stream but does not carry it, so `resid_mid` can be read and not written; attention modules of
Gemma are patched process-wide, so agreement with plain transformers is measured in another process.
"""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from transformer_lens.model_bridge.sources import build_bridge_from_module

from mechint.errors import UnsupportedModelError
from mechint.interventions import Intervention
from mechint.model.access import Access, Stopped, take
from mechint.model.agreement import Reference
from mechint.model.base import Logits, Read, Restart, Rows, Run, Write
from mechint.model.bridge_weights import logit_scale, unwrap
from mechint.model.facts import read_facts, with_attention_access
from mechint.model.hugging_face import TOLERANCE, HuggingFaceModel, relative_error
from mechint.model.past import Past
from mechint.model.restarting import restarted
from mechint.model.steered import Steering
from mechint.model.trimming import is_plain_map, only_at
from mechint.model.unwatched import Wrappers
from mechint.positions import TokenBatch, everywhere
from mechint.sites import Site

_log = logging.getLogger(__name__)


class TransformerLensModel(HuggingFaceModel):
    """A transformers model behind TransformerLens' hook points.

    Args:
        hf_model: a causal language model in eval mode with eager attention; it is instrumented in place, so do not
            use the same object as an independent reference.
        tokenizer: its tokenizer.
        name: how the model is called in tables.
        source: where the weights come from, for the manifest.
        reference: the same weights for a run without this backend; by default those of `hf_model`.

    Raises:
        UnsupportedModelError: TransformerLens has no bridge for it, or its logits are not reproduced.
    """

    def __init__(
        self,
        hf_model: Any,
        tokenizer: Any,
        *,
        name: str,
        source: Mapping[str, str] | None = None,
        reference: Reference | None = None,
    ) -> None:
        # Before the bridge renames tensors: what the fingerprint and the independent comparison are taken from.
        self._reference = reference or Reference.of(hf_model)
        family = type(hf_model).__name__
        try:
            self._bridge: Any = build_bridge_from_module(hf_model, family, hf_config=hf_model.config)
        except (ValueError, KeyError, AttributeError, RuntimeError, NotImplementedError) as error:
            raise UnsupportedModelError(f"TransformerLens cannot bridge {name} ({family}): {error}") from error
        self._hf: Any = hf_model
        self._points: dict[str, Any] = dict(self._bridge.hook_dict)
        self.tokenizer = tokenizer
        self.source = dict(source or {})
        self.facts = read_facts(name, hf_model.config, self._bridge.cfg, self._points)
        self._head: Any = unwrap(hf_model.get_output_embeddings())
        self._logit_scale = logit_scale(hf_model.config)
        self._block_output_length: int | None = None
        self._can_trim = False
        self._norms, self._projections, self._scorings = {}, {}, {}
        self._steerings: list[Steering] = []
        self._own_pass = self._bare = False
        self._probe()
        self._wrappers = Wrappers(hf_model.base_model, self._points)

    @torch.no_grad()
    def run(
        self,
        tokens: Rows,
        read: Read = (),
        write: Write | None = None,
        logits: Logits | None = None,
        from_: Restart | None = None,
        stop_after: str | Site | None = None,
        past: Past | None = None,
    ) -> Run:
        """Run a batch of token rows; see `Model.run`."""
        batch, _, plan = self._planned(tokens, read, write, logits, from_, stop_after, past)
        with ExitStack() as stack:
            stack.enter_context(self._as_own_pass())
            for tl_name, visit in plan.visits():
                stack.enter_context(self._hooked(tl_name, visit))
            if from_ is not None:
                below = [unwrap(block) for block in self._bridge.blocks[: from_.layer]]
                stack.enter_context(
                    restarted(below, self._bridge.blocks[from_.layer], from_, self._block_output_length)
                )
            if self._can_trim and (places := plan.last_mlp_places(logits)) is not None:
                stack.enter_context(only_at(unwrap(self._bridge.blocks[-1].mlp), places))
            # A restart shadows methods of the blocks that it skips, which bare copies would not see.
            if past is not None or (self._bare and from_ is None):
                stack.enter_context(self._wrappers.only_where_watched())
            try:
                normalised = cast(Tensor, self._hf.base_model(**self._inputs(batch, past))[0])
            except Stopped:
                normalised = None
        plan.require_all_fired()
        wanted = None
        if logits is not None and normalised is not None:
            index = plan.index(logits.at)
            # `everywhere` on a padded batch keeps the padding, so that rows of different lengths fit one tensor.
            wanted = self._logits(normalised if index is None else take(normalised, index), logits)
        return Run(plan.activations, wanted, plan.receipt())

    @contextmanager
    def bare(self) -> Generator[None]:
        """Take wrappers in which nobody looks out of every pass; see `Model.bare`."""
        before, self._bare = self._bare, True
        try:
            yield
        finally:
            self._bare = before

    @contextmanager
    def _visited_by_others(
        self, batch: TokenBatch, start: int, writes: Mapping[Site, Sequence[Intervention]]
    ) -> Generator[None]:
        access = Access(self.facts, (), writes, batch, None, None, start)
        with ExitStack() as stack:
            for tl_name, visit in access.visits():
                stack.enter_context(self._hooked(tl_name, visit))
            yield

    @contextmanager
    def _hooked(self, tl_name: str, visit: Callable[[Tensor], Tensor | None]) -> Generator[None]:
        point = self._points[tl_name]

        def fire(activation: Tensor, hook: Any) -> Tensor | None:
            del hook
            return visit(activation)

        point.add_hook(fire)
        handle = point.fwd_hooks[-1]
        try:
            yield
        finally:
            # Only ours: the point's own remove_hooks would take the user's hooks away too.
            handle.hook.remove()
            point.fwd_hooks.remove(handle)

    @torch.no_grad()
    def _probe(self) -> None:
        """Compare with the model's own forward pass on a few tokens, before anything is computed from it."""
        ids = torch.arange(6)[None] % self.facts.d_vocab
        expected = self._watched_pass(ids, unwrap(self._bridge.blocks[0]))
        if (mlp := getattr(self._bridge.blocks[-1], "mlp", None)) is not None:
            self._can_trim = is_plain_map(lambda: self._hf(ids, use_cache=False), unwrap(mlp))
        got = self.run(ids.tolist(), logits=Logits(at=everywhere)).logits
        worst = relative_error(cast(Tensor, got), expected)
        if not worst <= TOLERANCE:
            raise UnsupportedModelError(
                f"The logits of {self.facts.name} ({self.facts.family}) are not reproduced from its final norm and "
                f"unembedding: off by {worst:.1e} of the largest. This family scales or caps its logits in a way that "
                "is not known here."
            )
        self.facts = with_attention_access(self)
