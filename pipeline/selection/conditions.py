"""Evaluates a condition on one row: true, false, or undecided where the row does not have what the condition tests.

Undecided spreads as in Kleene's logic, and as NULL does in SQL: `and` is false if one part is false, `or` is true if
one part is true, and `not` of undecided is undecided. So a row is selected only if it is known to meet the condition,
also below `none_of`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Condition, FieldTest, Range

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]

Truth = bool | None
"""None: undecided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFacts:
    """What is known of a row. None: not known, or not known yet."""

    fields: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    """Metadata fields that the row has."""
    num_bytes: int | None = None
    """Of the encoded image."""
    width: int | None = None
    """px, upright."""
    height: int | None = None
    format: str | None = None
    """Pillow's name."""


def evaluate_condition(condition: Condition, facts: RowFacts) -> Truth:
    """Return whether a row meets a condition."""
    return _all(_parts(condition, facts))


def _parts(condition: Condition, facts: RowFacts) -> Iterable[Truth]:
    for name, quantity in _QUANTITIES.items():
        allowed: Range | None = getattr(condition, name)
        if allowed is not None:
            yield _within(allowed, quantity(facts))
    if condition.format is not None:
        yield None if facts.format is None else facts.format in condition.format
    for name, test in condition.fields.items():
        yield evaluate_test(test, facts.fields.get(name))
    for part in condition.all_of:
        yield evaluate_condition(part, facts)
    if condition.any_of:
        yield _any(evaluate_condition(part, facts) for part in condition.any_of)
    for part in condition.none_of:
        yield _not(evaluate_condition(part, facts))


def _sides(facts: RowFacts) -> tuple[int, int] | None:
    return None if facts.width is None or facts.height is None else (facts.width, facts.height)


def _of_sides(combine: Callable[[tuple[int, int]], float]) -> Callable[[RowFacts], float | None]:
    def quantity(facts: RowFacts) -> float | None:
        sides = _sides(facts)
        return None if sides is None else combine(sides)

    return quantity


_QUANTITIES: Mapping[str, Callable[[RowFacts], float | None]] = {
    "width": lambda facts: facts.width,
    "height": lambda facts: facts.height,
    "short_side": _of_sides(min),
    "long_side": _of_sides(max),
    "aspect_ratio": _of_sides(lambda sides: sides[0] / sides[1]),
    "bytes": lambda facts: facts.num_bytes,
}
"""By the keys of a condition."""


def _within(allowed: Range, value: float | None) -> Truth:
    if value is None:
        return None
    return (allowed.min is None or value >= allowed.min) and (allowed.max is None or value <= allowed.max)


def evaluate_test(test: FieldTest, value: JSON) -> Truth:
    """Return whether a value meets a test; a missing field has the value None."""
    return _all(_tests(test, value))


def _tests(test: FieldTest, value: JSON) -> Iterable[Truth]:
    if test.present is not None:
        yield (value is not None) is test.present
    if test.equals is not None:
        yield _is_one_of((test.equals,), value)
    if test.one_of is not None:
        yield _is_one_of(test.one_of, value)
    if test.has_any is not None:
        yield _any(_is_one_of(test.has_any, item) or False for item in value) if isinstance(value, list) else None
    for bound, is_met in ((test.min, _is_at_least), (test.max, _is_at_most)):
        if bound is not None:
            yield is_met(value, bound)
    for length, is_met in ((test.min_length, _is_at_least), (test.max_length, _is_at_most)):
        if length is not None:
            yield is_met(len(value), length) if isinstance(value, str | list) else None
    if test.matches is not None:
        yield _matches(test.matches, value)


def _kind(value: JSON) -> str:
    """The type within which values are compared: a whole number and a decimal are both numbers, true is not 1."""
    if isinstance(value, bool):
        return "truth"
    return "number" if isinstance(value, int | float) else type(value).__name__


def _is_one_of(allowed: Iterable[bool | int | float | str], value: JSON) -> Truth:
    of_its_kind = [item for item in allowed if _kind(item) == _kind(value)]
    return value in of_its_kind if of_its_kind else None


def _is_at_least(value: JSON, bound: int | float | str) -> Truth:
    return _compared(value, bound, lambda order: order >= 0)


def _is_at_most(value: JSON, bound: int | float | str) -> Truth:
    return _compared(value, bound, lambda order: order <= 0)


def _compared(value: JSON, bound: int | float | str, is_met: Callable[[int], bool]) -> Truth:
    if isinstance(value, str) and isinstance(bound, str):
        return is_met((value > bound) - (value < bound))
    if _kind(value) == "number" and isinstance(value, int | float) and not isinstance(bound, str):
        return is_met((value > bound) - (value < bound))
    return None


def _matches(expression: str, value: JSON) -> Truth:
    if not isinstance(value, str):
        return None
    # Not Python's `re`, whose time may be exponential: pyarrow matches with RE2.
    options = pc.MatchSubstringOptions(expression)
    return bool(pc.call_function("match_substring_regex", [pa.array([value], pa.large_string())], options)[0].as_py())


def _all(parts: Iterable[Truth]) -> Truth:
    undecided = False
    for part in parts:
        if part is False:
            return False
        undecided = undecided or part is None
    return None if undecided else True


def _any(parts: Iterable[Truth]) -> Truth:
    return _not(_all(_not(part) for part in parts))


def _not(part: Truth) -> Truth:
    return None if part is None else not part
