"""Named seeds: every row, draw or unit has a generator of its own, so that none depends on how many others run."""

import hashlib

import numpy as np


def derive_seed(seed: int, *labels: object) -> int:
    """Return the 63-bit seed that belongs to these labels: the head of SHA-256 of `seed:label:label`.

    Examples:
        >>> derive_seed(0, "ioi", 7) == derive_seed(0, "ioi", 7) != derive_seed(0, "ioi", 8)
        True
    """
    digest = hashlib.sha256(":".join(str(part) for part in (seed, *labels)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *labels: object) -> np.random.Generator:
    """Return the generator of random numbers that belongs to these labels.

    Examples:
        >>> bool(generator(0, "a").random() == generator(0, "b").random())
        False
    """
    return np.random.default_rng(derive_seed(seed, *labels))
