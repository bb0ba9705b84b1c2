"""The report tables of a corpus: counts of its texts, its tags, their lengths, and everything else that was counted."""

import pyarrow as pa

from schemas.field import field

CORPUS_TEXTS: pa.Schema = pa.schema(
    [
        field("epoch", pa.int32(), "epoch of the texts, from 0"),
        field("source", pa.string(), "name of the data set"),
        field("split", pa.string(), "train or validation"),
        field("task", pa.string(), "as in the texts"),
        field("length", pa.string(), "as in the texts", nullable=True),
        field("gen_meta", pa.bool_(), "as in the texts"),
        field("loss", pa.string(), "as in the texts"),
        field("rows", pa.int64(), "texts"),
        field("n_tokens", pa.int64(), "tokens of the texts; null without a tokenizer", nullable=True),
        field("n_trained", pa.int64(), "tokens on which loss is computed; null without a tokenizer", nullable=True),
        field("too_long", pa.int64(), "texts longer than the context; null without a tokenizer", nullable=True),
    ]
)

CORPUS_COUNTS: pa.Schema = pa.schema(
    [
        field("source", pa.string(), "name of the data set, or of the table"),
        field(
            "reason", pa.string(), "what was counted; `dropped_`: records left out, `unrendered_`: draws without a text"
        ),
        field("number", pa.int64(), "how often"),
    ]
)

CORPUS_TAGS: pa.Schema = pa.schema(
    [
        field("category", pa.string(), "field of the record that holds the tag"),
        field("tag", pa.string(), "as it is written"),
        field("records", pa.int64(), "records that have the tag"),
    ]
)

CORPUS_HISTOGRAMS: pa.Schema = pa.schema(
    [
        field("name", pa.string(), "what was measured: tokens or characters of a text, tags or words of a record"),
        field("start", pa.int64(), "smallest value of the bin"),
        field("width", pa.int64(), "of the bin: values from start to start + width - 1"),
        field("number", pa.int64(), "texts of all epochs, or records, with such a value"),
    ]
)
