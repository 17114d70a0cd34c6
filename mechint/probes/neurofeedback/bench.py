"""One model on the bench: states of all sentences, axes, and the texts that it is shown.

The state of a sentence, from which its label is made, is taken where it stands alone, as published. Within a text it
may be another: how far the two agree is measured (`axes.mismatch`).

Sentences are divided at random into halves: axes, medians and readers of the whole half are fitted on one, and only
the other is shown and asked about. A text has shots + 1 sentences, drawn without replacement, so either label is as
likely at every place (but for threshold "zero"); and each text is given once more with all labels exchanged, so that
whoever prefers one label gains nothing in the mean.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from mechint.capture.activations import record
from mechint.errors import PromptError
from mechint.model.base import Model
from mechint.positions import prompt
from mechint.probes.neurofeedback.axes import Axis, Halves, find
from mechint.probes.neurofeedback.episodes import Episode, Wording, episode, plain
from mechint.probes.neurofeedback.readers import standardised, word_counts
from mechint.probes.neurofeedback.settings import NeurofeedbackSettings
from mechint.prompts import PromptSet
from mechint.sites import Site
from mechint.statistics import generator

Arm = Literal["natural", "hidden noise"]
_EMBEDDING = Site("resid_pre", 0)


@dataclass(frozen=True)
class Drawn:
    """The sentences of one text, their scores and their labels."""

    arm: Arm
    axis: Axis
    which: Int[np.ndarray, " sentence"]
    """Places in the half that is shown."""
    text: Float[np.ndarray, " sentence"]
    """w·h̄ less the cut, of the lone sentence; raw units."""
    noise: Float[np.ndarray, " sentence"]
    """ε, in the same units; 0 in the natural arm."""

    @property
    def labels(self) -> Int[np.ndarray, " sentence"]:
        """1 where the score, with its noise, is above the cut."""
        return (self.text + self.noise > 0).astype(int)


class Bench:
    """A model, what it is asked about, and everything that is fitted once.

    Args:
        model: to be examined.
        prompts: sentences; their cluster is their class, of which there are two.
        settings: what can be chosen.
        seed: of every split and draw.

    Raises:
        PromptError: sentences that are not all different, not two classes, or too few for the shots.
        SiteError: the model has no such layer.
        TokenError: a label that is not one token.
    """

    def __init__(self, model: Model, prompts: PromptSet, settings: NeurofeedbackSettings, seed: int) -> None:
        s = self.settings = settings
        self.model, self.seed, self._prompts = model, seed, prompts
        layer = model.facts.n_layers // 2 if s.layer < 0 else s.layer
        self.site = model.facts.check(Site("resid_post", layer))
        self.wording = Wording.of(model, s.before, s.cue, s.labels, s.after)
        classes = sorted({one.cluster or "" for one in prompts})
        if len(classes) != 2 or len({one.prompt for one in prompts}) < len(prompts):
            raise PromptError(
                f"{len(prompts)} sentences of the classes {classes[:5]}. Expected different sentences of two classes, "
                "named by their cluster."
            )
        order = generator(seed, "neurofeedback", "halves").permutation(len(prompts))
        self._fit, self.shown = order[: len(order) // 2], order[len(order) // 2 :]
        needed = s.shots + 1 + s.twins
        if len(self.shown) < needed:
            raise PromptError(f"{len(prompts)} sentences for {s.shots} shots. Expected at least {2 * needed}.")
        self._classes = np.array([classes.index(one.cluster or "") for one in prompts])
        self.texts = [prompts[int(at)].prompt for at in self.shown]
        self.tokens = [plain(model, text) for text in self.texts]

    @functools.cached_property
    def features(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """What readers of the text read, of both halves."""
        texts = [[self._prompts[int(at)].prompt for at in half] for half in (self._fit, self.shown)]
        embedded = self._states[1]
        fit, shown = embedded[self._fit], embedded[self.shown]
        return {**word_counts(*texts), "embedding": (standardised(fit, fit), standardised(fit, shown))}

    @functools.cached_property
    def halves(self) -> Halves:
        """States and words of both halves."""
        states, words = self._states[0], self.features["words"]
        return Halves(states[self._fit], words[0], self._classes[self._fit], states[self.shown], words[1])

    @functools.cached_property
    def _states(self) -> tuple[Float[np.ndarray, "sentence d_model"], Float[np.ndarray, "sentence d_model"]]:
        texts = [one.prompt for one in self._prompts]
        at = prompt() if self.model.tokenizer.bos_token_id is None else prompt(slice(1, None))
        found = record(self.model, texts, [_EMBEDDING, self.site], at, pooled="mean", progress=False)
        return found.single(self.site).double().numpy(), found.single(_EMBEDDING).double().numpy()

    @functools.cache  # noqa: B019  (a bench lives as long as its run)
    def axis(self, name: str) -> Axis:
        """Fit an axis."""
        s = self.settings
        return find(name, self.halves, components=s.components, zero=s.threshold == "zero", seed=self.seed)

    def draw(self, arm: Arm, name: str, context: int) -> Drawn:
        """Draw the sentences of a text, and their noise."""
        rng, axis = generator(self.seed, "neurofeedback", arm, name, context), self.axis(name)
        which = rng.permutation(len(self.shown))[: self.settings.shots + 1]
        noise = rng.standard_normal(len(which)) * self.settings.noise * axis.spread
        text = axis.scores(self.halves.test_states[which])
        return Drawn(arm, axis, which, text, noise if arm == "hidden noise" else 0 * noise)

    def others(self, drawn: Drawn, context: int) -> Int[np.ndarray, " sentence"]:
        """Draw sentences that a text does not show, whose own score is smaller than the noise of a twin."""
        axis = drawn.axis
        small = np.abs(axis.scores(self.halves.test_states)) < self.settings.noise * axis.spread
        free = np.setdiff1d(np.flatnonzero(small), drawn.which)
        return generator(self.seed, "neurofeedback", "twins", axis.name, context).permutation(free)[
            : self.settings.twins
        ]  # fmt: skip

    def write(self, drawn: Drawn, flipped: bool, n: int | None = None) -> Episode:
        """Write the text of the first n sentences, or of all, with their labels."""
        labels = (drawn.labels ^ int(flipped)).tolist()[:n]
        return episode(self.wording, [self.tokens[int(at)] for at in drawn.which[:n]], labels)

    def id_of(self, at: int) -> str:
        """Return the id of a sentence of the half that is shown."""
        return self._prompts[int(self.shown[at])].id
