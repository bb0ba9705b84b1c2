"""The tokenizer, config and image processor of a model: the only module that imports transformers."""

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPTokenizer

from pipeline.errors import ConfigError
from pipeline.models import ModelFamily
from pipeline.models.text_ids import markup_tokens

_CUT_OFF = "\ufffd"
"""What a tokenizer writes for an incomplete character: `max_tokens` may end an answer within one."""


class PromptTokens:
    """Token ids of prompts for one model; ids are cached per (system, prompt)."""

    def __init__(self, family: ModelFamily, model_path: str, revision: str | None = None) -> None:
        """Load the tokenizer and the config, not the weights.

        Raises:
            ModelMismatch: the model is not of this family.
        """
        self._tokenizer: Any = AutoTokenizer.from_pretrained(model_path, revision=revision)
        config: Any = AutoConfig.from_pretrained(model_path, revision=revision)
        stated = config.to_dict()
        self.layout = family.load_layout(self._tokenizer, stated, model_path)
        self.dims = family.dims_of(stated)
        self.geometry = family.geometry_of(stated)
        self.encode = functools.lru_cache(maxsize=8192)(self.layout.encode)
        self._markup = markup_tokens(self._tokenizer)

    def num_tokens(self, ids: Sequence[int], width: int, height: int) -> int:
        """Return the tokens of a prompt with an image of this size in place of the placeholder, if there is one."""
        if self.layout.image_token is None:
            return len(ids)
        return len(ids) - 1 + self.layout.image_tokens(width, height)

    def markup_in(self, text: str) -> str | None:
        """Return the first mark of a chat template that a text holds as text; None without one."""
        return next((token for token in self._markup if token in text), None)

    def with_one_image(self, ids: Iterable[int]) -> tuple[int, ...]:
        """Return the ids with each run of image tokens as one placeholder."""
        runs = itertools.groupby(ids)
        return tuple(id_ for token, run in runs for id_ in ([token] if token == self.layout.image_token else run))

    def check_room(self, max_tokens: int, max_model_len: int) -> None:
        """Refuse lengths with which every prompt is too long. A single prompt that is too long becomes a failed row.

        Raises:
            ConfigError: not even an empty prompt leaves room for the caption.
        """
        smallest = self.geometry.size_of(1, 1)
        fewest = self.num_tokens(self.encode("", ""), *smallest)
        if fewest + max_tokens > max_model_len:
            image_tokens = self.layout.image_tokens(*smallest)
            of_image = f", {image_tokens} of them for the image" if image_tokens else ""
            raise ConfigError(
                f"sampling.max_tokens={max_tokens}: the shortest prompt has {fewest} tokens{of_image}, "
                f"so engine.max_model_len must be at least {fewest + max_tokens}; found {max_model_len}. With this "
                f"max_model_len, sampling.max_tokens may be up to {max(0, max_model_len - fewest)}"
            )

    def around_image(self, ids: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids before and after the image placeholder."""
        assert self.layout.image_token is not None
        at = ids.index(self.layout.image_token)
        return ids[:at], ids[at + 1 :]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a caption, without special tokens and without an incomplete character at its end."""
        # A tokenizer's config may ask to remove spaces before full stops and the like; vLLM does not, nor do we.
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.rstrip(_CUT_OFF)


def token_counter(model_path: str, revision: str | None) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text alone, in which special tokens are text.

    Raises:
        ConfigError: the tokenizer cannot be loaded.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(model_path, revision=revision)
    except (OSError, ValueError) as err:
        raise ConfigError(
            f"prompt_fields: max_tokens needs the tokenizer of {model_path}, which cannot be loaded ({err}); remove "
            "max_tokens, or make the model available on every node with an engine"
        ) from err
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


@functools.lru_cache(maxsize=2)
def clip_tokenizer(name: str) -> str:
    """Return CLIP's tokenizer as the JSON text of the tokenizers library.

    Args:
        name: a local folder, a `tokenizer.json`, or a hub id.

    Raises:
        ConfigError: it cannot be loaded, or is not CLIP's.
    """
    key = "quality.clip.tokenizer"
    try:
        if Path(name).is_file():
            text = Path(name).read_text(encoding="utf-8")
        else:
            text = str(CLIPTokenizer.from_pretrained(name).backend_tokenizer.to_str())
        content: Any = json.loads(text)
        is_clip = content["model"]["end_of_word_suffix"] == "</w>" and content["post_processor"] is not None
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ConfigError(
            f"{key}: {name}: cannot be loaded ({err}); give a folder or a tokenizer.json of CLIP, or remove the key to "
            "count words and marks"
        ) from err
    if not is_clip:
        raise ConfigError(f"{key}: {name}: is another tokenizer than CLIP's; give one of a CLIP model")
    return text


def image_processor(model_path: str, revision: str | None) -> Any:  # noqa: ANN401 - the family knows what it returns
    """Return the model's own preparation of one image, RGB uint8, as a function that returns float32 `pixel_values`."""
    processor = AutoImageProcessor.from_pretrained(model_path, revision=revision)
    return lambda pixels: processor(images=[pixels], return_tensors="pt", input_data_format="channels_last")[
        "pixel_values"
    ][0]
