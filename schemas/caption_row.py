"""The caption row of `captions/**/*.parquet`: one row per image and slot.

Row identity is (shard, row, slot). `key` is data and may repeat.
"""

import pyarrow as pa

from schemas.field import field

SCHEMA_VERSION = "2"
"""Changes with the name, type, unit or meaning of a field; footers hold it and readers refuse other versions.

A nullable column may be added without a new version: in older files it is null, and older releases ignore it. When
`retry --rows` of an older release replaces a row, the added columns of that row become null.
"""


CAPTION_ROW: pa.Schema = pa.schema(
    [
        field("shard", pa.string(), "path of the source shard, relative to the source's root"),
        field("row", pa.int64(), "number of the image in its shard, from 0, in the shard's order"),
        field("key", pa.string(), "name of the sample: tar key, or the key column; may repeat"),
        field("slot", pa.string(), "which of the image's captions this is"),
        field("image_sha256", pa.string(), "hex digest of the encoded image; null without bytes", nullable=True),
        field("image_bytes", pa.int64(), "length of the encoded image in bytes", nullable=True),
        field("image_format", pa.string(), "Pillow's name of the format, such as JPEG", nullable=True),
        field("width", pa.int32(), "px, after EXIF rotation", nullable=True),
        field("height", pa.int32(), "px, after EXIF rotation", nullable=True),
        field("mode", pa.string(), "short name of the caption mode, 'custom', or 'existing' for a text of the source"),
        field("tone", pa.string(), "formal, casual, ...; null where the mode has none", nullable=True),
        field("length_kind", pa.string(), "how the prompt gives the length: none, words or class"),
        field("length_words", pa.int32(), "requested words, when length_kind is words", nullable=True),
        field("length_class", pa.string(), "requested class, when length_kind is class", nullable=True),
        field("options", pa.list_(pa.string()), "short names of the extra options, in prompt order"),
        field("name", pa.string(), "name to use for a person, when the prompt gives one", nullable=True),
        field("prompt", pa.string(), "the user turn, exactly as the model saw it; empty for a text of the source"),
        field("system", pa.string(), "the system turn, exactly as the model saw it"),
        field("status", pa.string(), "ok, rejected, failed or skipped"),
        field("reason", pa.string(), "why not ok, from a closed set; null when ok", nullable=True),
        field("message", pa.string(), "details of the reason, for people", nullable=True),
        field("flags", pa.list_(pa.string()), "findings that do not reject the text, such as truncated"),
        field(
            "earlier_reasons",
            pa.list_(pa.string()),
            "why each attempt before the last was rejected, in order; null when there was none",
            nullable=True,
        ),
        field("caption", pa.string(), "the text; null unless status is ok", nullable=True),
        field("rejected_text", pa.string(), "the last rejected text; null unless one was rejected", nullable=True),
        field("words", pa.int32(), "words of the text, split at white space; null without text", nullable=True),
        field("unknown_tags", pa.int32(), "tags not in the vocabulary; null without one and for prose", nullable=True),
        field("given", pa.int32(), "tags and names that the prompt has from the source row; else null", nullable=True),
        field("mentioned", pa.int32(), "of these, those that the text mentions; null without text", nullable=True),
        field("prompt_tokens", pa.int32(), "tokens of the prompt, the image's included", nullable=True),
        field("caption_tokens", pa.int32(), "tokens generated, the end token included", nullable=True),
        field("finish_reason", pa.string(), "as the engine reports it: stop, length, repetition", nullable=True),
        field("attempts", pa.int32(), "requests sent to the engine; 0 when none was needed or possible"),
        field("seed", pa.int64(), "sampling seed of the last attempt; null where none was given", nullable=True),
        field("source", pa.string(), "JSON object: the fields of the source row that the config carries over"),
        field("recipe", pa.string(), "fingerprint of the recipe"),
        field("model_caption", pa.string(), "the model's caption before the first edit; null without", nullable=True),
        field("edited_by", pa.string(), "editor of the last edit of this row; null if nobody edited it", nullable=True),
        field("edited_at", pa.string(), "when it was applied: UTC, ISO 8601; null beside a null editor", nullable=True),
        field(
            "duplicate_of",
            pa.string(),
            "`<shard>#<row>` of the image that is captioned in place of this one; of a row that was asked, the image "
            "that failed and that it replaces; null without",
            nullable=True,
        ),
        field("parent_recipe", pa.string(), "recipe of the output that is the source; else null", nullable=True),
        field(
            "parent_slots",
            pa.list_(pa.string()),
            "slots of that output whose captions the request uses; null without any",
            nullable=True,
        ),
        field("parent_digest", pa.string(), "of their captions, see DIGEST_BYTES; null without any", nullable=True),
    ]
)

DIGEST_BYTES = 16
"""Of `parent_digest`: the hex BLAKE2b digest of so many bytes over the captions of `parent_slots`, in their order. Each
is `<length>:<bytes>,` (a netstring: the length of its UTF-8 form in decimal digits), or `-,` where the slot's row is
not ok."""
