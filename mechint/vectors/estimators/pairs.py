"""The principal component of pairs that are centred each at its own middle.

    v = top right singular vector of D,  D_i = x+_i - x-_i;  signed and scaled as the mean difference along it

(Zou et al. 2023, "Representation Engineering".) Centring a pair at its middle leaves ±D_i/2, whose principal component
this is. Centring D itself, as a PCA routine does by default, would remove the mean difference, the very signal.
With D_i = δ + noise of covariance 2σ² I, n pairs, s = |δ|²/(2σ²) and g = d/n (Benaych-Georges and Nadakuditi 2012):

    cosine² with δ → (1 - g/s²) / (1 + g/s),  and 0 where s² < g
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.vectors.samples import Samples


def principal_difference(samples: Samples) -> Float[Tensor, " width"]:
    """Return the principal component of the pairs; see the module.

    Raises:
        PromptError: some text has no pair.
    """
    differences = samples.differences
    top = torch.linalg.svd(differences, full_matrices=False).Vh[0]
    return top * (differences.mean(0) @ top)
