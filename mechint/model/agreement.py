"""How exactly a backend computes the model: its logits against plain transformers, in another process.

    max_abs_logit_difference = max |l - l'|,    kl_mean = mean over tokens of KL(softmax l' || softmax l)   [nats]

where l are the backend's logits and l' those of plain transformers, on the same weights and fixed random tokens. The
other process imports no backend: backends patch attention functions of transformers for their whole process, so a
comparison inside it would not be independent.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from jaxtyping import Float
from torch import Tensor

from mechint.errors import CacheError, ModelError
from mechint.model import cache
from mechint.statistics.seeds import generator

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

ROWS, LENGTH = 2, 16


@dataclass(frozen=True)
class Reference:
    """The same weights, where a process without a backend can read them."""

    config: Any
    """The configuration, and"""
    state: Mapping[str, Tensor]
    """the tensors by their original names (no copies), taken before a backend renames them."""
    location: str | None = None
    """A folder, or an id that is in the local hub cache, where the same weights are; None: only in memory."""

    @staticmethod
    def of(hf_model: "PreTrainedModel", location: str | None = None) -> "Reference":
        """Refer to a model that no backend has touched yet."""
        return Reference(hf_model.config, dict(hf_model.state_dict()), location)

    @contextmanager
    def readable(self) -> Generator[str, None, None]:
        """Give a location for `from_pretrained`; weights in memory are saved to a temporary folder meanwhile."""
        if self.location is not None:
            yield self.location
            return
        from safetensors.torch import save_file

        with tempfile.TemporaryDirectory(prefix="mechint-reference-") as folder:
            self.config.save_pretrained(folder)
            tensors = {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in self.state.items()
            }
            save_file(tensors, Path(folder) / "model.safetensors", metadata={"format": "pt"})
            yield folder


def agreement(
    logits: Callable[[list[list[int]]], Tensor],
    reference: Reference,
    fingerprint: Mapping[str, str],
    *,
    vocabulary: int,
    context: int,
    bos: int | None = None,
) -> dict[str, float]:
    """Measure how far a backend's logits are from those of plain transformers; measured once, then remembered.

    Args:
        logits: gives the backend's full logits `[batch, pos, d_vocab]` for rows of tokens.
        reference: the same weights for the other process.
        fingerprint: of the model; the result is remembered by it and by the versions of the libraries.
        vocabulary: tokens are drawn below this id.
        context: longest row that the model takes.
        bos: first token of each row, if the tokenizer has one.

    Returns:
        `max_abs_logit_difference`, `kl_mean` (nats), `top_token_agreement` (share) and `tokens` (how many).

    Raises:
        ModelError: the other process failed.
    """
    rows = probe_tokens(vocabulary, context, bos)
    libraries = cache.versions("mechint", "torch", "transformers", "transformer-lens")
    known = {"fingerprint": dict(fingerprint), "rows": rows, **libraries}
    record = (
        cache.root() / "agreement" / f"{xxhash.xxh3_128_hexdigest(json.dumps(known, sort_keys=True).encode())}.json"
    )
    try:
        return {
            str(name): float(value)
            for name, value in json.loads(record.read_text(encoding="utf-8"))["measured"].items()
        }
    except (OSError, ValueError, KeyError, AttributeError):
        pass  # not measured yet, or unreadable: measure
    measured = compare(logits(rows), plain_logits(reference, rows, fingerprint.get("dtype", "float32")))
    try:
        cache.write_json(record, {"measured": measured, **known})
    except CacheError as error:
        log.warning("The measured agreement cannot be kept and will be measured again next time. %s", error)
    return measured


def probe_tokens(vocabulary: int, context: int, bos: int | None) -> list[list[int]]:
    """Return the fixed rows of tokens on which logits are compared.

    Examples:
        >>> [len(row) for row in probe_tokens(100, 1024, bos=2)], probe_tokens(100, 4, bos=2)[0][0]
        ([17, 17], 2)
    """
    first = [] if bos is None else [bos]
    length = min(LENGTH, context - len(first))
    rng = generator(0, "agreement")
    return [first + [int(token) for token in rng.integers(0, vocabulary, length)] for _ in range(ROWS)]


def compare(ours: Float[Tensor, "batch pos d_vocab"], plain: Float[Tensor, "batch pos d_vocab"]) -> dict[str, float]:
    """Compare two sets of logits, in float64.

    Examples:
        >>> a = torch.tensor([[[0.0, 1.0, 2.0]]])
        >>> compare(a, a)["kl_mean"], compare(a + 0.5, a)["max_abs_logit_difference"]
        (0.0, 0.5)
    """
    a, b = ours.detach().cpu().double(), plain.detach().cpu().double()
    log_a, log_b = a.log_softmax(-1), b.log_softmax(-1)
    return {
        "max_abs_logit_difference": float((a - b).abs().max()),
        "kl_mean": max(float((log_b.exp() * (log_b - log_a)).sum(-1).mean()), 0.0),
        "top_token_agreement": float((a.argmax(-1) == b.argmax(-1)).double().mean()),
        "tokens": float(a.shape[0] * a.shape[1]),
    }


def plain_logits(
    reference: Reference, rows: list[list[int]], dtype: str = "float32"
) -> Float[Tensor, "batch pos d_vocab"]:
    """Run plain transformers in another process and return its logits.

    Raises:
        ModelError: it failed; the message ends with what it said.
    """
    from safetensors.torch import load_file

    home = str(Path(__file__).parents[2])
    paths = [home, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(paths)}
    with reference.readable() as location, tempfile.TemporaryDirectory(prefix="mechint-agreement-") as folder:
        target = Path(folder) / "logits.safetensors"
        request = json.dumps({"location": location, "rows": rows, "dtype": dtype, "target": str(target)})
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mechint.model.plain_transformers"],
            input=request,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = " ".join(done.stderr.strip().splitlines()[-3:])
            raise ModelError(
                f"Plain transformers could not run the weights at {location} in another process "
                f"(exit code {done.returncode}), so the agreement with it is unknown: {last}"
            )
        return load_file(target)["logits"]
