"""Every mistake in a config as one line: key, what was found, what is allowed, and what was probably meant."""

import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.config.base import ConfigPart, without_user
from pipeline.config.renamed_keys import RENAMED_KEYS
from pipeline.config.suggestions import did_you_mean


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in a config."""

    location: tuple[int | str, ...]
    """Keys and indices from the top; empty for the whole config."""
    message: str
    """One line that begins with the dotted location."""


_LENGTH_FORMS = {"~words", "~class", "~distribution"}
"""Tags of the union `Length`: pydantic's locations hold them, and the file does not."""


def mistakes_of(err: ValidationError, kind: type[ConfigPart]) -> list[Mistake]:
    """Return the mistakes that pydantic found in a config of this kind."""
    errors: list[dict[str, Any]] = [dict(error) for error in err.errors(include_url=False)]
    # Pydantic drops an invalid item before it checks the length of its tuple: that complaint only repeats the first.
    nested = {error["loc"][0] for error in errors if len(error["loc"]) > 1}
    return [
        _mistake(error, kind) for error in errors if not (error["type"] == "too_short" and error["loc"][0] in nested)
    ]


def _mistake(error: dict[str, Any], kind: type[ConfigPart]) -> Mistake:
    location = tuple(part for part in error["loc"] if part not in _LENGTH_FORMS)
    key = ".".join(map(str, location))
    return Mistake(location, f"{key}: {_problem(error, location, kind)}" if key else _problem(error, location, kind))


def _problem(error: dict[str, Any], location: tuple[int | str, ...], kind: type[ConfigPart]) -> str:
    if error["type"] == "extra_forbidden":
        return _unknown_key(location, kind)
    if error["type"] == "missing":
        return "missing; it has no default"
    value, message = error.get("input"), error["msg"].removeprefix("Value error, ")
    found = "" if isinstance(value, dict | list | tuple | BaseModel) else f"found {without_user(repr(value))}; "
    expected = re.findall(r"'([^']+)'", str(error.get("ctx", {}).get("expected", "")))
    return f"{found}{message}{did_you_mean(str(value), expected)}"


def _unknown_key(location: tuple[int | str, ...], kind: type[ConfigPart]) -> str:
    *parents, name = location
    path = ".".join(map(str, location))
    new_path = RENAMED_KEYS.get(path)
    if new_path is not None and new_path.rpartition(".")[2] in _allowed_keys(parents, kind):
        return f"renamed; use {new_path}"
    allowed = _allowed_keys(parents, kind)
    elsewhere = [path for path in _all_keys(kind) if path.rpartition(".")[2] == name]
    suggestion = did_you_mean(str(name), allowed) or (f"; did you mean {', '.join(elsewhere)}?" if elsewhere else "")
    return f"unknown key; allowed here: {', '.join(allowed)}{suggestion}"


def _allowed_keys(location: Sequence[int | str], kind: type[ConfigPart]) -> list[str]:
    """Names of the fields of the part at a location, found by following the annotations."""
    models: list[type[BaseModel]] = [kind]
    for part in location:
        annotations = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        # An index of a list and a key of a mapping are no fields: the parts are those of the list or mapping.
        if annotations:
            models = [nested for annotation in annotations for nested in models_in(annotation)]
    return sorted({name for model in models for name in model.model_fields})


def _all_keys(kind: type[BaseModel], at: str = "") -> list[str]:
    """Dotted names of all fields that are set once, so not those of list items."""
    keys: list[str] = []
    for name, field in kind.model_fields.items():
        keys.append(f"{at}{name}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _all_keys(field.annotation, f"{at}{name}.")
    return keys


def models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - a type expression
    """Return the parts of a config that a field's type mentions."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for argument in typing.get_args(annotation) for model in models_in(argument)]
