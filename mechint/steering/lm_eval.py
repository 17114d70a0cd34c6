"""Models under a plan for lm-evaluation-harness: what steering costs in known tasks. The only door to `lm_eval`.

    lm = mi.lm_eval_model(model, plan)
    results = lm_eval.simple_evaluate(model=lm, tasks=[...])

Without a plan the scores are those of the harness's own `HFLM` on the same weights. With one, a request has the parts
that positions speak of: its context is the prompt, its continuation what was generated. The last token of a
continuation is never read, so where it is one token long (as in most multiple-choice tasks) only `prompt(...)` acts.
The harness's own `--model steered` gives every hook the last of several vectors; plans are per site.
"""

import copy
import importlib
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechint.errors import ConfigError, InterventionError, PromptError
from mechint.model.base import Logits, Model
from mechint.positions import TokenBatch, columns
from mechint.steering.plan import Plan
from mechint.steering.receipts import Receipt

Request = tuple[Any, list[int], list[int]]
"""A key for the harness's cache, and the tokens of context and continuation."""


def lm_eval_model(model: Model, plan: Plan | None = None, *, batch_size: int = 8) -> Any:
    """Return an `lm_eval.models.huggingface.HFLM` that is steered; `receipts` says what was done in each call.

    Args:
        model: a model with a transformers model inside.
        plan: what to change.
        batch_size: rows run together.

    Raises:
        ConfigError: lm-eval is not installed, or the batch size is none.
    """
    try:
        base: Any = importlib.import_module("lm_eval.models.huggingface").HFLM
    except ImportError as error:
        raise ConfigError(f"lm-eval cannot be imported ({error}). Install it: pip install 'lm-eval[hf]'.") from error
    if batch_size < 1:
        raise ConfigError(f"lm_eval_model: batch_size={batch_size}. Expected 1 or more.")
    return type("SteeredHFLM", (_Steered, base), {})(model, plan, batch_size)


class _Steered:
    """What differs from HFLM, which stands behind it in the order of classes."""

    max_length: int
    cache_hook: Any

    def __init__(self, model: Model, plan: Plan | None, batch_size: int) -> None:
        hf: Any = model
        base: Any = super()
        # The harness gives the tokenizer a padding token; a copy, since the model's own is part of its fingerprint.
        base.__init__(
            pretrained=hf.hf_model,
            tokenizer=copy.deepcopy(model.tokenizer),
            backend="causal",
            max_length=model.facts.n_ctx,
            batch_size=batch_size,
        )
        self._steered_model, self._plan, self._rows = model, plan, batch_size
        self.receipts: list[Receipt] = []
        """One for each call with a plan."""

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Write on from each context, under the plan."""
        base: Any = super()
        return self._under_plan(lambda: base.generate_until(requests, disable_tqdm))

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation, and whether it is what greedy decoding would write."""
        if self._plan is not None and any(part.gate is not None for part in self._plan.parts):
            raise InterventionError(
                "A gate is decided after a pass, and a continuation is scored in one pass, so it would never open. Use "
                "tasks that generate, or a plan without gates."
            )
        return self._under_plan(lambda: self._score(requests, disable_tqdm, override_bs or self._rows))

    def _under_plan(self, work: Any) -> Any:
        with nullcontext() if self._plan is None else self._steered_model.apply(self._plan) as acting:
            done = work()
        if acting is not None:
            self.receipts.append(acting.receipt)
        return done

    def _score(self, requests: Sequence[Request], quiet: bool, size: int) -> list[tuple[float, bool]]:
        # Rows of a batch are read at equally many places, so continuations of one length go together.
        order = sorted(range(len(requests)), key=lambda i: (len(requests[i][2]), len(requests[i][1])))
        answers: dict[int, tuple[float, bool]] = {}
        with tqdm(total=len(requests), desc="loglikelihood", unit="request", disable=True if quiet else None) as bar:
            while order:
                n = len(requests[order[0]][2])
                batch = [i for i in order[:size] if len(requests[i][2]) == n]
                order = order[len(batch) :]
                logprobs = self._logprobs([requests[i][1] for i in batch], [requests[i][2] for i in batch])
                for i, of_row in zip(batch, logprobs, strict=True):
                    at = torch.tensor(requests[i][2])[:, None]
                    score = float(of_row.gather(1, at).sum())
                    answers[i] = score, bool((of_row.argmax(1) == at[:, 0]).all())
                    if requests[i][0] is not None:
                        self.cache_hook.add_partial("loglikelihood", requests[i][0], answers[i])
                bar.update(len(batch))
        return [answers[i] for i in range(len(requests))]

    @torch.no_grad()
    def _logprobs(self, contexts: Sequence[list[int]], rest: Sequence[list[int]]) -> Float[Tensor, "batch at d_vocab"]:
        """Return the log-probabilities of all tokens at each place of continuations of one length."""
        n = len(rest[0])
        if n == 0 or n > self.max_length or not all(contexts):
            raise PromptError(
                f"A request has a continuation of {n} tokens and contexts of {[len(c) for c in contexts]}. Expected a "
                f"token of context, and 1 to {self.max_length} of continuation."
            )
        rows = [(c + r)[-(self.max_length + 1) : -1] for c, r in zip(contexts, rest, strict=True)]
        if any(len(row) < len(c) + n - 1 for row, c in zip(rows, contexts, strict=True)):
            warnings.warn(
                f"Requests of more than {self.max_length} tokens lose the beginning of their context, as with HFLM.",
                stacklevel=2,
            )
        lengths = torch.tensor([len(row) for row in rows])
        batch = TokenBatch.from_rows(
            rows, prompt_lengths=(lengths - n + 1).tolist(), tokenizer=self._steered_model.tokenizer
        )
        index = lengths[:, None] - n + torch.arange(n)
        logits = self._steered_model.run(batch, logits=Logits(at=columns(index))).logits
        assert logits is not None
        return logits.float().log_softmax(-1).cpu()
