"""The direction of a logistic probe, in the space of the activations.

    minimise over w, b   sum_i log(1 + exp(-s_i (w·z_i + b))) + |w|²/(2C),   z = (x - mean) / sd,  s = ±1
    v_j = w_j / sd_j     the gradient of the log-odds with respect to x

(Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes".) For classes
N(μ ± δ/2, σ² I), N >> d vectors in all and C large, with a = E[p (1 - p)] over the fitted probabilities:

    cosine with δ ≈ (1 + (d - 1) σ² / (N a |δ|²))^(-1/2)
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.vectors.samples import Samples


def logistic_probe(samples: Samples, C: float = 1.0) -> Float[Tensor, " width"]:
    """Return the direction of a logistic probe, standardisation undone; C is the inverse strength of the penalty."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scaler, probe = StandardScaler(), LogisticRegression(C=C, max_iter=2000, class_weight="balanced")
    make_pipeline(scaler, probe).fit(samples.x, samples.y)
    return torch.from_numpy(probe.coef_[0] / scaler.scale_)
