"""What an export takes from an output, and the form in which it writes it.

Each field is an option of the command line: `flag_of` names it, and its docstring is its help. Each form declares the
options that it honours (`pipeline.export.forms`).
"""

import re
from typing import Any, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from pipeline.config.base import ConfigPart, Url, refuse_repeats
from schemas.caption_row import CAPTION_ROW
from schemas.status import Status

WEIGHT = re.compile(r"(?P<name>.+)=(?P<repeats>[1-9][0-9]?|100)")
"""Of `--weight`. With two weights, a caption is used up to 10,000 times."""
MODE = "mode:"
"""Prefix of a weight of a mode."""
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
SOURCE = "source."
"""Prefix of a placeholder for a metadata field of the source."""


def _several(flag: str) -> Any:  # noqa: ANN401 - what pydantic takes for a default
    """An option that is given once for each value; its name is singular."""
    return Field(default=(), json_schema_extra={"flag": flag})


class ExportConfig(ConfigPart):
    """Everything that decides the content of an export."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    to: str
    """Form of the export."""
    slots: tuple[str, ...] = _several("slot")
    """Slot to export; by default those of the template, else all of the output."""
    outputs: tuple[Url, ...] = _several("with")
    """Another output of the same images, such as the parent of a chained job, whose slots are exported too."""
    template: str | None = None
    """Combine slots into one text, such as '{tags}. {long}'; `{slot}`, `{key}` and `{source.field}` are replaced."""
    column: str = Field(default="caption", min_length=1)
    """Name of the text's column, 'caption' by default; with several slots and no template `<column>_<slot>`."""
    fields: tuple[str, ...] = _several("field")
    """Further column of the caption rows to export, such as mode."""
    statuses: tuple[Status, ...] = Field(default=(Status.OK,), json_schema_extra={"flag": "status"})
    """Status of the caption rows to export; by default ok."""
    modes: tuple[str, ...] = _several("mode")
    """Export only captions of this mode."""
    without_flags: tuple[str, ...] = _several("without-flag")
    """Export no caption with this flag, such as truncated."""
    min_words: int | None = Field(default=None, ge=0)
    """Export no caption with fewer words."""
    max_words: int | None = Field(default=None, ge=0)
    """Export no caption with more words."""
    duplicates: bool = False
    """Give images that were skipped as duplicates the captions of the image that was captioned in their place."""
    spread: tuple[str, ...] = _several("spread")
    """Slot with a JSON Schema whose top-level fields become columns, named `<slot>_<field>`."""
    join: bool | None = None
    """Add the columns of a Parquet source before the captions; by default they are added."""
    images: bool | None = None
    """Add the images' bytes; by default only --to hf adds them."""
    suffix: str = Field(default="txt", pattern=r"^[A-Za-z0-9_.-]{1,20}$")
    """Extension of the text files, 'txt' by default."""
    weights: tuple[str, ...] = _several("weight")
    """Use the captions of a slot, SLOT=N, or of a mode, mode:MODE=N, N times as often; by default 1."""
    image_root: str | None = Field(default=None, min_length=1)
    """The folder as the trainer sees it, for files that name it; by default FOLDER."""
    escape_formulas: bool = False
    """Put ' before cells that a spreadsheet would run as a formula."""

    @property
    def placeholders(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(PLACEHOLDER.findall(self.template or "")))

    def slots_of(self, run_slots: tuple[str, ...]) -> tuple[str, ...]:
        """Return the slots to export.

        Raises:
            ValueError: the output does not have one of them.
        """
        named = tuple(name for name in self.placeholders if name != "key" and not name.startswith(SOURCE))
        unknown = sorted({*named, *self.slots} - set(run_slots))
        if unknown:
            raise ValueError(
                f"no slot {', '.join(map(repr, unknown))}; found: {', '.join(run_slots)}; a template also "
                "knows {key} and {source.field}"
            )
        slots = named or self.slots or run_slots
        absent = sorted(name for name in self._weights if not name.startswith(MODE) and name not in slots)
        if absent:
            raise ValueError(
                f"--weight {absent[0]}={self._weights[absent[0]]}: no slot {absent[0]!r} is exported; "
                f"found: {', '.join(slots)}; for a mode, write mode:MODE=N"
            )
        return slots

    @property
    def _weights(self) -> dict[str, int]:
        matches = [WEIGHT.fullmatch(weight) for weight in self.weights]
        return {match["name"]: int(match["repeats"]) for match in matches if match}

    @property
    def weighted_modes(self) -> dict[str, int]:
        """The weights of modes."""
        return {name.removeprefix(MODE): weight for name, weight in self._weights.items() if name.startswith(MODE)}

    def repeats_of(self, slot: str, mode: str) -> int:
        """Return how often a caption is used: the weight of its slot, multiplied by that of its mode."""
        return self._weights.get(slot, 1) * self._weights.get(f"{MODE}{mode}", 1)

    @field_validator("fields")
    @classmethod
    def _known(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(fields) - set(CAPTION_ROW.names))
        if unknown:
            raise ValueError(f"no field {', '.join(unknown)} in a caption row; allowed: {', '.join(CAPTION_ROW.names)}")
        return fields

    @field_validator("weights")
    @classmethod
    def _weighted(cls, weights: tuple[str, ...]) -> tuple[str, ...]:
        for weight in weights:
            if not WEIGHT.fullmatch(weight):
                raise ValueError(f"weight {weight!r}: allowed: SLOT=N or mode:MODE=N with N from 1 to 100")
        refuse_repeats("weights of", [weight.rpartition("=")[0] for weight in weights])
        return weights

    @model_validator(mode="after")
    def _names_slots_once(self) -> Self:
        if self.template is not None and not self.placeholders:
            raise ValueError(f"template {self.template!r} has no placeholder such as {{long}}")
        if self.template is not None and self.slots:
            raise ValueError("--slot is not honoured beside --template, which names its slots; leave one of them out")
        if self.template is not None and self.weights:
            raise ValueError(
                "--weight is not honoured beside --template, which makes one text of the slots; leave one of them out"
            )
        return self


def flag_of(name: str) -> str:
    """Return a field's option on the command line, such as --without-flag for `without_flags`."""
    extra = ExportConfig.model_fields[name].json_schema_extra
    flag = extra.get("flag") if isinstance(extra, dict) else None
    return f"--{flag or name.replace('_', '-')}"
