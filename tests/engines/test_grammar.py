"""The table of keywords against the grammar itself: each keyword that is accepted decides what an answer may be."""

import json

import pytest

from pipeline.config.json_schema import FORMATS, KEYWORDS, check_schema, fault_of
from pipeline.engines.grammar import grammar_fault

pytestmark = pytest.mark.filterwarnings("default")  # torch's, on import

NODE = {"type": "object", "properties": {"n": {"$ref": "#/$defs/node"}}}

CASES = [
    ("string", "minLength", {"type": "string", "minLength": 3}, ["abc", "abcd"], ["ab", ""]),
    ("string", "maxLength", {"type": "string", "maxLength": 3}, ["", "abc", "éèê"], ["abcd"]),
    ("string", "pattern", {"type": "string", "pattern": "^[a-c]{2}-[0-9]+$"}, ["ab-1", "cc-42"], ["ad-1", "ab-"]),
    ("integer", "minimum", {"type": "integer", "minimum": 3}, [3, 12], [2, -5]),
    ("integer", "maximum", {"type": "integer", "maximum": 30}, [-7, 30], [31, 400]),
    ("integer", "exclusiveMinimum", {"type": "integer", "exclusiveMinimum": 3}, [4], [3]),
    ("integer", "exclusiveMaximum", {"type": "integer", "exclusiveMaximum": 3}, [2, -9], [3]),
    ("number", "minimum", {"type": "number", "minimum": 0}, [0, 2.5, 10], [-1, -0.5]),
    ("number", "maximum", {"type": "number", "maximum": 1}, [1, 0.25, -3], [1.5, 2]),
    ("number", "exclusiveMinimum", {"type": "number", "exclusiveMinimum": 1}, [1.5, 2], [0.5, -1]),
    ("number", "exclusiveMaximum", {"type": "number", "exclusiveMaximum": 3}, [2.5, 1], [3.5, 4]),
    ("array", "items", {"type": "array", "items": {"type": "integer"}}, [[], [1, 2]], [["a"], [1, None]]),
    (
        "array",
        "prefixItems",
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
        [[1, "a"]],
        [["a", 1], [1, 2]],
    ),
    ("array", "minItems", {"type": "array", "items": {"type": "integer"}, "minItems": 2}, [[1, 2]], [[1], []]),
    ("array", "maxItems", {"type": "array", "items": {"type": "integer"}, "maxItems": 2}, [[1, 2], []], [[1, 2, 3]]),
    (
        "object",
        "properties",
        {"type": "object", "properties": {"a": {"type": "integer"}}},
        [{"a": 1}, {}],
        [{"a": "b"}],
    ),
    (
        "object",
        "required",
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}}, "required": ["b"]},
        [{"a": 1, "b": None}, {"b": None}],
        [{"a": 1}, {}],
    ),
    (
        "object",
        "additionalProperties",
        {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
        [{"a": 1, "x": "y"}, {"a": 1}],
        [{"a": 1, "x": 2}],
    ),
]
BOUNDED = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
CASES += [
    ("object", "minProperties", {**BOUNDED, "minProperties": 1}, [{"a": 1}, {"a": 1, "b": 2}], [{}]),
    ("object", "maxProperties", {**BOUNDED, "maxProperties": 1}, [{"a": 1}, {}], [{"a": 1, "b": 2}]),
]
FORM_CASES = [
    ({"type": "object"}, [{}, {"a": [1]}], [[], "a"]),
    ({"type": "array"}, [[], [1, "a"]], [{}, 1]),
    ({"type": "object", "properties": {'é"': {"type": "null"}}, "required": ['é"']}, [{'é"': None}], [{"e": None}]),
    ({"enum": ["a", 2, None]}, ["a", 2, None], ["b", 3]),
    ({"type": "string", "enum": ["a", "b"]}, ["a", "b"], ["c"]),
    ({"const": {"k": 1}}, [{"k": 1}], [{"k": 2}]),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, [1, None], ["a", True]),
    ({"type": ["string", "null"], "maxLength": 2}, ["ab", None], ["abc", 1]),
    ({"type": "boolean"}, [True, False], [None, 0]),
    ({"type": "null"}, [None], [False]),
    ({"$ref": "#/$defs/node", "$defs": {"node": NODE}}, [{}, {"n": {"n": {}}}], [{"m": {}}, {"n": 1}]),
    (
        {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": True},
        [{"a": None, "z": 1}],
        [],
    ),
]
FORMAT_CASES = {
    "date": (["2024-02-29"], ["2024-13-01", "today"]),
    "time": (["12:30:00Z"], ["noon"]),
    "date-time": (["2024-02-29T12:30:00Z"], ["2024-02-29"]),
    "duration": (["P1DT2H"], ["1 day"]),
    "email": (["a@b.org"], ["a b"]),
    "hostname": (["a.example.org"], ["a b"]),
    "ipv4": (["10.0.0.1"], ["10.0.0"]),
    "ipv6": (["::1"], ["x"]),
    "uri": (["https://a.org/b"], ["a b"]),
    "uri-reference": (["/a/b"], ["a b"]),
    "uuid": (["6ba7b810-9dad-11d1-80b4-00c04fd430c8"], ["6ba7"]),
}


def accepts(schema, value):
    """Whether the grammar accepts a value, written as the engine's grammar asks for."""
    from xgrammar import Grammar
    from xgrammar.testing import _is_grammar_accept_string

    grammar = Grammar.from_json_schema(json.dumps(schema), any_whitespace=False)
    # Values of `enum` and `const` are written without blanks.
    texts = (json.dumps(value, ensure_ascii=False, separators=separators) for separators in (None, (",", ":")))
    return any(_is_grammar_accept_string(grammar, text) for text in texts)


def check(schema, valid, invalid):
    text = json.dumps(schema)
    assert check_schema(text) == text
    assert grammar_fault(text) is None
    for value in valid:
        assert fault_of(text, value) is None, value
        assert accepts(schema, value), value
    for value in invalid:
        assert not accepts(schema, value), value


@pytest.mark.parametrize(("kind", "keyword", "schema", "valid", "invalid"), CASES)
def test_a_keyword_is_enforced_by_the_grammar(kind, keyword, schema, valid, invalid):
    assert keyword in KEYWORDS[kind]
    check(schema, valid, invalid)


@pytest.mark.parametrize(("schema", "valid", "invalid"), FORM_CASES)
def test_a_form_is_enforced_by_the_grammar(schema, valid, invalid):
    check(schema, valid, invalid)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_enforced_by_the_grammar(name):
    check({"type": "string", "format": name}, *FORMAT_CASES[name])


def test_every_keyword_has_a_case():
    assert {(kind, keyword) for kind, keyword, *_ in CASES} == {
        (kind, keyword) for kind, keywords in KEYWORDS.items() for keyword in keywords if keyword != "format"
    }
    assert set(FORMAT_CASES) == set(FORMATS)


def test_the_backend_of_vllm_has_no_further_objection():
    from vllm.v1.structured_output.backend_xgrammar import has_xgrammar_unsupported_json_features

    schemas = [case[2] for case in CASES] + [case[0] for case in FORM_CASES]
    schemas += [{"type": "string", "format": name} for name in FORMATS]
    assert not any(has_xgrammar_unsupported_json_features(schema) for schema in schemas)


def test_a_schema_without_a_grammar_is_named():
    assert "regex" in str(grammar_fault('{"type":"string","pattern":"(a"}')).lower()
