"""The corpus row: one training text, drawn from one record in one epoch."""

import pyarrow as pa

CORPUS_VERSION = "1"
"""Changes with the name, type, unit or meaning of any field; footers carry it and readers refuse others."""


def _field(name: str, dtype: pa.DataType, doc: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, dtype, nullable=nullable, metadata={"doc": doc})


CORPUS_ROW: pa.Schema = pa.schema(
    [
        _field("id", pa.string(), "the record that it was drawn from"),
        _field("epoch", pa.int32(), "which draw of the record, from 0"),
        _field("source", pa.string(), "name of the data set of the record"),
        _field("split", pa.string(), "train or validation"),
        _field("user", pa.string(), "the given half, stored also where loss is on all of it"),
        _field("output", pa.string(), "the half to be predicted; text = user + output"),
        _field("loss", pa.string(), "all: loss on user and output; output: on output alone"),
        _field("task", pa.string(), "tag, or one of the seven task tokens without brackets, such as tag_to_long"),
        _field("length", pa.string(), "very_short, short, long or very_long: by the number of general tags"),
        _field("gen_meta", pa.bool_(), "whether metadata is to be predicted after the last section"),
        _field("tags_given", pa.int32(), "tags in the user half"),
        _field("seed", pa.int64(), "of this draw: a pure function of (corpus seed, epoch, id)"),
        _field("n_tokens", pa.int32(), "tokens of the text with BOS and EOS; null without a tokenizer", nullable=True),
        _field("n_trained", pa.int32(), "tokens that bear loss; null without a tokenizer", nullable=True),
    ]
)
