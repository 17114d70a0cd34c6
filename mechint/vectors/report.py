"""How good a steering vector is at telling held-out texts apart, beside what that could be owed to.

For each site: the AUROC of x·v with its interval over groups; p of labels that mean nothing; the AUROC of a probe that
sees the words only (TF-IDF and logistic regression) and the difference between the two; the length in units of the
median |h|; and the cosine of two vectors fitted on two halves of the groups, which is near 0 for noise. An AUROC that
words alone reach says nothing about the model.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from mechint.capture.activations import Activations
from mechint.effects.predictions import extreme_tokens
from mechint.errors import InterventionError, PromptError, UnsupportedModelError
from mechint.model.base import Model
from mechint.prompts import require_apart
from mechint.results import Findings
from mechint.sites import Site
from mechint.statistics import derive_seed, holm
from mechint.statistics.drawn import percentiles
from mechint.vectors.auroc import auroc, auroc_draws, auroc_p
from mechint.vectors.fit import METHODS, group_folds
from mechint.vectors.samples import Samples
from mechint.vectors.vector import SteeringVector

KIND = "steering_vector_report"
_HALVINGS = 5
_LEVEL = 0.05


def report(
    vector: SteeringVector,
    test: Activations,
    *,
    train: Activations | None = None,
    model: Model | None = None,
    top: int = 10,
    seed: int = 0,
    progress: bool | None = None,
) -> Findings:
    """Return tables `sites` (one row a site) and, with a model, `tokens` (what the direction promotes and suppresses).

    Args:
        vector: to be judged.
        test: contrast data recorded at its sites, of groups on which it was not fitted.
        train: what it was fitted on, so that the words-only probe learns from the same texts and halves are taken from
            them; without it, both are done within the test texts.
        model: for the tokens.
        top: how many tokens at each end.
        seed: of all draws.
        progress: show a progress bar on standard error; by default only in a terminal.

    Raises:
        PromptError: the test data have no two sides, or share a group with what the vector was fitted on.
        SiteError: a site of the vector was not recorded.
        InterventionError: the test data are of other weights or widths than the vector.
    """
    _require_held_out(vector, test)
    if train is not None:
        require_apart(train.groups, test.groups, "training and test data")
    words = _word_scores(train, test, seed)
    hidden = None if progress is None else not progress
    rows = [
        _site_row(vector, site, test, train or test, words, seed)
        for site in tqdm(vector.sites, desc="report", disable=hidden)
    ]
    sites = pd.DataFrame(rows)
    sites["auroc_p_holm"] = holm(sites["auroc_p"].to_numpy())
    tables = {"sites": sites}
    if model is not None:
        vector.check(model)
        tables["tokens"] = token_table(vector, model, top)
    notes = [
        f"{len(test)} test texts in {len(set(test.groups))} groups; intervals are bootstraps over groups.",
        "The words-only probe was trained on the training texts."
        if train is not None
        else "The words-only probe was cross-validated within the test texts, on fewer texts than the vector was "
        "fitted on: give `train` for a fair comparison.",
    ]
    return Findings(KIND, tables, _verdict(vector, sites), notes)


def best_site(vector: SteeringVector, select: Activations) -> Site:
    """Return the site of a vector with the largest AUROC on held-out contrast data; the first of equals.

    Raises:
        PromptError: the data have no two sides, or share a group with what the vector was fitted on.
        SiteError: a site of the vector was not recorded.
        InterventionError: the data are of other weights or widths than the vector.
    """
    _require_held_out(vector, select)
    scores = {site: Samples.of(select, site) for site in vector.sites}
    return max(scores, key=lambda site: auroc(scores[site].x @ vector.unit(site).double().numpy(), scores[site].y))


def fitted_groups(provenance: Mapping[str, Any]) -> set[str]:
    """Collect the groups that a vector, or the vectors it was made of, was fitted on."""
    own = set(provenance.get("groups", ()))
    return own.union(*(fitted_groups(part["provenance"]) for part in provenance.get("parts", ())))


def _require_held_out(vector: SteeringVector, test: Activations) -> None:
    """Refuse data of other weights, and of texts that the vector was fitted on."""
    for site in vector.sites:
        width = test[site].shape[-1]
        if test.model.get("weights") != vector.model.get("weights") or width != len(vector[site]):
            raise InterventionError(
                f"The vector is of {vector.model.get('name')} ({len(vector[site])} numbers at {site}), the test data "
                f"of {test.model.get('name')} ({width}). Record them on the weights that the vector was fitted on."
            )
    require_apart(fitted_groups(vector.provenance), test.groups, "training and test data")


def _site_row(
    vector: SteeringVector,
    site: Site,
    test: Activations,
    train: Activations,
    words: Float[np.ndarray, " prompt"] | None,
    seed: int,
) -> dict[str, Any]:
    samples = Samples.of(test, site)
    scores = samples.x @ vector.unit(site).double().numpy()
    draws = auroc_draws(scores, samples.y, samples.groups, seed=derive_seed(seed, "draws"))
    value, (low, high) = auroc(scores, samples.y), percentiles(draws)
    row = {"site": str(site), "layer": site.layer, "auroc": value, "auroc_low": low, "auroc_high": high}
    row["auroc_p"] = auroc_p(scores, samples.y, samples.groups, seed=derive_seed(seed, "null", site))
    by_words = (np.nan,) * 3
    over = (np.nan,) * 3
    if words is not None:
        each = np.repeat(words, test[site].shape[1])
        # The same draws of groups for both, so that the difference has an interval of its own.
        theirs = auroc_draws(each, samples.y, samples.groups, seed=derive_seed(seed, "draws"))
        by_words = (auroc(each, samples.y), *percentiles(theirs))
        over = (value - by_words[0], *percentiles(draws - theirs))
    row |= dict(zip(("words_auroc", "words_auroc_low", "words_auroc_high"), by_words, strict=True))
    row |= dict(zip(("over_words", "over_words_low", "over_words_high"), over, strict=True))
    row["length"] = float(vector[site].norm()) / vector.norms[site] if site in vector.norms else np.nan
    row["split_half"] = _split_half(vector, Samples.of(train, site), derive_seed(seed, "halves", site))
    return {**row, "n": len(samples), "n_positive": int(samples.y.sum()), "n_groups": len(np.unique(samples.groups))}


def _split_half(vector: SteeringVector, samples: Samples, seed: int) -> float:
    """Return the mean cosine of vectors of the same method on two halves of the groups; NaN where it cannot be had."""
    estimator = METHODS.get(vector.method)
    if estimator is None or "expression" in vector.provenance:
        return float("nan")
    cosines: list[float] = []
    for repeat in range(_HALVINGS):
        for one, other in group_folds(samples, 2, derive_seed(seed, repeat))[:1]:
            try:
                pair = [estimator(samples.pick(half), **vector.provenance.get("settings", {})) for half in (one, other)]
            except PromptError:
                continue
            cosines.append(float(torch.cosine_similarity(pair[0], pair[1], dim=0)))
    return float(np.mean(cosines)) if cosines else float("nan")


def _word_scores(train: Activations | None, test: Activations, seed: int) -> Float[np.ndarray, " prompt"] | None:
    """Score the test texts by their words; None where the test has no two folds to learn from."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def learned(texts: list[str], labels: Int[np.ndarray, " prompt"], asked: list[str]) -> np.ndarray:
        probe = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]"),
            LogisticRegression(C=10.0, max_iter=2000, class_weight="balanced"),
        )
        return probe.fit(texts, labels).decision_function(asked)

    samples = Samples.of(test.first_position, test.sites[0])
    if train is not None:
        return learned(list(train.texts), Samples.of(train.first_position, train.sites[0]).y, list(test.texts))
    scores = np.zeros(len(test))
    folds = group_folds(samples, 5, derive_seed(seed, "words"))
    for fitted, asked in folds:
        if len(set(samples.y[fitted])) < 2:
            return None
        scores[asked] = learned([test.texts[i] for i in fitted], samples.y[fitted], [test.texts[i] for i in asked])
    return scores if folds else None


