"""Generating text under plans and methods: prompts in, completions with everything that was recorded out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from mechint.errors import ConfigError, PromptError
from mechint.model.base import Model
from mechint.positions import Positions, generated, prompt
from mechint.prompts import Prompt, PromptSet
from mechint.sites import Site
from mechint.steering.decoder import Decoder, Row, Settings
from mechint.steering.methods import Method
from mechint.steering.plan import Plan
from mechint.steering.receipts import Receipt
from mechint.steering.sampling import Sampling, generators
from mechint.steering.session import sessions_of

Prompts = str | Prompt | Sequence[str] | Sequence[Prompt] | PromptSet
PRODUCING = prompt(-1) | generated()
"""The tokens at which new tokens are produced; of what is generated, the last token is never read."""


@dataclass(frozen=True, eq=False)
class Completion:
    """What followed one prompt."""

    prompt: str
    text: str
    """What was generated, up to a stop string, without special tokens."""
    tokens: tuple[int, ...]
    """All of it, stop string and end-of-text token included."""
    finish: Literal["eos", "stop", "method", "length"]
    """Why it ended."""
    forced: tuple[bool, ...]
    """Which tokens a method forced."""
    activations: Mapping[Site, Float[Tensor, "at ..."]]
    """What was recorded, in the order of the text."""
    places: Mapping[Site, tuple[int, ...]]
    """The position in the text of each of these."""
    logits: Float[Tensor, "step column"] | None
    """Of each generated token, as the model gave them, if they were asked for."""
    entropy: tuple[float, ...]
    """Of the model's distribution at each generated token, in nats, if it was asked for."""
    logprob: tuple[float, ...]
    """Of each generated token in the model's distribution, if it was asked for."""

    def __str__(self) -> str:
        return self.prompt + self.text


