"""The second backend: the transformers modules themselves, read and rewritten through nnsight.

The only module that imports nnsight, and only when a model is made: the import gives every object in Python a method
`save` and patches `Tensor.backward`. Sites are resolved to modules by the table of roles; scores and patterns to the
softmax inside the attention function (`.source`). A run stops right after the final norm, so the unembedding is never
computed there. With `remote`, a run is sent to NDIF (or, `remote="local"`, packed and unpacked as if it were): what
the interventions did is then found out here, by repeating them on what stood at their sites.

Traps met (nnsight 0.8.1): wrapping a model sets its tokenizer's padding side and token, so it is given a copy; input
that has nothing but token fields is split into rows and padded anew, so it is given one field more; places must be
asked for in the order in which the model passes them.
"""

import copy
import pickle
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from mechint.errors import InterventionError, UnsupportedModelError
from mechint.interventions import Intervention
from mechint.model.access import Access, Stopped
from mechint.model.agreement import Reference
from mechint.model.base import Logits, Read, Restart, Rows, Run, Write
from mechint.model.bridge_weights import logit_scale
from mechint.model.facts import read_facts, with_attention_access
from mechint.model.hugging_face import TOLERANCE, HuggingFaceModel, relative_error
from mechint.model.nnsight_places import Visit, as_bridge_config, find_places, hook, index_of, writes_by_place
from mechint.model.nnsight_trace import rewriting, walk
from mechint.model.past import Past
from mechint.model.roles import read_roles
from mechint.model.steered import Steering
from mechint.model.weights import Projections
from mechint.positions import TokenBatch, everywhere
from mechint.sites import Site


