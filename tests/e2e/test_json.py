"""Grammar-constrained answers of the stand-in by real vLLM: each is valid JSON under its schema, or a rejected row."""

import dataclasses
import json

import jsonschema
import pytest

from schemas.status import Reason
from tests.e2e.test_quality import captioned
from tests.e2e.test_vllm import pictures

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue", "yellow", "orange", "purple", "white", "black", "gray", "pink"]},
        "shape": {"type": "string", "enum": ["circle", "square", "triangle", "star", "cross", "diamond", "heart"]},
        "title": {"type": "string", "minLength": 1, "maxLength": 30},
        "corners": {"type": ["integer", "null"], "minimum": 0, "maximum": 12},
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "words": {"type": "array", "items": {"type": "string", "pattern": "[a-z]{1,8}"}, "maxItems": 3},
        "framed": {"type": "boolean"},
    },
    "required": ["colour", "shape", "title", "corners", "words", "framed"],
}
ENDLESS = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
"""Without a limit, so that `sampling.max_tokens` may end the answer."""
PROMPT = "Write a descriptive caption for this image in a formal tone."
REJECTED = {Reason.INVALID_JSON, Reason.TRUNCATED_JSON, Reason.SCHEMA_MISMATCH, Reason.LOOP, Reason.FOREIGN_SCRIPT}


def json_rows(running, folder, num_images, seed):
    """The rows of two slots with a schema and of one without, sampled at a high temperature."""
    slots = [
        {"slot": "json", "prompt": PROMPT, "schema": SCHEMA},
        {"slot": "endless", "prompt": PROMPT, "schema": ENDLESS},
        {"slot": "text", "mode": "descriptive"},
    ]
    scenes = [scene for scene, _ in pictures(num_images, seed)]
    rows = captioned(running, folder, scenes, slots, quality={"retry": {"attempts": 1}}, sampling={"temperature": 1})
    assert len(rows) == 3 * num_images
    return {slot: [row for row in rows if row["slot"] == slot] for slot in ("json", "endless", "text")}


def check(rows, schema):
    """Check each row, and return the values of the ok rows. The reference validator is jsonschema's own function."""
    values = []
    for row in rows:
        assert row["status"] in ("ok", "rejected"), row
        if row["status"] == "rejected":
            assert row["reason"] in REJECTED, row
            assert row["caption"] is None
            continue
        value = json.loads(row["caption"])
        jsonschema.validate(value, schema)
        canonical = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        assert row["caption"] == canonical
        values.append(value)
    return values


def check_all(running, folder, num_images, seed):
    rows = json_rows(running, folder, num_images, seed)
    values = check(rows["json"], SCHEMA)
    assert len(values) >= 0.9 * num_images
    assert len({json.dumps(value) for value in values}) > num_images / 4
    check(rows["endless"], ENDLESS)
    # A neighbour in the same batch has no grammar.
    assert sum(row["status"] == "ok" for row in rows["text"]) >= 0.9 * num_images
    assert not any((row["caption"] or "").startswith("{") for row in rows["text"])
    return rows


def test_a_hundred_pictures_give_two_hundred_answers_that_are_valid_or_rejected(running, tmp_path):
    check_all(running, tmp_path, 100, seed=120)


@pytest.mark.long
def test_a_thousand_answers_are_valid_or_rejected(running, tmp_path):
    check_all(running, tmp_path, 500, seed=121)


def test_an_answer_without_room_is_truncated_json_and_asked_again(running, tmp_path):
    spec = running.engine._spec
    running.engine._spec = dataclasses.replace(spec, max_tokens=6)
    try:
        scenes = [scene for scene, _ in pictures(4, seed=122)]
        slot = {"slot": "json", "prompt": PROMPT, "schema": SCHEMA}
        rows = captioned(running, tmp_path, scenes, [slot], quality={"retry": {"attempts": 1}})
    finally:
        running.engine._spec = spec
    assert [(row["status"], row["reason"], row["attempts"], row["finish_reason"]) for row in rows] == [
        ("rejected", "truncated_json", 2, "length")
    ] * 4
    assert all(row["earlier_reasons"] == ["truncated_json"] for row in rows)
    assert all(row["rejected_text"].startswith("{") for row in rows)


def test_an_engine_with_a_schema_that_has_no_grammar_does_not_start(running):
    from pipeline.engines import start_engine
    from pipeline.errors import ConfigError

    spec = dataclasses.replace(running.engine._spec, schemas=('{"type":"string","pattern":"(a"}',))
    with pytest.raises(ConfigError, match=r"the schema .* has no grammar in xgrammar: .*; change captions\.\*\.schema"):
        start_engine(spec)
