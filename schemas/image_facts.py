"""Facts about one image from one place: a row of a table, or the source row in a caption row.

Only the form is normalised: lists are lists, numbers are numbers. A field is null where the place has no value.
"""

import pyarrow as pa


def _field(name: str, dtype: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, dtype, metadata={"doc": doc})


_TAGS = pa.list_(pa.string())

IMAGE_FACTS: pa.Schema = pa.schema(
    [
        _field("id", pa.string(), "a number that the data set gives the image, such as a post's"),
        _field("key", pa.string(), "the image's own name there"),
        _field("url", pa.string(), "where it was published"),
        _field("sha256", pa.string(), "hex digest of the encoded image"),
        _field("md5", pa.string(), "hex digest of the encoded image"),
        _field("tags", _TAGS, "tags without a category"),
        _field("general", _TAGS, "general tags"),
        _field("character", _TAGS, "character tags"),
        _field("copyright", _TAGS, "tags of the works shown"),
        _field("artist", _TAGS, "artist tags"),
        _field("meta", _TAGS, "tags about the file"),
        _field("rating", pa.string(), "as the place has it: a word, letter or number"),
        _field("quality", _TAGS, "quality words of the place"),
        _field("width", pa.int32(), "px"),
        _field("height", pa.int32(), "px"),
        _field("short", pa.string(), "a short caption"),
        _field("long", pa.string(), "a long caption"),
        _field("title", pa.string(), "a title or the page's alternative text"),
        _field("score", pa.int64(), "the place's own score"),
        _field("favorites", pa.int64(), "how many people marked it a favourite"),
        _field("year", pa.int32(), "of publication"),
    ]
)
"""One row an image. Columns that are added for a join stand beside these, see `pipeline.corpus.join`."""
