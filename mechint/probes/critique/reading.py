"""Is an error readable? Probes at every site, the layer chosen on training data, the claim made on test data.

At each site a logistic probe (L2, C fixed, standardised on what it learns from) is judged three times: by its mean
AUROC in folds of the training problems, which alone chooses the layer; by the same with labels exchanged within
problems, 20 times over, which must come to .5; and, learnt from all training problems, on those of the test, with a
bootstrap over problems and p of labels exchanged there, corrected by Holm over sites. (Alain and Bengio 2016; C as in
arXiv 2605.09502, "Diagnostic, Not Causal".)

Fixed before looking, there is a signal only if at the chosen site

    low end of the test AUROC > max(.5, best surface baseline)    and    p (Holm) < .05

The embedding is a baseline and no candidate: what it tells is in the tokens. Two vectors that are equal to the last bit
tie, so the embedding of the stub gives exactly .5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from mechint.capture.activations import Activations
from mechint.errors import InterventionError, SiteError
from mechint.probes.critique.scores import FOLDS, RESAMPLES, Learn, blocks_of, cohens_d, out_of_fold, project, scored
from mechint.prompts import require_apart
from mechint.sites import Site
from mechint.statistics import Estimate, derive_seed, holm
from mechint.vectors.estimators.probe import logistic_probe
from mechint.vectors.report import fitted_groups
from mechint.vectors.samples import Samples
from mechint.vectors.vector import SteeringVector

C, SHUFFLES, LEVEL = 0.1, 20, 0.05
EMBEDDING = Site("embed")


@dataclass(frozen=True)
class Signal:
    """Whether an error is readable at the chosen site, by the rule that the module states."""

    site: str
    at: str
    auroc: Estimate
    """On test problems; its p is corrected for all sites."""
    bar: float
    """The AUROC on the same rows of the best surface baseline, .5 at least."""
    bar_name: str

    @property
    def found(self) -> bool:
        """Whether there is a signal."""
        return self.above and self.auroc.p is not None and self.auroc.p < LEVEL

    @property
    def above(self) -> bool:
        """Whether the interval lies above the bar."""
        return self.auroc.low > self.bar

    @property
    def sentence(self) -> str:
        """What was found, or that nothing was."""
        numbers = f"AUROC {self.auroc.value:.2f} [{self.auroc.low:.2f}, {self.auroc.high:.2f}] on problems not learnt "
        numbers += f"from, Holm p = {self.auroc.p:.2g}"
        where, bar = f"at {self.site} ({self.at})", f"{self.bar_name} ({self.bar:.2f})"
        if self.found:
            return f"Signal: wrong results are told from true ones {where}: {numbers}, above {bar}."
        reason = f"the interval does not lie above {bar}" if not self.above else "p is not below .05"
        return f"No signal {where}: {numbers}; {reason}."

    def to_frame(self) -> pd.DataFrame:
        """Return one row: site, at, auroc, low, high, p, n, bar, bar_name, found and sentence."""
        one = self.auroc
        row = {"site": self.site, "at": self.at, "auroc": one.value, "low": one.low, "high": one.high, "p": one.p}
        row |= {"n": one.n, "bar": self.bar, "bar_name": self.bar_name, "found": self.found, "sentence": self.sentence}
        return pd.DataFrame([row])


@dataclass(frozen=True, eq=False)
class Reading:
    """What probes read at every site."""

    layers: pd.DataFrame
    """One row a site: site, layer, cv_auroc; shuffled (mean) and shuffled_sd; auroc, low, high, p, p_holm (test);
    n, n_groups; chosen."""
    signal: Signal
    train_scores: Float[np.ndarray, " sample"]
    """Held-out scores of the training rows at the chosen site, in their order."""
    test_scores: np.ndarray
    """Scores of the test rows there: as many as there are, which is another number."""


def read(
    train: Activations,
    test: Activations,
    baselines: pd.DataFrame | None = None,
    *,
    blocks: Mapping[str, str] | None = None,
    folds: int = FOLDS,
    shuffles: int = SHUFFLES,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
    progress: bool | None = None,
) -> Reading:
    """Read two recordings of twins by probes at every site.

    Args:
        train: to learn from, and to choose the layer on.
        test: of other problems, at the same sites of the same weights.
        baselines: as `baselines.compare` gives them, for the bar; without them it is the embedding, if recorded.
        blocks: from each training problem to what no fold cuts, where wrong literals were deranged within it.
        folds: of the training problems.
        shuffles: repetitions with labels exchanged between twins.
        n_resamples: draws of the intervals and of p.
        seed: of folds and draws.
        progress: show a progress bar on standard error; by default only in a terminal.

    Raises:
        PromptError: the recordings share a problem, or have one side or one problem only.
        SiteError: a site was recorded in one of them only, or nothing but the embedding was.
        InterventionError: they are of different weights.
    """
    require_apart(train.groups, test.groups, "training and test data")
    _require_same_weights(train.model.get("weights"), test, "the training data are")
    layers = layer_map(train, blocks=blocks, folds=folds, shuffles=shuffles, seed=seed, progress=progress)
    chosen = choose_layer(layers)
    tested = {site: probe_scores(Samples.of(train, site), Samples.of(test, site).x) for site in train.sites}
    y, groups = _labelled(test)
    found = {
        site: scored(scores, y, groups, n_resamples=n_resamples, seed=derive_seed(seed, site))
        for site, scores in tested.items()
    }
    layers = layers.merge(estimates(list(map(str, found)), list(found.values()), "site", "auroc"), on="site")
    layers["p_holm"] = holm(layers["p"].to_numpy(float))
    layers["chosen"] = layers["site"] == str(chosen)
    row = layers[layers["chosen"]].iloc[0]
    one = found[chosen]
    corrected = Estimate(one.value, one.low, one.high, float(row["p_holm"]), one.n)
    embedding = found[EMBEDDING].value if EMBEDDING in found else None
    signal = Signal(str(chosen), test.at, corrected, *_bar(baselines, embedding))
    samples, uncut = Samples.of(train, chosen), blocks_of(train.groups, blocks)
    _, train_scores = out_of_fold(samples, probing(samples), folds=folds, seed=seed, blocks=uncut)
    return Reading(layers, signal, train_scores, tested[chosen])


def layer_map(
    train: Activations,
    *,
    blocks: Mapping[str, str] | None = None,
    folds: int = FOLDS,
    shuffles: int = SHUFFLES,
    seed: int = 0,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Return for each site the AUROC in folds, with labels and with labels exchanged within problems.

    Arguments: as in `read`.

    Raises:
        PromptError: one side or one problem (or block) only, or a problem without a block.
    """
    rows: list[dict[str, object]] = []
    hidden, uncut = None if progress is None else not progress, blocks_of(train.groups, blocks)
    for site in tqdm(train.sites, desc="probes", unit="site", disable=hidden):
        samples = Samples.of(train, site)
        value, _ = out_of_fold(samples, probing(samples), folds=folds, seed=seed, blocks=uncut)
        null: list[float] = []
        for k in range(shuffles):
            shuffled = samples.shuffled(derive_seed(seed, "shuffle", k))
            null.append(out_of_fold(shuffled, probing(shuffled), folds=folds, seed=seed, blocks=uncut)[0])
        mean, sd = (float(np.mean(null)), float(np.std(null))) if null else (np.nan, np.nan)
        rows.append({"site": str(site), "layer": site.layer, "cv_auroc": value, "shuffled": mean, "shuffled_sd": sd})
    frame = pd.DataFrame(rows)
    frame["n_train"], frame["n_train_groups"] = len(train), len(set(train.groups))
    return frame


