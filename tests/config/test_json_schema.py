"""Schemas of captions: what a grammar cannot enforce is refused with its keyword and its place."""

import json

import pytest
import yaml

from pipeline.config import load_job, parse_job
from pipeline.config.json_schema import check_schema, fault_of
from pipeline.errors import ConfigError
from pipeline.flow.prepared_job import check_job, engine_spec
from pipeline.prompts import RequestSampler

PRODUCT = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 60},
        "colours": {"type": "array", "items": {"enum": ["red", "blue"]}, "maxItems": 3},
    },
    "required": ["title", "colours"],
}


def job(schema=PRODUCT, **rest):
    slots = [{"slot": "p", "prompt": "Describe it as JSON.", "schema": schema}, {"slot": "q", "mode": "descriptive"}]
    return parse_job({"source": "a", "output": "o", "model": "standin", "captions": slots, **rest})


def prop(**schema):
    return {"type": "object", "properties": {"x": schema}}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            prop(oneOf=[{"type": "null"}]),
            r"properties\.x: the grammar of the engine does not honour 'oneOf'; use anyOf",
        ),
        (prop(allOf=[{"type": "null"}]), "'allOf'; write its parts as one object"),
        (prop(type="array", items={"type": "null"}, uniqueItems=True), "'uniqueItems'; limit the list with maxItems"),
        (prop(type="integer", multipleOf=2), "does not honour 'multipleOf'; use enum"),
        (prop(type="object", patternProperties={"a": {"type": "null"}}), "'patternProperties'; name the properties"),
        ({"not": {"type": "null"}, "type": "string"}, "the schema: the grammar of the engine does not honour 'not'"),
        ({"if": {"type": "null"}, "type": "string"}, "does not honour 'if'"),
        (prop(type="array", items={"type": "text"}), r"not a JSON Schema: \$\.properties\.x\.items"),
        (prop(type="array", items={"oneOf": []}), "not a JSON Schema"),
        (prop(type="array", items={"maxLength": 3}), r"properties\.x, items: has none of \$ref, anyOf, enum"),
        (prop(type="array", items=True), r"items: found true; allowed: an object with a type"),
        (prop(description="anything"), r"has none of \$ref, anyOf, enum, const, type; say what it allows"),
        (prop(type="string", pattern="a+", maxLength=3), "does not honour maxLength beside pattern"),
        (prop(type="string", pattern="a+", format="date"), "does not honour format beside pattern"),
        (prop(type="string", format="color"), "does not honour the format 'color'; allowed: date, time"),
        (prop(type="string", pattern="a(?=b)"), r"does not honour '\(\?' in the pattern"),
        (prop(type="string", pattern=r"\bcat"), r"does not honour '\\\\b' in the pattern"),
        (prop(type="string", pattern="(a"), r"not a JSON Schema: \$\.properties\.x\.pattern: '\(a' is not a 'regex'"),
        (prop(enum=["a"], maxLength=3), "does not honour maxLength beside enum; write one or the other"),
        (prop(anyOf=[{"type": "null"}], type="string"), "does not honour type beside anyOf"),
        (prop(**{"$ref": "#/$defs/x", "type": "string"}), r"does not honour type beside \$ref"),
        (
            prop(**{"$ref": "https://example.org/x"}),
            r"\$ref 'https://example.org/x' is not a definition; allowed: #/\$de",
        ),
        (prop(enum=["a", 1], type="string"), '1 is not of type "string"'),
        ({**PRODUCT, "required": ["y"]}, "required 'y' is not among its properties"),
        ({"type": "objekt"}, r"not a JSON Schema: \$\.type: 'objekt' is not valid"),
        (
            {"$schema": "http://example.org/x", "type": "null"},
            r"\$schema: 'http://example.org/x' is not known; remove it",
        ),
        ({"type": "string", "const": float("nan")}, "not JSON .*allowed: what JSON can hold"),
        ({"type": "string", "description": "x" * 70_000}, "has 70,0.* characters; allowed: 65,536"),
        ("schema.json", "allowed: a mapping; the name of a file is honoured in a job file only"),
        ("[1]", "holds list; allowed: an object"),
    ],
)
def test_a_schema_that_is_not_enforced_as_a_whole_is_refused(schema, message):
    with pytest.raises(ConfigError, match=r"captions\.0\.schema: .*" + message):
        job(schema)


