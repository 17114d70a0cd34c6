"""A critique vector of one's own pairs, without an experiment around it."""

from collections.abc import Sequence

from mechint.model.base import Model
from mechint.probes.critique.parts import derange_in_blocks, deranged
from mechint.probes.critique.reading import choose_layer, layer_map
from mechint.probes.critique.recording import Place, record_twins
from mechint.probes.critique.recordings import CONCEPT, spread
from mechint.prompts.reasoning import Pairs, twins
from mechint.vectors.fit import fit
from mechint.vectors.vector import SteeringVector


def critique_vector(
    model: Model,
    pairs: Pairs,
    *,
    layers: Sequence[int] = (),
    at: Place = "result",
    method: str = "mean_diff",
    seed: int = 0,
) -> SteeringVector:
    """Return the direction from true to wrong results, at the layer where they are told apart best in folds.

    Args:
        model: to be read.
        pairs: all of which are fitted on, deranged block by block if they were deranged (see `parts`); what is
            reported on must be of other problems.
        layers: blocks among which one is chosen, by the AUROC of probes in folds of the problems; by default seven.
        at: "result" (R), "stub" (the mean over S) or "stub_last".
        method: estimator, as in `mechint.fit`.
        seed: of the folds.

    Raises:
        PromptError: fewer than two problems.
        PositionError: no such place.
        SiteError: the model has no such layer.
    """
    blocks = None
    if deranged(pairs):
        pairs, blocks = derange_in_blocks(pairs, seed)
    aligned = twins(pairs, model.tokenizer)
    recorded = record_twins(model, aligned.tokens, spread(model, layers), at, progress=False)
    chosen = choose_layer(layer_map(recorded, blocks=blocks, shuffles=0, seed=seed, progress=False))
    return fit(recorded, sites=chosen, method=method, concept=CONCEPT, seed=seed)
