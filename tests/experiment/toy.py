"""An analysis of nothing, with a model and prompts: for the runner, only the shape of the work matters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from mechint.experiment.config import ExperimentConfig, parse_config
from mechint.experiment.registry import AnalysisKind
from mechint.results import Findings, Unit
from mechint.statistics import generator


@dataclass(frozen=True)
class ToySettings:
    scale: float = 1.0
    ablation: Literal["mean", "zero"] = "mean"
    layers: tuple[int, ...] = (0, 1)


@dataclass(frozen=True)
class ToyModel:
    fingerprint: dict[str, str] = field(default_factory=lambda: {"weights": "abc"})
    source: dict[str, str] = field(default_factory=lambda: {"description": "<toy> & co"})


@dataclass(frozen=True)
class ToyPrompts:
    name: str = "toy"
    content_hash: str = "0123"

    def __len__(self) -> int:
        return 3


class Log:
    """What was measured, and after which unit to raise what."""

    def __init__(self) -> None:
        self.measured: list[str] = []
        self.stop_at: str | None = None
        self.error: BaseException = KeyboardInterrupt()


class ToyAnalysis:
    kind = "toy"

    def __init__(self, settings: ToySettings, seed: int, log: Log) -> None:
        self.settings, self.seed, self.log = settings, seed, log

    def units(self) -> list[Unit]:
        heads = [Unit("heads", f"heads/{layer}", {"layer": layer}) for layer in range(4)]
        return [*heads, Unit("words", "words/all")]

    def measure(self, unit: Unit) -> pd.DataFrame:
        if unit.name == self.log.stop_at:
            raise self.log.error
        self.log.measured.append(unit.name)
        if unit.table == "closer":
            return pd.DataFrame({"layer": [unit.inputs["layer"]]})
        if unit.table == "words":
            return pd.DataFrame({"token": ["<bos>", None, " a"], "count": [1, 2, 3]})
        draws = generator(self.seed, unit.name).normal(size=2) * self.settings.scale
        frame = pd.DataFrame({"layer": unit.inputs["layer"], "head": [0, 1], "score": draws, "empty": [None, 1.0]})
        frame.attrs["receipt"] = {"fired": 2}
        return frame

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> list[Unit]:
        heads = raw["heads"]
        found = [Unit("closer", "closer/best", {"layer": int(heads["layer"][heads["score"].idxmax()])})]
        return found + [Unit("closer", "closer/again", {"layer": n}) for n in raw.get("closer", heads[:0])["layer"][:1]]

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        heads = raw["heads"].assign(score_low=raw["heads"]["score"] - 1, score_high=raw["heads"]["score"] + 1)
        return Findings(
            "toy",
            {"heads": heads, "words": raw["words"], "closer": raw["closer"]},
            "Nothing beyond <chance> & noise.",
            ("A note.",),
        )


def doors(log: Log | None = None, model: Any = None, prompts: Any = None) -> dict[str, Any]:
    """Return the arguments that make the runner work on the toy."""
    log = log or Log()
    kind = AnalysisKind(lambda: ToySettings, lambda _, __, settings, seed: ToyAnalysis(settings, seed, log))
    return {
        "analyses": {"toy": kind},
        "load_model": lambda config: model or ToyModel(),
        "make_prompts": lambda config, model: prompts or ToyPrompts(),
    }


def experiment(**changes: Any) -> ExperimentConfig:
    """Return a toy experiment."""
    given = {"question": "Is there anything in <this> & that?", "analysis": "toy", "model": "toy-model"}
    return parse_config(given | changes, origin="test", analyses=doors()["analyses"])