def test_all_mistakes_of_a_schema_are_named():
    with pytest.raises(ConfigError, match=r"'uniqueItems'.*; the schema, properties\.x: .*'multipleOf'"):
        job(prop(type="array", uniqueItems=True, multipleOf=2))


def test_definitions_may_refer_to_each_other():
    tree = {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {"type": "object", "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/node"}}}
        },
    }
    text = json.dumps(tree)
    assert check_schema(text) == text
    assert fault_of(text, {"name": "a", "next": {"name": "b"}}) is None
    assert fault_of(text, {"name": "a", "next": {"name": 1}}) == "$.next.name: 1 is not of type 'string'"


def test_the_order_of_properties_is_part_of_the_recipe():
    turned = {**PRODUCT, "properties": dict(reversed(PRODUCT["properties"].items()))}
    first, second = (check_job(job(schema))[0] for schema in (PRODUCT, turned))
    assert first.fingerprint != second.fingerprint
    assert json.loads(first.fields["captions"]["p"]["schema"]) == PRODUCT
    assert "schema" not in first.fields["captions"]["q"]


def test_a_file_is_read_where_the_job_file_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "product.json").write_text(json.dumps(PRODUCT))
    small = {"source": "a", "output": "o", "model": "standin"}
    for captions in ({"slot": "p", "prompt": "x", "schema": "product.json"}, [{"slot": "p", "prompt": "x"}]):
        (tmp_path / "job.yaml").write_text(yaml.safe_dump({**small, "captions": captions}))
        schema = load_job("job.yaml").captions[0].schema
        assert (schema and json.loads(schema)) == (PRODUCT if isinstance(captions, dict) else None)
    (tmp_path / "job.yaml").write_text(
        yaml.safe_dump({**small, "captions": [{"slot": "p", "prompt": "x", "schema": "no.json"}]})
    )
    with pytest.raises(ConfigError, match=r"job\.yaml: captions\.0\.schema: no\.json: cannot be read \(No such file"):
        load_job("job.yaml")
    (tmp_path / "no.json").write_text("{")
    with pytest.raises(ConfigError, match=r"captions\.0\.schema: no\.json: is not JSON"):
        load_job("job.yaml")


def test_a_stored_job_has_the_schema_itself_and_gives_the_same_recipe():
    made = job()
    again = parse_job(made.model_dump(mode="json"))
    assert again == made
    assert check_job(again)[0].fingerprint == check_job(made)[0].fingerprint


def test_the_requests_and_the_engine_get_the_schema_of_the_slot():
    made = job()
    first, second = RequestSampler(made).requests("s", 0)
    assert (first.schema, second.schema) == (made.captions[0].schema, None)
    recipe, weights, _ = check_job(made)
    assert engine_spec(made, recipe, weights).schemas == (made.captions[0].schema,)


def test_a_schema_without_a_grammar_is_refused_before_a_run(monkeypatch):
    monkeypatch.setattr("pipeline.flow.prepared_job.grammar_fault", lambda schema: "no rule for it")
    with pytest.raises(ConfigError, match=r"captions\.0\.schema: the engine cannot make its grammar: no rule"):
        check_job(job())
    check_job(job(engine={"kind": "endpoint", "endpoint": {"urls": ["http://h/v1"]}}))


def test_echo_has_no_grammar():
    with pytest.raises(ConfigError, match=r"p has a schema, and engine\.kind: echo has no model"):
        job(engine={"kind": "echo"})
