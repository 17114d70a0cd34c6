"""Small tokenizers that behave like the large ones."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from mechint.prompts.ioi import NAMES, PLACES, TEMPLATES, THINGS


def words(*vocabulary: str, bos: bool = True, adds: str = "", unknown: str = "[UNK]") -> PreTrainedTokenizerFast:
    """One token a word, split at white space. `adds`: what the tokenizer itself puts around a text, as "[BOS] $A"."""
    entries = ["[BOS]", "[EOS]", unknown, *vocabulary]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(entries)}, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=adds, special_tokens=[("[BOS]", 0), ("[EOS]", 1)]
        )
    special = {"bos_token": "[BOS]"} if bos else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=unknown, eos_token="[EOS]", **special)


def bytes_like_gpt2() -> PreTrainedTokenizerFast:
    """Byte-level BPE in which a leading space belongs to its word; one special token for everything, never added."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = [f" {word}" for word in NAMES] * 9 + [*TEMPLATES, *PLACES, *THINGS] * 3
    tokenizer.train_from_iterator(corpus, trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)
