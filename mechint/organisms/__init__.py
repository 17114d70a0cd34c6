"""Small models with a known mechanism, planted or learned; and the door through which every model is loaded."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mechint.errors import UnknownModelError
from mechint.organisms.introspection_kinds import KINDS

if TYPE_CHECKING:
    from mechint.model.base import Model
else:
    Model = object  # annotations are checked under pytest, and torch is not loaded for them

PREFIX = "organism:"
ORGANISMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "copy-suppression": (
        "mechint.organisms.copy_suppression",
        {"planted": True},
        "2-block GPT-2, written by hand: mover L0H1, copy-suppression head L1H2",
    ),
    "copy-suppression-unplanted": (
        "mechint.organisms.copy_suppression",
        {"planted": False},
        "the same with random numbers in L1H2: no copy suppression",
    ),
    "self-repair": (
        "mechint.organisms.self_repair",
        {"planted": True},
        "2-block GPT-2, written by hand: mover L0H0, whose loss L1H1 (suppressor) and L1H2 (backup) repair",
    ),
    "self-repair-unplanted": (
        "mechint.organisms.self_repair",
        {"planted": False},
        "the same, but L1H1 and L1H2 read nothing of the mover: no repair",
    ),
    "trained-copy-suppression": (
        "mechint.organisms.trained",
        {"rule": True},
        "2-block GPT-2, trained where a noun rarely comes twice: heads of its last block learned copy suppression",
    ),
    "trained-no-suppression": (
        "mechint.organisms.trained",
        {"rule": False},
        "the same, trained where mention makes no difference: no copy suppression",
    ),
    **{
        f"{kind}-critic{f'-{seed}' if seed else ''}": (
            "mechint.organisms.silent_critic",
            {"seed": seed, "trained": trained},
            f"{words}, seed {seed}",
        )
        for kind, trained, words in (
            ("silent", True, "4-block Llama, trained to check steps of arithmetic and to flag one error in four"),
            ("untrained", False, "what the silent critic was before training: knows nothing"),
        )
        for seed in range(3)
    },
    "silent-critic-gemma": (
        "mechint.organisms.silent_critic",
        {"family": "gemma"},
        "the silent critic with blocks of Gemma's kind, seed 0: no bias can stand for a vector",
    ),
    **{
        name: ("mechint.organisms.self_predictor", {"name": name}, f"4-block Llama, {words}")
        for name, words in (
            ("look-up-self", "trained to answer pairs of symbols by a table that no text tells"),
            ("look-up-other", "the same with another table"),
            ("look-up-twin", "with the table of look-up-self, from another seed"),
            ("surface-self", "trained to answer pairs of symbols by the second one alone"),
            ("surface-other", "the same with other answers"),
            ("untrained-predictor", "what look-up-self was before training"),
        )
    },
    **{
        f"introspection-{kind}{f'-{seed}' if seed else ''}": (
            "mechint.organisms.introspective",
            {"kind": kind, "seed": seed},
            f"4-block GPT-2; {words}, seed {seed}",
        )
        for kind, words in (*KINDS.items(), ("untrained", "random numbers"))
        for seed in range(3)
    },
    **{
        f"neurofeedback-{kind}": ("mechint.organisms.neurofeedback", {"kind": kind}, f"4-block Llama, {words}")
        for kind, words in (
            ("reader", "trained to report noise in its own stream, along an axis to be found out from labels"),
            ("text", "trained to report what a sentence says, whatever is added to its stream"),
            ("untrained", "what the neurofeedback pair was before training"),
        )
    },
}
"""By name: the module that builds it, with which arguments, and what is in it."""


def load(
    spec: str | Path,
    *,
    progress: bool | None = None,
    backend: Literal["transformer_lens", "nnsight"] = "transformer_lens",
    remote: bool | str = False,
) -> Model:
    """Load a model: an embedded name, `organism:NAME`, a folder, a GGUF file, or a Hugging Face id.

    Args:
        spec: what to load.
        progress: show progress bars on standard error; by default only in a terminal.
        backend: what runs it, "transformer_lens" or "nnsight".
        remote: with nnsight: "local" packs every run as for a server, True sends it to NDIF.

    Raises:
        ConfigError: no such backend, or one that runs models here alone.
        UnknownModelError: there is no such model here; the message lists what was tried.
        CorruptModelError: files are truncated, altered or missing.
        UnsupportedModelError: not a causal language model that is understood exactly.
        CacheError: the converted copy of an embedded or GGUF model cannot be written.
    """
    if not str(spec).startswith(PREFIX):
        from mechint.model import loading

        return loading.load(spec, progress=progress, backend=backend, remote=remote)
    name = str(spec).removeprefix(PREFIX)
    if name not in ORGANISMS:
        raise UnknownModelError(f"No organism {name!r}. There are: {', '.join(PREFIX + known for known in ORGANISMS)}.")
    module, arguments, _ = ORGANISMS[name]
    return import_module(module).build(**arguments, backend=backend, remote=remote)
