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
    from mechint.probes.self_repair.on_text import self_repair_on_text as self_repair_on_text
    from mechint.results import Findings as Findings
    from mechint.sites import Site as Site

# Public name -> where it lives; a name without a colon is a module.
_HOMES: dict[str, str] = {
    "Findings": "mechint.results:Findings",
    "Logits": "mechint.model.base:Logits",
    "Model": "mechint.model.base:Model",
    "Restart": "mechint.model.base:Restart",
    "Site": "mechint.sites:Site",
    "ablate_heads": "mechint.effects.findings:ablate_heads",
    "after": "mechint.positions:after",
    "calibration": "mechint.probes.confidence:calibration",
    "copy_suppression": "mechint.probes.copy_suppression.scan:copy_suppression",
    "copy_suppression_study": "mechint.probes.copy_suppression.study:copy_suppression_study",
    "cspa": "mechint.probes.copy_suppression.cspa_findings:cspa",
    "direct_effects": "mechint.effects.findings:direct_effects",
    "errors": "mechint.errors",
    "everywhere": "mechint.positions:everywhere",
    "generated": "mechint.positions:generated",
    "interventions": "mechint.interventions",
    "ioi_self_repair": "mechint.probes.copy_suppression.ioi_repair:ioi_self_repair",
    "load": "mechint.organisms:load",
    "logit_lens": "mechint.effects.findings:logit_lens",
    "path_patch": "mechint.effects.patching:path_patch",
    "positions": "mechint.positions",
    "prompt": "mechint.positions:prompt",
    "prompts": "mechint.prompts",
    "self_repair": "mechint.effects.findings:self_repair",
    "self_repair_on_text": "mechint.probes.self_repair.on_text:self_repair_on_text",
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