class NNsightModel(HuggingFaceModel):
    """A transformers model behind nnsight.

    Args:
        hf_model: a causal language model in eval mode with eager attention; it is instrumented in place.
        tokenizer: its tokenizer.
        name: how the model is called in tables.
        source: where the weights come from, for the manifest.
        reference: the same weights for a run without this backend; by default those of `hf_model`.
        remote: where runs take place: False here, "local" here after being packed and unpacked as for a server,
            True on NDIF, or the address of a server.

    Raises:
        UnsupportedModelError: its parts are not known, do not add up, or do not reproduce its logits.
    """

    def __init__(
        self,
        hf_model: Any,
        tokenizer: Any,
        *,
        name: str,
        source: Mapping[str, str] | None = None,
        reference: Reference | None = None,
        remote: bool | str = False,
    ) -> None:
        import nnsight

        # A server has no copy of this package: what is sent to it goes by source.
        nnsight.register(__name__.partition(".")[0])
        self._reference = reference or Reference.of(hf_model)
        self._roles = read_roles(hf_model)
        self._bridge: Any = self._roles  # formulas over weights find modules under the same names
        self._envoy: Any = nnsight.TransformersModel(hf_model, tokenizer=copy.deepcopy(tokenizer))
        self._hf: Any = hf_model
        self.tokenizer = tokenizer
        self.source = {**(source or {}), "backend": "nnsight"}
        self._paths = {module: path for path, module in hf_model.named_modules()}
        self._points = find_places(self._roles, self._paths, hf_model.config.num_attention_heads)
        self.facts = read_facts(name, hf_model.config, as_bridge_config(hf_model, self._roles), self._points)
        self.facts = replace(self.facts, post_norms=self._roles.blocks[0].ln1_post is not None)
        self._head: Any = hf_model.get_output_embeddings()
        self._logit_scale = logit_scale(hf_model.config)
        self._norms, self._projections, self._scorings = {}, {}, {}
        self._steerings: list[Steering] = []
        self._own_pass = False
        self._block_output_length: int | None = None
        self._remote: bool | str = False
        self._probe()
        if remote not in (False, "local"):
            if self.source.get("kind") != "hub":
                raise UnsupportedModelError(
                    f"{name} is not known by a Hugging Face id, so no server can have it. Load it by its id, or run "
                    "it here."
                )
            self._envoy.repo_id = self.source["spec"]
        self._remote = remote

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
        if self._remote and (past is not None or self._steerings):
            raise UnsupportedModelError(
                "A past stays where the model runs, and a plan keeps its state and log here, so neither goes with a "
                "run that takes place elsewhere. Give whole rows, and interventions as write=."
            )
        batch, steered, plan = self._planned(tokens, read, write, logits, from_, stop_after, past)
        wanted = None if logits is None else index_of(plan.index(logits.at))
        end = None if stop_after is not None else (self._paths[self._roles.ln_final], wanted)
        # A place that this architecture has not is found out below, as one that was never met.
        there = [visit for visit in plan.visits() if visit[0] in self._points]
        visits = sorted(there, key=lambda visit: Site.parse(visit[0]))
        with self._as_own_pass():
            chosen = self._trace(visits, steered, self._entry(from_), end, batch, past)
        plan.require_all_fired()
        # A server may hold the model in another number format.
        values = None if logits is None else self._logits(cast(Tensor, chosen).to(self._head.weight), logits)
        return Run(plan.activations, values, plan.receipt())

    def _trace(
        self,
        visits: Sequence[tuple[str, Visit]],
        write: Write,
        entry: tuple[Any, ...] | None,
        end: tuple[str, Any] | None,
        batch: TokenBatch,
        past: Past | None,
    ) -> Tensor | None:
        """Run the model as far as it is needed, with a visit paid to each place on the way."""
        import nnsight

        envoy = self._envoy
        seen: list[Tensor] = []
        if self._remote:
            writes = writes_by_place(write, batch)
            acts = [rewriting(writes.get(name, []), batch.offset, seen) for name, _ in visits]
        else:
            acts = [_until_stopped(visit) for _, visit in visits]
        steps = [(self._points[name], act) for (name, _), act in zip(visits, acts, strict=True)]
        found: list[Any] = []
        with self._packing(), envoy.trace(**self._inputs(batch, past), remote=self._remote) as tracer:
            found = nnsight.save([walk(envoy, entry, steps, end), seen])
            tracer.stop()
        chosen, seen = found
        if self._remote:
            for (_, visit), value in zip(visits, seen, strict=True):
                _until_stopped(visit)(value)
        return chosen

    @contextmanager
    def _packing(self) -> Generator[None]:
        """Say what went wrong with interventions that were sent."""
        try:
            yield
        except Exception as error:
            if self._remote and isinstance(error, (TypeError, pickle.PicklingError)):
                raise InterventionError(
                    f"This run cannot be packed to take place elsewhere: {error}. Its interventions may hold tensors, "
                    "numbers and functions of torch."
                ) from error
            # What an intervention raises elsewhere is of a class that was sent along: equal to ours, not the same.
            if self._remote and type(error).__module__ == InterventionError.__module__:
                raise InterventionError(str(error)) from error
            raise

    def _entry(self, from_: Restart | None) -> tuple[Any, ...] | None:
        if from_ is None:
            return None
        paths = [self._paths[block.original_component] for block in self._roles.blocks[: from_.layer + 1]]
        return paths[:-1], paths[-1], from_.resid_pre, self._block_output_length

    def _inputs(self, batch: TokenBatch, past: Past | None) -> dict[str, Any]:
        # A tensor that is no field of text: with it nnsight hands the rest over as it is. No logits are computed there.
        return {**super()._inputs(batch, past), "logits_to_keep": torch.tensor([0])}

    @contextmanager
    def _visited_by_others(
        self, batch: TokenBatch, start: int, writes: Mapping[Site, Sequence[Intervention]]
    ) -> Generator[None]:
        """Let writes act on a pass that no trace surrounds: by plain hooks on the modules."""
        with ExitStack() as stack:
            for name, visit in Access(self.facts, (), writes, batch, None, None, start).visits():
                stack.callback(hook(self._hf, name, self._points[name], visit).remove)
            yield

    def _read_projections(self, layer: int) -> Projections:
        found = self._roles.blocks[layer].attn.projections
        if not found:
            raise UnsupportedModelError(
                f"How {self.facts.family} divides its matrix of queries, keys and values is not known to the nnsight "
                'backend. Load it with backend="transformer_lens".'
            )
        q, k, v = (found[name] for name in "qkv")
        return Projections(q.weight, q.bias, k.weight, k.bias, v.weight, v.bias)

    @torch.no_grad()
    def _probe(self) -> None:
        """Compare with the model's own forward pass on a few tokens, before anything is computed from it."""
        ids = torch.arange(6)[None] % self.facts.d_vocab
        expected = self._watched_pass(ids, self._roles.blocks[0].original_component)
        got = self.run(ids.tolist(), logits=Logits(at=everywhere)).logits
        self._require_same(cast(Tensor, got), expected, "Its logits are not reproduced from its final norm")
        self._require_sums(ids.tolist())
        hidden = () if self._roles.blocks[0].attn.projections else ("q", "k", "v")
        try:
            self.facts = with_attention_access(self)
        except AttributeError:  # a softmax that is not where it is in other families
            hidden = (*hidden, "scores", "pattern")
        self.facts = replace(self.facts, hidden=(*self.facts.hidden, *hidden))

    def _require_sums(self, rows: list[list[int]]) -> None:
        """Make sure that what is called attention and MLP output adds up to the stream, in every block."""
        names = ("resid_pre", "attn_out", "mlp_out", "resid_post")
        run = self.run(rows, read=[Site(name, i) for i in range(self.facts.n_layers) for name in names])
        for i in range(self.facts.n_layers):
            before, attention, mlp, after = (run[Site(name, i)] for name in names)
            self._require_same(before + attention + mlp, after, f"Attention and MLP of L{i} do not add up")

    def _require_same(self, got: Tensor, expected: Tensor, what: str) -> None:
        error = relative_error(got, expected)
        if not error <= TOLERANCE:
            raise UnsupportedModelError(
                f"{self.facts.name} ({self.facts.family}) is not understood by the nnsight backend. {what} (off by "
                f'{error:.1e} of the largest). Load it with backend="transformer_lens".'
            )


def _until_stopped(visit: Visit) -> Visit:
    """The same visit; the last one of a run is the last step of its walk, so that it need not raise."""

    def act(value: Tensor) -> Tensor | None:
        try:
            return visit(value)
        except Stopped:
            return None

    return act
