"""The corpus row: one training text, drawn from one record in one epoch; and the closed sets that it is made of."""

from enum import StrEnum

import pyarrow as pa

CORPUS_VERSION = "1"
"""Changes with the name, type, unit or meaning of any field; footers carry it and readers refuse others."""


class Task(StrEnum):
    """What is to be written from what: the sections of the text in their order, joined by `_to_`."""

    TAG = "tag"
    """Tags go on; the only task without a token of its own."""
    TAG_TO_LONG = "tag_to_long"
    LONG_TO_TAG = "long_to_tag"
    SHORT_TO_TAG = "short_to_tag"
    SHORT_TO_LONG = "short_to_long"
    """The only task without a length token."""
    TAG_TO_SHORT_TO_LONG = "tag_to_short_to_long"
    SHORT_TO_TAG_TO_LONG = "short_to_tag_to_long"
    SHORT_TO_LONG_TO_TAG = "short_to_long_to_tag"

    @property
    def sections(self) -> tuple[str, ...]:
        """`tag`, `short`, `long`: those that the task writes, in their order."""
        return tuple(self.value.split("_to_"))


class LengthClass(StrEnum):
    """How many general tags an image has, by the thresholds of the preset; the shortest first."""

    VERY_SHORT = "very_short"
    SHORT = "short"
    LONG = "long"
    VERY_LONG = "very_long"


class Loss(StrEnum):
    """Which tokens bear loss."""

    ALL = "all"
    OUTPUT = "output"


class Drop(StrEnum):
    """Why a record gives no row in an epoch."""

    NOTHING = "nothing"
    """Neither tags nor captions."""
    ONE_CAPTION = "one_caption"
    """No tags and one caption alone: no task goes from nothing to it."""
    NO_TAGS = "no_tags"
    """The preset writes tags only, and there are none."""
    NO_WEIGHT = "no_weight"
    """The config gives no weight to any task of what the record has."""


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
        _field(
            "length",
            pa.string(),
            "very_short, short, long or very_long: by the number of general tags; null for short_to_long, whose "
            "text has no length token",
            nullable=True,
        ),
        _field("gen_meta", pa.bool_(), "whether metadata is to be predicted after the last section"),
        _field("tags_given", pa.int32(), "tags in the user half"),
        _field("seed", pa.int64(), "of this draw: a pure function of (corpus seed, epoch, id)"),
        _field("n_tokens", pa.int32(), "tokens of the text with BOS and EOS; null without a tokenizer", nullable=True),
        _field("n_trained", pa.int32(), "tokens that bear loss; null without a tokenizer", nullable=True),
    ]
)
