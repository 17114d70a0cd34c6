"""mechint: mechanistic interpretability in which nothing is silent.

    import mechint as mi

    model = mi.load("gemma3-270m")
    prompts = mi.prompts.ioi(n=64, seed=0)
    heads = mi.copy_suppression(model, prompts)
    heads.plot()

Names are loaded when they are first used: `import mechint` alone imports neither torch nor a backend.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mechint import errors as errors
    from mechint import interventions as interventions
    from mechint import positions as positions
    from mechint import prompts as prompts
    from mechint.capture.activations import Activations as Activations
    from mechint.capture.activations import estimate as estimate
    from mechint.capture.activations import record as record
    from mechint.capture.moments import record_moments as record_moments
    from mechint.capture.sae import load_sae as load_sae
    from mechint.effects.findings import ablate_heads as ablate_heads
    from mechint.effects.findings import direct_effects as direct_effects
    from mechint.effects.findings import logit_lens as logit_lens
    from mechint.effects.findings import self_repair as self_repair
    from mechint.effects.patching import path_patch as path_patch
    from mechint.model.base import Logits as Logits
    from mechint.model.base import Model as Model
    from mechint.model.base import Restart as Restart
    from mechint.model.loading import wrap as wrap
    from mechint.organisms import load as load
    from mechint.positions import after as after
    from mechint.positions import everywhere as everywhere
    from mechint.positions import generated as generated
    from mechint.positions import prompt as prompt
    from mechint.positions import tokens as tokens
    from mechint.probes.confidence import calibration as calibration
    from mechint.probes.copy_suppression.cspa_findings import cspa as cspa
    from mechint.probes.copy_suppression.ioi_repair import ioi_self_repair as ioi_self_repair
    from mechint.probes.copy_suppression.scan import copy_suppression as copy_suppression
    from mechint.probes.copy_suppression.study import copy_suppression_study as copy_suppression_study
    from mechint.probes.critique.experiment import critique as critique
    from mechint.probes.critique.vectors import critique_vector as critique_vector
    from mechint.probes.introspection.experiment import introspection as introspection
    from mechint.probes.self_knowledge.experiment import confidence as confidence
    from mechint.probes.self_repair.on_text import self_repair_on_text as self_repair_on_text
    from mechint.results import Findings as Findings
    from mechint.sites import Site as Site
    from mechint.steering import metrics as metrics
    from mechint.steering.bias import to_bias as to_bias
    from mechint.steering.evaluation import evaluate as evaluate
    from mechint.steering.export import to_easysteer as to_easysteer
    from mechint.steering.export import to_vllm_lens as to_vllm_lens
    from mechint.steering.gates import gate as gate
    from mechint.steering.gates import gate_text as gate_text
    from mechint.steering.generation import generate as generate
    from mechint.steering.generation import stream as stream
    from mechint.steering.lm_eval import lm_eval_model as lm_eval_model
    from mechint.steering.methods import as_logits_processor as as_logits_processor
    from mechint.steering.parts import ablate as ablate
    from mechint.steering.parts import add as add
    from mechint.steering.parts import clamp as clamp
    from mechint.steering.parts import project_out as project_out
    from mechint.steering.parts import replace as replace
    from mechint.steering.plan import Plan as Plan
    from mechint.steering.side_by_side import side_by_side as side_by_side
    from mechint.vectors.calibration import calibrate as calibrate
    from mechint.vectors.damage import NeutralTexts as NeutralTexts
    from mechint.vectors.dose import Calibration as Calibration
    from mechint.vectors.erasure import fit_eraser as fit_eraser
    from mechint.vectors.estimators.controls import random_like as random_like
    from mechint.vectors.estimators.gradient import elicit as elicit
    from mechint.vectors.features import sae_feature as sae_feature
    from mechint.vectors.fit import fit as fit
    from mechint.vectors.gguf import export_gguf as export_gguf
    from mechint.vectors.gguf import import_gguf as import_gguf
    from mechint.vectors.imports import import_vector as import_vector
    from mechint.vectors.vector import SteeringVector as SteeringVector

# Public name -> where it lives; a name without a colon is a module.
_HOMES: dict[str, str] = {
    "Activations": "mechint.capture.activations:Activations",
    "Calibration": "mechint.vectors.dose:Calibration",
    "Findings": "mechint.results:Findings",
    "Logits": "mechint.model.base:Logits",
    "Model": "mechint.model.base:Model",
    "NeutralTexts": "mechint.vectors.damage:NeutralTexts",
    "Plan": "mechint.steering.plan:Plan",
    "Restart": "mechint.model.base:Restart",
    "Site": "mechint.sites:Site",
    "SteeringVector": "mechint.vectors.vector:SteeringVector",
    "ablate": "mechint.steering.parts:ablate",
    "ablate_heads": "mechint.effects.findings:ablate_heads",
    "add": "mechint.steering.parts:add",
    "after": "mechint.positions:after",
    "as_logits_processor": "mechint.steering.methods:as_logits_processor",
    "calibrate": "mechint.vectors.calibration:calibrate",
    "calibration": "mechint.probes.confidence:calibration",
    "clamp": "mechint.steering.parts:clamp",
    "confidence": "mechint.probes.self_knowledge.experiment:confidence",
    "copy_suppression": "mechint.probes.copy_suppression.scan:copy_suppression",
    "copy_suppression_study": "mechint.probes.copy_suppression.study:copy_suppression_study",
    "critique": "mechint.probes.critique.experiment:critique",
    "critique_vector": "mechint.probes.critique.vectors:critique_vector",
    "cspa": "mechint.probes.copy_suppression.cspa_findings:cspa",
    "direct_effects": "mechint.effects.findings:direct_effects",
    "elicit": "mechint.vectors.estimators.gradient:elicit",
    "errors": "mechint.errors",
    "estimate": "mechint.capture.activations:estimate",
    "evaluate": "mechint.steering.evaluation:evaluate",
    "everywhere": "mechint.positions:everywhere",
    "export_gguf": "mechint.vectors.gguf:export_gguf",
    "fit": "mechint.vectors.fit:fit",
    "fit_eraser": "mechint.vectors.erasure:fit_eraser",
    "gate": "mechint.steering.gates:gate",
    "gate_text": "mechint.steering.gates:gate_text",
    "generate": "mechint.steering.generation:generate",
    "generated": "mechint.positions:generated",
    "import_gguf": "mechint.vectors.gguf:import_gguf",
    "import_vector": "mechint.vectors.imports:import_vector",
    "interventions": "mechint.interventions",
    "introspection": "mechint.probes.introspection.experiment:introspection",
    "ioi_self_repair": "mechint.probes.copy_suppression.ioi_repair:ioi_self_repair",
    "lm_eval_model": "mechint.steering.lm_eval:lm_eval_model",
    "load": "mechint.organisms:load",
    "load_sae": "mechint.capture.sae:load_sae",
    "logit_lens": "mechint.effects.findings:logit_lens",
    "metrics": "mechint.steering.metrics",
    "path_patch": "mechint.effects.patching:path_patch",
    "positions": "mechint.positions",
    "project_out": "mechint.steering.parts:project_out",
    "prompt": "mechint.positions:prompt",
    "prompts": "mechint.prompts",
    "random_like": "mechint.vectors.estimators.controls:random_like",
    "record": "mechint.capture.activations:record",
    "record_moments": "mechint.capture.moments:record_moments",
    "replace": "mechint.steering.parts:replace",
    "sae_feature": "mechint.vectors.features:sae_feature",
    "self_repair": "mechint.effects.findings:self_repair",
    "self_repair_on_text": "mechint.probes.self_repair.on_text:self_repair_on_text",
    "side_by_side": "mechint.steering.side_by_side:side_by_side",
    "stream": "mechint.steering.generation:stream",
    "to_bias": "mechint.steering.bias:to_bias",
    "to_easysteer": "mechint.steering.export:to_easysteer",
    "to_vllm_lens": "mechint.steering.export:to_vllm_lens",
    "tokens": "mechint.positions:tokens",
    "wrap": "mechint.model.loading:wrap",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mechint' has no attribute {name!r}. Public names: {', '.join(__all__)}.")
    module, _, member = _HOMES[name].partition(":")
    found = import_module(module)
    value = getattr(found, member) if member else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
