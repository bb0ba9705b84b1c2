"""The Python value of any Arrow scalar; one without a Python value becomes a text.

A Parquet file may hold strings that are not UTF-8, dates beyond the year 9999 and zones that this machine does not
know. `as_py` raises for each of them, and one such field must not cost its image.
"""

from typing import Any, cast

import pyarrow as pa
import pyarrow.types as pt

UNITS_PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def to_python(scalar: Any) -> Any:  # noqa: ANN401 - pyarrow's scalars have no common useful type
    r"""Return the value of `as_py`, and where that raises the closest form.

    - a string that is not UTF-8: its text with `\xe9` for each byte that is not;
    - a time in a zone that is not known here: the time in UTC;
    - a date or time beyond Python's range: the text that Arrow has for it, or its number and unit;
    - a duration beyond Python's range: a timedelta's seconds, as a float;
    - a struct with two fields of one name: a list of [name, value].
    """
    try:
        return scalar.as_py()
    # What pyarrow, pandas and zoneinfo raise for such values; OSError is a zone whose name is a folder, as "America".
    except (ValueError, ArithmeticError, LookupError, OSError, pa.ArrowException):
        value = _nested(scalar) if pt.is_nested(scalar.type) else _plain(scalar)
        if value is None:
            raise
        return value


def escaped(data: bytes) -> str:
    """Text of bytes that should be UTF-8: others become backslash escapes, so that different ones stay different."""
    return data.decode("utf-8", "backslashreplace")


def dictionary_value(scalar: Any) -> Any:  # noqa: ANN401 - a scalar of the dictionary's value type
    """The scalar that a dictionary-encoded one stands for; itself, if it is null or not encoded."""
    if not pt.is_dictionary(scalar.type):
        return scalar
    return scalar.dictionary[scalar.index.as_py()] if scalar.is_valid else pa.scalar(None, scalar.type.value_type)


def _plain(scalar: Any) -> Any:  # noqa: ANN401 - as above
    kind = scalar.type
    if pt.is_dictionary(kind):
        return to_python(dictionary_value(scalar))
    if pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind):
        return escaped(scalar.as_buffer().to_pybytes())
    if pt.is_duration(kind):
        return scalar.value / UNITS_PER_S[kind.unit]
    if pt.is_timestamp(kind) and kind.tz not in (None, "UTC"):
        return to_python(scalar.cast(pa.timestamp(kind.unit, "UTC")))
    return _text_of_time(scalar) if pt.is_temporal(kind) else None


def _text_of_time(scalar: Any) -> str:  # noqa: ANN401 - as above
    text = cast("str", scalar.cast(pa.string()).as_py())
    if not text.startswith("<"):  # Arrow's own "<value out of range: 4611686018427387904>"
        return text
    since = "midnight" if pt.is_time(scalar.type) else "1970-01-01"
    unit = "days" if pt.is_date32(scalar.type) else "ms" if pt.is_date64(scalar.type) else scalar.type.unit
    return f"{scalar.value} {unit} since {since}"


def _nested(scalar: Any) -> Any:  # noqa: ANN401 - as above
    kind = scalar.type
    if pt.is_struct(kind):
        names = [field.name for field in kind]
        # By number: the lookup of a name that occurs twice fails.
        values = [to_python(scalar[number]) for number in range(len(names))]
        pairs = list(zip(names, values, strict=True))
        return dict(pairs) if len(set(names)) == len(names) else [list(pair) for pair in pairs]
    if pt.is_map(kind):
        return [[to_python(item[0]), to_python(item[1])] for item in scalar.values]
    if pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind) or pt.is_list_view(kind):
        return [to_python(item) for item in scalar.values]
    return None
