"""Trains a small tokenizer like TIPO's: byte-level BPE, BOS, EOS and the 13 added tokens."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from schemas.corpus_row import LengthClass, Task

SPECIAL = [
    "<s>",
    "</s>",
    "<|empty|>",
    *(f"<|{length}|>" for length in LengthClass),
    *(f"<|{task}|>" for task in Task if task is not Task.TAG),
    "<|gen_meta|>",
]


def train_tokenizer(texts: Iterable[str], path: Path, vocab: int = 1000) -> None:
    """Write `tokenizer.json`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))
