"""Where everything of a corpus lies.

    run.json, plan.parquet               what it is made of and how, as for captions
    text/<split>/epoch-<n>/<part>.parquet    training texts (`schemas.corpus_row`); .jsonl.zst beside it if asked
    records/<split>/<part>.parquet       the records (`schemas.record`) that they were drawn from
    packing/<split>/epoch-<n>/<part>.parquet   which texts share a sequence, if asked
    parts/<part>.json                    counts of a part, written last: that it exists is the part's commit
    report/*.parquet, README.md          the census; the README ends the job
    staging/                             what the job hands from step to step; gone when it has ended

A part is what one task makes: a caption file, or a slice of a table. Every file is put if absent and is a pure
function of inputs and config, so it does not matter which of several tries or runs made it.
"""

from __future__ import annotations

from pipeline.config.corpus_config import Format
from schemas.record import Split

TEXT = "text"
RECORDS = "records"
PARTS = "parts"
PACKING = "packing"
STAGING = "staging"
REPORT = "report"
CARD = "README.md"

SUFFIXES = {Format.PARQUET: ".parquet", Format.JSONL: ".jsonl.zst"}


def text_path(part: str, split: Split, epoch: int, form: Format) -> str:
    """The texts of one part, split and epoch."""
    return f"{TEXT}/{split}/epoch-{epoch:03d}/{part}{SUFFIXES[form]}"


def records_path(part: str, split: Split) -> str:
    """The published records of one part and split."""
    return f"{RECORDS}/{split}/{part}.parquet"


def packing_path(part: str, split: Split, epoch: int) -> str:
    """Which texts of a file of `text_path` share a sequence (`pipeline.corpus.text.pack_texts.PACKING`)."""
    return f"{PACKING}/{split}/epoch-{epoch:03d}/{part}.parquet"


def part_path(part: str) -> str:
    """The file whose existence is the commit of a part."""
    return f"{PARTS}/{part}.json"


def part_of(path: str) -> str | None:
    """The part that a path below `PARTS` commits, or None."""
    inside = path.startswith(f"{PARTS}/") and path.endswith(".json")
    return path.removeprefix(f"{PARTS}/").removesuffix(".json") if inside else None


def slice_path(table: str, file: str, number: int) -> str:
    """A slice of a table, in `schemas.image_facts`. No folder bears the name of a file: globs would take it for one."""
    return f"{STAGING}/tables/{table}/{file}-{number:06d}.parquet"


def part_of_slice(path: str) -> str:
    """The part that a slice is, `<table>/<file>-<number>`."""
    return path.removeprefix(f"{STAGING}/tables/").removesuffix(".parquet")


def sliced_path(table: str, file: str) -> str:
    """Says that a table's file is sliced, into how many, and what was wrong in it."""
    return f"{STAGING}/tables/{table}/{file}.json"


def keys_path(part: str) -> str:
    """What the images of a part are joined by."""
    return f"{STAGING}/keys/{part}.parquet"


def joined_path(table: str, part: str) -> str:
    """The rows of a table that belong to images of a part; absent where none does."""
    return f"{STAGING}/joined/{table}/{part}.parquet"


def join_path(table: str) -> str:
    """Says that a join has ended."""
    return f"{STAGING}/joined/{table}.json"


def drafts_path(part: str) -> str:
    """The records of a part before duplicates are dropped."""
    return f"{STAGING}/drafts/{part}.parquet"


def identities_path(part: str) -> str:
    """What the records of a part are compared by."""
    return f"{STAGING}/identities/{part}.parquet"


def choice_path(part: str) -> str:
    """Which records of a part stay, and on which side of the split."""
    return f"{STAGING}/choices/{part}.parquet"


def tags_path(part: str) -> str:
    """How often each tag stands in the records of a part."""
    return f"{STAGING}/tags/{part}.parquet"


POPULARITY = f"{STAGING}/popularity.parquet"
CHOSEN = f"{STAGING}/choices.json"
"""Says that all choices are made."""
