"""The figures of each kind of finding: plain tables in, Plotly figures out, and nothing computed on the way.

`FIGURES` is the whole list. A figure whose table is missing or empty is left out.
"""

from collections.abc import Callable, Mapping

import pandas as pd
import plotly.graph_objects as go

from mechint.errors import OutputError
from mechint.plots import (
    figures_attention,
    figures_critique,
    figures_critique_organism,
    figures_critique_pipeline,
    figures_cspa,
    figures_effects,
    figures_evidence,
    figures_heads,
    figures_introspection,
    figures_ioi,
    figures_neurofeedback,
    figures_privileged_access,
    figures_repair,
    figures_scatter,
    figures_self_knowledge,
    figures_self_repair,
    figures_steering,
    figures_steering_evaluation,
    figures_tokens,
    figures_vectors,
)

Draw = Callable[[Mapping[str, pd.DataFrame]], go.Figure | None]

_REPAIR: dict[str, Draw] = {"repair_by_part": figures_repair.parts, "repair_by_component": figures_repair.components}

FIGURES: dict[str, dict[str, Draw]] = {
    "copy_suppression": {
        "score_map": figures_heads.score_map,
        "scores": figures_heads.scores,
        "attention": figures_attention.attention,
        "direct_effect_and_ablation": figures_scatter.repair_scatter,
        **_REPAIR,
        "anti_induction": figures_scatter.induction_scatter,
        "own_token": figures_heads.own_token,
    },
    "direct_effects": {
        "direct_effect_map": figures_effects.direct_effect_map,
        "direct_effects": figures_effects.direct_effects,
    },
    "ablation": {"ablations": figures_effects.ablations},
    "self_repair": _REPAIR,
    "self_repair_on_text": {
        "effect_and_change": figures_self_repair.effect_and_change,
        "share_by_depth": figures_self_repair.share_by_depth,
        "parts_by_layer": figures_self_repair.parts_by_layer,
        "norm_ratio": figures_tokens.norm_ratio,
        "tokens": figures_tokens.tokens,
        "mlp_erasure": figures_tokens.erasure,
        "compensation": figures_self_repair.compensation,
    },
    "cspa": {"rules": figures_cspa.cspa_rules, "buckets": figures_cspa.cspa_buckets},
    "copy_suppression_study": {
        "evidence": figures_cspa.evidence,
        "score_map": figures_heads.score_map,
        "cspa_map": figures_cspa.cspa_map,
        "rules": figures_cspa.cspa_rules,
        "buckets": figures_cspa.cspa_buckets,
        "three_steps": figures_evidence.three_steps,
        "scores": figures_heads.scores,
        "anti_induction": figures_scatter.induction_scatter,
        "own_token": figures_heads.own_token,
        "qk_grid": figures_cspa.qk_grid,
        "dynamic_ranks": figures_evidence.dynamic_ranks,
        "loss_effects": figures_evidence.loss_effects,
        "attention": figures_attention.attention,
        "direct_effect_and_ablation": figures_scatter.repair_scatter,
        **_REPAIR,
    },
    "calibration": {
        "overconfidence_map": figures_evidence.overconfidence_map,
        "entropy_marginal_map": figures_evidence.entropy_marginal_map,
        "entropy_difference_map": figures_evidence.entropy_difference_map,
        "reliability": figures_evidence.reliability,
    },
    "logit_lens": {"rank": figures_effects.lens_rank, "logit": figures_effects.lens_logit},
    "ioi_self_repair": {
        "share": figures_ioi.share,
        "before_after": figures_ioi.before_after,
        "interventions": figures_ioi.interventions,
        "queries": figures_ioi.queries,
    },
    "steering_receipt": {
        "texts": figures_steering.texts,
        "gates": figures_steering.gates,
        "parts": figures_steering.parts,
    },
    "steering_evaluation": {
        "dose_response": figures_steering_evaluation.dose_response,
        "against_chance": figures_steering_evaluation.against_chance,
        "texts": figures_steering_evaluation.texts,
    },
    "critique": {
        "reading": figures_critique.reading,
        "baselines": figures_critique.baselines,
        "dose_response": figures_critique.dose_response,
        "angles": figures_critique.angles,
    },
    "introspection": {
        "gates": figures_introspection.gates,
        "unrelated": figures_introspection.unrelated,
        "graded": figures_introspection.graded,
        "development": figures_introspection.development,
    },
    "introspection_organisms": {
        "verdicts": figures_introspection.verdicts,
        "mutation": figures_introspection.mutation,
        "chance": figures_introspection.chance,
        "doses": figures_introspection.doses,
    },
    "critique_organism": {
        "curve": figures_critique_organism.curve,
        "reading": figures_critique_organism.reading,
        "against_chance": figures_critique_organism.against_chance,
    },
    "neurofeedback": {
        "accuracy": figures_neurofeedback.accuracy,
        "curves": figures_neurofeedback.curves,
        "control": figures_neurofeedback.control,
    },
    "confidence": {
        "ranking": figures_self_knowledge.ranking,
        "reliability": figures_self_knowledge.reliability,
        "risk": figures_self_knowledge.risk,
        "depth": figures_self_knowledge.depth,
    },
    "critique_pipeline": {
        "outcomes": figures_critique_pipeline.outcomes,
        "layers": figures_critique_pipeline.layers,
        "steering": figures_critique_pipeline.steering,
        "detection": figures_critique_pipeline.detection,
        "scaling": figures_critique_pipeline.scaling,
    },
    "privileged_access": {
        "accuracy": figures_privileged_access.accuracy,
        "privilege": figures_privileged_access.privilege,
        "changed": figures_privileged_access.changed,
    },
    "self_description": {"reports": figures_privileged_access.reports},
    "steering_vector_report": {"auroc": figures_vectors.auroc, "tokens": figures_vectors.tokens},
}
"""By kind of finding and name of figure: the function that draws it."""


def draw(kind: str, tables: Mapping[str, pd.DataFrame]) -> dict[str, go.Figure]:
    """Draw every figure of a kind of finding for which there are tables.

    Args:
        kind: such as `"copy_suppression"`.
        tables: tidy tables by name.

    Returns:
        The figures by name, in the order in which they are best read.

    Raises:
        OutputError: no figures are known for this kind.

    Examples:
        >>> import pandas as pd
        >>> heads = pd.DataFrame({"layer": [0], "head": [1], "label": ["L0H1"], "cs_score": [0.5]})
        >>> list(draw("copy_suppression", {"heads": heads}))
        ['score_map', 'scores']
    """
    if kind not in FIGURES:
        raise OutputError(f"No figures are known for findings of the kind {kind!r}. Known: {', '.join(FIGURES)}.")
    drawn = {name: function(tables) for name, function in FIGURES[kind].items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}
