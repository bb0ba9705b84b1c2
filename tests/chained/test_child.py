"""A chained job: its exact prompts, which of its rows are asked, and what its rows record about the parent."""

import hashlib
import json

import pytest

from pipeline.flow.prepared_job import check_job, prepare_job
from pipeline.ledger.run_record import read_run
from pipeline.ledger.stale_rows import parent_digest
from pipeline.storage import open_store
from tests.chained.world import (
    CHILD,
    DAMAGED,
    NUM_ROWS,
    WITHOUT_ALT,
    amend,
    child_job,
    parent_job,
    rows_of,
    run,
    statuses_of,
    write_source,
)


@pytest.fixture
def folder(tmp_path):
    write_source(tmp_path / "in")
    run(parent_job(tmp_path))
    return tmp_path


def test_a_slot_in_a_prompt_is_the_caption_of_the_parent(folder):
    engine = run(child_job(folder))
    assert engine.prompts["b.tar", 3, "short"] == "Shorten this: the long of b.tar 3"
    assert engine.prompts["b.tar", 3, "both"] == "Merge the long of b.tar 3 with the tags the tags of b.tar 3."
    row = rows_of(folder)["b.tar", 3, "short"]
    assert row["prompt"] == "Shorten this: the long of b.tar 3"
    assert json.loads(row["source"])["captions"] == {"long": "the long of b.tar 3", "tags": "the tags of b.tar 3"}


def test_slots_and_metadata_fields_stand_in_prompts_names_and_extra_sentences(folder):
    slots = [
        {
            "slot": "a",
            "mode": "descriptive",
            "options": ["refer-by-name"],
            "name": "{tags}",
            "extra": ["Its alt text is {source.alt}.", 'Known: {long}; {"not": "a slot"}.'],
        }
    ]
    words = {"split": " ", "separator": " ", "max_items": 2}
    policies = {"alt": {"missing": "omit"}, "captions.long": words}
    engine = run(child_job(folder, slots, prompt_fields=policies))
    prompt = engine.prompts["a.tar", 0, "a"]
    assert prompt.endswith(' Its alt text is alt 0. Known: the long; {"not": "a slot"}.')
    assert "the tags of a.tar 0" in prompt
    assert "alt text" not in engine.prompts["a.tar", WITHOUT_ALT, "a"]


def test_a_value_of_the_parent_is_text(folder):
    amend(parent_job(folder), "a.tar", 0, "long", "{tags} {source.alt} <|eot_id|>")
    engine = run(child_job(folder, CHILD[:1]))
    assert engine.prompts["a.tar", 0, "short"] == "Shorten this: {tags} {source.alt} <|eot_id|>"


def test_only_rows_whose_slots_have_a_caption_are_asked(folder):
    amend(parent_job(folder), "a.tar", 1, "tags", None)
    engine = run(child_job(folder))
    assert statuses_of(folder, "short") == ["ok", "ok", "ok", "ok", "skipped", "ok"]
    assert statuses_of(folder, "both") == ["ok", "skipped", "ok", "ok", "skipped", "ok"]
    # A slot without the parent's captions is asked for the image, and that of one row cannot be decoded.
    assert statuses_of(folder, "plain") == ["ok", "ok", "ok", "ok", "failed", "ok"]
    rows = rows_of(folder)
    assert rows["a.tar", 1, "both"]["message"] == "source.captions: no ok caption in slot tags"
    assert {rows["a.tar", DAMAGED, slot]["reason"] for slot in ("short", "both")} == {"no_parent_caption"}
    assert ("a.tar", 1, "both") not in engine.prompts
    assert len(engine.prompts) == 2 * 3 * (NUM_ROWS - 1) - 1


def test_a_missing_slot_may_be_left_out_or_replaced(folder):
    amend(parent_job(folder), "a.tar", 1, "tags", None)
    slots = [{"slot": "a", "prompt": "Shorten {long}. Tags: {tags}."}, {"slot": "b", "prompt": "{long}"}]
    policies = {"captions.tags": {"missing": "omit"}, "captions.long": {"missing": "nothing"}}
    engine = run(child_job(folder, slots, prompt_fields=policies))
    assert engine.prompts["a.tar", 1, "a"] == "Shorten the long of a.tar 1."
    assert engine.prompts["a.tar", 0, "b"] == "the long of a.tar 0"
    assert statuses_of(folder, "b")[DAMAGED] == "failed"  # asked, and its image cannot be decoded


