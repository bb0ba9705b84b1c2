"""Columns from the top-level fields of JSON captions. Their types follow from the schema, so that all shards agree."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pyarrow as pa

from pipeline.errors import ConfigError, PipelineError
from pipeline.export.choose_captions import Chosen

IS_JSON = {b"joyfleet": b"json"}
"""Metadata of a column that holds JSON as text."""

_SCALARS: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}


def check_spread(spread: Sequence[str], slots: Sequence[str], schemas: Mapping[str, str]) -> None:
    """Refuse slots that have no fields to spread.

    Raises:
        ConfigError: names the slot and what is allowed.
    """
    for slot in spread:
        if slot not in slots:
            raise ConfigError(f"export: --spread {slot}: not an exported slot; found: {', '.join(slots)}")
        if slot not in schemas:
            listed = ", ".join(name for name in slots if name in schemas) or "none"
            raise ConfigError(
                f"export: --spread {slot}: has no schema, so its captions are text; slots with one: {listed}"
            )
        if not json.loads(schemas[slot]).get("properties"):
            raise ConfigError(f"export: --spread {slot}: its schema is no object with properties; leave --spread out")


def json_columns(slot: str, schema: str, chosen: Sequence[Chosen]) -> list[tuple[pa.Field, list[Any]]]:
    """Return a column for each property of a schema, in its order; null where there is no caption or no value.

    Raises:
        PipelineError: a caption is not an object, or a number does not fit its column.
    """
    properties: Mapping[str, Any] = json.loads(schema)["properties"]
    objects = [_object(slot, captioned) for captioned in chosen]
    return [
        _column(f"{slot}_{name}", part, [value.get(name) for value in objects]) for name, part in properties.items()
    ]


def _object(slot: str, captioned: Chosen) -> Mapping[str, Any]:
    text = captioned.captions.get(slot, {}).get("caption")
    try:
        value: Any = {} if text is None else json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise PipelineError(
            f"shard {captioned.image['shard']} row {captioned.row}: the caption of slot {slot} is no JSON object; "
            "leave --spread out"
        )
    return cast("dict[str, Any]", value)


def _column(name: str, schema: Mapping[str, Any], values: Sequence[Any]) -> tuple[pa.Field, list[Any]]:
    kind = _type_of(schema)
    if kind is None:
        texts = [None if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True) for value in values]
        return pa.field(name, pa.string(), metadata=IS_JSON), texts
    try:
        # JSON has no limit for integers, and 1.0 is one of them.
        return pa.field(name, kind), pa.array(values, kind).to_pylist()
    except (pa.ArrowException, OverflowError) as err:
        raise PipelineError(f"column {name}: a value does not fit {kind} ({err}); leave --spread out") from err


def _type_of(schema: Mapping[str, Any]) -> pa.DataType | None:
    """The type of a column; None for values that no type of a column fits: they are JSON as text."""
    kinds = schema.get("type")
    if kinds is None:
        values: Sequence[Any] = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
        return pa.string() if values and all(isinstance(value, str) for value in values) else None
    named = [kind for kind in ([kinds] if isinstance(kinds, str) else cast("list[str]", kinds)) if kind != "null"]
    if len(named) != 1:
        return None
    if named[0] == "array" and isinstance(schema.get("items"), dict) and "prefixItems" not in schema:
        item = _SCALARS.get(str(schema["items"].get("type")))
        return None if item is None else pa.list_(item)
    return _SCALARS.get(named[0])
