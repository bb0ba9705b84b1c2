"""Conditions on images and on their metadata: data, no code. `pipeline.selection` evaluates them."""

import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from pipeline.config.base import AS_LIST, ConfigPart
from pipeline.config.images_config import FORMATS
from pipeline.config.suggestions import did_you_mean


def _check_linear(pattern: str) -> str:
    # pyarrow's matcher is RE2: its time is linear in the text, whatever the expression. Imported here, since pyarrow
    # takes 0.3 s and most configs have no expression.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    try:
        pc.call_function("match_substring_regex", [pa.array([""])], pc.MatchSubstringOptions(pattern))
    except pa.ArrowInvalid as err:
        raise ValueError(
            f"not an expression of RE2 ({' '.join(str(err).split())}); allowed: RE2's syntax, which has no "
            "back-references and no look-around"
        ) from err
    return pattern


LinearExpression = Annotated[str, AfterValidator(_check_linear)]
"""A regular expression that is matched in linear time."""


def _as_text(value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
    """Write a date as ISO text, which a metadata field has for it: YAML reads `2024-05-01` as a date."""
    return value.isoformat() if isinstance(value, datetime.date) else value


def _refuse_truth(value: Any) -> Any:  # noqa: ANN401 - as above
    if isinstance(value, bool):
        raise ValueError("allowed: a number")
    return _as_text(value)


Finite = Annotated[float, Field(allow_inf_nan=False)]
Number = int | Finite
Scalar = Annotated[bool | int | Finite | str, BeforeValidator(_as_text)]
Bound = Annotated[Number | str, BeforeValidator(_refuse_truth)]


class Range(ConfigPart):
    """An interval; both ends are included."""

    min: Annotated[Number | None, BeforeValidator(_refuse_truth)] = None
    """Smallest value that meets the condition."""
    max: Annotated[Number | None, BeforeValidator(_refuse_truth)] = None
    """Largest value that meets the condition."""

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("found neither min nor max; allowed: at least one of them")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min={self.min} is above max={self.max}; allowed: min <= max")
        return self


class FieldTest(ConfigPart):
    """Tests of one metadata field. A value meets them if it meets each of them.

    A test that the value cannot answer is undecided: the field is missing or null, or of another type than the test
    needs. A row with an undecided condition is not selected, and neither is it by `none_of`.
    """

    present: bool | None = None
    """true: the field exists and is not null. false: it does not, or is null."""
    equals: Scalar | None = None
    """The value; a number equals a number, a text a text of the same letters."""
    one_of: tuple[Scalar, ...] | None = Field(default=None, min_length=1)
    """The value is one of these."""
    has_any: tuple[Scalar, ...] | None = Field(default=None, min_length=1)
    """The value is a list, and one of these is in it."""
    min: Bound | None = None
    """Smallest value: a number for numbers; a text for texts, compared letter by letter, as ISO dates are."""
    max: Bound | None = None
    """Largest value, as `min`."""
    min_length: int | None = Field(default=None, ge=0)
    """Smallest number of characters of a text, or of items of a list."""
    max_length: int | None = Field(default=None, ge=0)
    """Largest number of characters of a text, or of items of a list."""
    matches: LinearExpression | None = None
    """The value is a text in which this regular expression (RE2) is found."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError(f"found no test; allowed: at least one of {', '.join(type(self).model_fields)}")
        others = [name for name in type(self).model_fields if name != "present" and getattr(self, name) is not None]
        if self.present is False and others:
            raise ValueError(f"found {', '.join(others)} beside present: false; an absent value meets no other test")
        if self.min is not None and self.max is not None:
            if isinstance(self.min, str) is not isinstance(self.max, str):
                raise ValueError(f"min={self.min!r} and max={self.max!r} have different types; allowed: the same type")
            if self.min > self.max:  # pyright: ignore[reportOperatorIssue] - the types are equal, see above
                raise ValueError(f"min={self.min} is above max={self.max}; allowed: min <= max")
        return self


class Condition(ConfigPart):
    """A condition on a row. A row meets it if it meets all of its keys.

    Sizes are read from the header of the image, upright as in the caption row; the image is not decoded for them.
    """

    width: Range | None = None
    """Width in px, after EXIF rotation."""
    height: Range | None = None
    """Height in px, after EXIF rotation."""
    short_side: Range | None = None
    """The shorter side in px."""
    long_side: Range | None = None
    """The longer side in px."""
    aspect_ratio: Range | None = None
    """Width divided by height: 1.78 for 16:9, 0.56 for its portrait."""
    bytes: Range | None = None
    """Length of the encoded image."""
    format: Annotated[tuple[str, ...] | None, AS_LIST] = Field(default=None, min_length=1)
    """Format of the image, by Pillow's names, such as `[JPEG, PNG]`."""
    fields: dict[str, FieldTest] = Field(default_factory=dict)
    """Tests by the name of a metadata field: a column, a key of the `.json` member, or the extension of a text member.
    The field need not be in `source.metadata_fields`."""
    all_of: tuple["Condition", ...] = ()
    """Conditions that must all be met."""
    any_of: tuple["Condition", ...] = ()
    """Conditions of which at least one must be met."""
    none_of: tuple["Condition", ...] = ()
    """Conditions of which none may be met."""

    @field_validator("format")
    @classmethod
    def _known(cls, formats: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = sorted(set(formats or ()) - set(FORMATS))
        if unknown:
            raise ValueError(
                f"found {', '.join(unknown)}; allowed: {', '.join(FORMATS)}{did_you_mean(unknown, FORMATS)}"
            )
        return formats

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError(f"found no condition; allowed: at least one of {', '.join(type(self).model_fields)}")
        return self

    def field_names(self) -> tuple[str, ...]:
        """Return the metadata fields that it tests, nested conditions included, each once."""
        nested = (name for part in (*self.all_of, *self.any_of, *self.none_of) for name in part.field_names())
        return tuple(dict.fromkeys((*self.fields, *nested)))
