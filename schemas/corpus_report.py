"""The report tables of a corpus: counts of its texts, its tags, and everything else that was counted."""

import pyarrow as pa


def _field(name: str, dtype: pa.DataType, doc: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, dtype, nullable=nullable, metadata={"doc": doc})


CORPUS_TEXTS: pa.Schema = pa.schema(
    [
        _field("epoch", pa.int32(), "epoch of the texts, from 0"),
        _field("source", pa.string(), "name of the data set"),
        _field("split", pa.string(), "train or validation"),
        _field("task", pa.string(), "as in the texts"),
        _field("length", pa.string(), "as in the texts", nullable=True),
        _field("gen_meta", pa.bool_(), "as in the texts"),
        _field("loss", pa.string(), "as in the texts"),
        _field("rows", pa.int64(), "texts"),
        _field("n_tokens", pa.int64(), "tokens of the texts; null without a tokenizer", nullable=True),
        _field("n_trained", pa.int64(), "tokens on which loss is computed; null without a tokenizer", nullable=True),
        _field("too_long", pa.int64(), "texts longer than the context; null without a tokenizer", nullable=True),
    ]
)

CORPUS_COUNTS: pa.Schema = pa.schema(
    [
        _field("source", pa.string(), "name of the data set, or of the table"),
        _field(
            "reason",
            pa.string(),
            "what was counted; `dropped_`: records left out, `unrendered_`: draws without a text",
        ),
        _field("number", pa.int64(), "how often"),
    ]
)

CORPUS_TAGS: pa.Schema = pa.schema(
    [
        _field("category", pa.string(), "field of the record that holds the tag"),
        _field("tag", pa.string(), "as it is written"),
        _field("records", pa.int64(), "records that have the tag"),
    ]
)
