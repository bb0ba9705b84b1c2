"""The tables that `joyfleet quality` writes to report/quality/. A group is a mode with one form of length."""

import pyarrow as pa

from schemas.field import field
from schemas.status import Status


def _share(name: str, doc: str) -> pa.Field:
    return field(name, pa.float64(), f"{doc}, in [0, 1]; null when there is nothing to count", nullable=True)


GROUP: tuple[pa.Field, ...] = (
    field("mode", pa.string(), "as in the caption rows"),
    field("length", pa.string(), "none, the class, or such as `40 words`"),
)

COUNTED: dict[str, str] = {
    Status.OK.value: "ok at the first attempt",
    "repaired": "ok after a retry",
    **{status.value: "rows with this status" for status in Status if status is not Status.OK},
}
"""Columns that count caption rows by status, with their meaning; each row is counted in one of them."""

QUALITY_GROUPS: pa.Schema = pa.schema(
    [
        *GROUP,
        field("rows", pa.int64(), "caption rows: the sum of the counts by status that follow"),
        *(field(name, pa.int64(), doc) for name, doc in COUNTED.items()),
        field("words_mean", pa.float64(), "words of the ok captions", nullable=True),
        field("words_p10", pa.int32(), "10th percentile of the words", nullable=True),
        field("words_p50", pa.int32(), "median of the words", nullable=True),
        field("words_p90", pa.int32(), "90th percentile of the words", nullable=True),
        _share("length_kept", "of the ok captions with a requested length, those within quality.length_tolerance"),
        _share("too_short", "of the ok captions with a requested length"),
        _share("too_long", "of the ok captions with a requested length"),
        field(
            "ngram_captions", pa.int64(), "captions that the next three are computed from: a sample drawn by identity"
        ),
        _share("distinct_1", "different words among all words of the sample"),
        _share("distinct_2", "different runs of two words among all of the sample"),
        _share("distinct_3", "different runs of three words among all of the sample"),
        field("exact_rate", pa.float64(), "share of all different texts that exact_duplicates is computed from"),
        _share("exact_duplicates", "ok captions that another image has word for word"),
        field("near_captions", pa.int64(), "captions that near_duplicates is computed from"),
        _share("near_duplicates", "ok captions that another image has in nearly the same words, exact ones included"),
        field("given", pa.int64(), "tags and names that the prompts of the ok captions had from source rows"),
        _share("mentioned", "of these, those that the captions mention"),
    ]
)

QUALITY_REASONS: pa.Schema = pa.schema(
    [
        *GROUP,
        field(
            "kind", pa.string(), "rejected, failed or skipped: the row's reason; earlier: an earlier attempt's; flag"
        ),
        field("name", pa.string(), "the reason or the flag"),
        field("rows", pa.int64(), "rows with it; earlier: attempts"),
    ]
)

QUALITY_WORDS: pa.Schema = pa.schema(
    [
        *GROUP,
        field("words", pa.int32(), "words of a caption"),
        field("rows", pa.int64(), "ok captions with this number of words"),
    ]
)

QUALITY_OPENINGS: pa.Schema = pa.schema(
    [
        *GROUP,
        field("opening", pa.string(), "the first three words, lower case"),
        field("rows", pa.int64(), "ok captions that begin so; a lower bound for rare ones"),
    ]
)
