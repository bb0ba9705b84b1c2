"""The corpus record: all facts about one image, from which training texts are drawn.

Names are those that the public TIPO v1 trainer reads (`general`, `special`, ... `width`, `height`) and those of the
v2 trainer's normalised record (`id`, `key`, `source`, `short`, `long`, `title`, `score`, `year`). A name that both
have is the same field.
"""

from enum import StrEnum

import pyarrow as pa

from schemas.field import field

RECORD_VERSION = "1"
"""Changes with the name, type, unit or meaning of a field. Footers carry it; readers refuse other versions."""


class Split(StrEnum):
    """The split of an image; all records of an image are in the same split."""

    TRAIN = "train"
    VALIDATION = "validation"


def _tags(name: str, doc: str) -> pa.Field:
    return field(name, pa.list_(pa.field("item", pa.string(), nullable=False)), doc)


RECORD: pa.Schema = pa.schema(
    [
        field("id", pa.string(), "identity of the record within the corpus; the draws depend on it"),
        field("source", pa.string(), "name of the data set of the record"),
        field("key", pa.string(), "name of the image in the data set; may repeat"),
        field("image", pa.string(), "identity of the image: sha256, md5 or normalised URL; the split depends on it"),
        field("url", pa.string(), "where the image was once published", nullable=True),
        _tags("general", "general tags, normalised, without those that count persons"),
        _tags("special", "tags that count persons, such as 1girl; some presets write them first"),
        _tags("character", "character tags"),
        _tags("copyright", "tags of the works of which characters are shown"),
        _tags("artist", "artist tags"),
        _tags("meta", "tags about the file, such as highres"),
        _tags("rating", "rating terms, such as safe"),
        _tags("quality", "quality and era terms, such as masterpiece, newest"),
        field("width", pa.int32(), "px; null if unknown: then no aspect ratio is written", nullable=True),
        field("height", pa.int32(), "px; null if unknown", nullable=True),
        field("short", pa.string(), "one sentence about the image", nullable=True),
        field("long", pa.string(), "paragraphs about the image", nullable=True),
        field("title", pa.string(), "a title; part of a text only with title_as_short", nullable=True),
        field("score", pa.int64(), "score in the data set", nullable=True),
        field("favorites", pa.int64(), "number of users who marked the image as a favourite", nullable=True),
        field("year", pa.int32(), "year of publication", nullable=True),
        field("language", pa.string(), "language of the captions, an ISO 639 code; null if unknown", nullable=True),
    ]
)

V1_TEXTS: tuple[pa.Field, ...] = (
    field("pixtral_caption", pa.string(), "equal to `long`, under the name that the v1 trainer reads", nullable=True),
    field("florence_short", pa.string(), "equal to `short`, under the name that the v1 trainer reads", nullable=True),
    field("florence_long", pa.string(), "null: the v1 trainer would use it as a second long caption", nullable=True),
    field("phi3v_horny", pa.string(), "null, as florence_long", nullable=True),
)
"""Columns of published records in addition to RECORD, for the public v1 trainer."""

PUBLISHED_WITH_LANGUAGE: pa.Schema = pa.schema([*RECORD, *V1_TEXTS])
"""Columns of the files below `records/` of a corpus whose records may have a language."""

PUBLISHED: pa.Schema = pa.schema([column for column in PUBLISHED_WITH_LANGUAGE if column.name != "language"])
"""Columns of the files below `records/` of any other corpus, as the first edition wrote them."""


def published_schema(*, knows_language: bool) -> pa.Schema:
    """Return the columns of the files below `records/`."""
    return PUBLISHED_WITH_LANGUAGE if knows_language else PUBLISHED
