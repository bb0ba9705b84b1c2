"""JSON Schemas of captions: which of them a grammar enforces, and whether a value is valid.

The engine decodes an answer token by token under a grammar that is made from the schema. A keyword that the grammar
ignores would show only when the whole answer is validated, after its tokens are paid for: a schema with such a keyword
is refused. `tests/engines/test_grammar.py` compares the table of keywords with the grammar itself.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

MAX_CHARS = 65_536
"""Of a schema: it is a part of the recipe, and of every request to a server."""

ANNOTATIONS = frozenset((
    "$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
))  # fmt: skip
"""Keywords that constrain nothing."""

KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "boolean": (),
    "null": (),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
}
"""Type to the keywords that the grammar enforces for it."""

FORMS = ("$ref", "anyOf", "enum", "const", "type")
"""A schema has one of these; `type` may stand beside `enum` and `const`."""

DEFINITIONS = ("$defs", "definitions")

FORMATS = (
    "date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uri-reference", "uuid",
)  # fmt: skip

_HINTS = {
    "oneOf": "use anyOf",
    "allOf": "write its parts as one object",
    "patternProperties": "name the properties",
    "uniqueItems": "limit the list with maxItems",
    "multipleOf": "use enum",
}

_REGEX_UNSUPPORTED = re.compile(r"\(\?(?!:)|\\[bBpPk1-9]")
"""Look-around, word boundaries, classes of Unicode and references: the grammar ignores them or cannot be made."""

Schema = Mapping[str, Any]


def schema_text(value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
    """Return a schema as JSON text; the order of properties is kept, since it is the order of the answer."""
    if not isinstance(value, Mapping):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as err:
        raise ValueError(f"not JSON ({err}); allowed: what JSON can hold") from err


def check_schema(text: str | None) -> str | None:
    """Return a schema whose every keyword is enforced.

    Raises:
        ValueError: names each mistake with its place.
    """
    if text is None:
        return None
    if len(text) > MAX_CHARS:
        raise ValueError(f"has {len(text):,} characters; allowed: {MAX_CHARS:,}")
    try:
        schema: Any = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise ValueError("allowed: a mapping; the name of a file is honoured in a job file only") from err
    if not isinstance(schema, dict):
        raise ValueError(f"holds {type(schema).__name__}; allowed: an object")
    schema = cast("dict[str, Any]", schema)
    mistakes = list(dict.fromkeys(_invalid(schema) or _mistakes(schema, "the schema", schema)))
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return text


def _invalid(schema: dict[str, Any]) -> list[str]:
    # jsonschema takes 0.1 s to import; only jobs with a schema need it.
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415
    from jsonschema.validators import validator_for  # noqa: PLC0415

    kind = validator_for(schema, default=Draft202012Validator)
    named = str(schema.get("$schema", ""))
    if named and named.rstrip("#") not in str(kind.META_SCHEMA.get("$id", kind.META_SCHEMA.get("id"))):
        return [f"$schema: {named!r} is not known; remove it"]
    try:
        kind.check_schema(schema)
    except SchemaError as err:
        return [f"not a JSON Schema: {err.json_path}: {err.message}"]
    return []


def _mistakes(schema: Any, at: str, root: Schema) -> Iterator[str]:  # noqa: ANN401 - JSON
    if not isinstance(schema, dict):
        yield f"{at}: found {json.dumps(schema)}; allowed: an object with a type"
        return
    schema = cast("dict[str, Any]", schema)
    known = {*ANNOTATIONS, *FORMS, *DEFINITIONS, *(name for names in KEYWORDS.values() for name in names)}
    for name in schema:
        if name not in known:
            hint = f"; {_HINTS[name]}" if name in _HINTS else ""
            yield f"{at}: the grammar of the engine does not honour {name!r}{hint}"
    yield from _form_mistakes(schema, at, root)
    for place, part in _parts(schema):
        yield from _mistakes(part, f"{at}, {place}", root)


def _parts(schema: Schema) -> Iterator[tuple[str, Any]]:
    """The schemas directly inside a schema, with their places."""
    for name in ("properties", *DEFINITIONS):
        yield from ((f"{name}.{key}", part) for key, part in schema.get(name, {}).items())
    for name in ("anyOf", "prefixItems"):
        yield from ((f"{name}[{index}]", part) for index, part in enumerate(schema.get(name, ())))
    if "items" in schema:
        yield "items", schema["items"]
    if isinstance(schema.get("additionalProperties"), dict):
        yield "additionalProperties", schema["additionalProperties"]


def _form_mistakes(schema: Schema, at: str, root: Schema) -> Iterator[str]:
    form = next((name for name in FORMS if name in schema), None)
    if form is None:
        yield f"{at}: has none of {', '.join(FORMS)}; say what it allows"
    elif form == "type":
        yield from _type_mistakes(schema, at)
    else:
        allowed = {form, *ANNOTATIONS, *DEFINITIONS} | ({"type"} if form in ("enum", "const") else set())
        beside = [name for name in schema if name not in allowed]
        if beside:
            yield f"{at}: the grammar does not honour {', '.join(beside)} beside {form}; write one or the other"
        yield from _value_mistakes(schema, form, at)
    if form == "$ref" and not _is_defined(schema["$ref"], root):
        yield f"{at}: $ref {schema['$ref']!r} is not a definition; allowed: #/$defs/NAME"


def _value_mistakes(schema: Schema, form: str, at: str) -> Iterator[str]:
    """Values of `enum` and `const` of another type than the one beside them: the grammar would allow them."""
    values: Sequence[Any] = schema["enum"] if form == "enum" else [schema["const"]] if form == "const" else ()
    if "type" in schema and values:
        kind = schema_text({"type": schema["type"]})
        wrong = [value for value in values if fault_of(kind, value)]
        if wrong:
            yield f"{at}: {json.dumps(wrong[0])} is not of type {json.dumps(schema['type'])}"


def _is_defined(reference: str, root: Schema) -> bool:
    parts = reference.split("/")
    return len(parts) == 3 and parts[0] == "#" and parts[1] in DEFINITIONS and parts[2] in root.get(parts[1], {})


def _type_mistakes(schema: Schema, at: str) -> Iterator[str]:
    kinds: Sequence[str] = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if "string" in kinds:
        yield from _string_mistakes(schema, at)
    if "object" in kinds:
        absent = [name for name in schema.get("required", ()) if name not in schema.get("properties", {})]
        if absent:
            yield f"{at}: required {absent[0]!r} is not among its properties"


def _string_mistakes(schema: Schema, at: str) -> Iterator[str]:
    shapes = [name for name in ("pattern", "format") if name in schema]
    lengths = [name for name in ("minLength", "maxLength") if name in schema]
    if len(shapes) == 2 or (shapes and lengths):
        yield f"{at}: the grammar does not honour {(shapes[1:] + lengths)[0]} beside {shapes[0]}; write one of them"
    if "format" in schema and schema["format"] not in FORMATS:
        yield f"{at}: the grammar does not honour the format {schema['format']!r}; allowed: {', '.join(FORMATS)}"
    unsupported = _REGEX_UNSUPPORTED.search(schema.get("pattern", ""))
    if unsupported:
        yield f"{at}: the grammar does not honour {unsupported[0]!r} in the pattern"


@functools.lru_cache(maxsize=64)
def _validator(text: str) -> Any:  # noqa: ANN401 - jsonschema's validators have no common type
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - as above
    from jsonschema.validators import validator_for  # noqa: PLC0415

    schema = json.loads(text)
    kind = validator_for(schema, default=Draft202012Validator)
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


def fault_of(text: str, value: Any) -> str | None:  # noqa: ANN401 - a JSON value
    """Return the first fault of a value under a schema, with its place; None for a valid value."""
    from jsonschema.exceptions import best_match  # noqa: PLC0415 - as above

    fault = best_match(_validator(text).iter_errors(value))
    return None if fault is None else f"{fault.json_path}: {fault.message}"
