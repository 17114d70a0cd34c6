"""From 96 contrast pairs to a vector after block 9 of Gemma-3-270m, read at each text's last token.

ours               `fit`, without cross-validation: mean difference, and principal component of pairs
steering-vectors   `train_steering_vector`: mean difference
repeng             `ControlVector.train`: principal component of pairs centred at their middle ("pca_center")

repeng's default, "pca_diff", centres the differences of pairs at their mean, and so takes out what the texts differ by:
its cosine with ours is shown. Peers run in processes of their own (see `peers`), with one block asked for and 16 texts
a pass (steering-vectors reads one at a time by default).
"""

from typing import Any

import torch
from torch import Tensor

import mechint as mi
from benchmarks.peers import ask, fastest
from mechint.model.loading import load_parts
from mechint.sites import Site
from mechint.vectors.fit import fit

MODEL, SITE, BATCH = "gemma3-270m", Site("resid_post", 9), 16


def measure(n: int = 96, rounds: int = 3) -> dict[str, float]:
    """Return seconds, ratios, and how far the vectors agree."""
    model, pairs = mi.load(MODEL), mi.prompts.sentiment(n)

    def ours(method: str) -> tuple[float, Tensor]:
        return fastest(lambda: fit(model, pairs, [SITE], method=method, folds=0)[SITE], rounds)

    mean_seconds, mean = ours("mean_diff")
    principal_seconds, principal = ours("pca")
    found = {
        "pairs": float(len(pairs)),
        "ours, mean difference, s": mean_seconds,
        "ours, principal component, s": principal_seconds,
    }
    request: dict[str, Any] = {
        "location": str(load_parts(MODEL).reference.location),
        "pairs": [[a.text, b.text] for a, b in zip(pairs.positive, pairs.negative, strict=True)],
        "layer": SITE.layer,
        "batch_size": BATCH,
        "rounds": rounds,
    }
    if (theirs := ask("steering-vectors", "fit", **request)) is not None:
        error = (torch.tensor(theirs["mean_diff"]) - mean).norm() / mean.norm()
        found["steering-vectors, s"] = theirs["seconds"]
        found["steering-vectors / ours"] = theirs["seconds"] / mean_seconds
        found["distance from steering-vectors, of |v|"] = float(error)
    if (theirs := ask("repeng", "fit", **request)) is not None:
        found["repeng, s"] = theirs["seconds"]
        found["repeng / ours"] = theirs["seconds"] / principal_seconds
        for method in ("pca_center", "pca_diff"):
            direction = torch.tensor(theirs[method])
            found[f"cosine with repeng {method}"] = float(torch.cosine_similarity(direction, principal, 0))
            found[f"cosine of repeng {method} with the mean difference"] = float(
                torch.cosine_similarity(direction, mean, 0)
            )
    return found
