"""A tiny random Llama that reads bytes, and a task in a language of its own."""

import functools
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mechint.model.transformer_lens import TransformerLensModel
from mechint.probes.critique_pipeline.judge import CORRECT, INCORRECT, Judgement
from mechint.probes.critique_pipeline.tasks import Item


@functools.cache
def bytes_tokenizer() -> Any:
    """One token a byte; token 0 begins every text, token 1 ends it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<bos>": 0, "<eos>": 1} | {letter: at + 2 for at, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<bos>", "<eos>"])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")


@functools.cache
def byte_llama(n_ctx: int = 2048) -> Any:
    """A random model of two blocks."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=258,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=n_ctx,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.add_(0.15 * torch.randn_like(parameter))
    return TransformerLensModel(model, bytes_tokenizer(), name="byte-llama")


class Coins:
    """A task in a language of its own: the parity of what is written says whether thinking and answer are right.

    A row is 0, the problem, 9 for a true and 8 for a wrong beginning, 7 as the end of the thinking; what the model
    writes behind it is the answer.
    """

    content_hash = "coins"
    notes = ("coins",)
    detection: tuple[Any, ...] = ()
    neutral = None

    def __init__(self, sizes: tuple[int, int, int] = (40, 4, 6)) -> None:
        names = [f"coin {at}" for at in range(sum(sizes))]
        first, second = sizes[0], sizes[0] + sizes[1]
        spans = {"train": names[:first], "select": names[first:second], "test": names[second:]}
        self._parts = {part: tuple(Item(name, name) for name in span) for part, span in spans.items()}
        self._number = {name: at for at, name in enumerate(names)}

    def items(self, part: str) -> tuple[Item, ...]:
        return self._parts[part]

    def row(self, item: Item, run: str) -> tuple[int, ...]:
        number = self._number[item.id]
        return (0, 10 + number % 30, 10 + number // 30, 8 if run == "injected" else 9, 7)

    def judge(self, item: Item, run: str, row: tuple[int, ...]) -> Judgement:
        thinking = INCORRECT if run == "injected" else CORRECT
        right = run != "injected" or sum(row[5:]) % 2 == 0
        return Judgement(thinking, CORRECT if right else INCORRECT, 2, 5)

    def read(self, row: Any) -> str:
        return " ".join(map(str, row))

    def waiting(self, item: Item, run: str, row: tuple[int, ...]) -> tuple[int, ...]:
        return (*row[:4], 6, 7)

    def closed(self, row: tuple[int, ...]) -> tuple[int, ...]:
        return row

    def forced(self, item: Item, *, wrong: bool) -> tuple[tuple[int, ...], int]:
        row = self.row(item, "injected" if wrong else "matched")
        return (*row, 5), len(row)

    def said_step(self, question: Any, row: tuple[int, ...]) -> int | None:
        return None
