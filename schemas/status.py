"""Statuses, reasons and flags of a caption row, as closed sets."""

from enum import StrEnum


class Status(StrEnum):
    """The result of one request. Every request ends with exactly one of them; rows are counted by status."""

    OK = "ok"
    """`caption` holds text that the quality rules accepted."""
    REJECTED = "rejected"
    """The quality rules rejected the text: it is in `rejected_text`, never in `caption`."""
    FAILED = "failed"
    """There is no text."""
    SKIPPED = "skipped"
    """The user's selection left the row out: no request was sent for it."""


def no_rows() -> dict[str, int]:
    """Return the number of caption rows by status, before any is counted: all zero."""
    return {status.value: 0 for status in Status}


class Reason(StrEnum):
    """Why a row is `failed`, `rejected` or `skipped`. Details for people are in `message`."""

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
    """The image data are cut."""
    UNDECODABLE = "undecodable"
    """The decoder raised an error."""
    DECODE_TIMEOUT = "decode_timeout"
    """Decoding took longer than `images.timeout_s`."""
    DECODER_KILLED = "decoder_killed"
    """The decoder process crashed on this image alone."""
    SHARD_DAMAGED = "shard_damaged"
    """The image, or all that follows in the shard, cannot be read; one row represents all lost images of a tar."""
    MISSING_FIELD = "missing_field"
    """A field of the source row that the prompt needs has no text, and `prompt_fields` says that the row fails then."""
    PROMPT_MARKUP = "prompt_markup"
    """The prompt holds a special token as text, which a server would take for markup."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """Prompt and `sampling.max_tokens` do not fit into `engine.max_model_len`."""
    ENGINE_ERROR = "engine_error"
    """The engine refused or lost this request and kept running."""
    ENGINE_KILLED = "engine_killed"
    """The engine crashed on this image, alone, more often than `engine.max_crashes_per_image` allows."""

    EMPTY_CAPTION = "empty_caption"
    """The text has no words."""
    LOOP = "loop"
    """The text repeats itself: words, sentences, tags, numbered names, one endless word or endless punctuation."""
    TRUNCATED = "truncated"
    """`sampling.max_tokens` cut the text, and the config rejects such a text or no complete part could be kept."""
    REFUSAL = "refusal"
    """The model refused to describe the image."""
    PROMPT_ECHO = "prompt_echo"
    """The text repeats the prompt."""
    SPECIAL_TOKENS = "special_tokens"
    """The text contains tokens of the chat template."""
    WRONG_FORM = "wrong_form"
    """Prose where tags were requested, or tags where prose was requested."""
    FOREIGN_SCRIPT = "foreign_script"
    """Outside quotation marks, more of another writing system than `quality.scripts` allows."""
    META_OPENING = "meta_opening"
    """The text opens with a phrase such as `This image shows`, and the config rejects it or could not remove it."""
    INVALID_JSON = "invalid_json"
    """A JSON Schema was requested, and the text is not JSON."""
    TRUNCATED_JSON = "truncated_json"
    """As before, and `sampling.max_tokens` ended the text."""
    SCHEMA_MISMATCH = "schema_mismatch"
    """The text is JSON that is not valid under the slot's schema."""
    MENTIONS = "mentions"
    """The text mentions none of the tags and names that the prompt had from the source row."""
    LOST_FACT = "lost_fact"
    """The text lacks a number, a quotation or a name of the texts that the prompt had from the source row."""
    LENGTH_RATIO = "length_ratio"
    """The text has fewer or more words, against these texts, than `quality.kept` allows."""
    OTHER_LANGUAGE = "other_language"
    """The text is in another language than these texts."""
    MAX_CLIP_TOKENS = "max_clip_tokens"
    """The text has more tokens of CLIP than `quality.clip.max_tokens`."""
    USER_RULE = "user_rule"
    """A rule of `quality.rules`; the message names it."""
    EDITOR = "editor"
    """A person rejected the text, with `joyfleet amend`; `edited_by` names them."""

    FILTERED = "filtered"
    """A condition of `source.where` is not met; the message is that condition."""
    NOT_SAMPLED = "not_sampled"
    """The row is not in the share `source.sample`."""
    BEYOND_LIMIT = "beyond_limit"
    """`source.limit` rows were selected before this row."""
    HAS_CAPTION = "has_caption"
    """The source has a text for the slot, and `captions[].existing` skips such rows."""
    DUPLICATE = "duplicate"
    """`source.duplicates`: an equal or similar image is captioned in its place; `duplicate_of` names that row."""
    NO_PARENT_CAPTION = "no_parent_caption"
    """The prompt needs the caption of a slot of the parent (`source.captions`), and that row is not ok."""


SKIPS = frozenset(
    (
        *(Reason.FILTERED, Reason.NOT_SAMPLED, Reason.BEYOND_LIMIT, Reason.HAS_CAPTION),
        *(Reason.DUPLICATE, Reason.NO_PARENT_CAPTION),
    )
)
"""The reasons of `skipped` rows. Their message is the condition alone, so that rows can be counted by it."""


class Flag(StrEnum):
    """Findings about a text that is kept. A rule of the user gives the flag `user:<its name>`."""

    TRUNCATED = "truncated"
    """`sampling.max_tokens` cut the text."""
    CUT = "cut"
    """Such a text, shortened to its last complete sentence or tag."""
    TOO_SHORT = "too_short"
    """Fewer words than requested, beyond `quality.length_tolerance`."""
    TOO_LONG = "too_long"
    META_OPENING = "meta_opening"
    OPENING_REMOVED = "opening_removed"
    TAGS_NORMALIZED = "tags_normalized"
    """Changed from what the model wrote: blanks, doubles, underscores or prefixes."""
    UNKNOWN_TAGS = "unknown_tags"
    """Some tags are not in `quality.tags.vocabulary`; the row counts them."""
    LOOP = "loop"
    """This and the following: findings of rules whose action in the config is `flag`."""
    REFUSAL = "refusal"
    PROMPT_ECHO = "prompt_echo"
    SPECIAL_TOKENS = "special_tokens"
    WRONG_FORM = "wrong_form"
    FOREIGN_SCRIPT = "foreign_script"
    MENTIONS = "mentions"
    LOST_FACT = "lost_fact"
    LENGTH_RATIO = "length_ratio"
    OTHER_LANGUAGE = "other_language"
    MAX_CLIP_TOKENS = "max_clip_tokens"


USER_FLAG = "user:"
"""Prefix of the flag of a user's rule."""
