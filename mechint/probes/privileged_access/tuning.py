r"""Fine-tuning a model on questions and answers with low-rank adapters, and asking it.

Every linear map W of every block becomes W + (alpha / rank) B A, with A random, B zero and W held (Hu et al. 2021,
"LoRA", arXiv 2106.09685); by peft, which finds the maps of each family and leaves the unembedding alone. The loss is
the cross-entropy of the answer's tokens alone. AdamW without decay; the rate warms up over a twentieth of the steps and
falls to 0 linearly. What comes out depends on weights, examples, settings and seed alone, so an adapter need not be
kept to go on from where a run was stopped: it is made again.

The model that is trained is a copy in plain transformers: the backend's own is instrumented and stays as it is.
"""

import copy
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm.auto import trange

from mechint.errors import ConfigError, TokenError, UnsupportedModelError
from mechint.model.base import Model
from mechint.probes.privileged_access.settings import Lora
from mechint.prompts import tokenize
from mechint.statistics import derive_seed, generator

_LARGEST_STEP, _WARM_UP = 1.0, 0.05


@dataclass(frozen=True)
class Example:
    """A question, and what is to follow it."""

    prompt: str
    answer: str
    """With its leading blank, where the tokenizer wants one."""


class Plain:
    """A transformers model without a backend, which can be asked and trained.

    Args:
        model: whose weights are copied.

    Raises:
        UnsupportedModelError: transformers cannot build it from its configuration.
    """

    def __init__(self, model: Model) -> None:
        from transformers import AutoModelForCausalLM

        reference: Any = getattr(model, "_reference", None)
        if reference is None:
            raise UnsupportedModelError(
                f"{model.facts.name} has no plain transformers weights to train. Give a model that "
                "`mechint.load` or `mechint.wrap` made."
            )
        with torch.random.fork_rng():  # building a model draws numbers, none of which are kept
            self.hf: Any = AutoModelForCausalLM.from_config(reference.config, attn_implementation="eager")
        self.hf.load_state_dict(dict(reference.state), strict=True)
        self.hf.float().eval().requires_grad_(False)
        self.tokenizer, self.end = model.tokenizer, sorted(model.end_tokens)

    def twin(self) -> "Plain":
        """Return a copy that can be trained further."""
        other = copy.copy(self)
        other.hf = copy.deepcopy(self.hf)
        return other

    @torch.no_grad()
    def answers(self, prompts: Sequence[str], tokens: int, batch_size: int = 64) -> list[str]:
        """Return what follows each prompt at temperature 0, up to a line break, without blanks around it."""
        written: list[str] = []
        for start in range(0, len(prompts), batch_size):
            ids, mask, _ = _padded(
                [(tokenize(text, self.tokenizer), ()) for text in prompts[start : start + batch_size]]
            )
            out = self.hf.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=0,
                eos_token_id=self.end or None,
            )  # fmt: skip
            texts = self.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
            written += [text.strip().split("\n")[0].strip() for text in texts]
        return written

    @torch.no_grad()
    def label_probs(
        self, prompts: Sequence[str], labels: Sequence[str], batch_size: int = 16
    ) -> Float[np.ndarray, "prompt column"]:
        """Return the probabilities, of the whole vocabulary, of labels behind each prompt.

        Raises:
            TokenError: labels that differ in more than their last token.
        """
        asked = [_labelled(prompt, labels, self.tokenizer) for prompt in prompts]
        found: list[Tensor] = []
        for start in range(0, len(asked), batch_size):
            part = asked[start : start + batch_size]
            ids, mask, _ = _padded([(row, ()) for row, _ in part])
            probs = _logits(self.hf, ids, mask, 1)[:, -1].double().softmax(-1)
            found.append(probs.gather(1, torch.tensor([columns for _, columns in part])))
        return torch.cat(found).numpy()

    @torch.no_grad()
    def loss(self, texts: Sequence[str]) -> float:
        """Return the mean loss of a text's tokens, in nats: what tuning may not spoil."""
        total: list[float] = []
        for text in texts:
            ids = torch.tensor([tokenize(text, self.tokenizer)])
            logits = self.hf(input_ids=ids, use_cache=False).logits[0, :-1].float()
            total.append(float(nn.functional.cross_entropy(logits, ids[0, 1:])))
        return sum(total) / len(total)


