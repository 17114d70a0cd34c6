"""The decode loop: prompts padded on the left, one key/value cache, one generator a row, nothing computed twice.

Positions are those of whole rows, so what a plan selects depends neither on the cache nor on padding nor on company.
The first new token is produced at `prompt(-1)`; `generated(0)` is the pass that reads it. Rows that end leave the
batch. In each step: forward pass with the plan's rewrites, records, methods, filters, draw, forced queue, stops.
"""

from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechint.errors import InterventionError, PositionError
from mechint.model.base import Logits, Model, Run
from mechint.positions import Positions, TokenBatch
from mechint.sites import Site
from mechint.steering.methods import Edit, Method, SideBranch, StepState, entropy, entropy_of, merged
from mechint.steering.sampling import Sampling, draw, filtered, penalised
from mechint.steering.session import sessions_of

_LAST = Positions("the last token", lambda b: b.real & (torch.arange(b.ids.shape[1]) == b.ids.shape[1] - 1))


@dataclass(eq=False)
class Row:
    """One row while it is being written."""

    number: int
    """In the call."""
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list[int])
    forced: list[bool] = field(default_factory=list[bool])
    """Whether each token was forced."""
    queue: deque[int] = field(default_factory=deque[int])
    ending: bool = False
    """A method has asked for its end, which comes once the queue is empty."""
    finish: str = ""
    """"eos", "stop", "method" or "length"."""
    activations: dict[Site, list[Tensor]] = field(default_factory=dict[Site, list[Tensor]])
    places: dict[Site, list[int]] = field(default_factory=dict[Site, list[int]])
    logits: list[Tensor] = field(default_factory=list[Tensor])
    entropy: list[float] = field(default_factory=list[float])
    logprob: list[float] = field(default_factory=list[float])


@dataclass(frozen=True)
class Settings:
    """What holds for every row of a call."""

    max_new_tokens: int
    sampling: Sampling
    stop: Sequence[str] = ()
    read: Mapping[Site, Positions] = field(default_factory=dict[Site, Positions])
    """What to record, where."""
    logits: Tensor | None = None
    """Columns of the raw logits to record; an empty tensor for all."""
    measure: bool = False
    """Record the entropy of the model's distribution, and the log-probability of the token that came."""
    methods: Sequence[Method] = ()
    end: frozenset[int] = frozenset()
    """Tokens that end a text."""


