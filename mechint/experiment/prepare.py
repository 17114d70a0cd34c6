"""From an experiment file to a model, prompts and an analysis that are ready to measure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mechint.experiment import sources
from mechint.experiment.config import ExperimentConfig, parse_config
from mechint.experiment.registry import ANALYSES, AnalysisKind
from mechint.experiment.settings import settings_of
from mechint.results import Analysis, Unit

LoadModel = Callable[[ExperimentConfig], Any]
MakePrompts = Callable[[ExperimentConfig, Any], Any]


@dataclass(frozen=True)
class Prepared:
    """An experiment with its model, prompts and analysis at hand."""

    config: ExperimentConfig
    model: Any
    prompts: Any
    analysis: Analysis
    units: tuple[Unit, ...]


def prepare(
    config: ExperimentConfig,
    *,
    analyses: Mapping[str, AnalysisKind] = ANALYSES,
    load_model: LoadModel = sources.load_model,
    make_prompts: MakePrompts = sources.make_prompts,
) -> Prepared:
    """Check the experiment, then load its model, make its prompts and set up its analysis.

    Raises:
        MechintError: any of them cannot be had.
    """
    given = config.model_dump(mode="json", exclude_none=True)
    config = parse_config(given, origin="experiment", analyses=analyses)
    settings = settings_of(config.analysis, config.settings, analyses, "experiment")[0]
    # A mistake in a file of prompts should be told before minutes are spent on the model.
    prompts = make_prompts(config, None) if config.prompts.kind == "file" else None
    model = load_model(config)
    prompts = make_prompts(config, model) if prompts is None else prompts
    analysis = analyses[config.analysis].build(model, prompts, settings, config.seed)
    units = tuple(analysis.units())
    names = [(unit.table, unit.name) for unit in units]
    if len(set(names)) != len(names):
        raise ValueError(f"{config.analysis} lists two units of one name; its rows could not be told apart.")
    return Prepared(config, model, prompts, analysis, units)
