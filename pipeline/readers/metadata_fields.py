"""The metadata fields of a source row, as JSON that any reader accepts; they are stored beside the caption."""

import datetime
import decimal
import math
import uuid
from collections.abc import Mapping
from typing import Any

from pipeline.readers.source_row import JSON, FieldNames

EVERYTHING = "*"
"""The entry of `source.metadata_fields` that keeps all fields but bytes."""


def split_fields(fields: dict[str, JSON], names: FieldNames) -> tuple[dict[str, JSON], dict[str, JSON]]:
    """Return the fields that a caption row keeps, and those that were read to decide about the row only."""
    if not names.tested or EVERYTHING in names.kept:
        return fields, {}
    only_tested = set(names.tested) - set(names.kept)
    kept = {name: value for name, value in fields.items() if name not in only_tested} if names.kept else {}
    return kept, {name: value for name, value in fields.items() if name in only_tested}


class NotSerializable(Exception):
    """A value without a JSON form, such as bytes."""


def to_json(value: Any) -> JSON:  # noqa: ANN401 - whatever a JSON member or an Arrow column holds
    """The JSON form of a value: NaN and infinities are null, times ISO 8601, lone surrogates `?`.

    Bytes inside a list are null, inside a mapping they are left out.

    Raises:
        NotSerializable: bytes, and types without a JSON form.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, Mapping):
        return fields_to_json(value)
    if isinstance(value, list | tuple):
        return [None if isinstance(item, bytes) else to_json(item) for item in value]
    raise NotSerializable(type(value).__name__)


def fields_to_json(fields: Mapping[Any, Any]) -> dict[str, JSON]:
    """`to_json` of each value; those without a JSON form are left out."""
    metadata: dict[str, JSON] = {}
    for name, value in fields.items():
        try:
            metadata[str(to_json(str(name)))] = to_json(value)
        except NotSerializable:
            continue
    return metadata
