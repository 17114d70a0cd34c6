"""Which analyses an experiment file can name: a plain dictionary. Nothing heavy is imported until one is used."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mechint.results import Analysis


@dataclass(frozen=True)
class AnalysisKind:
    """How to check the settings of an analysis, and how to make it."""

    settings: Callable[[], type]
    """Returns the frozen dataclass of its settings; its field names and types are what a file may hold."""
    build: Callable[[Any, Any, Any, int], Analysis]
    """Makes the analysis from model, prompts, settings and seed."""


def _copy_suppression_settings() -> type:
    from mechint.probes.copy_suppression.settings import ScanSettings

    return ScanSettings


def _copy_suppression(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.copy_suppression.scan import CopySuppressionScan

    return CopySuppressionScan(model, prompts, settings, seed)


ANALYSES: dict[str, AnalysisKind] = {
    "copy_suppression": AnalysisKind(_copy_suppression_settings, _copy_suppression),
}
"""By name, as in `analysis = "copy_suppression"`."""
