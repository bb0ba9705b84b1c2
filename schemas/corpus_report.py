"""The tables that a corpus writes to report/: counts of its texts, tags and dropped records."""

import pyarrow as pa


def _field(name: str, dtype: pa.DataType, doc: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, dtype, nullable=nullable, metadata={"doc": doc})


CORPUS_TEXTS: pa.Schema = pa.schema(
    [
        _field("epoch", pa.int32(), "which draw of the records"),
        _field("source", pa.string(), "name of the data set"),
        _field("split", pa.string(), "train or validation"),
        _field("kind", pa.string(), "what the record has, as the task tables: all, tags_long, tags_short, ..."),
        _field("has_meta", pa.bool_(), "whether a metadata line can be written of the record"),
        _field("task", pa.string(), "as in the texts"),
        _field("length", pa.string(), "as in the texts", nullable=True),
        _field("gen_meta", pa.bool_(), "as in the texts"),
        _field("loss", pa.string(), "as in the texts"),
        _field("rows", pa.int64(), "texts"),
        _field("n_tokens", pa.int64(), "non-padding tokens of them; null without a tokenizer", nullable=True),
        _field("n_trained", pa.int64(), "tokens of them that bear loss; null without a tokenizer", nullable=True),
        _field("too_long", pa.int64(), "texts beyond the context; null without a tokenizer", nullable=True),
    ]
)

CORPUS_ACCEPTANCE: pa.Schema = pa.schema(
    [
        _field("style", pa.string(), "of `render.styles`"),
        _field("kind", pa.string(), "what the records have"),
        _field("test", pa.string(), "task, gen_meta or loss"),
        _field("rows", pa.int64(), "texts that were tested"),
        _field("statistic", pa.float64(), "chi-square of counts against the shares that the config sets"),
        _field("degrees", pa.int32(), "of freedom"),
        _field("p", pa.float64(), "probability of counts at least as far off; below 0.001 something is wrong"),
    ]
)

CORPUS_COUNTS: pa.Schema = pa.schema(
    [
        _field("source", pa.string(), "name of the data set, or of the table"),
        _field("reason", pa.string(), "what was counted: `dropped_` records, `unrendered_` draws, or a remark"),
        _field("number", pa.int64(), "how often"),
    ]
)

CORPUS_TAGS: pa.Schema = pa.schema(
    [
        _field("category", pa.string(), "field of the record"),
        _field("tag", pa.string(), "as it is written"),
        _field("records", pa.int64(), "records that have it"),
    ]
)
