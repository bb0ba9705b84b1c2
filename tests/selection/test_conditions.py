"""Conditions against an evaluator that shares no line with them: the same condition as SQL, run by DuckDB."""

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Condition, FieldTest
from pipeline.selection import RowFacts, evaluate_condition, evaluate_test

NAMES = ("a", "b")
TEXTS = st.sampled_from(["", "a", "ab", "b", "cat", "Cat", "5", "2024-05-01", "ünï"])
NUMBERS = st.one_of(st.integers(-3, 6), st.sampled_from([0.5, 2.0, 5.0, 5.5]))
SCALARS = st.one_of(st.booleans(), NUMBERS, TEXTS)
VALUES = st.one_of(st.none(), SCALARS, st.lists(TEXTS, max_size=3))
EXPRESSIONS = st.sampled_from(["a", "^a", "^$", "[a-c]+$", "(?i)cat", r"\d", "ü"])
SIZES = st.integers(1, 6)


WHOLE = st.integers(0, 6)


def ranges(values=WHOLE):
    return st.one_of(
        st.builds(lambda low: {"min": low}, values),
        st.builds(lambda high: {"max": high}, values),
        st.builds(lambda pair: {"min": min(pair), "max": max(pair)}, st.tuples(values, values)),
    )


TESTS = st.one_of(
    st.just({"present": True}),
    st.just({"present": False}),
    st.builds(lambda value: {"equals": value}, SCALARS),
    st.builds(lambda values: {"one_of": values}, st.lists(SCALARS, min_size=1, max_size=4)),
    st.builds(lambda values: {"has_any": values}, st.lists(TEXTS, min_size=1, max_size=3)),
    ranges(NUMBERS),
    ranges(TEXTS),
    ranges(st.integers(0, 4)).map(lambda bounds: {f"{end}_length": value for end, value in bounds.items()}),
    st.builds(lambda pattern: {"matches": pattern}, EXPRESSIONS),
    st.builds(lambda low, pattern: {"min_length": low, "matches": pattern}, st.integers(0, 3), EXPRESSIONS),
)
LEAVES = st.one_of(
    st.builds(lambda name, bounds: {name: bounds}, st.sampled_from(["width", "height", "bytes"]), ranges()),
    st.builds(lambda name, bounds: {name: bounds}, st.sampled_from(["short_side", "long_side"]), ranges()),
    st.builds(lambda bounds: {"aspect_ratio": bounds}, ranges(st.sampled_from([0.5, 1, 1.5, 2]))),
    st.builds(lambda names: {"format": names}, st.lists(st.sampled_from(["JPEG", "PNG"]), min_size=1)),
    st.builds(lambda name, test: {"fields": {name: test}}, st.sampled_from(NAMES), TESTS),
    st.builds(lambda first, second: {"fields": {"a": first, "b": second}}, TESTS, TESTS),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda name, parts, beside: {name: parts, **beside},
        st.sampled_from(["all_of", "any_of", "none_of"]),
        st.lists(inner, min_size=1, max_size=3),
        st.one_of(st.just({}), LEAVES),
    ),
    max_leaves=8,
)
ROWS = st.fixed_dictionaries(
    {
        "fields": st.dictionaries(st.sampled_from(NAMES), VALUES),
        "num_bytes": st.one_of(st.none(), SIZES),
        "sides": st.one_of(st.none(), st.tuples(SIZES, SIZES)),
        "format": st.sampled_from([None, "JPEG", "PNG", "GIF"]),
    }
)


def literal(value) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]::VARCHAR[]"
    return str(value) if isinstance(value, int | float) else "'" + value.replace("'", "''") + "'"


def typed(value) -> dict[str, str]:
    """A value as one SQL column for each type, all of them null but its own."""
    kinds = {"truth": bool, "number": (int, float), "text": str, "list": list}
    own = next((kind for kind, types in kinds.items() if isinstance(value, types)), None)
    casts = {"truth": "BOOLEAN", "number": "DOUBLE", "text": "VARCHAR", "list": "VARCHAR[]"}
    return {kind: f"({literal(value if kind == own else None)})::{cast}" for kind, cast in casts.items()}


def in_sql(column: dict[str, str], allowed: list) -> str:
    by_kind = {
        "truth": [value for value in allowed if isinstance(value, bool)],
        "number": [value for value in allowed if isinstance(value, int | float) and not isinstance(value, bool)],
        "text": [value for value in allowed if isinstance(value, str)],
    }
    tests = [f"{column[kind]} IN ({', '.join(map(literal, values))})" for kind, values in by_kind.items() if values]
    return f"COALESCE({', '.join([*tests, 'NULL'])})"