def tune(
    plain: Plain,
    examples: Sequence[Example],
    lora: Lora,
    seed: int,
    *labels: object,
    progress: bool | None = None,
) -> list[float]:
    """Train adapters and add them to the model's weights, in place.

    Args:
        plain: the model.
        examples: drawn from with equal probability.
        lora: what decides what comes out.
        seed: of adapters and draws.
        labels: which of several trainings this is; draws are named by them.
        progress: show a progress bar on standard error; by default only in a terminal.

    Returns:
        The loss of every step, in nats.

    Raises:
        ConfigError: no examples, or an answer that is no token.
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    rows = [_row(example, plain.tokenizer) for example in examples]
    if not rows:
        raise ConfigError("No examples to train on. Give at least one.")
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=2 * lora.rank,
        target_modules=list(lora.targets) or "all-linear",
        lora_dropout=0.0,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in plain.hf.modules()),
    )
    with _seeded(derive_seed(seed, "lora", *labels)), warnings.catch_warnings():
        # peft asks transformers by a name that is going to be another one.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        tuned: Any = get_peft_model(plain.hf, settings)
    trained = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=lora.rate, weight_decay=0.0)
    rng, warm, losses = generator(seed, "examples", *labels), max(1, round(_WARM_UP * lora.steps)), list[float]()
    for step in trange(lora.steps, desc="fine-tuning", disable=None if progress is None else not progress, leave=False):
        for group in optimiser.param_groups:
            group["lr"] = lora.rate * min((step + 1) / warm, (lora.steps - step) / max(1, lora.steps - warm))
        loss = _loss(plain.hf, [rows[i] for i in rng.integers(len(rows), size=lora.rows)])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, _LARGEST_STEP)
        optimiser.step()
        losses.append(loss.item())
    plain.hf = tuned.merge_and_unload().eval().requires_grad_(False)
    return losses


_Row = tuple[tuple[int, ...], tuple[int, ...]]


def _labelled(prompt: str, labels: Sequence[str], tokenizer: Any) -> _Row:
    """Return the row behind which labels differ, and these tokens: some tokenizers part a digit from its blank."""
    rows = [tokenize(f"{prompt} {label}", tokenizer) for label in labels]
    if len({row[:-1] for row in rows}) > 1 or len({row[-1] for row in rows}) < len(rows):
        raise TokenError(
            f"The labels {', '.join(labels)} do not differ in exactly their last token behind {prompt[-30:]!r}. Choose "
            "labels that are one token each."
        )
    return rows[0][:-1], tuple(row[-1] for row in rows)


def _row(example: Example, tokenizer: Any) -> _Row:
    """Return the tokens of a question and of its answer, as the tokenizer makes them of both together."""
    before, whole = tokenize(example.prompt, tokenizer), tokenize(example.prompt + example.answer, tokenizer)
    if whole[: len(before)] != before or len(whole) == len(before):
        raise ConfigError(
            f"The answer {example.answer!r} does not begin a token of its own behind {example.prompt[-40:]!r}. Write "
            "it with a leading blank, or let the question end in a line break."
        )
    return before, whole[len(before) :]


def _padded(rows: Sequence[_Row]) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"], int]:
    """Pad whole rows on the left; also returns their mask, and the length of the longest answer."""
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.long)
    for at, (prompt, answer) in enumerate(rows):
        tokens = torch.tensor([*prompt, *answer])
        ids[at, longest - len(tokens) :], mask[at, longest - len(tokens) :] = tokens, 1
    return ids, mask, max(len(answer) for _, answer in rows)


def _logits(hf: Any, ids: Tensor, mask: Tensor, keep: int) -> Float[Tensor, "batch pos d_vocab"]:
    """Return the logits of the last positions: a large vocabulary costs more than all blocks of a small model."""
    places = (mask.cumsum(1) - 1).clamp(min=0)
    out = hf(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=False, logits_to_keep=keep)
    return cast(Tensor, out.logits)


def _loss(hf: Any, rows: Sequence[_Row]) -> Float[Tensor, ""]:
    ids, mask, longest = _padded(rows)
    logits = _logits(hf, ids, mask, longest + 1)[:, :-1].float()
    wanted = ids[:, -longest:].clone()
    for at, (_, answer) in enumerate(rows):
        wanted[at, : longest - len(answer)] = -100
    return nn.functional.cross_entropy(logits.transpose(1, 2), wanted)


@contextmanager
def _seeded(seed: int) -> Generator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
