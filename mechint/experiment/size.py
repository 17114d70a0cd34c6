"""What a run would cost, told from its settings alone: for models that are not at hand."""

from collections.abc import Mapping

import pandas as pd

from mechint.experiment.config import ExperimentConfig
from mechint.experiment.registry import AnalysisKind
from mechint.experiment.settings import settings_of

_COLUMNS = ["table", "units", "rows", "tokens", "bytes", "flops", "seconds"]


def estimated(config: ExperimentConfig, analyses: Mapping[str, AnalysisKind]) -> pd.DataFrame | None:
    """Return a row for each raw table, or None where the analysis or its settings do not tell.

    Raises:
        ConfigError: an unknown analysis or setting.
    """
    settings = settings_of(config.analysis, config.settings, analyses, "experiment")[0]
    size = analyses[config.analysis].size
    rows = None if size is None else size(settings)
    return None if rows is None else pd.DataFrame(list(rows), columns=_COLUMNS)