def range_sql(value: str, bounds: dict) -> list[str]:
    signs = {"min": ">=", "max": "<="}
    return [f"({value}) {signs[end]} {literal(bounds[end])}" for end in ("min", "max") if end in bounds]


def field_sql(test: dict, value) -> str:
    column = typed(value)
    tests = []
    if "present" in test:
        tests.append(f"({literal(value)}) IS {'NOT ' if test['present'] else ''}NULL")
    if "equals" in test:
        tests.append(in_sql(column, [test["equals"]]))
    if "one_of" in test:
        tests.append(in_sql(column, test["one_of"]))
    if "has_any" in test:
        tests.append(f"list_has_any({column['list']}, {literal(test['has_any'])})")
    for end, sign in (("min", ">="), ("max", "<=")):
        if end in test:
            kind = "text" if isinstance(test[end], str) else "number"
            tests.append(f"{column[kind]} {sign} {literal(test[end])}")
        if f"{end}_length" in test:
            tests.append(f"COALESCE(length({column['text']}), len({column['list']})) {sign} {test[f'{end}_length']}")
    if "matches" in test:
        tests.append(f"regexp_matches({column['text']}, {literal(test['matches'])})")
    return f"({' AND '.join(tests)})"


def condition_sql(condition: dict, row: dict) -> str:
    width, height = ("NULL", "NULL") if row["sides"] is None else map(str, row["sides"])
    quantities = {
        "width": width,
        "height": height,
        "short_side": f"CASE WHEN {width} < {height} THEN {width} ELSE {height} END",
        "long_side": f"CASE WHEN {width} > {height} THEN {width} ELSE {height} END",
        "aspect_ratio": f"{width}::DOUBLE / {height}",
        "bytes": literal(row["num_bytes"]),
    }
    parts = [test for name, value in quantities.items() for test in range_sql(value, condition.get(name, {}))]
    if "format" in condition:
        parts.append(f"({literal(row['format'])})::VARCHAR IN ({', '.join(map(literal, condition['format']))})")
    parts += [field_sql(test, row["fields"].get(name)) for name, test in condition.get("fields", {}).items()]
    parts += [condition_sql(part, row) for part in condition.get("all_of", [])]
    if "any_of" in condition:
        parts.append("(" + " OR ".join(condition_sql(part, row) for part in condition["any_of"]) + ")")
    parts += [f"(NOT {condition_sql(part, row)})" for part in condition.get("none_of", [])]
    return f"({' AND '.join(parts)})"


@pytest.fixture(scope="module")
def duck():
    with duckdb.connect() as connection:
        yield connection


@settings(max_examples=300)
@given(condition=CONDITIONS, row=ROWS)
def test_a_condition_is_what_sql_says_it_is(duck, condition, row):
    width, height = row["sides"] or (None, None)
    facts = RowFacts(fields=row["fields"], num_bytes=row["num_bytes"], width=width, height=height, format=row["format"])
    [(expected,)] = duck.execute(f"SELECT {condition_sql(condition, row)}").fetchall()
    assert evaluate_condition(Condition.model_validate(condition), facts) is expected


@pytest.mark.parametrize(
    ("test", "value", "expected"),
    [
        ({"equals": 1}, True, None),
        ({"equals": 1}, 1.0, True),
        ({"equals": True}, 1, None),
        ({"one_of": [1, "a"]}, "b", False),
        ({"one_of": [1, 2]}, "1", None),
        ({"min": 5}, None, None),
        ({"min": 5}, "7", None),
        ({"min": 5}, True, None),
        ({"min": "2024-01-01"}, "2024-05-01", True),
        ({"min_length": 1}, [], False),
        ({"min_length": 1}, {"a": 1}, None),
        ({"has_any": ["a"]}, "a", None),
        ({"has_any": ["a"]}, [], False),
        ({"has_any": [1]}, ["1"], False),
        ({"present": True}, "", True),
        ({"present": False}, None, True),
        ({"matches": "^a"}, 5, None),
        ({"matches": "é"}, "café", True),
        ({"min": 1, "max": 3}, 4, False),
    ],
)
def test_what_a_value_cannot_answer_is_undecided(test, value, expected):
    assert evaluate_test(FieldTest.model_validate(test), value) is expected


def test_a_regular_expression_is_matched_in_linear_time():
    # A backtracking matcher needs 2 to the power of 40 steps for each of them.
    test = FieldTest(matches="^(a+)+$")
    assert evaluate_test(test, "a" * 40 + "b") is False
    assert evaluate_test(FieldTest(matches="(a|aa)+$"), "a" * 100_000 + "b") is False
