"""The facts of one source about one image: a row of a table, or the source row that a caption row carries.

Only types are normalised: lists are lists, numbers are numbers. A field is null if the source does not have it.
"""

from functools import partial

import pyarrow as pa

from schemas.field import field

_field = partial(field, nullable=True)
_TAGS = pa.list_(pa.string())

IMAGE_FACTS: pa.Schema = pa.schema(
    [
        _field("id", pa.string(), "number of the image in the data set, such as the id of a post"),
        _field("key", pa.string(), "name of the image in the data set"),
        _field("url", pa.string(), "URL where the image was published"),
        _field("sha256", pa.string(), "hex digest of the encoded image"),
        _field("md5", pa.string(), "hex digest of the encoded image"),
        _field("tags", _TAGS, "tags without a category"),
        _field("general", _TAGS, "general tags"),
        _field("character", _TAGS, "character tags"),
        _field("copyright", _TAGS, "tags of the works of which characters are shown"),
        _field("artist", _TAGS, "artist tags"),
        _field("meta", _TAGS, "tags about the file, such as highres"),
        _field("rating", pa.string(), "word, letter or number of the source"),
        _field("quality", _TAGS, "quality terms of the source"),
        _field("width", pa.int32(), "px"),
        _field("height", pa.int32(), "px"),
        _field("short", pa.string(), "a short caption"),
        _field("long", pa.string(), "a long caption"),
        _field("title", pa.string(), "a title or the page's alternative text"),
        _field("score", pa.int64(), "score in the source"),
        _field("favorites", pa.int64(), "number of users who marked the image as a favourite"),
        _field("year", pa.int32(), "year of publication"),
        _field("language", pa.string(), "language of the captions, an ISO 639 code such as en"),
    ]
)
"""One row an image. Joins add columns, see `pipeline.corpus.tables.join`."""
