"""Selections and existing texts of jobs whose prompts use fields of the row, or whose captions are JSON."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import parse_job
from pipeline.stages.source_sample import estimate_selection
from tests.selection.world import caption, image, job_of, only_shard, spec_of, write_parquet, write_tar

ALT = {"slot": "alt", "prompt": "Its alt text is {source.caption}."}
SCORED = {"slot": "scored", "mode": "descriptive", "extra": "Its score is {source.score}."}
ODD = {"fields": {"rating": {"equals": "odd"}}}
"""The even rows."""


@pytest.fixture(params=[write_tar, write_parquet])
def folder(request, tmp_path):
    request.param(tmp_path / "in")
    return tmp_path / "in"


def outcomes(rows):
    return {row["row"]: row["reason"] or row["status"] for row in rows}


def test_a_skipped_row_needs_no_field_of_its_prompt(folder):
    job = job_of(folder, [ALT], where=ODD)
    rows, engine = caption(job, only_shard(job))
    with_text = [0, 4, 8]
    assert outcomes(rows) == {
        row: "filtered" if row % 2 else "ok" if row in with_text else "missing_field" for row in range(12)
    }
    assert [row for _, row, _ in engine.asked] == with_text
    for row in rows:
        skipped = row["status"] == "skipped"
        assert (row["prompt"] == ALT["prompt"]) == (skipped or row["row"] not in with_text)
        assert (row["seed"] is None) == skipped
        assert not skipped or row["message"].startswith("source.where.fields.rating")


def test_the_words_of_a_skipped_row_are_not_made(folder, monkeypatch):
    counted = []
    monkeypatch.setattr("pipeline.stages.captioning._token_counter", lambda _: lambda text: counted.append(text) or 1)
    job = job_of(folder, [ALT], where={"fields": {"rating": {"equals": "odd"}, "caption": {"equals": " text 4 "}}})
    limited = job.model_dump(mode="json", exclude_defaults=True) | {"prompt_fields": {"caption": {"max_tokens": 9}}}
    caption(parse_job(limited), only_shard(job))
    assert set(counted) == {"text 4"}


def test_fields_of_prompts_and_of_conditions_are_read_and_those_of_prompts_stored(folder):
    tested = {"score": {"min": 5}, "rating": {"equals": "odd"}}
    job = job_of(folder, [SCORED], where={"fields": tested})
    rows, engine = caption(job, only_shard(job))
    assert [row for _, row, _ in engine.asked] == [6, 8, 10]
    assert [row["prompt"].rpartition(" ")[2] for row in rows if row["status"] == "ok"] == ["6.", "8.", "10."]
    stored = [json.loads(row["source"]) for row in rows if row["status"] == "ok"]
    assert stored == [{"score": 6}, {"score": 8}, {"score": 10}]


def test_an_existing_text_needs_no_field_of_the_prompt(folder):
    slot = {"slot": "long", "mode": "descriptive", "extra": "Its tags are {source.tags}.", "existing": "caption"}
    job = job_of(folder, [slot])
    rows, engine = caption(job, only_shard(job))
    assert outcomes(rows) == {row: "ok" if row in (0, 4) else "missing_field" for row in range(12)}
    taken = [row for row in rows if row["status"] == "ok"]
    assert [(row["mode"], row["caption"], row["prompt"]) for row in taken] == [
        ("existing", "text 0", ""),
        ("existing", "text 4", ""),
    ]
    assert engine.asked == []


def test_a_row_that_is_skipped_for_its_text_needs_no_field_of_the_prompt(folder):
    existing = {"field": "caption", "action": "skip"}
    slot = {"slot": "long", "mode": "descriptive", "extra": "Its tags are {source.tags}.", "existing": existing}
    job = job_of(folder, [slot])
    rows, _ = caption(job, only_shard(job))
    assert outcomes(rows) == {row: "has_caption" if row in (0, 4) else "missing_field" for row in range(12)}


def test_an_existing_text_is_given_no_words(folder):
    job = job_of(folder, [{**SCORED, "extra": "Its rating is {source.rating}.", "existing": "caption"}])
    job = parse_job(job.model_dump(mode="json", exclude_defaults=True) | {"quality": {"actions": {"mentions": "flag"}}})
    rows, _ = caption(job, only_shard(job))
    existing = [row for row in rows if row["mode"] == "existing"]
    asked = [row for row in rows if row["mode"] != "existing"]
    assert {(row["given"], row["mentioned"], tuple(row["flags"])) for row in existing} == {(None, None, ())}
    assert {(row["given"], row["mentioned"], tuple(row["flags"])) for row in asked} == {(1, 0, ("mentions",))}


SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "stars": {"type": "integer"}},
    "required": ["title"],
}
TEXTS = [
    '{"title": "A cat",\n "stars": 3}',
    "A cat.",
    '{"stars": 3}',
    '{"title": "a <|eot_id|> b"}',
    None,
    '{"title": "A cat", "title": "B"}',
]
VALID = {0: '{"stars":3,"title":"A cat"}', 3: '{"title":"a <|eot_id|> b"}'}


def json_job(tmp_path, action="use"):
    table = pa.table({"image": [image(row) for row in range(len(TEXTS))], "text": TEXTS})
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in/a.parquet")
    existing = {"field": "text", "action": action}
    return parse_job(
        {
            "source": str(tmp_path / "in"),
            "output": "memory://o",
            "model": "standin",
            "captions": [{"slot": "product", "prompt": "Describe it.", "schema": SCHEMA, "existing": existing}],
            "quality": {"retry": {"attempts": 0}},
        }
    )


def test_an_existing_text_counts_only_if_it_is_valid_under_the_schema_and_is_stored_in_its_form(tmp_path):
    job = json_job(tmp_path)
    rows, engine = caption(job, only_shard(job))
    assert {row["row"]: row["caption"] for row in rows if row["mode"] == "existing"} == VALID
    assert [row["flags"] for row in rows if row["mode"] == "existing"] == [[], ["special_tokens"]]
    assert [row for _, row, _ in engine.asked] == [1, 2, 4, 5]
    estimated = estimate_selection(spec_of(job), [only_shard(job)])
    assert estimated.requests == pytest.approx(4 / 6)


def test_a_text_that_is_not_valid_under_the_schema_does_not_skip_the_row(tmp_path):
    job = json_job(tmp_path, "skip")
    rows, engine = caption(job, only_shard(job))
    assert [row["row"] for row in rows if row["reason"] == "has_caption"] == [*VALID]
    assert [row for _, row, _ in engine.asked] == [1, 2, 4, 5]
