"""The YAML head of a data set card, by which `datasets.load_dataset(folder)` finds files, splits and column types."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml

SIZES = (
    *((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")),
    *((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B")),
)
"""Hugging Face's classes for the number of rows."""


def hub_head(keys: Mapping[str, Any], configs: Mapping[str, tuple[Mapping[str, str], pa.Schema]], num_rows: int) -> str:
    """Return the head of README.md, with its delimiters.

    Args:
        keys: the head's keys apart from the files, such as license and tags.
        configs: for each set of files, the default first: glob by split, and the columns.
        num_rows: of the default config.
    """
    head = {
        **keys,
        "size_categories": [next((name for limit, name in SIZES if num_rows < limit), "n>1B")],
        "configs": [
            {
                "config_name": name,
                **({"default": True} if number == 0 else {}),
                "data_files": [{"split": split, "path": glob} for split, glob in globs.items()],
            }
            for number, (name, (globs, _)) in enumerate(configs.items())
        ],
        # JSON has no types: without these, a column that is null in the first file cannot hold a text in another one.
        "dataset_info": [{"config_name": name, "features": _features(schema)} for name, (_, schema) in configs.items()],
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


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
