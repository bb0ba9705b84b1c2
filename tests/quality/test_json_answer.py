"""JSON captions: parsed strictly, validated, stored in one form, and looked at by the rules that have a meaning."""

import json

import pytest

from pipeline.config import QualityConfig
from pipeline.quality import evaluate, prepare_rules
from schemas.status import Reason, Status
from tests.quality.labelled import Labelled

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "count": {"type": "number"},
            "list": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["title"],
        "additionalProperties": False,
    }
)


def verdict(text, finish_reason="stop", schema=SCHEMA, mode="custom", **config):
    request = Labelled("json", text, mode, "Describe it as JSON.", schema=schema)
    return evaluate(prepare_rules(QualityConfig(**config), None), request, text, finish_reason)


def test_a_valid_answer_is_stored_in_one_form():
    texts = ['{"title": "a \\u00e9",\n "count": 2}', '{"count":2,"title":"a é"}', ' {"title":"a é","count": 2} \n']
    verdicts = [verdict(text) for text in texts]
    assert {(made.status, made.text, made.flags) for made in verdicts} == {(Status.OK, '{"count":2,"title":"a é"}', ())}


DEEP = "[" * 100_000

REJECTED = [
    ("", "stop", Reason.INVALID_JSON, "invalid_json: Expecting value"),
    ("A red boat.", "stop", Reason.INVALID_JSON, "invalid_json: Expecting value"),
    ('{"title": "a"', "length", Reason.TRUNCATED_JSON, "truncated_json: sampling.max_tokens ended the text"),
    ('{"title": "a"', "stop", Reason.INVALID_JSON, "invalid_json: "),
    ('{"title": "a"} {}', "stop", Reason.INVALID_JSON, "invalid_json: Extra data"),
    ('{"title": "a", "title": "b"}', "stop", Reason.INVALID_JSON, "invalid_json: the key 'title' occurs twice"),
    ('{"title": "a", "count": NaN}', "stop", Reason.INVALID_JSON, "invalid_json: NaN is no JSON"),
    ('{"title": "a", "count": 1e999}', "stop", Reason.INVALID_JSON, "invalid_json: Out of range"),
    ('{"title": "\\ud800"}', "stop", Reason.INVALID_JSON, "invalid_json: 'utf-8' codec can't encode"),
    (f'{{"title": "a", "count": {"9" * 5000}}}', "stop", Reason.INVALID_JSON, "invalid_json: Exceeds the limit"),
    (DEEP, "stop", Reason.INVALID_JSON, "invalid_json: is nested too deeply"),
    ("{}", "stop", Reason.SCHEMA_MISMATCH, "schema_mismatch: $: 'title' is a required property"),
    ('{"title": 3}', "stop", Reason.SCHEMA_MISMATCH, "schema_mismatch: $.title: 3 is not of type 'string'"),
    ('{"title": "a", "x": 1}', "stop", Reason.SCHEMA_MISMATCH, "schema_mismatch: $: Additional properties are not al"),
    ('{"title": "a"}', "repetition", Reason.LOOP, "stopped_loop: "),
]


@pytest.mark.parametrize(("text", "finish_reason", "reason", "message"), REJECTED)
def test_an_invalid_answer_is_rejected_with_its_reason(text, finish_reason, reason, message):
    made = verdict(text, finish_reason)
    assert (made.status, made.reason, made.text) == (Status.REJECTED, reason, text)
    assert made.message.startswith(message)


def test_a_whole_answer_that_ended_at_the_last_token_is_valid():
    assert verdict('{"title":"a"}', "length").status is Status.OK


def test_rules_look_at_the_texts_within_json():
    loop = " ".join(["the boat on the water"] * 30)
    assert verdict(json.dumps({"title": loop})).reason == Reason.LOOP
    assert verdict(json.dumps({"title": "a", "list": ["red car"] * 40})).status is Status.OK
    assert verdict(json.dumps({"title": "a <|eot_id|>"})).reason == Reason.SPECIAL_TOKENS
    assert verdict(json.dumps({"title": "лодка на воде у берега"}, ensure_ascii=False)).reason == Reason.FOREIGN_SCRIPT
    for text in ("I cannot help with that.", "Describe it as JSON.", "This image shows a boat."):
        assert verdict(json.dumps({"title": text})) == verdict(json.dumps({"title": text}), actions={"refusal": "off"})
        assert verdict(json.dumps({"title": text})).flags == ()
    # A mode of tags requests no list of tags here.
    assert (
        verdict(json.dumps({"title": "It is a boat. It is on the sea. It is red."}), mode="booru-tags").status == "ok"
    )


def test_rules_of_the_user_look_at_all_texts_and_not_at_the_names():
    rules = [{"name": "words", "min_words": 3, "action": "flag"}, {"name": "no-boat", "forbidden": "boat"}]
    assert verdict('{"title":"a b","list":["c"]}', rules=rules).flags == ()
    assert verdict('{"title":"a b"}', rules=rules).flags == ("user:words",)
    assert verdict('{"title":"a","list":["my boat"]}', rules=rules).reason == Reason.USER_RULE
    named = json.dumps({"type": "object", "properties": {"boat": {"type": "string"}}})
    assert verdict('{"boat":"a b c"}', schema=named, rules=rules).status is Status.OK
