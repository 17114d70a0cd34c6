"""An experiment as data: one TOML file that says the question, the analysis, the model, the prompts and the seed.

Unknown keys are errors, so a misspelt setting cannot be silently ignored. Reading a file fills in every default, so
what is stored beside the results is complete.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mechint.errors import ConfigError
from mechint.experiment.files import digest
from mechint.experiment.registry import ANALYSES, AnalysisKind
from mechint.experiment.settings import plain_errors, settings_of
from mechint.prompts.concepts import CONCEPTS
from mechint.prompts.reasoning import RULES

_PROMPT_KEYS: dict[str, tuple[str, ...]] = {
    "ioi": ("n",),
    "natural": ("n", "min_words", "joined"),
    "file": ("file", "n"),
    "dataset": ("name", "split", "column", "n"),
    "openings": ("name", "n"),
    "arithmetic_errors": ("n", "rule"),
    "error_traces": ("file", "n", "rule"),
    "silent_critic": ("n",),
    "two_choice": ("n",),
    "deeds": ("n",),
    "neurofeedback": ("n",),
    "introspection": ("n",),
    "introspection_organisms": ("n",),
}
_NOT_MEASURED = {"question", "expect", "not_run_here", "run"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PromptChoice(_Part):
    """Which prompts to use: the `[prompts]` section."""

    kind: Literal[
        "ioi",
        "natural",
        "file",
        "dataset",
        "openings",
        "arithmetic_errors",
        "error_traces",
        "silent_critic",
        "two_choice",
        "deeds",
        "neurofeedback",
        "introspection",
        "introspection_organisms",
    ] = "ioi"
    """Two-name sentences, natural text, a file of JSON lines, a data set, beginnings that a concept can colour, word
    problems with an error put into each, published error traces, twins in the silent critic's language, two-choice
    questions, kind and unkind
    deeds, sentences in the neurofeedback organisms' language, or questions about injected concepts, in English (n
    concepts) or in the words of organisms (n texts)."""
    n: int | None = Field(default=None, ge=1)
    """How many; 64 unless they come from a file, which is used whole."""
    min_words: int | None = Field(default=None, ge=1)
    """Words of each natural text, at least; 30 unless given."""
    joined: bool | None = None
    """Join neighbouring paragraphs of natural text to passages of that many words."""
    file: str | None = None
    """The file of JSON lines, relative to the experiment file."""
    name: str | None = None
    """Name of the data set, or of the concept."""
    split: str | None = None
    """Part of the data set, such as `"train"`."""
    column: str | None = None
    """Column of the data set that holds the text."""
    rule: str | None = None
    """How wrong results are made: "derangement" (of word problems, unless given), "off by", "digit swap" or "operand
    swap"; error traces have their own wrong results, or get those of others ("derangement")."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "PromptChoice":
        allowed = _PROMPT_KEYS[self.kind]
        given = {name for name, value in self if name != "kind" and value is not None}
        if strange := sorted(given.difference(allowed)):
            raise ValueError(f'{", ".join(strange)} cannot go with kind = "{self.kind}", which takes {allowed}')
        for needed in ("file", "name"):
            if needed in allowed and needed not in given:
                raise ValueError(f'kind = "{self.kind}" needs {needed} = "…"')
        if self.kind == "openings" and self.name not in CONCEPTS:
            raise ValueError(f'name = "{self.name}" is no concept; there are: {", ".join(CONCEPTS)}')
        rules = ["derangement"] if self.kind == "error_traces" else list(RULES)
        if self.rule is not None and self.rule not in rules:
            raise ValueError(f'rule = "{self.rule}" cannot go with kind = "{self.kind}"; there are: {", ".join(rules)}')
        return self

    def resolved(self) -> "PromptChoice":
        """Fill in the number of prompts."""
        return self if "file" in _PROMPT_KEYS[self.kind] or self.n is not None else self.model_copy(update={"n": 64})


class Expectation(_Part):
    """A number that was published or found before, and how near to it we should come."""

    table: str
    """Table it is in."""
    where: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Which row: column and value pairs."""
    column: str
    """Column it is in."""
    value: float | bool | str
    """What it should be."""
    tolerance: float = Field(default=0.0, ge=0)
    """Largest difference that counts as agreement."""
    source: str
    """Where the number is from: paper and section, or run."""
    model: str | None = None
    """The model it was found on; the experiment's own unless given."""


class Placement(_Part):
    """Where to run; changes no number."""

    engine: Literal["local"] = "local"
    threads: int | None = Field(default=None, ge=1)
    """Threads of PyTorch; its own choice unless given."""


class ExperimentConfig(_Part):
    """Everything that an experiment file can say."""

    question: str = Field(min_length=8)
    """What is asked, as a sentence."""
    analysis: str
    """Which analysis answers it."""
    model: str
    """A model's name, id, folder or file."""
    seed: int = Field(default=0, ge=0)
    prompts: PromptChoice = PromptChoice()
    settings: dict[str, Any] = Field(default_factory=dict)
    """Of the analysis; its own dataclass says which there are."""
    expect: tuple[Expectation, ...] = ()
    not_run_here: str = ""
    """Why this cannot be run where it was written, if so."""
    run: Placement = Placement()

    def uid(self) -> str:
        """Return a hash of all that can change a number: not the words, nor where it runs, nor a file's place."""
        told = self.model_dump(mode="json", exclude=_NOT_MEASURED | {"prompts"})
        return digest(told, self.prompts.model_dump(mode="json", exclude={"file"}))[:16]

    def override(self, **changes: Any) -> "ExperimentConfig":
        """Return a copy with other fields; None changes nothing."""
        given = {name: value for name, value in changes.items() if value is not None}
        return ExperimentConfig.model_validate(self.model_dump() | given)


def parse_config(
    given: Mapping[str, Any], *, origin: str, analyses: Mapping[str, AnalysisKind] = ANALYSES
) -> ExperimentConfig:
    """Check what was given and fill in every default.

    Args:
        given: keys and values as in the file.
        origin: where they come from, for messages.
        analyses: the analyses that there are.

    Raises:
        ConfigError: a key is unknown or missing, or a value impossible.
    """
    try:
        text = json.dumps(given, default=str, allow_nan=False)
    except ValueError as error:
        raise ConfigError(f"{origin}: numbers must be finite, and one is inf or nan.") from error
    try:
        config = ExperimentConfig.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ConfigError(plain_errors(error, ExperimentConfig, origin)) from error
    settings = settings_of(config.analysis, config.settings, analyses, origin)[1]
    expected = tuple(
        item if item.model is not None else item.model_copy(update={"model": config.model}) for item in config.expect
    )
    return config.model_copy(update={"settings": settings, "prompts": config.prompts.resolved(), "expect": expected})


def read_config(path: str | Path, *, analyses: Mapping[str, AnalysisKind] = ANALYSES) -> ExperimentConfig:
    """Read an experiment file.

    Raises:
        ConfigError: there is no such file, it is not TOML, or it says something impossible.
    """
    path = Path(path)
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no experiment file {path}. Experiment files are TOML, one a claim.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}.") from error
    config = parse_config(given, origin=str(path), analyses=analyses)
    if config.prompts.file is None:
        return config
    # A path in the file is meant from the file's folder, wherever the command is given.
    placed = config.prompts.model_copy(update={"file": str(path.parent / config.prompts.file)})
    return config.model_copy(update={"prompts": placed})