def test_rows_record_the_recipe_the_slots_and_the_digest_of_the_texts(folder):
    amend(parent_job(folder), "a.tar", 1, "tags", None)
    run(child_job(folder))
    rows = rows_of(folder)
    recipe = read_run(open_store(str(folder / "parent"))).fingerprint
    assert {row["parent_recipe"] for row in rows.values()} == {recipe}
    assert {row["parent_recipe"] for row in rows_of(folder, "parent").values()} == {None}
    used = {"short": ["long"], "both": ["long", "tags"], "plain": None}
    assert all(row["parent_slots"] == used[slot] for (_, _, slot), row in rows.items())
    texts = (b"the long of a.tar 1", None)
    netstrings = b"".join(b"-," if text is None else b"%d:%b," % (len(text), text) for text in texts)
    digest = hashlib.blake2b(netstrings, digest_size=16).hexdigest()
    assert rows["a.tar", 1, "both"]["parent_digest"] == digest == parent_digest([texts[0].decode(), None])
    assert rows["a.tar", 1, "plain"]["parent_digest"] is None


def test_the_words_of_a_slot_are_part_of_the_recipe_and_the_place_of_the_parent_is_not(folder):
    def recipe(captions, **rest):
        return check_job(child_job(folder, captions, **rest))[0].fingerprint

    first = recipe(CHILD[:1])
    assert first == recipe(CHILD[:1], source={"captions": "elsewhere", "urls": ["images"]})
    assert first != recipe(CHILD[:1], prompt_fields={"captions.long": {"max_items": 1}})
    plain = check_job(parent_job(folder, captions=[{"slot": "short", "prompt": "Shorten this: {long}"}]))[0]
    assert "prompt_fields" not in plain.fields  # without a parent, {long} is sent as it stands
    assert plain.fingerprint != first


def test_a_selection_looks_at_the_parents_fields_captions_and_sizes(folder):
    amend(parent_job(folder), "a.tar", 3, "tags", "short")
    where = {
        "short_side": {"min": 21},
        "fields": {"alt": {"present": True}, "captions.tags": {"min_length": 6}},
    }
    run(child_job(folder, CHILD[:1], source={"where": where}))
    selected = [row for at, row in rows_of(folder).items() if at[0] == "a.tar"]
    assert [row["status"] for row in selected] == ["skipped", "ok", "skipped", "skipped", "skipped", "ok"]
    assert [row["message"] for row in selected if row["row"] in (0, 2, 3)] == [
        "source.where.short_side: {min: 21}",
        "source.where.fields.alt: {present: true}",
        "source.where.fields.captions.tags: {min_length: 6}",
    ]
    assert {row["parent_digest"] is None for row in selected} == {True, False}
    assert selected[0]["width"] == 20


def test_a_limit_counts_rows_that_have_a_caption(folder):
    run(child_job(folder, CHILD[:1], source={"limit": NUM_ROWS}))
    statuses = [row["status"] for row in rows_of(folder).values()]
    assert (statuses.count("ok"), len(statuses)) == (NUM_ROWS, 2 * NUM_ROWS)


def test_a_short_enough_caption_of_the_parent_is_taken_as_it_is(folder):
    amend(parent_job(folder), "a.tar", 0, "long", "A cat.")
    existing = {"field": "captions.long", "when": {"max_length": 8}}
    engine = run(child_job(folder, [{**CHILD[0], "existing": existing}]))
    row = rows_of(folder)["a.tar", 0, "short"]
    assert (row["mode"], row["caption"], row["parent_slots"]) == ("existing", "A cat.", ["long"])
    assert row["parent_digest"] == parent_digest(["A cat."])
    assert ("a.tar", 0, "short") not in engine.prompts


def test_reuse_takes_the_captions_of_a_first_look_over_the_same_parent(folder):
    run(child_job(folder, CHILD[:1], "look", source={"sample": 0.4}))
    looked = sorted(at for at, row in rows_of(folder, "look").items() if row["status"] == "ok")
    job = child_job(folder, CHILD[:1], reuse=[str(folder / "look")])
    assert looked
    prepared = prepare_job(job)
    assert {path for task in prepared.tasks for path in [task.shard.path] if task.earlier} == {"a.tar", "b.tar"}
