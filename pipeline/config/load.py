"""File, environment and command line become one config, or one `ConfigError` that lists every fault."""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from pipeline.config.base import ConfigPart, without_user
from pipeline.config.corpus_config import CorpusConfig
from pipeline.config.job_config import JobConfig
from pipeline.errors import ConfigError

Config = TypeVar("Config", bound=ConfigPart)

ENV_PREFIX = "JOYFLEET_"


def load_job(path: str, overrides: Sequence[str] = ()) -> JobConfig:
    """Read a job file; see `load_config`."""
    return load_config(JobConfig, path, overrides)


def load_corpus(path: str, overrides: Sequence[str] = ()) -> CorpusConfig:
    """Read the file of a corpus; see `load_config`."""
    return load_config(CorpusConfig, path, overrides)


def load_config(kind: type[Config], path: str, overrides: Sequence[str]) -> Config:
    """Read a file of one kind of config.

    Args:
        kind: what the file holds.
        path: a YAML file.
        overrides: `key.subkey=value` each, value in YAML, as given by `--set`; stronger than the
            environment (`JOYFLEET_SAMPLING__TEMPERATURE=0.4`), which is stronger than the file.

    Raises:
        ConfigError: names each key that is wrong, what was found and what is allowed.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        data = yaml.safe_load(text)
    except OSError as err:
        raise ConfigError(f"{path}: cannot be read ({err.strerror}); give the path of a YAML file") from err
    except yaml.YAMLError as err:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(err).split())}") from err
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds {type(data).__name__}, not a mapping of keys such as source and output")
    return parse_config(kind, data, overrides, origin=path)


def parse_job(data: Mapping[str, Any], overrides: Sequence[str] = (), *, origin: str = "config") -> JobConfig:
    """Like `load_job`, from the mapping that the file would hold."""
    return parse_config(JobConfig, data, overrides, origin=origin)


def parse_config(kind: type[Config], data: Mapping[str, Any], overrides: Sequence[str], *, origin: str) -> Config:
    """Like `load_config`, from the mapping that the file would hold."""
    _refuse_unknown_environment(kind)
    layers = _layers(kind, _long_forms(kind, data))
    try:
        return kind.model_validate(layers(**_nested(overrides)).model_dump())
    except ValidationError as err:
        raise ConfigError(_explain(err, origin, kind)) from err


def _long_forms(kind: type[BaseModel], data: Mapping[str, Any]) -> dict[str, Any]:
    """Write out `source: photos` as `source: {urls: [photos]}`, since only mappings of two layers become one."""
    fields = kind.model_fields
    return {
        name: _long_form(fields[name].annotation, value) if name in fields else value for name, value in data.items()
    }


def _long_form(annotation: Any, value: Any) -> Any:  # noqa: ANN401 - a type expression and raw YAML
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return value
    if isinstance(value, Mapping):
        return _long_forms(annotation, value)
    try:
        return annotation.model_validate(value).model_dump(exclude_unset=True)
    except ValidationError:
        return value  # what is wrong with it is told when the whole is checked


def _layers(kind: type[ConfigPart], data: Mapping[str, Any]) -> type[BaseSettings]:
    """A settings class whose weakest layer is `data`; the strongest are its constructor's arguments."""

    class Layers(kind, BaseSettings):  # pyright: ignore[reportUntypedBaseClass] - known only when it is called
        model_config = SettingsConfigDict(
            extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__", nested_model_default_partial_update=True
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del dotenv_settings, file_secret_settings  # pydantic-settings hands them over; jobs have no such layers
            file = InitSettingsSource(settings_cls, init_kwargs=dict(data))
            return (init_settings, env_settings, file)

    return Layers


def _refuse_unknown_environment(kind: type[ConfigPart]) -> None:
    for name in os.environ:
        if name.startswith(ENV_PREFIX):
            key = name.removeprefix(ENV_PREFIX).split("__")[0].lower()
            if key not in kind.model_fields:
                raise ConfigError(
                    f"environment variable {name}: no such key {key!r}; allowed: {', '.join(kind.model_fields)}"
                )


def _nested(overrides: Sequence[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {override}: not of the form key.subkey=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as err:
            raise ConfigError(f"--set {override}: the value is not YAML") from err
        node = tree
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {override}: {parent} is set as a whole by another --set; give its keys alone")
        node[last] = value
    return tree


_FORMS = {"~words", "~class", "~distribution"}
"""Tags of the union `Length`: they stand in pydantic's locations and not in the file."""


def _explain(err: ValidationError, origin: str, kind: type[ConfigPart]) -> str:
    errors: list[dict[str, Any]] = [dict(error) for error in err.errors(include_url=False)]
    # An invalid item is left out before the length of its tuple is checked: that complaint is an echo.
    deep = {error["loc"][0] for error in errors if len(error["loc"]) > 1}
    real = [error for error in errors if not (error["type"] == "too_short" and error["loc"][0] in deep)]
    return "\n".join(dict.fromkeys(f"{origin}: {_one(error, kind)}" for error in real))


def _one(error: dict[str, Any], kind: type[ConfigPart]) -> str:
    loc = _file_location(error["loc"])
    key = ".".join(str(part) for part in loc)
    found = error.get("input")
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key; allowed here: {', '.join(_allowed_keys(loc[:-1], kind))}"
    if error["type"] == "missing":
        return f"{key}: missing; it has no default"
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(found, dict | list | tuple | BaseModel) else f"found {without_user(repr(found))}; "
    return f"{key}: {shown}{message}"


def _file_location(loc: Sequence[int | str]) -> list[int | str]:
    """Pydantic's location without the tags of unions."""
    return [part for part in loc if part not in _FORMS]


def _allowed_keys(loc: Sequence[int | str], kind: type[ConfigPart]) -> list[str]:
    """Names of the fields of the part at `loc`, found by following the annotations."""
    models: list[type[BaseModel]] = [kind]
    for part in loc:
        if isinstance(part, str):
            annotations = [model.model_fields[part].annotation for model in models if part in model.model_fields]
            models = [found for annotation in annotations for found in _models_in(annotation)]
    return sorted({name for model in models for name in model.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - a type expression
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
