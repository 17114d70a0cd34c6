"""Which analyses an experiment file can name: a plain dictionary. Nothing heavy is imported until one is used."""

from collections.abc import Callable, Mapping, Sequence
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
    size: Callable[[Any], Sequence[Mapping[str, Any]] | None] | None = None
    """Estimates from the settings alone what a run would cost, a row a table; None where they do not tell."""


def _copy_suppression_settings() -> type:
    from mechint.probes.copy_suppression.settings import ScanSettings

    return ScanSettings


def _copy_suppression(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.copy_suppression.scan import CopySuppressionScan

    return CopySuppressionScan(model, prompts, settings, seed)


def _text_repair_settings() -> type:
    from mechint.probes.self_repair.settings import TextRepairSettings

    return TextRepairSettings


def _text_repair(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.self_repair.on_text import TextRepairAnalysis

    return TextRepairAnalysis(model, prompts, settings, seed)


def _study_settings() -> type:
    from mechint.probes.copy_suppression.study_settings import StudySettings

    return StudySettings


def _study(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.copy_suppression.study import CopySuppressionStudy

    return CopySuppressionStudy(model, prompts, settings, seed)


def _ioi_repair_settings() -> type:
    from mechint.probes.copy_suppression.ioi_settings import IOIRepairSettings

    return IOIRepairSettings


def _ioi_repair(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.copy_suppression.ioi_repair import IOISelfRepair

    return IOISelfRepair(model, prompts, settings, seed)


def _calibration_settings() -> type:
    from mechint.probes.confidence_settings import CalibrationSettings

    return CalibrationSettings


def _calibration(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.confidence import CalibrationAnalysis

    return CalibrationAnalysis(model, prompts, settings, seed)


def _steering_settings() -> type:
    from mechint.probes.steering.settings import SteeringSettings

    return SteeringSettings


def _steering(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.steering.experiment import SteeringExperiment

    return SteeringExperiment(model, prompts, settings, seed)


def _critique_pipeline_settings() -> type:
    from mechint.probes.critique_pipeline.settings import PipelineSettings

    return PipelineSettings


def _critique_pipeline(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.critique_pipeline.experiment import CritiquePipeline

    return CritiquePipeline(model, prompts, settings, seed)


def _critique_pipeline_size(settings: Any) -> Sequence[Mapping[str, Any]] | None:
    from mechint.probes.critique_pipeline.size import pipeline_size

    return pipeline_size(settings)


def _critique_organism_settings() -> type:
    from mechint.probes.critique.organism_settings import OrganismSettings

    return OrganismSettings


def _critique_organism(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.critique.organism import CritiqueOnOrganisms

    return CritiqueOnOrganisms(model, prompts, settings, seed)


def _critique_settings() -> type:
    from mechint.probes.critique.settings import CritiqueExperimentSettings

    return CritiqueExperimentSettings


def _critique(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.critique.experiment import CritiqueExperiment

    return CritiqueExperiment(model, prompts, settings, seed)


def _neurofeedback_settings() -> type:
    from mechint.probes.neurofeedback.settings import NeurofeedbackSettings

    return NeurofeedbackSettings


def _neurofeedback(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.neurofeedback.experiment import Neurofeedback

    return Neurofeedback(model, prompts, settings, seed)


def _introspection_settings() -> type:
    from mechint.probes.introspection.settings import IntrospectionSettings

    return IntrospectionSettings


def _introspection(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.introspection.experiment import IntrospectionExperiment

    return IntrospectionExperiment(model, prompts, settings, seed)


def _introspection_organisms_settings() -> type:
    from mechint.probes.introspection.settings import IntrospectionOrganismSettings

    return IntrospectionOrganismSettings


def _introspection_organisms(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.introspection.organisms import IntrospectionOnOrganisms

    return IntrospectionOnOrganisms(model, prompts, settings, seed)


def _confidence_settings() -> type:
    from mechint.probes.self_knowledge.settings import ConfidenceSettings

    return ConfidenceSettings


def _confidence(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.self_knowledge.experiment import ConfidenceExperiment

    return ConfidenceExperiment(model, prompts, settings, seed)


def _privileged_access_settings() -> type:
    from mechint.probes.privileged_access.settings import PrivilegedAccessSettings

    return PrivilegedAccessSettings


def _privileged_access(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.privileged_access.experiment import PrivilegedAccess

    return PrivilegedAccess(model, prompts, settings, seed)


def _self_description_settings() -> type:
    from mechint.probes.privileged_access.settings import SelfDescriptionSettings

    return SelfDescriptionSettings


def _self_description(model: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
    from mechint.probes.privileged_access.self_description import SelfDescription

    return SelfDescription(model, prompts, settings, seed)


ANALYSES: dict[str, AnalysisKind] = {
    "copy_suppression": AnalysisKind(_copy_suppression_settings, _copy_suppression),
    "copy_suppression_study": AnalysisKind(_study_settings, _study),
    "ioi_self_repair": AnalysisKind(_ioi_repair_settings, _ioi_repair),
    "calibration": AnalysisKind(_calibration_settings, _calibration),
    "self_repair_on_text": AnalysisKind(_text_repair_settings, _text_repair),
    "steering": AnalysisKind(_steering_settings, _steering),
    "critique": AnalysisKind(_critique_settings, _critique),
    "critique_organism": AnalysisKind(_critique_organism_settings, _critique_organism),
    "confidence": AnalysisKind(_confidence_settings, _confidence),
    "critique_pipeline": AnalysisKind(_critique_pipeline_settings, _critique_pipeline, _critique_pipeline_size),
    "introspection": AnalysisKind(_introspection_settings, _introspection),
    "introspection_organisms": AnalysisKind(_introspection_organisms_settings, _introspection_organisms),
    "neurofeedback": AnalysisKind(_neurofeedback_settings, _neurofeedback),
    "privileged_access": AnalysisKind(_privileged_access_settings, _privileged_access),
    "self_description": AnalysisKind(_self_description_settings, _self_description),
}
"""By name, as in `analysis = "copy_suppression"`."""
