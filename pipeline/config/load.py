"""Merges file, environment and command line into one config, or raises one `ConfigError` that lists every mistake."""

import functools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.base import ConfigPart, merged
from pipeline.config.captions_config import SlotConfig
from pipeline.config.config_errors import Mistake, mistakes_of
from pipeline.config.corpus_config import CorpusConfig
from pipeline.config.job_config import JobConfig
from pipeline.config.model_config import ModelConfig
from pipeline.errors import ConfigError, StoreError

Config = TypeVar("Config", bound=ConfigPart)

ENV_PREFIX = "JOYFLEET_"

CaptionCheck = Callable[[ModelConfig, Mapping[int, SlotConfig]], Sequence[Mistake]]
"""Compares slots, by their index in `captions`, with what the model was trained on."""


@dataclass(frozen=True, slots=True)
class JobChecks:
    """Checks by packages that know more than the config: their mistakes are listed with those of the config."""

    captions: CaptionCheck
    rules: Callable[[Iterable[str]], Sequence[Mistake]]
    """Compares the keys of `quality.actions` with the rules."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """Settings from one origin. A later layer overrides an earlier one, key by key."""

    origin: str
    data: Mapping[str, Any]
    path: tuple[str, ...] = ()
    """The one key that the layer sets; empty for a file."""

    def may_have_set(self, location: Sequence[int | str]) -> bool:
        """Whether the value at this location, or a part of it, comes from this layer."""
        return bool(location) and all(own == part for own, part in zip(self.path, location, strict=False))


def load_job(path: str, overrides: Sequence[str] = (), checks: JobChecks | None = None) -> JobConfig:
    """Read a job file; see `load_config`."""
    return load_config(JobConfig, path, overrides, checks)


def load_corpus(path: str, overrides: Sequence[str] = ()) -> CorpusConfig:
    """Read the file of a corpus; see `load_config`."""
    return load_config(CorpusConfig, path, overrides)


def load_config(kind: type[Config], path: str, overrides: Sequence[str], checks: JobChecks | None = None) -> Config:
    """Read a file of one kind of config.

    Args:
        kind: what the file holds.
        path: a YAML file.
        overrides: `key.subkey=value` each, value in YAML, as given by `--set`; stronger than the
            environment (`JOYFLEET_SAMPLING__TEMPERATURE=0.4`), which is stronger than the file.
        checks: as in `parse_config`.

    Raises:
        ConfigError: lists every wrong key with what was found and what is allowed.
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
    return parse_config(kind, _with_schemas(data, path), overrides, origin=path, checks=checks)


def _with_schemas(data: Mapping[str, Any], origin: str) -> Mapping[str, Any]:
    """Replace the name of a JSON Schema's file by its content, in a job file only: an output must not name local files.

    Raises:
        ConfigError: names the slot and the file.
    """
    captions = data.get("captions")
    if isinstance(captions, Mapping):
        return {**data, "captions": _with_schema(cast("Mapping[str, Any]", captions), "captions", origin)}
    if not isinstance(captions, list):
        return data
    slots = cast("list[Any]", captions)
    read = [
        _with_schema(cast("Mapping[str, Any]", slot), f"captions.{index}", origin)
        if isinstance(slot, Mapping)
        else slot
        for index, slot in enumerate(slots)
    ]
    return {**data, "captions": read}


def _with_schema(slot: Mapping[str, Any], where: str, origin: str) -> Mapping[str, Any]:
    name = slot.get("schema")
    if not isinstance(name, str) or name.lstrip().startswith("{"):
        return slot
    try:
        return {**slot, "schema": json.loads(Path(name).read_text(encoding="utf-8"))}
    except OSError as err:
        problem = f"cannot be read ({err.strerror}); give a mapping, or the path of a JSON file from this folder"
    except (ValueError, RecursionError) as err:
        problem = f"is not JSON ({err})"
    raise ConfigError(f"{origin}: {where}.schema: {name}: {problem}")


def parse_job(data: Mapping[str, Any], overrides: Sequence[str] = (), *, origin: str = "config") -> JobConfig:
    """Like `load_job`, from the mapping that the file would hold."""
    return parse_config(JobConfig, data, overrides, origin=origin)


