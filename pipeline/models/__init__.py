"""Which model a job names: the table of model families, and the lookups in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import ModelConfig
from pipeline.config.suggestions import did_you_mean
from pipeline.errors import ConfigError
from pipeline.models import joycaption, text
from pipeline.models.dims import BFLOAT16, MEMORY_SHARE, ModelDims, NumberFormats
from pipeline.models.family import (
    FixedSize,
    Form,
    Generation,
    Geometry,
    KnownCaption,
    Mode,
    ModelFamily,
    NoImage,
    takes_images,
)

__all__ = [
    "BFLOAT16",
    "FAMILIES",
    "MEMORY_SHARE",
    "FixedSize",
    "Form",
    "Generation",
    "Geometry",
    "KnownCaption",
    "Mode",
    "ModelDims",
    "ModelFamily",
    "NoImage",
    "NumberFormats",
    "family_of",
    "form_of",
    "generation_names",
    "generation_of",
    "load_generation",
    "planned_dims",
    "takes_images",
]

FAMILIES: dict[str, ModelFamily] = {family.name: family for family in (joycaption.FAMILY, text.FAMILY)}
"""A new family adds its module here."""


def generation_names() -> tuple[str, ...]:
    """Return the names of all generations of all families."""
    return tuple(name for family in FAMILIES.values() for name in family.generations)


def load_generation(name: str) -> Generation:
    """Return a generation by name.

    Raises:
        ConfigError: no family has it.
    """
    return _family_with(name).load_generation(name)


def generation_of(model: ModelConfig) -> Generation:
    """Return the generation of a model.

    Raises:
        ConfigError: as `family_of`.
    """
    return _recognise(model)[1]


def family_of(model: ModelConfig) -> ModelFamily:
    """Return the family of a model.

    Raises:
        ConfigError: `model.generation` is unknown, or it is missing and no family recognises the model.
    """
    return _recognise(model)[0]


def planned_dims(model: ModelConfig) -> ModelDims | None:
    """Return the dimensions of a model as far as they are known without its weights; None for one on the hub."""
    family = family_of(model)
    if family.dims is not None:
        return family.dims
    stated = _stated(model.id)
    return None if stated is None else family.dims_of(stated)


def form_of(mode: str) -> Form:
    """Return the form of text that a mode requests; `Form.ANY` for a custom prompt and an unknown mode."""
    for family in FAMILIES.values():
        if mode in family.forms:
            return family.forms[mode]
    return Form.ANY


def _recognise(model: ModelConfig) -> tuple[ModelFamily, Generation]:
    if model.generation is not None:
        family = _family_with(model.generation)
        return family, family.load_generation(model.generation)
    stated = _stated(model.id)
    for family in FAMILIES.values():
        name = family.recognise(model.id, stated)
        if name is not None:
            return family, family.load_generation(name)
    servable = [name for name in generation_names() if load_generation(name).servable]
    raise ConfigError(
        f"model: no known generation matches {model.id!r}; set model.generation; allowed: {', '.join(servable)} "
        f"({text.NAME}: a language model without images)"
    )


def _family_with(generation: str) -> ModelFamily:
    for family in FAMILIES.values():
        if generation in family.generations:
            return family
    names = generation_names()
    raise ConfigError(
        f"model.generation: found {generation!r}; allowed: {', '.join(names)}{did_you_mean(generation, names)}"
    )


def _stated(model_id: str) -> Mapping[str, Any] | None:
    file = Path(model_id) / "config.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
