"""Directions that change what the model computes later as much as possible, without any labels.

    maximise  F(v) = mean over texts of the mean over tokens of |h_t(v) - h_t(0)|²,   |v| = R

h_t(v) is the stream after block t with v added to the stream after block s, at every token but the first of each text.
(Mack and Turner 2024, "Mechanistically Eliciting Latent Behaviors in Language Models".) The ascent is

    v <- R g/|g|,  g = dF/dv

which cannot lower a convex F (Journée et al. 2010, "Generalized power method"). For small R it is power iteration, and
ends at the top right singular vector of the Jacobian; the starting point matters for large R.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from mechint.capture.activations import LAST, identity, record
from mechint.capture.passes import Passes
from mechint.capture.texts import AnyTexts
from mechint.errors import ConfigError, InterventionError, SiteError, UnsupportedModelError
from mechint.model.base import Model
from mechint.positions import TokenBatch
from mechint.sites import Site
from mechint.statistics import generator
from mechint.vectors.vector import SteeringVector


class _Reached(Exception):  # noqa: N818  (not an error: the way out of a forward pass that is not needed further)
    """Raised after the last block that is needed."""


def elicit(
    model: Model,
    texts: AnyTexts,
    site: str | Site,
    target: str | Site,
    *,
    dose: float = 1.0,
    steps: int = 20,
    seed: int = 0,
    progress: bool | None = None,
) -> SteeringVector:
    """Find the direction of a given length that changes a later residual stream most.

    Args:
        model: one that shows its transformers model (`hf_model`), through which gradients flow.
        texts: on which the change is measured; texts of one token are left out.
        site: where the vector is added; `resid_post` of a block.
        target: where the change is measured; `resid_post` of a later block.
        dose: length of the vector, in units of the median |h| at `site`.
        steps: of the ascent.
        seed: of the starting point.
        progress: show a progress bar on standard error; by default only in a terminal.

    Raises:
        SiteError: the sites are no `resid_post` in this order.
        ConfigError: dose or steps that are not positive.
        InterventionError: the vector has no influence on the target.
        UnsupportedModelError: the model cannot be differentiated here.
    """
    start, end = model.facts.check(site), model.facts.check(target)
    if (start.component, end.component) != ("resid_post", "resid_post") or not start < end:
        raise SiteError(f"Expected resid_post of a block and of a later one, got {start} and {end}.")
    if not dose > 0 or steps < 1:
        raise ConfigError(f"Expected a positive dose and at least one step, got dose {dose} and {steps} steps.")
    recorded = record(model, texts, start, LAST, progress=progress)
    if start not in recorded.norms:
        raise ConfigError("All texts have one token only, at which nothing is added. Give longer texts.")
    radius = dose * recorded.norms[start]
    change = _Change(model, Passes.plan(model, texts, start, LAST, None), start, end)
    drawn = torch.from_numpy(generator(seed, "elicit", start, end).standard_normal(model.facts.d_model)).float()
    direction, history = _ascend(change, radius * drawn / drawn.norm(), steps, progress)
    about = {"data": dict(recorded.data), "target": str(end), "dose": dose, "seed": seed, "change": history}
    return SteeringVector({start: direction}, recorded.norms, f"change at {end}", "gradient", identity(model), about)


def _ascend(
    change: Callable[[Tensor], tuple[float, Tensor]], start: Float[Tensor, " width"], steps: int, progress: bool | None
) -> tuple[Tensor, list[float]]:
    """Return the best vector of the length of `start`, and F at every step."""
    vector, best, history = start, start, list[float]()
    for _ in tqdm(range(steps), desc="elicit", disable=None if progress is None else not progress):
        value, gradient = change(vector)
        if not value > max(history, default=-1.0):
            break
        best = vector
        history.append(value)
        if not float(gradient.norm()) > 0:
            raise InterventionError("This vector changes nothing at the target. Are the blocks between switched off?")
        vector = start.norm() * gradient / gradient.norm()
    return best, history


class _Change:
    """F and its gradient."""

    def __init__(self, model: Model, plan: Passes, start: Site, end: Site) -> None:
        self._blocks = _blocks(model)
        self._body: Any = getattr(model, "hf_model").base_model  # noqa: B009  (not every backend has it)
        self._start, self._end = self._blocks[start.layer or 0], self._blocks[end.layer or 0]
        rows = [[row for row in bucket if len(plan.tokens[row]) > 1] for bucket in plan.buckets]
        self._batches = [TokenBatch.from_rows([plan.tokens[row] for row in bucket]) for bucket in rows if bucket]
        with torch.no_grad():
            self._clean = [self._run(batch, torch.zeros(model.facts.d_model)) for batch in self._batches]
        self._texts = sum(len(batch.ids) for batch in self._batches)

    def __call__(self, vector: Float[Tensor, " width"]) -> tuple[float, Tensor]:
        """Return F and its gradient at a vector."""
        total, gradient = 0.0, torch.zeros_like(vector)
        for batch, clean in zip(self._batches, self._clean, strict=True):
            added = vector.clone().requires_grad_()
            steered = (batch.real & (batch.offset > 0)).float()
            with torch.enable_grad():
                squares = ((self._run(batch, added) - clean) ** 2).sum(-1) * steered
                value = (squares.sum(1) / steered.sum(1)).sum() / self._texts
                gradient += torch.autograd.grad(value, added)[0]
            total += float(value.detach())
        return total, gradient

    def _run(self, batch: TokenBatch, vector: Float[Tensor, " width"]) -> Tensor:
        found: list[Tensor] = []

        def add(module: nn.Module, args: Any, output: Any) -> Any:
            del module, args
            where = (batch.real & (batch.offset > 0))[..., None]
            return _changed(output, lambda h: h + where * vector.to(h.dtype))

        def reach(module: nn.Module, args: Any, output: Any) -> None:
            del module, args
            found.append(output[0] if isinstance(output, tuple) else output)
            raise _Reached

        with _hooked(self._start, add), _hooked(self._end, reach):
            try:
                self._body(batch.ids, use_cache=False)
            except _Reached:
                return found[0].float()
        raise UnsupportedModelError("The target block was never reached: this architecture skips it.")


@contextmanager
def _hooked(module: nn.Module, hook: Callable[..., Any]) -> Generator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _changed(output: Any, rule: Callable[[Tensor], Tensor]) -> Any:
    """Apply a rule to the stream that a block returns, which some families pack with other things."""
    return (rule(output[0]), *output[1:]) if isinstance(output, tuple) else rule(output)


def _blocks(model: Model) -> nn.ModuleList:
    """Find the blocks: the one list of as many modules as the model has blocks.

    Raises:
        UnsupportedModelError: there is none.
    """
    hf_model: Any = getattr(model, "hf_model", None)
    for child in hf_model.base_model.children() if hf_model is not None else ():
        if isinstance(child, nn.ModuleList) and len(child) == model.facts.n_layers:
            return child
    raise UnsupportedModelError(
        f"{model.facts.name}: no transformers model with a list of {model.facts.n_layers} blocks is shown, so no "
        "gradient can be taken. Use an estimator that needs none."
    )
