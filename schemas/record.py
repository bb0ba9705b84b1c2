"""The corpus record: everything known about one image before training texts are drawn from it.

Names are those that the public TIPO v1 trainer reads (`general`, `special`, ... `width`, `height`) and those of the
v2 trainer's normalised record (`id`, `key`, `source`, `short`, `long`, `title`, `score`, `year`); where both have one,
it is the same field.
"""

from enum import StrEnum

import pyarrow as pa

RECORD_VERSION = "1"
"""Changes with the name, type, unit or meaning of any field; footers carry it and readers refuse others."""


class Split(StrEnum):
    """Which side of the corpus an image is on; all its records are on the same."""

    TRAIN = "train"
    VALIDATION = "validation"


def _field(name: str, dtype: pa.DataType, doc: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, dtype, nullable=nullable, metadata={"doc": doc})


def _tags(name: str, doc: str) -> pa.Field:
    return _field(name, pa.list_(pa.field("item", pa.string(), nullable=False)), doc)


RECORD: pa.Schema = pa.schema(
    [
        _field("id", pa.string(), "the record's identity within the corpus; what its draws depend on"),
        _field("source", pa.string(), "name of the data set it came from"),
        _field("key", pa.string(), "the image's own name there; may repeat"),
        _field("image", pa.string(), "identity of the image: sha256, md5 or normalised URL; the split goes by it"),
        _field("url", pa.string(), "where the image was once published", nullable=True),
        _tags("general", "general tags, normalised, no persons counted"),
        _tags("special", "tags that count persons, such as 1girl; first in the text where the preset says so"),
        _tags("character", "character tags"),
        _tags("copyright", "tags of the works shown"),
        _tags("artist", "artist tags"),
        _tags("meta", "tags about the file, such as highres"),
        _tags("rating", "rating words, mapped, such as safe"),
        _tags("quality", "quality and era words, mapped, such as masterpiece, newest"),
        _field("width", pa.int32(), "px; null when unknown: no aspect ratio is written", nullable=True),
        _field("height", pa.int32(), "px; null when unknown", nullable=True),
        _field("short", pa.string(), "one sentence about the image", nullable=True),
        _field("long", pa.string(), "paragraphs about the image", nullable=True),
        _field("title", pa.string(), "a title; kept, never rendered", nullable=True),
        _field("score", pa.int64(), "the source's own score", nullable=True),
        _field("favorites", pa.int64(), "how many people marked it a favourite", nullable=True),
        _field("year", pa.int32(), "year of publication", nullable=True),
    ]
)

V1_TEXTS: tuple[pa.Field, ...] = (
    _field(
        "pixtral_caption", pa.string(), "the same as `long`, under the name that the v1 trainer reads", nullable=True
    ),
    _field(
        "florence_short", pa.string(), "the same as `short`, under the name that the v1 trainer reads", nullable=True
    ),
    _field("florence_long", pa.string(), "null: the v1 trainer would take it for a second long caption", nullable=True),
    _field("phi3v_horny", pa.string(), "null, as florence_long", nullable=True),
)
"""Columns that stand in published records beside RECORD's, for the public v1 trainer."""
