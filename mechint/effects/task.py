"""A model and prompts, made ready: tokens checked, metric chosen, order and chunks fixed, baselines at hand."""

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.effects import attribution, baselines
from mechint.effects.ablation import Component, all_heads, baseline_sites
from mechint.effects.baselines import Baseline
from mechint.effects.kinds import require_kind
from mechint.effects.layout import chunks
from mechint.errors import PromptError
from mechint.model.base import Model
from mechint.prompts import Encoded, PromptSet, encode
from mechint.statistics import derive_seed, generator

LOGIT_DIFFERENCE, TARGET_LOGIT = "logit difference", "target logit"


class Task:
    """Prompts with a target each, under one model.

    Args:
        model: the model.
        prompts: the prompts.
        seed: of every random choice.

    Raises:
        PromptError: a prompt has no target, or cannot be used.
        TokenError: a target or distractor is not one token.
        UnsupportedModelError: the model's terms do not add up, so its components cannot be told apart.
    """

    def __init__(self, model: Model, prompts: PromptSet, seed: int = 0) -> None:
        self.model, self.prompts, self.seed = model, prompts, seed
        self.encoded: Encoded = encode(prompts, model.tokenizer, n_ctx=model.facts.n_ctx)
        without = [i for i, target in zip(self.encoded.ids, self.encoded.target, strict=True) if target is None]
        if without:
            raise PromptError(f"Prompt {without[0]!r} has no target. Each prompt needs one: the token that is watched.")
        attribution.require_exact(model)
        self.clusters: dict[str, str] = dict(zip(self.encoded.ids, self.encoded.clusters, strict=True))
        # Neighbours in this order begin alike, so that equal prefixes fall into one chunk and are computed once.
        self.order: list[int] = sorted(range(len(prompts)), key=lambda i: (self.encoded.tokens[i], i))

    @property
    def metric(self) -> str:
        """What is watched: target minus distractor; the target's logit alone where some prompt has no distractor."""
        return TARGET_LOGIT if None in self.encoded.distractor else LOGIT_DIFFERENCE

    def in_metric(self, values: Float[Tensor, "*batch column"]) -> Float[Tensor, "*batch"]:
        """Turn numbers for (target, distractor) into the metric."""
        return values[..., 0] - values[..., 1] if self.metric == LOGIT_DIFFERENCE else values[..., 0]

    def chunks(self, which: Sequence[int] | None = None) -> list[list[int]]:
        """Cut the prompts, or some of them, into groups for one pass each; as indices."""
        wanted = set(range(len(self.prompts)) if which is None else which)
        chosen = [i for i in self.order if i in wanted]
        return [[chosen[i] for i in piece] for piece in chunks([self.encoded.tokens[i] for i in chosen])]

    def halves(self, least_clusters: int) -> tuple[list[int], list[int]]:
        """Split the prompts by cluster: one half to choose components on, the other to measure them on.

        With fewer clusters than `least_clusters` both are all prompts.
        """
        own, names = self.encoded.clusters, sorted(set(self.encoded.clusters))
        if len(names) < least_clusters:
            return self.order, self.order
        shuffled = generator(self.seed, "halves").permutation(len(names))
        first = {names[i] for i in shuffled[: len(names) // 2]}
        return [i for i in self.order if own[i] in first], [i for i in self.order if own[i] not in first]

    def pick(self, which: Sequence[int]) -> Encoded:
        """Return the tokens of some prompts."""
        e = self.encoded
        return Encoded(
            ids=tuple(e.ids[i] for i in which),
            clusters=tuple(e.clusters[i] for i in which),
            tokens=tuple(e.tokens[i] for i in which),
            target=tuple(e.target[i] for i in which),
            distractor=tuple(e.distractor[i] for i in which),
            counterfactual=tuple(e.counterfactual[i] for i in which),
        )

    @functools.cached_property
    def _mean(self) -> Baseline:
        everything: list[Component] = all_heads(self.model.facts)
        everything += [Component.parse(f"{kind}{i}") for kind in "ML" for i in range(self.model.facts.n_layers)]
        return baselines.mean_baseline(self.model, self.encoded.tokens, baseline_sites(everything))

    @functools.cached_property
    def _sources(self) -> list[Sequence[int]]:
        draw = torch.Generator().manual_seed(derive_seed(self.seed, "derangement"))
        return baselines.resample_sources(self.encoded.tokens, self.encoded.counterfactual, draw)

    def baseline(self, kind: str, which: Sequence[int], components: Sequence[Component]) -> Baseline:
        """Return what components are set to in a pass over some prompts.

        Raises:
            ConfigError: an unknown kind.
            InterventionError: resampling, and a prompt has nothing to be resampled from.
        """
        require_kind(kind)
        if kind == "resample":
            rows, sources = [self.encoded.tokens[i] for i in which], [self._sources[i] for i in which]
            return baselines.resample_baseline(self.model, rows, sources, baseline_sites(components))
        return self._mean if kind == "mean" else Baseline()

    def baseline_note(self, kind: str) -> str:
        """Say what ablation means here, with the numbers that went into it."""
        if kind == "resample":
            return "ablated components are set to their value on the counterfactual, or on another prompt as long"
        return self.baseline(kind, [], []).note

    def ablation_note(self, kind: str) -> str:
        """Say what the changes are changes of."""
        cap = ", before the final soft-cap" if self.model.facts.logit_cap else ""
        return f"Ablation: {self.baseline_note(kind)}. Effects are changes of the {self.metric}{cap}."


def required(tokens: Sequence[int | None]) -> Int[Tensor, " prompt"]:
    """Return tokens as a tensor, 0 where there is none.

    Examples:
        >>> required([7, None]).tolist()
        [7, 0]
    """
    return torch.tensor([0 if token is None else token for token in tokens], dtype=torch.long)


def missing(tokens: Sequence[int | None]) -> Bool[Tensor, " prompt"]:
    """Mark where there is none.

    Examples:
        >>> missing([7, None]).tolist()
        [False, True]
    """
    return torch.tensor([token is None for token in tokens])


def labels(encoded: Encoded) -> Int[Tensor, "prompt column"]:
    """Return target and distractor of each prompt, 0 where there is none."""
    return torch.stack([required(encoded.target), required(encoded.distractor)], 1)
