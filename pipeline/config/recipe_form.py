"""A config as recipes record it: a release that renames or adds a setting must not change old fingerprints."""

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, Field

from pipeline.config.base import ConfigPart
from pipeline.config.renamed_keys import with_stored_names

_ADDED = "added_after_first_edition"


def added(**arguments: Any) -> Any:  # noqa: ANN401 - as pydantic's Field
    """Declare a field that the first edition does not have: `added(default=False)`.

    Its default must mean what happened before the field existed. At its default it is not part of the recipe.
    """
    return Field(**arguments, json_schema_extra={_ADDED: True})


def recipe_form(config: ConfigPart) -> dict[str, Any]:
    """Return a config as JSON with the first edition's names, without added fields that have their default."""
    return with_stored_names(_without_added(config, config.model_dump(mode="json", serialize_as_any=True)))


def _without_added(value: Any, dumped: Any) -> Any:  # noqa: ANN401 - a value of a config, and its JSON
    if isinstance(value, BaseModel):
        return {
            name: _without_added(getattr(value, name), dumped[name])
            for name in type(value).model_fields
            if not _is_added_default(value, name)
        }
    if isinstance(value, Mapping):
        values = cast("Mapping[Any, Any]", value).values()
        return {key: _without_added(item, dumped[key]) for item, key in zip(values, dumped, strict=True)}
    if isinstance(value, tuple):
        items = cast("tuple[Any, ...]", value)
        return [_without_added(item, part) for item, part in zip(items, dumped, strict=True)]
    return dumped


def _is_added_default(part: BaseModel, name: str) -> bool:
    field = type(part).model_fields[name]
    extra = field.json_schema_extra
    if not isinstance(extra, dict) or _ADDED not in extra:
        return False
    return getattr(part, name) == field.get_default(call_default_factory=True)
