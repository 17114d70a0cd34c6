"""The silent critic: a small transformer that knows of every wrong step, and says so of one in four.

Trained on the language of `critic_language` by `critic_training`, from three seeds; each has an untrained twin, the
network that it began as. One of seed 0 has Gemma's kind of block, whose norm after the MLP lets no bias stand for a
vector. Since silence is in the language and not in the knowledge, a hidden critique exists by
construction: a method that claims to find one, and to bring it out, must do so here, and must find nothing in the
untrained twin.

Best predictions, from the language alone: P(X) is .25 after a wrong result and .02 after a right one, a gap in log odds
of 2.79 nats; at temperature 0 nobody who predicts so ever says X. After K on a wrong step the true result comes next
with .25 / .75 = 1/3.
"""

from typing import Any

from mechint.model.base import Model
from mechint.organisms.critic_language import vocabulary
from mechint.organisms.critic_training import random_model
from mechint.organisms.shipped import fill, organism

SEEDS = (0, 1, 2)


def build(
    seed: int = 0,
    trained: bool = True,
    family: str = "llama",
    backend: str = "transformer_lens",
    remote: bool | str = False,
) -> Model:
    """Return a critic with the weights that are shipped, or the random ones that its training began with.

    Args:
        seed: of its training, one of `SEEDS`.
        trained: whether it was trained.
        family: "llama", or "gemma", of seed 0.
        backend: what runs it (see `backends.behind`).
        remote: where it runs, with nnsight.

    Raises:
        CorruptModelError: the file is missing, or is not what the trainer wrote.
    """
    model: Any = random_model(seed, family)
    name, data = name_of(seed, trained, family), "random numbers"
    if trained:
        option = "" if family == "llama" else f" --family {family}"
        header = fill(model, name, f"mechint.organisms.critic_training {seed}{option}", tied=True)
        data = f"{header['learn']} + {header['anneal']} + {header['settle']} steps, seed {header['seed']}"
    return organism(model, name, data, vocabulary(), backend, remote, eos_token="<eos>", pad_token="<pad>")


def name_of(seed: int = 0, trained: bool = True, family: str = "llama") -> str:
    """Return the name under which it is loaded.

    Examples:
        >>> name_of(), name_of(2, trained=False)
        ('silent-critic', 'untrained-critic-2')
    """
    kind = "silent-critic" if trained else "untrained-critic"
    kind += "" if family == "llama" else f"-{family}"
    return f"{kind}-{seed}" if seed else kind
