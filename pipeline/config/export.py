"""What an export takes of an output, and the form it gives it."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import Part
from schemas.caption_row import CAPTION_ROW
from schemas.status import Status

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
SOURCE = "source."
"""Prefix of a placeholder that stands for a carried field."""


class Target(StrEnum):
    """The form of an export."""

    PARQUET = "parquet"
    HF = "hf"
    """Parquet with an Image column and a card: `datasets.load_dataset(folder)`."""
    CSV = "csv"
    JSONL = "jsonl"
    WEBDATASET = "webdataset"
    """Tars of the source's samples, each with its captions beside it."""
    SIDECARS = "sidecars"
    """Images and a text of the same name beside each, as kohya's scripts and OneTrainer read them."""
    BESIDE = "beside"
    """Such texts beside the images of a local source folder, which are left alone."""
    JOYCAPTION = "joycaption"
    """`train.json` and images, as JoyCaption's own fine-tuning script reads them."""


TABLES = (Target.PARQUET, Target.HF, Target.CSV, Target.JSONL)
ONE_TEXT = (Target.SIDECARS, Target.BESIDE)


class ExportConfig(Part):
    """All that decides the content of an export."""

    to: Target
    slots: tuple[str, ...] = ()
    """By default those of the template, else all of the output."""
    template: str | None = None
    """One text of several: `{slot}`, `{key}` and `{source.field}` are replaced."""
    column: str = Field(default="caption", min_length=1)
    """Tables: name of the text's column; with several slots and no template `<column>_<slot>`."""
    fields: tuple[str, ...] = ()
    """Tables: further columns of the caption row to add, such as `mode`."""
    statuses: tuple[Status, ...] = (Status.OK,)
    modes: tuple[str, ...] = ()
    """Only captions of these modes; none are all."""
    without_flags: tuple[str, ...] = ()
    """No caption that bears one of these."""
    min_words: int | None = Field(default=None, ge=0)
    max_words: int | None = Field(default=None, ge=0)
    join: bool = True
    """Tables: the columns of a Parquet source stand in front."""
    images: bool | None = None
    """Parquet and hf: with the images' bytes; by default in hf alone."""
    suffix: str = Field(default="txt", pattern=r"^[A-Za-z0-9_.-]{1,20}$")
    """Side-cars: extension of the texts."""

    @property
    def with_images(self) -> bool:
        """Whether the source's images are read."""
        if self.to in (Target.PARQUET, Target.HF):
            return self.to is Target.HF if self.images is None else self.images
        return self.to in (Target.WEBDATASET, Target.SIDECARS, Target.JOYCAPTION)

    @property
    def placeholders(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(PLACEHOLDER.findall(self.template or "")))

    def slots_of(self, run_slots: tuple[str, ...]) -> tuple[str, ...]:
        """Return the slots to take, of those that an output has.

        Raises:
            ValueError: one that it has not.
        """
        named = tuple(one for one in self.placeholders if one != "key" and not one.startswith(SOURCE))
        unknown = sorted({*named, *self.slots} - set(run_slots))
        if unknown:
            raise ValueError(
                f"no slot {', '.join(map(repr, unknown))}; found: {', '.join(run_slots)}; a template also "
                "knows {key} and {source.field}"
            )
        slots = named or self.slots or run_slots
        if self.to in ONE_TEXT and len(slots) > 1 and not self.template:
            raise ValueError(
                f"{self.to} holds one text an image, and there are the slots {', '.join(slots)}; "
                "choose one with --slot, or combine them with --template"
            )
        return slots

    @field_validator("fields")
    @classmethod
    def _known(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(fields) - set(CAPTION_ROW.names))
        if unknown:
            raise ValueError(f"no field {', '.join(unknown)} in a caption row; allowed: {', '.join(CAPTION_ROW.names)}")
        return fields

    @model_validator(mode="after")
    def _honoured(self) -> Self:
        table = self.to in TABLES
        only_tables = {"fields": self.fields, "status": self.statuses != (Status.OK,)}
        misplaced = [name for name, given in only_tables.items() if given and not table]
        if self.images is not None and self.to not in (Target.PARQUET, Target.HF):
            misplaced.append("images")
        if self.template is not None and (self.slots or self.to is Target.JOYCAPTION):
            misplaced.append("template")
        if self.template is not None and not self.placeholders:
            raise ValueError(f"template {self.template!r} has no placeholder such as {{long}}")
        if misplaced:
            raise ValueError(f"{', '.join(misplaced)} cannot be honoured beside the other options of --to {self.to}")
        return self
