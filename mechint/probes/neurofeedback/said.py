"""What a model says of a label, where one is predicted.

Log-probabilities are read over the whole vocabulary there, and nowhere else: label mass is the probability of both
labels together, the format is kept where the likeliest token of all is one of them, and the model is right where the
right label is the likelier of the two.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def said(
    logits: Float[Tensor, "at d_vocab"], names: tuple[int, int], labels: Sequence[int] | np.ndarray
) -> dict[str, np.ndarray]:
    """Return, at each place, what the model says of a label: right, its loss, label mass and format.

    The loss is -log of the right label's share of the mass of both, in nats.
    """
    log_p = torch.log_softmax(logits.double(), -1)
    both = log_p[:, list(names)]
    wanted = torch.as_tensor(np.asarray(labels), dtype=torch.long)[:, None]
    gap = (both.gather(1, wanted) - both.gather(1, 1 - wanted))[:, 0]
    return {
        # At equal probabilities a guess is right half of the time.
        "right": torch.where(gap == 0, 0.5, (gap > 0).double()).numpy(),
        "label_loss": torch.nn.functional.softplus(-gap).numpy(),
        "label_mass": both.exp().sum(1).numpy(),
        "formatted": torch.isin(log_p.argmax(-1), torch.tensor(names)).numpy(),
    }