def token_table(vector: SteeringVector, model: Model, top: int) -> pd.DataFrame:
    """List the tokens whose logits the direction raises and lowers most: v through the final norm's gain and W_U.

    The scale of the norm is left out, so `value` is in arbitrary units; sites that are not in the residual stream are
    left out, as is the soft-cap.

    Raises:
        UnsupportedModelError: the model has no final norm.
    """
    norm = model.norm("final")
    if norm is None:
        raise UnsupportedModelError(f"{model.facts.name} has no final norm, so there is no logit lens.")
    rows: list[dict[str, Any]] = []
    for site in (site for site in vector.sites if site.axes[-1] == "d_model"):
        direction = (norm.centre(vector.unit(site)) * norm.gain.detach().float().cpu())[None]
        for end, lowest in (("promoted", False), ("suppressed", True)):
            tokens = extreme_tokens(model, direction, top, lowest=lowest, with_bias=False)[0]
            values = model.unembedding(tokens).float() @ direction[0]
            rows += [
                {
                    "site": str(site),
                    "end": end,
                    "rank": rank,
                    "token": str(model.tokenizer.decode([token])),
                    "id": token,
                }
                | {"value": float(value)}
                for rank, (token, value) in enumerate(zip(tokens.tolist(), values, strict=True))
            ]
    return pd.DataFrame(rows, columns=["site", "end", "rank", "token", "id", "value"])


def _verdict(vector: SteeringVector, sites: pd.DataFrame) -> str:
    best = sites.loc[sites["auroc"].idxmax()]
    what = f"The vector of more {vector.concept} ({vector.method})"
    found = f"highest AUROC {best['auroc']:.2f} [{best['auroc_low']:.2f}, {best['auroc_high']:.2f}] at {best['site']}, "
    found += f"p = {best['auroc_p_holm']:.2g} corrected for {len(sites)} sites."
    if best["auroc_p_holm"] > _LEVEL:
        return f"{what} does not tell held-out texts apart better than shuffled labels: {found}"
    if np.isnan(best["words_auroc"]):
        return f"{what} tells held-out texts apart: {found} Words alone could not be tried on so few groups."
    gap = f"{best['over_words']:.2f} [{best['over_words_low']:.2f}, {best['over_words_high']:.2f}]"
    beyond = f"less by {gap}" if best["over_words_low"] > 0 else f"no clear difference ({gap}): it may be owed to them"
    return f"{what} tells held-out texts apart: {found} Words alone reach {best['words_auroc']:.2f}, {beyond}."
