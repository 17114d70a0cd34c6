"""CSPA in one call: which share of some heads' direct effect on text is copy suppression; see `cspa`."""

from collections.abc import Sequence

import pandas as pd
import torch
from tqdm.auto import tqdm

from mechint.effects.attribution import require_exact
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import mean_outputs
from mechint.effects.sampling import destinations
from mechint.model.base import Model
from mechint.probes.copy_suppression.context_tokens import function_tokens
from mechint.probes.copy_suppression.cspa import RULES, Rule
from mechint.probes.copy_suppression.cspa_effects import Vocabulary, cspa_effects
from mechint.probes.copy_suppression.cspa_summary import buckets, by_document, scores_table, verdict
from mechint.probes.copy_suppression.word_forms import WordForms
from mechint.prompts import PromptSet
from mechint.results import Findings
from mechint.sites import Site, parse_head


def cspa(
    model: Model,
    prompts: PromptSet,
    *,
    heads: str | Sequence[str],
    length: int = 128,
    positions: int | None = None,
    rules: Sequence[Rule] = RULES,
    seed: int = 0,
    progress: bool | None = None,
) -> Findings:
    """Measure how much of heads' direct effect on predictions copy suppression accounts for.

    Args:
        model: the model.
        prompts: texts; those shorter than `length` tokens are left out.
        heads: such as `"L10H7"`, or several.
        length: tokens of each document.
        positions: positions of each document at which predictions are compared; all by default.
        rules: what is kept; with "both", its halves and the controls by default.
        seed: of every random choice.
        progress: show a progress bar; by default in a terminal only.

    Raises:
        SiteError: a head that this model has not.
        PromptError: fewer than two texts are long enough.
        ConfigError: an impossible length, or rules that do not go together.

    Examples:
        >>> from mechint import organisms
        >>> model, texts = organisms.load("organism:copy-suppression"), organisms.copy_suppression.prompts(4)
        >>> found = cspa(model, texts, heads="L0H1", length=8, progress=False)
        >>> found.to_frame()["rule"].tolist()[:3]
        ['both', 'ov', 'qk']
    """
    chosen = [parse_head(label) for label in ([heads] if isinstance(heads, str) else heads)]
    for layer, head in chosen:
        model.facts.check(Site("z", layer, head))
    require_exact(model)
    documents = Documents.cut(prompts, model, length)
    vocabulary = vocabulary_of(model, rules, seed)
    means, at = mean_outputs(model, documents), destinations(documents, positions, seed)
    hidden = None if progress is None else not progress
    frames = [
        cspa_effects(model, documents.pick(group), chosen, rules, means, at[torch.tensor(group)], vocabulary)
        for group in tqdm(documents.groups(), desc="CSPA", disable=hidden)
    ]
    return conclude(model, documents, pd.concat(frames, ignore_index=True), seed)


def vocabulary_of(model: Model, rules: Sequence[Rule], seed: int = 0) -> Vocabulary:
    """Read from the tokenizer which tokens are no sources of interest, and word forms where a rule needs them."""
    size = model.facts.d_vocab
    forms = WordForms.of_tokenizer(model.tokenizer, size) if any(rule.forms > 1 for rule in rules) else None
    return Vocabulary(function_tokens(model.tokenizer, size), forms, seed)


def conclude(model: Model, documents: Documents, rows: pd.DataFrame, seed: int = 0) -> Findings:
    """Turn the rows of all documents into tables and a verdict."""
    clusters = dict(zip(documents.ids, documents.clusters, strict=True))
    scores = scores_table(rows, clusters, seed)
    measures = ("kl", "loss_change", "absolute_loss_change")
    curves = pd.concat([buckets(rows, measure) for measure in measures], ignore_index=True)
    n = int(scores["n_positions"].iloc[0])
    notes = [
        f"{n} positions of {len(documents)} documents of {documents.length} tokens ({documents.n_too_short} texts were "
        f"shorter). Means of head outputs are over these {len(documents)} documents, at each position.",
        "Direct path: what later components make of the change is left out; final norm and post-norms keep the scales "
        "of the clean run.",
        "The rule 'qk' is no evidence of suppression by itself: it keeps all that a head writes for the few sources it "
        "attends to most.",
    ]
    tables = {"cspa": scores, "buckets": curves, "documents": by_document(rows)}
    return Findings("cspa", tables, verdict(scores, model.facts.name), notes)
