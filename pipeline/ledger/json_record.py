"""Dataclasses from stored JSON objects, whichever release wrote them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

Record = TypeVar("Record")


def from_json(record: type[Record], values: Mapping[str, Any]) -> Record:
    """Return a record: a key that an older release did not write has its default, keys of later ones are ignored.

    Raises:
        TypeError: a field without a default has no key.
    """
    known = {field.name for field in fields(record)}  # pyright: ignore[reportArgumentType] - a dataclass
    return record(**{name: value for name, value in values.items() if name in known})
