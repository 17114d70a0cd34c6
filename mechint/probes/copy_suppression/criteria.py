"""When a head is called a copy-suppression head: five conditions, fixed before any model was looked at.

The size threshold lies between the scores of known copy-suppression heads on two-name prompts (GPT-2 Small L10H7 2.38,
L11H10 1.63; Pythia-160M L9H5 0.59; DistilGPT-2 L5H10 0.19) and those of models without any (Pythia-70M at most 0.003;
McDougall et al. 2023, stored scores). The share threshold lies far above the 5 % of a head that does nothing.
"""

import pandas as pd

from mechint.probes.criterion import Criterion

LEAST_SCORE = 0.1
LEAST_OV_SHARE = 0.5
LEVEL = 0.05
LEAST_PROMPTS = 8
OV_CRITERION = "for any token"


CRITERIA: tuple[Criterion, ...] = (
    Criterion(
        "enough prompts",
        f"target occurs in at least {LEAST_PROMPTS} prompts",
        "With fewer, nothing can be said.",
    ),
    Criterion(
        "size",
        f"CS score at least {LEAST_SCORE} logits",
        "The one edge from the last position to the target's first occurrence lowers the target's logit noticeably.",
    ),
    Criterion(
        "beyond chance",
        f"CS score > 0, sign-flip test over prompt clusters, Holm-corrected over all heads, p < {LEVEL}",
        "The sign is not an accident of these prompts.",
    ),
    Criterion(
        "specific",
        f"CS score > control, same test, p < {LEVEL}",
        "The same edge lowers a random other token of the prompt less: it is about the attended token.",
    ),
    Criterion(
        OV_CRITERION,
        f"own token among the 5 % most lowered of the vocabulary for over {LEAST_OV_SHARE:.0%} of sampled tokens "
        "(Wilson 95 % lower bound)",
        "The static OV circuit suppresses whatever token it attends to, not only the targets of these prompts.",
    ),
)


def judge(heads: pd.DataFrame) -> pd.DataFrame:
    """Add `suppresses` and `failed` (the names of the conditions that a head does not meet) to a table of heads."""
    met = {
        "enough prompts": heads["n_with_target"] >= LEAST_PROMPTS,
        "size": heads["cs_score"] >= LEAST_SCORE,
        "beyond chance": heads["cs_score_p"] < LEVEL,
        "specific": heads["cs_excess_p"] < LEVEL,
        OV_CRITERION: heads["ov_bottom_share_low"] > LEAST_OV_SHARE,
    }
    passed = pd.DataFrame(met)
    failed = [", ".join(name for name in passed if not row[name]) for row in passed.to_dict("records")]
    return heads.assign(suppresses=passed.all(axis=1), failed=failed)
