"""How a caption row ended, as closed sets: three statuses, and the reasons for the two that are not `ok`."""

from enum import StrEnum


class Status(StrEnum):
    """The outcome of one request. Every request ends in exactly one of them."""

    OK = "ok"
    """`caption` holds text that the quality rules accepted."""
    REJECTED = "rejected"
    """Text came and the quality rules refused it: it is in `rejected_text`, never in `caption`."""
    FAILED = "failed"
    """No text came."""


class Reason(StrEnum):
    """Why a row is `failed` or `rejected`. The free text beside it is in `message`."""

    MISSING_IMAGE = "missing_image"
    """The sample has no image member, or the image column is null."""
    EMPTY_FILE = "empty_file"
    """The image has no bytes."""
    TOO_MANY_BYTES = "too_many_bytes"
    """The encoded image is larger than `images.max_bytes`."""
    UNSUPPORTED_FORMAT = "unsupported_format"
    """The bytes are in none of the formats of `images.formats`."""
    TOO_MANY_PIXELS = "too_many_pixels"
    """The header announces more than `images.max_pixels`."""
    TRUNCATED_IMAGE = "truncated_image"
    """The image data end before the picture does."""
    UNDECODABLE = "undecodable"
    """The decoder refused the bytes."""
    DECODER_KILLED = "decoder_killed"
    """The decoder died on this image, alone in a process of its own."""
    SHARD_DAMAGED = "shard_damaged"
    """The rest of the shard cannot be read; this one row stands for all that it held."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """Prompt and `sampling.max_tokens` do not fit into `engine.max_model_len`."""
    ENGINE_ERROR = "engine_error"
    """The engine refused or lost this request and stayed alive."""
    ENGINE_KILLED = "engine_killed"
    """The engine died on this image, alone, more often than `engine.max_deaths_per_image` allows."""

    EMPTY_CAPTION = "empty_caption"
    """The model answered with no words."""