def parse_config(
    kind: type[Config],
    data: Mapping[str, Any],
    overrides: Sequence[str],
    *,
    origin: str,
    checks: JobChecks | None = None,
) -> Config:
    """Like `load_config`, from the mapping that the file would hold.

    Args:
        kind: what the mapping is.
        data: the mapping.
        overrides: as in `load_config`.
        origin: of the mapping, for messages.
        checks: find mistakes in captions and rules that are well-formed; they are listed with the others.
    """
    layers = [_Layer(origin, data), *_environment(), *_overrides(overrides)]
    data = functools.reduce(merged, (_long_forms(kind, layer.data) for layer in layers))
    config, mistakes = None, list[Mistake]()
    try:
        config = kind.model_validate(data)
    except ValidationError as err:
        mistakes = mistakes_of(err, kind)
    if checks is not None:
        mistakes += _check_captions(data, checks.captions)
        mistakes += _check_rules(data, checks.rules)
    if config is None or mistakes:
        raise ConfigError(
            "\n".join(dict.fromkeys(f"{_origin(layers, mistake)}: {mistake.message}" for mistake in mistakes))
        )
    return config


def read_stored(kind: type[Config], stored: Any, origin: str, at: str = "") -> Config:  # noqa: ANN401 - JSON
    """Read a config, or a section of one, that an output holds.

    Args:
        kind: what is stored.
        stored: its JSON, with the names of today (`with_new_names`).
        origin: the file, for the message.
        at: the section with a dot, such as `source.`.

    Raises:
        StoreError: in one line; the file is damaged, or a later JoyFleet wrote it.
    """
    try:
        return kind.model_validate(stored)
    except ValidationError as err:
        listed = "; ".join(f"{at}{mistake.message}" for mistake in mistakes_of(err, kind))
        raise StoreError(
            f"{origin}: damaged, or written by a later JoyFleet ({listed}); restore it, or use the later JoyFleet"
        ) from err


def _check_captions(data: Mapping[str, Any], check: CaptionCheck) -> list[Mistake]:
    """Check model and captions as far as they can be read, independent of mistakes in other sections."""
    model = _readable(ModelConfig, data.get("model"))
    captions = data.get("captions")
    listed = captions if isinstance(captions, list) else [captions]
    slots = {index: slot for index, raw in enumerate(listed) if (slot := _readable(SlotConfig, raw))}
    return [] if model is None else list(check(model, slots))


def _check_rules(data: Mapping[str, Any], check: Callable[[Iterable[str]], Sequence[Mistake]]) -> Sequence[Mistake]:
    quality = data.get("quality")
    actions = quality.get("actions") if isinstance(quality, Mapping) else None
    return check(map(str, actions)) if isinstance(actions, Mapping) else []


def _readable(kind: type[Config], raw: Any) -> Config | None:  # noqa: ANN401 - raw YAML
    try:
        return kind.model_validate(raw)
    except ValidationError:
        return None


def _origin(layers: Sequence[_Layer], mistake: Mistake) -> str:
    """The strongest layer that may have made the mistake; a missing key is missing in the file."""
    culprits = [layer for layer in layers if layer.path and layer.may_have_set(mistake.location)]
    return (culprits or layers)[-1 if culprits else 0].origin


def _long_forms(kind: type[BaseModel], data: Mapping[str, Any]) -> dict[str, Any]:
    """Write out `source: photos` as `source: {urls: [photos]}`, since only mappings of two layers can be merged."""
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
        return value  # the mistake is reported when the whole config is validated


def _environment() -> list[_Layer]:
    layers: list[_Layer] = []
    for name, text in sorted(os.environ.items()):
        if name.startswith(ENV_PREFIX):
            path = tuple(name.removeprefix(ENV_PREFIX).lower().split("__"))
            layers.append(_layer(f"environment variable {name}", path, text))
    return layers


def _overrides(overrides: Sequence[str]) -> list[_Layer]:
    """One layer for each `--set`.

    Raises:
        ConfigError: one is not an assignment, or contradicts another one.
    """
    layers: list[_Layer] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {override}: not of the form key.subkey=value")
        layer = _layer(f"--set {key}", tuple(key.split(".")), text)
        for earlier in layers:
            whole = min(earlier.path, layer.path, key=len)
            if earlier.path != layer.path and earlier.path[: len(whole)] == layer.path[: len(whole)]:
                raise ConfigError(
                    f"--set {override}: {'.'.join(whole)} is set as a whole by another --set; give its keys alone"
                )
        layers.append(layer)
    return layers


def _layer(origin: str, path: tuple[str, ...], text: str) -> _Layer:
    try:
        node = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise ConfigError(f"{origin}: the value is not YAML") from err
    for key in reversed(path):
        node = {key: node}
    return _Layer(origin, node, path)
