"""Does what was learnt on our own problems tell the errors of other texts? The projection, beside its baselines.

Everything is learnt from the training problems and scored on the other texts: the projection on the vector, what of it
surprisal does not tell, and the baselines of `baselines`.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from mechint.capture.activations import Activations
from mechint.model.base import Model
from mechint.probes.critique.baselines import Baseline, compare, surprisal, twin_baselines
from mechint.probes.critique.reading import estimates, transfer
from mechint.probes.critique.recording import record_twins
from mechint.probes.critique.recordings import Recordings
from mechint.probes.critique.scores import blocks_of, out_of_fold, partial_auroc, project
from mechint.probes.critique.settings import CritiqueExperimentSettings
from mechint.prompts.reasoning import load_published_pairs, twins
from mechint.vectors.estimators.means import mean_difference
from mechint.vectors.samples import Samples
from mechint.vectors.vector import SteeringVector


def measure(
    model: Model,
    vector: SteeringVector,
    known: Recordings,
    blocks: Mapping[str, str] | None,
    settings: CritiqueExperimentSettings,
    seed: int,
) -> pd.DataFrame:
    """Return one row for each of: the projection, the same without surprisal, and every baseline.

    Columns: what, from_text, auroc, low, high, p, n; d, d_low, d_high of the projection.

    Args:
        model: to be read.
        vector: at one site, fitted on the training part at R.
        known: recordings of the experiment.
        blocks: from each training problem to what no fold cuts.
        settings: which file, how many pairs, folds and draws.
        seed: of folds and draws.

    Raises:
        PromptError: the file cannot be read, or no pair of it has twins.
    """
    (site,) = vector.sites
    pairs = load_published_pairs(settings.transfer)[: settings.transfer_pairs]
    others = twins(pairs, model.tokenizer).tokens
    asked = record_twins(model, others, site, "result", progress=False)
    found = transfer(vector, asked, n_resamples=settings.resamples, seed=seed)
    found = found.drop(columns=["site", "layer", "p_holm", "n_groups"])
    rows = [found.assign(what="projection", from_text=False)]
    surprise = {"train": known.surprisal("train"), "other": surprisal(model, others)}
    train = known.at("result", "train")
    rows.append(_beyond_surprisal(vector, train, asked, surprise, blocks, settings, seed))
    given = [
        *twin_baselines(known.tokens("train"), others, model.tokenizer),
        Baseline("surprisal", surprise["train"], surprise["other"], surface=False),
    ]
    compared = compare(
        given, train, asked, blocks=blocks, folds=settings.folds, n_resamples=settings.resamples, seed=seed
    )
    rows.append(compared.drop(columns="cv_auroc").rename(columns={"baseline": "what", "surface": "from_text"}))
    return pd.concat(rows, ignore_index=True).assign(site=str(site))


def _beyond_surprisal(
    vector: SteeringVector,
    train: Activations,
    asked: Activations,
    surprise: Mapping[str, Float[np.ndarray, " sample"]],
    blocks: Mapping[str, str] | None,
    settings: CritiqueExperimentSettings,
    seed: int,
) -> pd.DataFrame:
    (site,) = vector.sites
    fitted, other = Samples.of(train, site), Samples.of(asked, site)

    def learn(rows: np.ndarray, of: np.ndarray) -> np.ndarray:
        direction = mean_difference(fitted.pick(rows))
        return project(fitted.x[of], (direction / torch.linalg.vector_norm(direction)).numpy())

    _, held_out = out_of_fold(fitted, learn, folds=settings.folds, seed=seed, blocks=blocks_of(train.groups, blocks))
    found = partial_auroc(
        project(other.x, vector.unit(site).double().numpy()),
        other.y,
        other.groups,
        surprise["other"],
        train_scores=held_out,
        train_covariate=surprise["train"],
        n_resamples=settings.resamples,
        seed=seed,
    )
    return estimates(["projection without surprisal"], [found], "what", "auroc").assign(from_text=False)