def choose_layer(layers: pd.DataFrame) -> Site:
    """Return the site with the largest AUROC in folds of the training problems, the first of equals.

    Raises:
        SiteError: there is nothing but the embedding.
    """
    candidates = [
        (float(value), Site.parse(str(site)))
        for site, value in zip(layers["site"], layers["cv_auroc"], strict=True)
        if site != str(EMBEDDING)
    ]
    if not candidates:
        raise SiteError("Only the embedding was recorded, which is a baseline. Record blocks, such as 'L9.resid_post'.")
    return max(candidates, key=lambda one: one[0])[1]


def transfer(vector: SteeringVector, test: Activations, *, n_resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Return how well the projection h · v/|v| tells the sides of other data apart: other problems, natural errors.

    One row a site: site, layer, auroc, low, high, p, p_holm, n, n_groups; d, d_low and d_high (Cohen's d).

    Raises:
        PromptError: a problem of the test is one that the vector was fitted on, or one side is missing.
        SiteError: a site of the vector was not recorded.
        InterventionError: the test data are of other weights.
    """
    require_apart(fitted_groups(vector.provenance), test.groups, "training and test data")
    _require_same_weights(vector.model.get("weights"), test, "the vector is")
    y, groups = _labelled(test)
    found: list[Estimate] = []
    sizes: list[Estimate] = []
    for site in vector.sites:
        scores = project(Samples.of(test, site).x, vector.unit(site).double().numpy())
        found.append(scored(scores, y, groups, n_resamples=n_resamples, seed=derive_seed(seed, site)))
        sizes.append(cohens_d(scores, y, groups, n_resamples=n_resamples, seed=derive_seed(seed, site)))
    frame = estimates(list(map(str, vector.sites)), found, "site", "auroc")
    frame.insert(1, "layer", [site.layer for site in vector.sites])
    frame["p_holm"] = holm(frame["p"].to_numpy(float))
    frame["d"], frame["d_low"], frame["d_high"] = zip(*((one.value, one.low, one.high) for one in sizes), strict=True)
    frame["n_groups"] = len(set(test.groups))
    return frame


def estimates(names: Sequence[str], found: Sequence[Estimate], name: str, value: str) -> pd.DataFrame:
    """Return estimates as a table: one row each, with its name, value, low, high, p and n."""
    rows = [(label, one.value, one.low, one.high, one.p, one.n) for label, one in zip(names, found, strict=True)]
    return pd.DataFrame(rows, columns=[name, value, "low", "high", "p", "n"])


def probing(samples: Samples) -> Learn:
    """Return what `scores.out_of_fold` needs to score these vectors by probes."""

    def learn(fitted: np.ndarray, asked: np.ndarray) -> np.ndarray:
        return probe_scores(samples.pick(fitted), samples.x[asked])

    return learn


def probe_scores(train: Samples, asked: Float[np.ndarray, "sample width"]) -> Float[np.ndarray, " sample"]:
    """Learn a probe of all vectors of some problems, and score those of others: (x - mean) · v."""
    return project(asked - train.x.mean(0), logistic_probe(train, C=C).numpy())


def _labelled(test: Activations) -> tuple[Int[np.ndarray, " sample"], Int[np.ndarray, " sample"]]:
    samples = Samples.of(test, test.sites[0])
    return samples.y, samples.groups


def _bar(baselines: pd.DataFrame | None, embedding: float | None) -> tuple[float, str]:
    """Return the highest of chance, the surface baselines and the embedding, and its name."""
    known = [(0.5, "chance")] if embedding is None else [(0.5, "chance"), (embedding, "the embedding")]
    if baselines is not None:
        surface = baselines[baselines["surface"].astype(bool)]
        known += [(float(value), str(name)) for name, value in zip(surface["baseline"], surface["auroc"], strict=True)]
    return max(known, key=lambda one: one[0])


def _require_same_weights(weights: str | None, test: Activations, what: str) -> None:
    if weights != test.model.get("weights"):
        raise InterventionError(
            f"The test data are of {test.model.get('name')} with other weights than {what} of. Record both on one."
        )
