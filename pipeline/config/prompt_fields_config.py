"""How fields of the source row are worded in prompts: `{source.FIELD}` in `prompt`, `name` and `extra`."""

import re
from enum import StrEnum

from pydantic import Field, field_validator

from pipeline.config.base import ConfigPart

OPENING = "{source."
PLACEHOLDER = re.compile(r"\{source\.([^{}]*)\}")
"""Nothing else between braces is a placeholder: such text is sent as it is."""

FAIL, OMIT = "fail", "omit"

PARENT = "captions"
"""Field of a row of a chained job (`source.captions`) that holds the parent's captions by slot."""
PARENT_PREFIX = f"{PARENT}."
_SLOT = re.compile(r"\{(?!source\.)([A-Za-z0-9_][A-Za-z0-9_.-]{0,62})\}")
"""`{long}` in a template of a chained job; the name is that of a slot, as in `SlotConfig`."""

_NO_TEXTS = frozenset(("fail", "fails", "failed", "error", "omit", "omits", "omitted", "skip", "drop", "default"))
"""Words in `missing` that are meant as a setting: as a text they would stand in every prompt without the field."""


class FieldOrder(StrEnum):
    """The order of a field's items."""

    STORED = "stored"
    """As the source has them."""
    SORTED = "sorted"
    """By their characters."""
    SHUFFLED = "shuffled"
    """By the job's seed, shard, row and field: an image always gets the same order."""


class PromptFieldConfig(ConfigPart):
    """How one field of the source row is worded."""

    split: str | None = Field(default=None, min_length=1)
    """Text at which a value that is one text is divided into items, such as `,` for a line of tags."""
    separator: str = ", "
    """Text between two items."""
    order: FieldOrder = FieldOrder.STORED
    """Order of the items, before their number is limited."""
    max_items: int | None = Field(default=None, ge=1)
    """Items after this number are left out."""
    max_tokens: int | None = Field(default=None, ge=1, le=4096)
    """Items are left out at the end until the words have at most so many tokens of the model, counted alone; a single
    item loses words."""
    missing: str = FAIL
    """What happens where a row has no text for the field: `fail` gives a failed row (`missing_field`), `omit` leaves
    out the sentence or the option that holds the field, and any other text is used instead. For a slot of
    `source.captions`, whose field is `captions.SLOT`, `fail` gives a skipped row (`no_parent_caption`)."""

    @field_validator("missing")
    @classmethod
    def _not_mistyped(cls, missing: str) -> str:
        if missing not in (FAIL, OMIT) and (not missing.strip() or missing.strip().lower() in _NO_TEXTS):
            raise ValueError(f"allowed: {FAIL}, {OMIT}, or the text to use instead")
        return missing


def slot_of(field: str) -> str | None:
    """Return the slot of the parent whose captions a field holds; None for a metadata field."""
    return field.removeprefix(PARENT_PREFIX) if field.startswith(PARENT_PREFIX) else None


def placeholder_of(field: str) -> str:
    """Return the name between the braces of a prompt: `long` for a slot of the parent, else `source.FIELD`."""
    return slot_of(field) or f"source.{field}"


def no_caption(slot: str) -> str:
    """Return the condition by which rows are skipped that need the parent's caption of a slot."""
    return f"source.captions: no ok caption in slot {slot}"


def with_long_names(template: str) -> str:
    """Return a template of a chained job with `{long}` written out as `{source.captions.long}`."""
    return _SLOT.sub(rf"{OPENING}{PARENT_PREFIX}\1}}", template)


def fields_in(*templates: str | None) -> tuple[str, ...]:
    """Return the fields that templates use, each once, in order."""
    return tuple(dict.fromkeys(name for template in templates for name in PLACEHOLDER.findall(template or "")))


def check_template(template: str | None) -> str | None:
    """Return a template without mistakes in its placeholders.

    Raises:
        ValueError: names the first mistake.
    """
    names = PLACEHOLDER.findall(template or "")
    if template and template.count(OPENING) != len(names):
        raise ValueError(f"has {OPENING!r} without its closing brace; allowed: {{source.FIELD}}")
    wrong = [name for name in names if any(part != part.strip() or not part for part in name.split("."))]
    if wrong:
        raise ValueError(f"has {{source.{wrong[0]}}}; allowed: {{source.FIELD}}, with dots for the fields of an object")
    return template
