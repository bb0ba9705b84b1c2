"""Paths of all files of a corpus.

    run.json, plan.parquet               recipe and list of inputs, as for captions
    text/<split>/epoch-<n>/<unit>.parquet    training texts (`schemas.corpus_row`); also .jsonl.zst if configured
    text/<split>/epoch-<n>/<k>-of-<m>.parquet   in place of these with `shuffle`: files of mixed texts
    manifest/<split>/epoch-<n>.json      with `shuffle`: order, seed and files; the commit of the split and epoch
    records/<split>/<unit>.parquet       the records (`schemas.record`) from which the texts were drawn
    packing/<split>/epoch-<n>/<unit>.parquet   which texts of a file share a sequence, if configured
    parts/<unit>.json                    counts of a work unit, written last: the file is the commit of the unit
    report/*.parquet, README.md          report tables and data set card; the README is the last file of the job
    report/*.png, report/training.json   figures of the card, and the result of a training if one was given
    extensions/<n>.json, <n>-done.json   epochs were added until there were n; that this is complete
    parts-added/<n>/<unit>.json          counts of the added texts of a work unit: the commit of its added epochs
    staging/                             files that one step writes for the next; removed when the job has ended

A work unit is the work of one task: a caption file, or a slice of a table. Every file is created with put-if-absent.
Its rows are a pure function of inputs and config, so it does not matter which of several attempts or runs wrote it; its
bytes also hold the id of the attempt.
"""

from pipeline.config.corpus_config import Format
from schemas.record import Split

TEXT = "text"
RECORDS = "records"
PACKING = "packing"
MANIFEST = "manifest"
PARTS = "parts"
EXTENSIONS = "extensions"
STAGING = "staging"
REPORT = "report"
TRAINING = f"{REPORT}/training.json"
CARD = "README.md"

DATA_SET = (CARD, f"{TEXT}/**", f"{RECORDS}/**", f"{PACKING}/**", f"{MANIFEST}/**", f"{REPORT}/**")
"""What a reader of the data set needs. The other files name the inputs, and serve to resume."""

SUFFIXES = {Format.PARQUET: ".parquet", Format.JSONL: ".jsonl.zst"}


def text_path(unit: str, split: Split, epoch: int, form: Format) -> str:
    """Texts of one work unit, split and epoch."""
    return f"{TEXT}/{split}/epoch-{epoch:03d}/{unit}{SUFFIXES[form]}"


def records_path(unit: str, split: Split) -> str:
    """Published records of one work unit and split."""
    return f"{RECORDS}/{split}/{unit}.parquet"


def packing_path(unit: str, split: Split, epoch: int) -> str:
    """Which texts of a file of `text_path` share a sequence (`pipeline.corpus.text.pack_texts.PACKING`)."""
    return f"{PACKING}/{split}/epoch-{epoch:03d}/{unit}.parquet"


def commit_path(unit: str) -> str:
    """The file whose existence is the commit of a work unit."""
    return f"{PARTS}/{unit}.json"


def unit_of_commit(path: str) -> str:
    """Name of the work unit of a path of `commit_path`."""
    return path.removeprefix(f"{PARTS}/").removesuffix(".json")


def shuffled_name(number: int, num_files: int) -> str:
    """In place of a work unit's name in `text_path` and `packing_path`: one of the files of mixed texts."""
    return f"{number:05d}-of-{num_files:05d}"


def manifest_path(split: Split, epoch: int) -> str:
    """Order and files of the mixed texts of a split and epoch, written last: its commit."""
    return f"{MANIFEST}/{split}/epoch-{epoch:03d}.json"


def extension_path(epochs: int) -> str:
    """The record of an extension to so many epochs."""
    return f"{EXTENSIONS}/{epochs:03d}.json"


def extension_done_path(epochs: int) -> str:
    """Marks an extension as complete."""
    return f"{EXTENSIONS}/{epochs:03d}-done.json"


def added_path(epochs: int, unit: str) -> str:
    """The commit of a work unit in the extension to so many epochs."""
    return f"parts-added/{epochs:03d}/{unit}.json"


def slice_path(table: str, file: str, number: int) -> str:
    """A slice of a table, in `schemas.image_facts`. No folder has the name of a file: a glob would match it."""
    return f"{STAGING}/tables/{table}/{file}-{number:06d}.parquet"


def unit_of_slice(path: str) -> str:
    """Name of the work unit that a slice is, `<table>/<file>-<number>`."""
    return path.removeprefix(f"{STAGING}/tables/").removesuffix(".parquet")


def sliced_path(table: str, file: str) -> str:
    """Marks a file of a table as sliced; holds the number of slices and the counts of bad values."""
    return f"{STAGING}/tables/{table}/{file}.json"


def part_path(table: str, file: str, first: int) -> str:
    """As `sliced_path`, for a part of a large file that begins with the slice number `first`."""
    return f"{STAGING}/sliced/{table}/{file}-parts/{first:06d}.json"


def keys_path(unit: str) -> str:
    """Join keys of the images of a work unit."""
    return f"{STAGING}/keys/{unit}.parquet"


def joined_path(table: str, unit: str) -> str:
    """Rows of a table that belong to images of a work unit; absent if no row does."""
    return f"{STAGING}/joined/{table}/{unit}.parquet"


def join_path(table: str) -> str:
    """Marks a join as complete."""
    return f"{STAGING}/joined/{table}.json"


def built_records_path(unit: str) -> str:
    """Records of a work unit before duplicates are dropped."""
    return f"{STAGING}/drafts/{unit}.parquet"


def identities_path(unit: str) -> str:
    """Hashes by which the records of a work unit are compared."""
    return f"{STAGING}/identities/{unit}.parquet"


def choice_path(unit: str) -> str:
    """Which records of a work unit stay, and the split of each."""
    return f"{STAGING}/choices/{unit}.parquet"


def staged_texts_path(unit: str, split: Split, epoch: int) -> str:
    """Texts of one work unit, split and epoch that wait for the shuffle."""
    return f"{STAGING}/texts/{split}/epoch-{epoch:03d}/{unit}.parquet"


def tags_path(unit: str) -> str:
    """How many records of a work unit have each tag."""
    return f"{STAGING}/tags/{unit}.parquet"


POPULARITY = f"{STAGING}/popularity.parquet"
CHOSEN = f"{STAGING}/choices.json"
"""Marks all choices as written."""
