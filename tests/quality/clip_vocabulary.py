"""A small tokenizer of CLIP's kind: its normaliser, its division of a text, its word ends, and few words."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

START, END = "<|startoftext|>", "<|endoftext|>"
DIVISION = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
TEXTS = ["a red circle on a white background", "the large square is blue", "a photo of a cat and a dog, 3 men's hats!"]


def write_clip_folder(folder: Path) -> Path:
    """Write `vocab.json` and `merges.txt`, as the repositories of CLIP have them, and return the folder."""
    from tokenizers import Regex

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
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return folder


def plain_tokenizer(file: Path) -> Path:
    """Write a tokenizer of another kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.post_processor = processors.ByteLevel()
    tokenizer.save(str(file))
    return file
