"""The caption row: what a reader of `captions/**/*.parquet` finds, one row per image and slot.

Row identity is (shard, row, slot). `key` is data and may repeat.
"""

import pyarrow as pa

SCHEMA_VERSION = "2"
"""Changes with the name, type, unit or meaning of any field; footers carry it and readers refuse others."""


def _field(name: str, dtype: pa.DataType, doc: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, dtype, nullable=nullable, metadata={"doc": doc})


CAPTION_ROW: pa.Schema = pa.schema(
    [
        _field("shard", pa.string(), "path of the source shard, relative to the source's root"),
        _field("row", pa.int64(), "number of the image in its shard, from 0, in the shard's order"),
        _field("key", pa.string(), "the sample's own name: tar key, or the key column; may repeat"),
        _field("slot", pa.string(), "which of the image's captions this is"),
        _field("image_sha256", pa.string(), "hex digest of the encoded image; null without bytes", nullable=True),
        _field("image_bytes", pa.int64(), "length of the encoded image in bytes", nullable=True),
        _field("image_format", pa.string(), "Pillow's name of the format, such as JPEG", nullable=True),
        _field("width", pa.int32(), "px, after EXIF rotation", nullable=True),
        _field("height", pa.int32(), "px, after EXIF rotation", nullable=True),
        _field("mode", pa.string(), "short name of the caption mode, or 'custom'"),
        _field("tone", pa.string(), "formal, casual, ...; null where the mode has none", nullable=True),
        _field("length_kind", pa.string(), "how the length was asked: none, words or class"),
        _field("length_words", pa.int32(), "words asked for, when length_kind is words", nullable=True),
        _field("length_class", pa.string(), "class asked for, when length_kind is class", nullable=True),
        _field("options", pa.list_(pa.string()), "short names of the extra options, in prompt order"),
        _field("name", pa.string(), "name to use for a person, when asked", nullable=True),
        _field("prompt", pa.string(), "the user turn, exactly as the model saw it"),
        _field("system", pa.string(), "the system turn, exactly as the model saw it"),
        _field("status", pa.string(), "ok, rejected or failed"),
        _field("reason", pa.string(), "why not ok, from a closed set; null when ok", nullable=True),
        _field("message", pa.string(), "details of the reason, for people", nullable=True),
        _field("flags", pa.list_(pa.string()), "remarks that do not reject, such as truncated"),
        _field(
            "earlier_reasons",
            pa.list_(pa.string()),
            "why each attempt before the last was rejected, in order; null when there was none",
            nullable=True,
        ),
        _field("caption", pa.string(), "the text; null unless status is ok", nullable=True),
        _field("rejected_text", pa.string(), "the last refused text; null unless one was refused", nullable=True),
        _field("words", pa.int32(), "words of the text, split at white space; null without text", nullable=True),
        _field("unknown_tags", pa.int32(), "tags not in the vocabulary; null without one and for prose", nullable=True),
        _field("prompt_tokens", pa.int32(), "tokens of the prompt, the image's included", nullable=True),
        _field("caption_tokens", pa.int32(), "tokens generated, the end token included", nullable=True),
        _field("finish_reason", pa.string(), "the engine's word: stop, length, repetition", nullable=True),
        _field("attempts", pa.int32(), "times that the engine was asked; 0 when the image could not be decoded"),
        _field("seed", pa.int64(), "sampling seed of the last attempt; null where none was given", nullable=True),
        _field("source", pa.string(), "JSON object: the fields of the source row that the config carries over"),
        _field("recipe", pa.string(), "fingerprint of the recipe"),
    ]
)
