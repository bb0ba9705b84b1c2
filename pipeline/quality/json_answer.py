"""Answers that a JSON Schema was requested for: parsed, validated, and written in one form.

The grammar of the engine is not trusted: `sampling.max_tokens` may end an answer, and a server may ignore the schema.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from pipeline.config.json_schema import fault_of
from pipeline.quality.rule import Finding
from schemas.status import Reason

MESSAGE_CHARS = 300
"""Of a fault: it may quote the answer."""


class NotJson(Exception):
    """Why a text is not JSON."""


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """A valid answer."""

    canonical: str
    """Keys sorted, no blanks between tokens, characters as UTF-8."""
    texts: tuple[str, ...]
    """The texts among its values, in order: what rules look at."""


def read_answer(text: str, schema: str, finish_reason: str | None) -> JsonAnswer | tuple[Reason, Finding]:
    """Parse and validate an answer; return it, or why it is rejected.

    Args:
        text: the model's words.
        schema: as JSON text.
        finish_reason: as the engine reports it.
    """
    try:
        value = _parsed(text)
        canonical = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
        canonical.encode()
        fault = fault_of(schema, value)
        texts = tuple(texts_in(value))
    except (NotJson, ValueError) as err:
        if finish_reason == "length":
            return Reason.TRUNCATED_JSON, Finding("truncated_json", "sampling.max_tokens ended the text")
        return Reason.INVALID_JSON, Finding("invalid_json", str(err))
    except RecursionError:
        return Reason.INVALID_JSON, Finding("invalid_json", "is nested too deeply")
    if fault is not None:
        return Reason.SCHEMA_MISMATCH, Finding("schema_mismatch", fault[:MESSAGE_CHARS])
    return JsonAnswer(canonical, texts)


def canonical_json(text: str, schema: str) -> str | None:
    """Return a text in the form of JSON captions; None if it is not valid under the schema."""
    answer = read_answer(text, schema, None)
    return answer.canonical if isinstance(answer, JsonAnswer) else None


def _parsed(text: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise NotJson(f"the key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return made


def _refuse_constant(name: str) -> None:
    raise NotJson(f"{name} is no JSON")


def texts_in(value: Any) -> Iterator[str]:  # noqa: ANN401 - a JSON value
    """Yield the texts of a value in order, without the names of its properties."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in cast("dict[str, Any]", value).values():
            yield from texts_in(item)
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from texts_in(item)
