"""Rows of a corpus as public trainers read them: records for trainers that render texts, tokens for those that do not.

Names and types are those of the trainers; `id` is that of the record, which they ignore.
"""

import pyarrow as pa

from schemas.field import field


def _tags(name: str, doc: str) -> pa.Field:
    return field(name, pa.list_(pa.field("item", pa.string(), nullable=False)), doc)


_ID = field("id", pa.string(), "id of the record; the trainer does not read it")
_CATEGORIES = (
    _tags("meta", "tags about the file"),
    _tags("rating", "rating terms"),
    _tags("artist", "artist tags"),
    _tags("character", "character tags"),
    _tags("copyright", "tags of the works"),
)
_SIZE = (field("width", pa.int32(), "px"), field("height", pa.int32(), "px"))

TIPO_V1_DANBOORU: pa.Schema = pa.schema(
    [
        _ID,
        _tags("general", "at least three, without years: the trainer drops years"),
        _tags("special", "given first and never counted; at least one"),
        *_CATEGORIES,
        field("quality", pa.string(), "quality and era terms as one text", nullable=True),
        *_SIZE,
        field("florence_long", pa.string(), "null: it would replace the long caption at random", nullable=True),
        field("florence_short", pa.string(), "the short caption", nullable=True),
        field("phi3v_horny", pa.string(), "null, as florence_long", nullable=True),
        field("pixtral_caption", pa.string(), "the long caption", nullable=True),
    ]
)
"""A file of the TIPO v1 trainer: any row without `original_caption` and `caption_llava`."""

TIPO_V1_COYO: pa.Schema = pa.schema(
    [
        _ID,
        field("caption_llava", pa.string(), "the long caption"),
        field("caption_llava_short", pa.string(), "the short caption"),
        field("tags_open_images", pa.string(), "the trainer evaluates it as Python: always []"),
        field("tags_booru", pa.string(), "at least three tags, as a list that is JSON and Python"),
    ]
)
"""A file of the TIPO v1 trainer, recognised by `caption_llava`."""

TIPO_V1_GBC: pa.Schema = pa.schema(
    [
        _ID,
        field("original_caption", pa.string(), "the cleaned title if there is one, else the short caption"),
        field("short_caption", pa.string(), "the short caption"),
        field("detail_caption", pa.string(), "the long caption"),
    ]
)
"""A file of the TIPO v1 trainer, recognised by `original_caption`."""

TIPO_V2: pa.Schema = pa.schema(
    [
        _ID,
        field("key", pa.string(), "name of the image in its data set"),
        field("source", pa.string(), "name of the data set"),
        _tags("general", "tags that count persons, then the general tags; at least three"),
        *_CATEGORIES,
        field("quality", pa.string(), "quality and era terms as one text", nullable=True),
        field("width", pa.int32(), "px", nullable=True),
        field("height", pa.int32(), "px", nullable=True),
        field("short", pa.string(), "the short caption", nullable=True),
        field("long", pa.string(), "the long caption", nullable=True),
        field("title", pa.string(), "a title", nullable=True),
        field("score", pa.int64(), "score in the data set", nullable=True),
        field("year", pa.int32(), "year of publication", nullable=True),
    ]
)
"""The normalised record of the TIPO v2 trainer."""

DANTAGGEN: pa.Schema = pa.schema(
    [
        _ID,
        _tags("general", "at least three"),
        _tags("special", "given first"),
        *_CATEGORIES[1:],
        field("quality", pa.string(), "quality and era terms as one text; empty if there are none"),
        *_SIZE,
    ]
)
"""A line of DanTagGen's `captions.jsonl`."""

_TOKENS = pa.list_(pa.field("item", pa.int32(), nullable=False))

TOKENS: pa.Schema = pa.schema(
    [
        field("input_ids", _TOKENS, "token ids with BOS and EOS"),
        field("labels", _TOKENS, "equal to input_ids where loss is computed, else -100; not shifted"),
    ]
)
"""A tokenised text."""

PACKED_TOKENS: pa.Schema = pa.schema(
    [*TOKENS, field("seq_lengths", _TOKENS, "tokens of each text of the sequence, in their order")]
)
"""Whole tokenised texts one after the other; not padded."""
