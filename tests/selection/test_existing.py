"""A slot takes the text of the source where there is one, and nothing is asked for it."""

import json

import pytest

from pipeline.config import parse_job
from pipeline.images import decode
from pipeline.stages import read_batches
from tests.readers.shards import tar_of
from tests.selection.world import caption, image, job_of, only_shard, write_parquet, write_tar

HAVE_TEXT = [0, 4]
"""Row 8 has a line of dashes."""


def slots(*existing):
    names = (("long", "descriptive"), ("tags", "booru-tags"))
    return [
        {"slot": slot, "mode": mode, **({"existing": value} if value else {})}
        for (slot, mode), value in zip(names, existing, strict=True)
    ]


@pytest.fixture(params=[write_tar, write_parquet])
def folder(request, tmp_path):
    request.param(tmp_path / "in")
    return tmp_path / "in"


def test_a_text_of_the_source_becomes_the_caption_without_a_request(folder):
    job = job_of(folder, slots({"field": "caption", "when": "present"}, None))
    rows, engine = caption(job, only_shard(job))
    taken = [row for row in rows if row["mode"] == "existing"]
    assert [(row["row"], row["slot"], row["caption"]) for row in taken] == [
        (0, "long", "text 0"),
        (4, "long", "text 4"),
    ]
    for row in taken:
        assert (row["status"], row["reason"], row["message"]) == ("ok", None, None)
        assert (row["prompt"], row["system"], row["seed"], row["attempts"]) == ("", "", None, 0)
        assert (row["words"], row["length_kind"], row["options"], row["tone"]) == (2, "none", [], None)
        assert (row["width"], row["image_format"]) == (20 + row["row"], "PNG")
        assert row["source"] == "{}"
    assert {row["status"] for row in rows} == {"ok"}
    assert sorted(engine.asked) == sorted(
        ("a." + ("tar" if any(folder.glob("*.tar")) else "parquet"), row, slot)
        for row in range(12)
        for slot in ("long", "tags")
        if not (slot == "long" and row in HAVE_TEXT)
    )


def test_such_rows_may_be_skipped_instead(folder):
    job = job_of(folder, slots({"field": "caption", "action": "skip"}, None))
    rows, engine = caption(job, only_shard(job))
    skipped = [row for row in rows if row["status"] == "skipped"]
    assert [(row["row"], row["slot"], row["reason"], row["message"]) for row in skipped] == [
        (row, "long", "has_caption", "captions.long.existing: caption") for row in HAVE_TEXT
    ]
    assert all(row["mode"] == "descriptive" and row["prompt"] for row in skipped)
    assert len(engine.asked) == 24 - 2


def test_an_image_without_any_request_is_not_decoded(monkeypatch, folder):
    decoded = []
    monkeypatch.setattr(
        read_batches, "decode_or_exit", lambda data, config, size: decoded.append(1) or decode(data, config, size)
    )
    job = job_of(folder, slots("caption", {"field": "caption", "action": "skip"}))
    rows, engine = caption(job, only_shard(job))
    assert len(decoded) == 12 - len(HAVE_TEXT)
    assert not any(row in HAVE_TEXT for _, row, _ in engine.asked)
    assert [(row["status"], row["width"]) for row in rows[:2]] == [("ok", 20), ("skipped", 20)]


def test_a_text_that_does_not_meet_its_tests_is_asked_for(folder):
    job = job_of(folder, slots({"field": "caption", "when": {"matches": "4"}}, None))
    rows, _ = caption(job, only_shard(job))
    assert [row["row"] for row in rows if row["mode"] == "existing"] == [4]
    job = job_of(folder, slots({"field": "score"}, None))
    rows, _ = caption(job, only_shard(job))
    kept = [row["row"] for row in rows if row["mode"] == "existing"]
    assert kept == ([4] if any(folder.glob("*.tar")) else [])  # the one score that is a text


def test_a_damaged_image_fails_although_it_has_a_text(tmp_path):
    write_tar(tmp_path / "in", damaged=(0,))
    job = job_of(tmp_path / "in", slots("caption", "caption"))
    rows, _ = caption(job, only_shard(job))
    assert [row["status"] for row in rows[:2]] == ["failed", "failed"]
    assert [row["status"] for row in rows[8:10]] == ["ok", "ok"]


def test_a_selection_comes_before_existing_texts(tmp_path):
    write_tar(tmp_path / "in")
    job = job_of(tmp_path / "in", slots("caption", None), where={"width": {"min": 24}})
    rows, _ = caption(job, only_shard(job))
    assert (rows[0]["status"], rows[0]["reason"]) == ("skipped", "filtered")
    assert rows[8]["mode"] == "existing"


def test_quality_rules_flag_such_a_text_and_reject_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    texts = ["I cannot help with that request.", "a, b, c, d, e, f, g, h, i, j, k", "a red boat at sea"]
    files = []
    for row, text in enumerate(texts):
        files += [(f"{row}.png", image(row)), (f"{row}.json", json.dumps({"caption": text}).encode())]
    (tmp_path / "in" / "a.tar").write_bytes(tar_of(files))
    job = job_of(tmp_path / "in", slots("caption", None))
    rules = {"rules": [{"name": "boats", "forbidden": "boat"}]}
    job = parse_job({**job.model_dump(mode="json"), "quality": rules})
    rows, _ = caption(job, only_shard(job))
    taken = [row for row in rows if row["slot"] == "long"]
    assert [row["caption"] for row in taken] == texts
    assert {row["status"] for row in taken} == {"ok"}
    assert [row["flags"] for row in taken] == [["refusal"], ["wrong_form"], ["user:boats"]]
