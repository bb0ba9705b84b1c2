"""The YAML head of a data set card, by which `datasets.load_dataset(folder)` finds files, splits and column types."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml

SIZES = (
    *((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")),
    *((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B")),
)
"""Hugging Face's classes for the number of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFiles:
    """The files of one split."""

    glob: str
    num_rows: int
    """`datasets` refuses to load a split with another number."""
    num_bytes: int | None
    """Of the rows in Arrow; None if it was not counted, since the head then names no sizes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSet:
    """A set of files with the same columns: what `load_dataset(folder, name)` loads."""

    name: str
    splits: Mapping[str, SplitFiles]
    """By name; not empty."""
    schema: pa.Schema


def hub_head(keys: Mapping[str, Any], file_sets: Sequence[FileSet]) -> str:
    """Return the head of README.md, with its delimiters.

    Args:
        keys: the head's keys apart from the files, such as license and tags.
        file_sets: the default first.
    """
    num_rows = sum(split.num_rows for files in file_sets[:1] for split in files.splits.values())
    head = {
        **keys,
        "size_categories": [next((name for limit, name in SIZES if num_rows < limit), "n>1B")],
        "configs": [
            {
                "config_name": files.name,
                **({"default": True} if number == 0 else {}),
                "data_files": [{"split": name, "path": split.glob} for name, split in files.splits.items()],
            }
            for number, files in enumerate(file_sets)
        ],
        # JSON has no types: without these, a column that is null in the first file cannot hold a text in another one.
        "dataset_info": [
            {"config_name": files.name, "features": _features(files.schema), **_sizes(files)} for files in file_sets
        ],
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _sizes(files: FileSet) -> Mapping[str, Any]:
    sizes = [split.num_bytes for split in files.splits.values()]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return {}
    splits = [
        {"name": name, "num_bytes": split.num_bytes, "num_examples": split.num_rows}
        for name, split in files.splits.items()
    ]
    return {"splits": splits, "dataset_size": sum(known)}


def _features(schema: pa.Schema) -> Sequence[Mapping[str, str]]:
    return [
        {"name": field.name, "sequence": _dtype(field.type.value_type)}
        if pa.types.is_list(field.type)
        else {"name": field.name, "dtype": _dtype(field.type)}
        for field in schema
    ]


def _dtype(dtype: pa.DataType) -> str:
    """Return a type's name in `datasets`, which for the plain types of a corpus is that of Arrow."""
    if not (pa.types.is_string(dtype) or pa.types.is_integer(dtype) or pa.types.is_boolean(dtype)):
        raise ValueError(f"{dtype}: a card names no such type; allowed: string, integers, bool and lists of these")
    return str(dtype)
