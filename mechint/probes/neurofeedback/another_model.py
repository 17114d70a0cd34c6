"""Another model that is shown the same sentences and labels: a reader of the text with as many examples, and as good.

It has none of the examined model's states, and no noise is added to its own. So what it gets right was to be had from
the text, by somebody who has read as much; classifiers with a few examples can miss that.
"""

from collections.abc import Sequence

import numpy as np
import torch

from mechint.model.base import Logits, Model
from mechint.positions import columns
from mechint.probes.neurofeedback.bench import Bench, Drawn
from mechint.probes.neurofeedback.episodes import Wording, episode, plain
from mechint.probes.neurofeedback.said import said


class AnotherModel:
    """Reads what a bench writes, in tokens of its own.

    Args:
        model: that reads.
        bench: of the model that is examined.

    Raises:
        TokenError: a label is not one token for it.
    """

    def __init__(self, model: Model, bench: Bench) -> None:
        s = bench.settings
        self._model = model
        self._wording = Wording.of(model, s.before, s.cue, s.labels, s.after)
        self._tokens = [plain(model, text) for text in bench.texts]

    def right(self, drawn: Drawn, places: Sequence[int]) -> list[float]:
        """Return whether it is right at places, as a mean over labels as they are and exchanged."""
        sentences = [self._tokens[int(at)] for at in drawn.which]
        both = [drawn.labels ^ flipped for flipped in (0, 1)]
        texts = [episode(self._wording, sentences, labels.tolist()) for labels in both]
        wanted = columns(torch.tensor([[text.cues[place] for place in places] for text in texts]))
        logits = self._model.run([text.tokens for text in texts], logits=Logits(at=wanted)).logits
        assert logits is not None  # they were asked for
        pairs = zip(logits, both, strict=True)
        right = [said(row, self._wording.labels, labels[list(places)])["right"] for row, labels in pairs]
        return np.mean(right, axis=0).tolist()
