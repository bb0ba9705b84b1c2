"""The corpus row, one training text drawn from one record in one epoch, and the closed sets of its fields."""

from enum import StrEnum

import pyarrow as pa

from schemas.field import field

CORPUS_VERSION = "1"
"""Changes with the name, type, unit or meaning of a field. Footers carry it; readers refuse other versions."""


class Task(StrEnum):
    """Which sections a text has, in their order, joined by `_to_`."""

    TAG = "tag"
    """The list of tags is continued; the only task without a task token."""
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
        """The sections of the task in their order: `tag`, `short`, `long`."""
        return tuple(self.value.split("_to_"))


class LengthClass(StrEnum):
    """Classes of the number of general tags, by the thresholds of the preset; ascending."""

    VERY_SHORT = "very_short"
    SHORT = "short"
    LONG = "long"
    VERY_LONG = "very_long"


class Loss(StrEnum):
    """On which half of the text loss is computed."""

    ALL = "all"
    OUTPUT = "output"


class Drop(StrEnum):
    """Why a record has no text in an epoch."""

    NOTHING = "nothing"
    """Neither tags nor captions."""
    ONE_CAPTION = "one_caption"
    """No tags and only one caption: no task writes a caption from nothing."""
    NO_TAGS = "no_tags"
    """The preset writes only tags, and the record has none."""
    NO_WEIGHT = "no_weight"
    """The config gives weight 0 to every task that fits the record."""


CORPUS_ROW: pa.Schema = pa.schema(
    [
        field("id", pa.string(), "id of the record from which the text was drawn"),
        field("epoch", pa.int32(), "epoch of the draw, from 0"),
        field("source", pa.string(), "name of the data set of the record"),
        field("split", pa.string(), "train or validation"),
        field("user", pa.string(), "the given half"),
        field("output", pa.string(), "the half to be predicted; text = user + output"),
        field("loss", pa.string(), "all: loss on user and output; output: loss on output only"),
        field("task", pa.string(), "tag, or one of the seven task tokens without brackets, such as tag_to_long"),
        field(
            "length",
            pa.string(),
            "very_short, short, long or very_long, by the number of general tags; null for short_to_long, which has "
            "no length token",
            nullable=True,
        ),
        field("gen_meta", pa.bool_(), "whether metadata lines follow the last section"),
        field("tags_given", pa.int32(), "number of tags in the user half"),
        field(
            "seed",
            pa.int64(),
            "seed of this draw: a pure function of (corpus seed, epoch, id, number of the text within the epoch)",
        ),
        field("n_tokens", pa.int32(), "tokens of the text with BOS and EOS; null without a tokenizer", nullable=True),
        field("n_trained", pa.int32(), "tokens on which loss is computed; null without a tokenizer", nullable=True),
    ]
)
