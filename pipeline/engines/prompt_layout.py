"""JoyCaption's prompt as token ids, built by us, because every ready-made way gets it silently wrong.

vLLM's chat API inserts a literal `<image>` line and, depending on version, drops or doubles the
BOS; the hub's own README warns of several BOS. So the ids are built here: one BOS at 0, one image
placeholder between its start and end tokens and before the text, and the layout is asserted.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from pipeline.engines.model_dims import dims_of
from pipeline.errors import ConfigError, ModelMismatch

IMAGE = "<|reserved_special_token_69|>"
IMAGE_START = "<|reserved_special_token_70|>"
IMAGE_END = "<|reserved_special_token_71|>"
_CUT_OFF = "\ufffd"
"""What a tokenizer writes for bytes that are no whole character: `max_tokens` may end an answer within one."""
_PREAMBLE = "Cutting Knowledge Date: December 2023\nToday Date: 26 July 2024\n\n"
_SPECIALS = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    IMAGE,
    IMAGE_START,
    IMAGE_END,
)


@dataclass(frozen=True, slots=True)
class ImageShape:
    """What the vision tower takes and gives."""

    side_px: int
    tokens: int
    """Rows that one image placeholder becomes."""
    token: int
    """Id of the placeholder."""


class PromptTokens:
    """Token ids of prompts for one model; ids are cached per (system, prompt)."""

    def __init__(self, model_path: str, revision: str | None = None) -> None:
        self._name = model_path
        self._tokenizer: Any = AutoTokenizer.from_pretrained(model_path, revision=revision)
        self._ids = {special: self._special(special) for special in _SPECIALS}
        config: Any = AutoConfig.from_pretrained(model_path, revision=revision)
        self.image = _check_config(config, self._ids[IMAGE], model_path)
        self.shape = dims_of(config.to_dict())
        self.encode = functools.lru_cache(maxsize=8192)(self._encode)
        self.check(self.encode("You are a helpful image captioner.", "Describe <|eot_id|> this."))

    def _special(self, token: str) -> int:
        ids: list[int] = self._tokenizer.encode(token, add_special_tokens=False)
        if len(ids) != 1:
            raise ModelMismatch(
                f"{self._name}: {token} is {len(ids)} tokens, must be 1; this is not JoyCaption's tokenizer"
            )
        return ids[0]

    def _text(self, text: str) -> list[int]:
        # A special token in a user's own prompt stays text: an extra image token would pass unnoticed.
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def _header(self, role: str) -> list[int]:
        ids = self._ids
        return [ids["<|start_header_id|>"], *self._text(role), ids["<|end_header_id|>"], *self._text("\n\n")]

    def _encode(self, system: str, prompt: str) -> tuple[int, ...]:
        ids = self._ids
        eot = ids["<|eot_id|>"]
        # "\n\n" and the preamble are one run of text in the hub's template, so they are tokenised as one.
        header = [ids["<|start_header_id|>"], *self._text("system"), ids["<|end_header_id|>"]]
        return (
            ids["<|begin_of_text|>"],
            *header,
            *self._text("\n\n" + _PREAMBLE + system.strip()),
            eot,
            *self._header("user"),
            ids[IMAGE_START],
            ids[IMAGE],
            ids[IMAGE_END],
            *self._text(prompt.strip()),
            eot,
            *self._header("assistant"),
        )

    def with_one_image(self, ids: Iterable[int]) -> tuple[int, ...]:
        """Return the ids with each run of image tokens as one: what an engine made of a placeholder, undone."""
        runs = itertools.groupby(ids)
        return tuple(id_ for token, run in runs for id_ in ([token] if token == self._ids[IMAGE] else run))

    def check_room(self, max_tokens: int, max_model_len: int) -> None:
        """Refuse lengths with which every prompt would be too long; a single long one fails alone, as a row.

        Raises:
            ConfigError: not even an empty prompt leaves room for the caption.
        """
        fewest = len(self.encode("", "")) - 1 + self.image.tokens
        if fewest + max_tokens > max_model_len:
            raise ConfigError(
                f"sampling.max_tokens={max_tokens}: with the {fewest} tokens that the shortest prompt has, "
                f"{self.image.tokens} of them the image's, it needs engine.max_model_len={fewest + max_tokens}; "
                f"that is {max_model_len}. Allowed here: sampling.max_tokens up to {max(0, max_model_len - fewest)}"
            )

    def around_image(self, ids: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return what stands before and after the one image placeholder."""
        at = ids.index(self.image.token)
        return ids[:at], ids[at + 1 :]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a caption, without special tokens and without a character that was cut off at the end."""
        # Llama's own config would have spaces before full stops and the like removed; vLLM does not, nor do we.
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.rstrip(_CUT_OFF)

    def check(self, ids: tuple[int, ...]) -> None:
        """Assert the layout of a prompt.

        Raises:
            ModelMismatch: names what is out of place.
        """
        bos, image = self._ids["<|begin_of_text|>"], self._ids[IMAGE]
        faults: list[str] = []
        if ids[:1] != (bos,) or ids.count(bos) != 1:
            faults.append(f"BOS {bos} stands at {_places(ids, bos)}, must stand once, at 0")
        if ids.count(image) != 1:
            faults.append(f"image token {image} stands at {_places(ids, image)}, must stand once")
        else:
            at = ids.index(image)
            if ids[at - 1] != self._ids[IMAGE_START] or ids[at + 1 : at + 2] != (self._ids[IMAGE_END],):
                faults.append("the image token is not between its start and end tokens")
            if self._ids["<|eot_id|>"] not in ids[:at]:
                faults.append("the image token stands in the system turn")
        if ids[-len(self._header("assistant")) :] != tuple(self._header("assistant")):
            faults.append("the prompt does not end with the assistant's header")
        if faults:
            raise ModelMismatch(f"{self._name}: wrong prompt layout: {'; '.join(faults)}")


def _places(ids: tuple[int, ...], token: int) -> list[int]:
    return [index for index, value in enumerate(ids) if value == token]


def _check_config(config: Any, image_token: int, name: str) -> ImageShape:  # noqa: ANN401 - transformers' config
    if getattr(config, "model_type", None) != "llava":
        raise ModelMismatch(f"{name}: model_type is {getattr(config, 'model_type', None)!r}, must be 'llava'")
    index = getattr(config, "image_token_index", None) or getattr(config, "image_token_id", None)
    if index != image_token:
        raise ModelMismatch(f"{name}: image_token_index is {index}, but the tokenizer's {IMAGE} is {image_token}")
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    tokens = (side // patch) ** 2
    if config.vision_feature_select_strategy != "full" or config.image_seq_length != tokens:
        raise ModelMismatch(
            f"{name}: strategy {config.vision_feature_select_strategy!r} with image_seq_length "
            f"{config.image_seq_length}; JoyCaption has 'full' with ({side} // {patch})**2 = {tokens}"
        )
    return ImageShape(side_px=side, tokens=tokens, token=image_token)
