"""A small tokenizer of CLIP's kind: its normaliser, its division of a text, its word ends, and few words."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

START, END = "<|startoftext|>", "<|endoftext|>"
DIVISION = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
TEXTS = ["a red circle on a white background", "the large square is blue", "a photo of a cat and a dog, 3 men's hats!"]


def write_clip_folder(folder: Path) -> Path:
    """Write the files of the tokenizer, as the repositories of CLIP have them, and return the folder."""
    from tokenizers import Regex
    from transformers import CLIPTokenizer

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(DIVISION), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    # CLIP has each byte as a word end too.
    vocabulary = dict(model["vocab"])
    for char in pre_tokenizers.ByteLevel.alphabet():
        vocabulary.setdefault(f"{char}</w>", len(vocabulary))
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(str(folder))
    return folder


def plain_tokenizer(file: Path) -> Path:
    """Write a tokenizer of another kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.post_processor = processors.ByteLevel()
    tokenizer.save(str(file))
    return file