class Decoder:
    """The loop over the tokens of one batch of rows."""

    def __init__(self, model: Model, texts: Sequence[Sequence[int]], rows: Sequence[Row], settings: Settings) -> None:
        self._model, self._settings = model, settings
        self._rows = list(rows)
        self._batch = TokenBatch.from_rows(texts, pad_left=True, tokenizer=model.tokenizer)
        longest = int(self._batch.lengths.max())
        if longest + settings.max_new_tokens > model.facts.n_ctx:
            raise PositionError(
                f"The longest prompt has {longest} tokens; with {settings.max_new_tokens} new ones that is more than "
                f"the {model.facts.n_ctx} that {model.facts.name} reads. Shorten one or the other."
            )
        self._past = model.new_past()
        self._sessions = sessions_of(model)
        wanted = [Site.parse(site) for method in settings.methods for site in method.sites]
        self._seen = sorted({model.facts.check(site) for site in wanted})

    def steps(self) -> Generator[Mapping[int, int]]:
        """Write on until every row has ended; yields each step's tokens by row number.

        The rows that were given fill up as it goes.
        """
        while self._rows:
            run = self._pass()
            assert run.logits is not None
            logits = run.logits[:, 0].float()
            self._observe(logits)
            edits = self._edits(run, logits)
            tokens = self._choose(merged(logits, edits), edits)
            self._note(logits, tokens)
            yield {row.number: token for row, token in zip(self._rows, tokens.tolist(), strict=True)}
            self._batch = self._batch.extended(tokens)
            self._drop_ended()

    def probe(
        self, places: Sequence[int], text: str | Sequence[int], *, max_new_tokens: int, stop: str | None = None
    ) -> Mapping[int, SideBranch]:
        """Append a text to some rows on a forked cache, and see what they would write, greedily; leaves no trace.

        Args:
            places: which rows of this step.
            text: what is appended; tokenised by itself, without BOS.
            max_new_tokens: when to end at the latest.
            stop: end a row once its new text contains this.
        """
        chosen = list(places)
        if not chosen:
            return {}
        ids = list(text) if not isinstance(text, str) else self._bare(text)
        if not ids:
            raise InterventionError("probe('') appends nothing. Give a text, or read the logits of this step.")
        past, batch = self._past.fork(chosen), self._batch.pick(chosen)
        for token in ids:
            batch = batch.extended(torch.full((len(chosen),), token))
        found: list[tuple[list[int], list[float]]] = [([], []) for _ in chosen]
        with ExitStack() as stack:
            for session in self._sessions:
                stack.enter_context(session.aside(chosen))
            for _ in range(max_new_tokens):
                logits = self._model.run(batch, logits=Logits(at=_LAST), past=past).logits
                assert logits is not None
                token = logits[:, 0].argmax(-1)
                for (tokens, spread), one, h in zip(found, token.tolist(), entropy(logits[:, 0]).tolist(), strict=True):
                    if not self._ended(tokens, stop):
                        tokens.append(one)
                        spread.append(h)
                if all(self._ended(tokens, stop) for tokens, _ in found):
                    break
                batch = batch.extended(token)
        decode = self._model.tokenizer.decode
        return {
            place: SideBranch(tuple(tokens), str(decode(tokens)), tuple(spread))
            for place, (tokens, spread) in zip(chosen, found, strict=True)
        }

    def _ended(self, tokens: list[int], stop: str | None) -> bool:
        if tokens and tokens[-1] in self._settings.end:
            return True
        return stop is not None and stop in str(self._model.tokenizer.decode(tokens))

    def _bare(self, text: str) -> list[int]:
        return list(self._model.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _pass(self) -> Run:
        start = self._past.length
        masks = {site: at.mask(self._batch)[:, start:] for site, at in self._settings.read.items()}
        due = {site: mask for site, mask in masks.items() if bool(mask.any())}
        run = self._model.run(self._batch, read=sorted({*due, *self._seen}), logits=Logits(at=_LAST), past=self._past)
        for site, mask in due.items():
            for place, row in enumerate(self._rows):
                if bool(mask[place].any()):
                    row.activations.setdefault(site, []).append(run[site][place, mask[place]].float().cpu())
                    row.places.setdefault(site, []).extend(self._batch.offset[place, start:][mask[place]].tolist())
        return run

    def _observe(self, logits: Tensor) -> None:
        if any(session.wants_entropy for session in self._sessions):
            spread = entropy(logits)
            certainty = 1 - spread / torch.tensor(float(logits.shape[-1])).log()
            for session in self._sessions:
                session.observe(spread, certainty)

    def _edits(self, run: Run, logits: Tensor) -> list[Edit]:
        if not self._settings.methods:
            return []
        numbers = [row.number for row in self._rows]
        last = {site: run[site][:, -1] for site in self._seen}
        state = StepState(self._model, numbers, self._batch, logits, last, self.probe)
        edits = [method.step(state) for method in self._settings.methods]
        return [edit for edit in edits if edit is not None]

    def _choose(self, logits: Tensor, edits: Sequence[Edit]) -> Tensor:
        """Pick each row's next token, and see to forced tokens and ends."""
        how = self._settings.sampling
        held = (ids[real] for ids, real in zip(self._batch.ids, self._batch.real, strict=True))
        logits = penalised(logits, held, how.repetition_penalty)
        draws = [row.generator for row in self._rows]
        tokens = logits.argmax(-1) if how.greedy else draw(filtered(logits, how), draws)
        forcing: set[int] = set()
        for edit in edits:
            for place, ids in edit.force.items():
                if place in forcing:
                    raise InterventionError(f"Two methods force tokens on row {self._rows[place].number} in one step.")
                forcing.add(place)
                self._rows[place].queue.extend(ids)
            for place in [] if edit.stop is None else edit.stop.nonzero()[:, 0].tolist():
                self._rows[place].ending = True
        for place, row in enumerate(self._rows):
            row.forced.append(bool(row.queue))
            if row.queue:
                tokens[place] = row.queue.popleft()
        return tokens

    def _note(self, logits: Tensor, tokens: Tensor) -> None:
        settings = self._settings
        log_p = logits.double().log_softmax(-1) if settings.measure else None
        spread = [] if log_p is None else entropy_of(log_p).tolist()
        for place, (row, token) in enumerate(zip(self._rows, tokens.tolist(), strict=True)):
            row.tokens.append(token)
            if log_p is not None:
                row.entropy.append(spread[place])
                row.logprob.append(float(log_p[place, token]))
            if settings.logits is not None:
                columns = settings.logits
                row.logits.append((logits[place] if columns.numel() == 0 else logits[place, columns]).cpu())
            row.finish = self._finish(row)

    def _finish(self, row: Row) -> str:
        """Say why a row ends here, or nothing."""
        if row.queue:
            return "length" if len(row.tokens) >= self._settings.max_new_tokens else ""
        if row.ending:
            return "method"
        if row.tokens[-1] in self._settings.end:
            return "eos"
        if self._settings.stop:
            # The last token may complete a stop string that began a few tokens before.
            tail = row.tokens[-max(map(len, self._settings.stop)) - 8 :]
            text = str(self._model.tokenizer.decode(tail))
            if any(stop in text for stop in self._settings.stop):
                return "stop"
        return "length" if len(row.tokens) >= self._settings.max_new_tokens else ""

    def _drop_ended(self) -> None:
        going = [place for place, row in enumerate(self._rows) if not row.finish]
        if len(going) == len(self._rows):
            return
        self._rows = [self._rows[place] for place in going]
        if going:
            self._past.keep(going)
            self._batch = self._batch.pick(going)
            for session in self._sessions:
                session.keep(going)