@dataclass(frozen=True, eq=False)
class Completions(Sequence[Completion]):
    """What followed each prompt, in their order, and the receipt if there was a plan."""

    items: tuple[Completion, ...]
    receipt: Receipt | None = None

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def texts(self) -> list[str]:
        """What was generated, without the prompts."""
        return [one.text for one in self.items]

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each prompt: text, number of tokens, why it ended, and what was measured of it."""
        rows = [
            {"prompt": c.prompt, "text": c.text, "n_tokens": len(c.tokens), "n_forced": sum(c.forced)}
            | {"finish": c.finish}
            | ({"entropy": sum(c.entropy) / len(c.entropy), "logprob": sum(c.logprob)} if c.entropy else {})
            for c in self.items
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.items))


def generate(
    model: Model,
    prompts: Prompts,
    plan: Plan | None = None,
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop: str | Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 8,
    read: Sequence[str | Site] | Mapping[str | Site, Positions] = (),
    logits: Literal["all"] | Int[Tensor, " column"] | None = None,
    measure: bool = False,
    methods: Sequence[Method] = (),
    progress: bool | None = None,
) -> Completions:
    """Write on from each prompt.

    Args:
        model: what writes.
        prompts: one text, several, or a prompt set.
        plan: what to change meanwhile; plans in force through `model.apply` act too.
        max_new_tokens: the most that is written.
        temperature: 0 takes the most likely token; above, tokens are drawn.
        top_k: draw among the k most likely.
        top_p: draw among the fewest that together have this probability.
        min_p: draw among those with at least this share of the largest probability.
        repetition_penalty: above 1, tokens that the row holds already become less likely.
        stop: texts that end a row; they are not part of its text.
        seed: of the draws; a row's draws depend on its prompt (its id, if it has one), not on its company.
        batch_size: rows written together; rows of like length are put together.
        read: sites to record, at the tokens that produce new ones; or a mapping from sites to positions.
        logits: record the raw logits of each generated token: columns of the vocabulary, or "all".
        measure: record entropy and log-probability of each generated token.
        methods: generation-time methods (see `steering.methods`).
        progress: show a bar on standard error; by default only in a terminal.

    Raises:
        PromptError: no prompts, or an empty one with a tokenizer that begins texts with nothing.
        PositionError: a prompt that with the new tokens is longer than the model reads.
        ConfigError: a setting outside its range.
        NeverFiredError: a part of the plan that met no token.
    """
    asked = _prompts(prompts)
    if max_new_tokens < 1 or batch_size < 1:
        raise ConfigError(f"max_new_tokens={max_new_tokens}, batch_size={batch_size}: expected 1 or more of each.")
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    stops = [stop] if isinstance(stop, str) else list(stop)
    if "" in stops:
        raise ConfigError("A stop text is empty: it would end every row at once. Leave it out.")
    places = read if isinstance(read, Mapping) else dict.fromkeys(read, PRODUCING)
    columns = torch.empty(0, dtype=torch.long) if isinstance(logits, str) else logits
    wanted = {model.facts.check(site): at for site, at in places.items()}
    settings = Settings(max_new_tokens, sampling, stops, wanted, columns, measure, methods, model.end_tokens)
    texts = [_tokens(model, name, text) for name, text in asked]
    rows = [Row(i, g) for i, g in enumerate(generators([name for name, _ in asked], seed))]
    with ExitStack() as stack:
        session = None if plan is None else stack.enter_context(plan.on(model))
        for method in methods:
            method.start(model, len(rows))
        _write(model, texts, rows, settings, batch_size, progress)
    completions = [_completion(model, text, row, stops) for (_, text), row in zip(asked, rows, strict=True)]
    return Completions(tuple(completions), None if session is None else session.receipt)


def stream(model: Model, text: str, plan: Plan | None = None, **settings: Any) -> Iterator[str]:
    """Write on from one prompt, and hand over the text piece by piece; takes what `generate` takes for sampling.

    A piece is held back until its characters are complete.
    """
    sampling = Sampling(**{k: v for k, v in settings.items() if k in Sampling.__dataclass_fields__})
    rest = {k: v for k, v in settings.items() if k not in Sampling.__dataclass_fields__}
    (row,) = [Row(0, g) for g in generators([text], int(rest.pop("seed", 0)))]
    how = Settings(int(rest.pop("max_new_tokens", 64)), sampling, end=model.end_tokens)
    if rest:
        raise ConfigError(f"stream does not know {', '.join(rest)}. Use generate.")
    said = ""
    with ExitStack() as stack:
        if plan is not None:
            stack.enter_context(plan.on(model))
        for _ in Decoder(model, [_tokens(model, text, text)], [row], how).steps():
            whole = str(model.tokenizer.decode(row.tokens, skip_special_tokens=True))
            if whole.startswith(said) and not whole.endswith("�"):
                yield whole[len(said) :]
                said = whole


def _write(
    model: Model,
    texts: Sequence[Sequence[int]],
    rows: Sequence[Row],
    settings: Settings,
    batch_size: int,
    progress: bool | None,
) -> None:
    order = sorted(range(len(rows)), key=lambda i: len(texts[i]))
    hidden = None if progress is None else not progress
    sessions = sessions_of(model)
    with tqdm(total=len(rows) * settings.max_new_tokens, desc="generate", unit="token", disable=hidden) as bar:
        for first in range(0, len(order), batch_size):
            part = order[first : first + batch_size]
            for session in sessions:
                session.expect(part, new_call=first == 0)
            chosen = [rows[i] for i in part]
            for written in Decoder(model, [texts[i] for i in part], chosen, settings).steps():
                bar.update(len(written))
            bar.update(sum(settings.max_new_tokens - len(row.tokens) for row in chosen))


def _completion(model: Model, text: str, row: Row, stops: Sequence[str]) -> Completion:
    written = str(model.tokenizer.decode(row.tokens, skip_special_tokens=True))
    if row.finish == "stop":
        written = written[: min(at for stop in stops if (at := written.find(stop)) >= 0)]
    return Completion(
        text,
        written,
        tuple(row.tokens),
        row.finish,  # pyright: ignore[reportArgumentType]
        tuple(row.forced),
        {site: torch.cat(parts) for site, parts in row.activations.items()},
        {site: tuple(places) for site, places in row.places.items()},
        torch.stack(row.logits) if row.logits else None,
        tuple(row.entropy),
        tuple(row.logprob),
    )


def _prompts(prompts: Prompts) -> list[tuple[str, str]]:
    """Return names and texts; the name of a bare text is the text."""
    given = [prompts] if isinstance(prompts, str | Prompt) else list(prompts)
    if not given:
        raise PromptError("No prompts were given. Expected at least one.")
    return [(p.id, p.prompt) if isinstance(p, Prompt) else (p, p) for p in given]


def _tokens(model: Model, name: str, text: str) -> list[int]:
    ids = model.tokenize(text)
    if not ids:
        raise PromptError(f"Prompt {name!r} is empty, and {model.facts.name} begins texts with no token of its own.")
    return ids
