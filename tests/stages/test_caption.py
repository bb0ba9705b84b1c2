"""Shards to receipts without Ray: what each image of a batch becomes."""

import asyncio
import io
import tarfile
import uuid
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.config import parse_job
from pipeline.engines import EngineResponse, EngineStats
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.fragments import FragmentInfo, read_fragment_info
from pipeline.models import FixedSize
from pipeline.readers import list_shards
from pipeline.selection import Selection
from pipeline.stages.captioning import Caption, CaptionSpec, pack_receipts, unpack_receipts
from pipeline.stages.read_batches import ReadSpec, ReadTimings, read_shard
from schemas.batch import BATCH, RECEIPT
from schemas.status import Reason
from tests.memory_store import MemoryStore

SIDE_PX = 24


def picture(colour):
    out = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def shard(tmp_path):
    images = [picture((10 * n, 0, 0)) for n in range(5)]
    members = {f"{n:03d}.png": data for n, data in enumerate(images)} | {"002.png": b"broken", "002.txt": b"a tag"}
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    [shard] = list_shards(parse_job(raw_job(tmp_path)).source)
    return shard


def raw_job(folder, **rest):
    captions = [{"slot": "long", "mode": "descriptive"}, {"slot": "tags", "mode": "booru-tags", "length": 30}]
    return {
        "source": {"urls": [str(folder)], "metadata_fields": ["*"]},
        "output": "memory://o",
        "model": "standin",
        "captions": captions,
        "engine": {"kind": "echo", "batch_images": 3},
        **rest,
    }


class Answering:
    """An engine whose answers a test decides."""

    def __init__(self, answer):
        self.make = answer

    async def answer(self, question):
        return self.make(question)

    async def restart(self):
        raise AssertionError("nothing died")

    def close(self):
        pass


def batches_of(shard, tmp_path, staged=(), job=None):
    job = job or parse_job(raw_job(tmp_path))
    spec = ReadSpec(
        source=job.source, images=job.images, geometry=FixedSize(SIDE_PX, SIDE_PX), batch_images=job.engine.batch_images
    )
    return list(read_shard(spec, shard, staged))


def caption(shard, tmp_path, answer, **rest):
    """Caption the shard; return the store, the receipts and the rows."""
    job = parse_job(raw_job(tmp_path, **rest))
    run = RunIdentity(recipe="r" * 16, slots=("long", "tags"), versions={})
    store = MemoryStore(f"memory://{uuid.uuid4().hex}")
    stage = Caption(CaptionSpec(job=job, run=run), Answering(answer), store)

    async def all_of_them():
        return await asyncio.gather(*(stage(batch) for batch in batches_of(shard, tmp_path)))

    receipts = [receipt.to_pylist()[0] for receipt in asyncio.run(all_of_them())]
    tables = [pq.read_table(io.BytesIO(store.get(receipt["fragment"]))) for receipt in receipts]
    return store, run, receipts, [row for table in tables for row in table.to_pylist()]


def slot_of(question):
    return question.id.split("#")[2]


def echo(question):
    red = int(question.pixels[0, 0, 0])
    return EngineResponse(
        id=question.id, text=f"red {red}: {slot_of(question)}", finish_reason="stop", prompt_tokens=7, caption_tokens=3
    )


def test_requests_and_responses_are_counted(shard, tmp_path):
    job = parse_job(raw_job(tmp_path))
    run = RunIdentity(recipe="r" * 16, slots=("long", "tags"), versions={})
    store = MemoryStore(f"memory://{uuid.uuid4().hex}")
    texts = {"long": "", "tags": "a red square"}
    engine = Answering(lambda question: replace(echo(question), text=texts[slot_of(question)]))
    engine.stats = lambda: EngineStats(requests_running=3)
    stage = Caption(CaptionSpec(job=job, run=run), engine, store)
    (batch, *_) = batches_of(shard, tmp_path)
    asyncio.run(stage(batch))
    num = sum(image["reason"] is None for image in batch["images"][0].as_py())
    attempts = job.quality.retry.attempts
    stats = stage.stats()
    assert (stats.questions, stats.repairs) == (num * (2 + attempts), num * attempts)
    assert (stats.prompt_tokens, stats.caption_tokens) == (7 * num * (2 + attempts), 3 * num * (2 + attempts))
    assert (stats.restarts, stats.engine.requests_running) == (0, 3)


def test_a_readers_decoding_is_timed(shard, tmp_path):
    job, timings = parse_job(raw_job(tmp_path)), ReadTimings()
    spec = ReadSpec(
        source=job.source, images=job.images, geometry=FixedSize(SIDE_PX, SIDE_PX), batch_images=job.engine.batch_images
    )
    seconds = [timings.decode_s for _ in read_shard(spec, shard, (), timings=timings)]
    assert sorted(seconds) == seconds
    assert 0 < seconds[0] < seconds[-1]


def test_a_batch_is_one_row_of_one_shard(shard, tmp_path):
    batches = batches_of(shard, tmp_path)
    assert [batch.schema for batch in batches] == [BATCH, BATCH]
    assert [batch.num_rows for batch in batches] == [1, 1]
    assert [[image["row"] for image in batch["images"][0].as_py()] for batch in batches] == [[0, 1, 2], [3, 4]]
    pixels = [len(batch["pixels"][0].as_buffer()) for batch in batches]
    assert pixels == [2 * SIDE_PX * SIDE_PX * 3] * 2


def test_reading_again_gives_the_same_batches(shard, tmp_path):
    assert batches_of(shard, tmp_path) == batches_of(shard, tmp_path)


def test_every_image_gets_its_own_captions_and_a_bad_one_its_reason(shard, tmp_path):
    _, _, receipts, rows = caption(shard, tmp_path, echo)
    assert [(row["row"], row["slot"]) for row in rows] == [(n, slot) for n in range(5) for slot in ("long", "tags")]
    for row in rows:
        if row["row"] == 2:
            assert (row["status"], row["caption"], row["attempts"]) == ("failed", None, 0)
            assert row["reason"] in {"undecodable", "unsupported_format"}
            assert row["source"] == '{"txt": "a tag"}'
        else:
            assert row["caption"] == f"red {10 * row['row']}: {row['slot']}"
            assert (row["width"], row["height"], row["image_format"]) == (40, 30, "PNG")
    assert [row["length_words"] for row in rows[:2]] == [None, 30]
    assert [(r["rows"], dict(r["statuses"])) for r in receipts] == [
        ([0, 1, 2], {"ok": 4, "rejected": 0, "failed": 2, "skipped": 0}),
        ([3, 4], {"ok": 4, "rejected": 0, "failed": 0, "skipped": 0}),
    ]
    assert set(receipts[0]) == set(RECEIPT.names)


def test_rejected_empty_and_truncated_texts_have_different_reasons(shard, tmp_path):
    def answer(question):
        row = int(question.id.split("#")[1])
        if row == 0:
            return EngineResponse(id=question.id, text="  ", finish_reason="stop")
        if row == 1:
            return EngineResponse(id=question.id, text="cut off", finish_reason="length")
        return EngineResponse(id=question.id, text=None, reason=Reason.PROMPT_TOO_LONG, message="too long")

    *_, rows = caption(shard, tmp_path, answer)
    result = {
        row["row"]: (row["status"], row["reason"], row["caption"], row["rejected_text"], row["flags"]) for row in rows
    }
    assert result[0] == ("rejected", "empty_caption", None, "  ", [])
    assert result[1] == ("ok", None, "cut off", None, ["truncated", "too_short"])
    assert result[3] == ("failed", "prompt_too_long", None, None, [])


def test_answers_are_matched_by_id_not_by_position(shard, tmp_path):
    order = []

    class Reversed(Answering):
        async def answer(self, question):
            order.append(question.id)
            await asyncio.sleep(0.02 - 0.001 * len(order))
            return self.make(question)

    job = parse_job(raw_job(tmp_path))
    run = RunIdentity(recipe="r" * 16, slots=("long", "tags"), versions={})
    store = MemoryStore(f"memory://{uuid.uuid4().hex}")
    stage = Caption(CaptionSpec(job=job, run=run), Reversed(echo), store)
    receipt = asyncio.run(stage(batches_of(shard, tmp_path)[0])).to_pylist()[0]
    rows = pq.read_table(io.BytesIO(store.get(receipt["fragment"]))).to_pylist()
    assert [row["caption"] for row in rows[:4]] == [f"red {10 * row['row']}: {row['slot']}" for row in rows[:4]]


def test_what_is_staged_is_not_read_again(shard, tmp_path):
    store, run, receipts, _ = caption(shard, tmp_path, echo)
    facts = read_fragment_info(store, receipts[0]["fragment"], run, shard)
    assert isinstance(facts, FragmentInfo)
    resumed, rest = batches_of(shard, tmp_path, [facts])
    assert (resumed["kind"][0].as_py(), resumed["rows"][0].as_py()) == ("resumed", [0, 1, 2])
    assert [image["row"] for image in rest["images"][0].as_py()] == [3, 4]
    assert rest["num_images"][0].as_py() == 5


def test_a_shard_that_is_staged_whole_is_not_even_opened(shard, tmp_path):
    store, run, receipts, _ = caption(shard, tmp_path, echo)
    staged = [read_fragment_info(store, receipt["fragment"], run, shard) for receipt in receipts]
    (tmp_path / "s.tar").unlink()
    assert [batch["kind"][0].as_py() for batch in batches_of(shard, tmp_path, staged)] == ["resumed", "resumed"]


LOOPED = "a red square, " * 40


def test_a_rejected_request_is_retried_with_another_seed_and_a_higher_temperature(shard, tmp_path):
    asked = {}

    def loops_at_first(question):
        asked.setdefault(question.id.rsplit("#", 1)[0], []).append(question)
        text = "a red square" if len(asked[question.id.rsplit("#", 1)[0]]) == 3 else LOOPED
        return EngineResponse(id=question.id, text=text, finish_reason="stop", prompt_tokens=7, caption_tokens=9)

    *_, rows = caption(shard, tmp_path, loops_at_first)
    for row in (row for row in rows if row["row"] != 2):
        questions = asked[f"s.tar#{row['row']}#{row['slot']}"]
        assert [item.temperature for item in questions] == [None, 0.8, 1.0]
        assert len({item.seed for item in questions}) == 3
        assert (row["status"], row["caption"], row["attempts"]) == ("ok", "a red square", 3)
        assert (row["earlier_reasons"], row["rejected_text"]) == (["loop", "loop"], LOOPED)
        assert row["seed"] == questions[-1].seed


def test_without_seeds_requests_and_rows_have_none(shard, tmp_path):
    asked = []

    def seen(question):
        asked.append(question)
        return echo(question)

    *_, rows = caption(shard, tmp_path, seen, sampling={"seeded": False})
    assert {question.seed for question in asked} == {row["seed"] for row in rows} == {None}
    *_, rows = caption(shard, tmp_path, seen)
    assert len({row["seed"] for row in rows}) == len(rows)


def test_what_stays_refused_keeps_its_last_text_and_why_each_one_was(shard, tmp_path):
    def three_faults(question):
        text = [LOOPED, "I cannot help with that.", "  "][int(question.id[-1])]
        return EngineResponse(id=question.id, text=text, finish_reason="stop")

    *_, rows = caption(shard, tmp_path, three_faults)
    row = rows[0]
    assert (row["status"], row["reason"], row["caption"]) == ("rejected", "empty_caption", None)
    assert (row["attempts"], row["earlier_reasons"], row["rejected_text"]) == (3, ["loop", "refusal"], "  ")


def test_a_retry_that_the_engine_loses_keeps_the_rejected_text(shard, tmp_path):
    def lost_at_last(question):
        if question.id.endswith("#0"):
            return EngineResponse(id=question.id, text=LOOPED, finish_reason="stop", caption_tokens=80)
        return EngineResponse(id=question.id, text=None, reason=Reason.ENGINE_ERROR, message="lost")

    *_, rows = caption(shard, tmp_path, lost_at_last)
    assert (rows[0]["status"], rows[0]["reason"], rows[0]["attempts"]) == ("rejected", "loop", 2)
    assert (rows[0]["rejected_text"], rows[0]["earlier_reasons"]) == (LOOPED, None)


def test_only_rejected_requests_are_retried(shard, tmp_path):
    asked = []

    def one_loops(question):
        asked.append(question.id)
        loops = question.id.startswith("s.tar#1#long#")
        return EngineResponse(id=question.id, text=LOOPED if loops else "fine", finish_reason="stop")

    caption(shard, tmp_path, one_loops)
    assert sorted(item for item in asked if not item.endswith("#0")) == ["s.tar#1#long#1", "s.tar#1#long#2"]
    assert len(asked) == 8 + 2


def test_a_row_whose_prompt_lacks_its_field_fails_alone_and_is_not_sent(shard, tmp_path):
    sent = []
    captions = [
        {"slot": "long", "mode": "descriptive"},
        {"slot": "tags", "mode": "booru-tags", "length": 30, "extra": "Known: {source.txt}."},
    ]

    def answer(question):
        sent.append((question.id.split("#")[1], slot_of(question), question.prompt))
        return echo(question)

    _, _, _, rows = caption(shard, tmp_path, answer, captions=captions)
    asked = {(row, slot) for row, slot, _ in sent}
    assert asked == {("0", "long"), ("1", "long"), ("3", "long"), ("4", "long")}
    of_tags = {row["row"]: row for row in rows if row["slot"] == "tags"}
    assert [of_tags[row]["reason"] for row in range(5)] == [
        Reason.MISSING_FIELD if row != 2 else Reason.UNSUPPORTED_FORMAT for row in range(5)
    ]
    assert of_tags[0]["message"].startswith("source.txt: the row has no text for it (its fields: none); set ")
    assert (of_tags[0]["status"], of_tags[0]["attempts"], of_tags[0]["caption"]) == ("failed", 0, None)
    assert of_tags[0]["prompt"].endswith(" Known: {source.txt}.")
    assert of_tags[2]["prompt"].endswith(" Known: a tag.")
    assert {row["status"] for row in rows if row["slot"] == "long" and row["row"] != 2} == {"ok"}


def test_every_attempt_at_a_row_has_the_same_words(shard, tmp_path):
    prompts = {}
    fields = {"txt": {"missing": "a b c d", "order": "shuffled", "split": " "}}
    captions = [{"slot": slot, "prompt": "Known: {source.txt}."} for slot in ("long", "tags")]

    def answer(question):
        prompts.setdefault(question.id.rpartition("#")[0], []).append(question.prompt)
        return replace(echo(question), text="")

    caption(shard, tmp_path, answer, captions=captions, prompt_fields=fields)
    assert all(len(words) == 3 and len(set(words)) == 1 for words in prompts.values())


def test_images_that_are_done_are_staged_before_their_batch_is(shard, tmp_path):
    """Room for one request and its successor: a slow first image keeps no other waiting, and each row comes once."""
    job = parse_job(raw_job(tmp_path, engine={"kind": "echo", "batch_images": 5}))
    run = RunIdentity(recipe="r" * 16, slots=("long", "tags"), versions={})
    store, done = MemoryStore(f"memory://{uuid.uuid4().hex}"), asyncio.Event()

    class SlowAtFirst(Answering):
        async def answer(self, question):
            row = int(question.id.split("#")[1])
            if row == 0 and slot_of(question) == "long":
                await done.wait()
            if row == 4 and slot_of(question) == "tags":
                done.set()
            return self.make(question)

    stage = Caption(CaptionSpec(job=job, run=run), SlowAtFirst(echo), store, num_seqs=2)
    [batch] = batches_of(shard, tmp_path, job=job)
    receipts = asyncio.run(stage(batch)).to_pylist()
    assert len(receipts) > 1
    assert sorted(row for receipt in receipts for row in receipt["rows"]) == list(range(5))
    assert sum(dict(receipt["statuses"])["ok"] for receipt in receipts) == 8
    assert [receipt.rows for receipt in unpack_receipts(pack_receipts(pa.Table.from_pylist(receipts, RECEIPT)))] == [
        receipt["rows"] for receipt in receipts
    ]
    assert (stage.num_asked, stage.num_staged) == (5, 5)


def test_the_repair_of_one_slot_does_not_wait_for_the_other_slots(shard, tmp_path):
    order = []

    class Slow(Answering):
        async def answer(self, question):
            order.append(question.id)
            if question.id.endswith("#long#0"):
                while not any(item.endswith("#tags#1") for item in order):
                    await asyncio.sleep(0.001)
            return self.make(question)

    def answer(question):
        text = LOOPED if question.id.endswith("#tags#0") else "fine"
        return EngineResponse(id=question.id, text=text, finish_reason="stop")

    job = parse_job(raw_job(tmp_path))
    run = RunIdentity(recipe="r" * 16, slots=("long", "tags"), versions={})
    stage = Caption(CaptionSpec(job=job, run=run), Slow(answer), MemoryStore(f"memory://{uuid.uuid4().hex}"))
    receipts = asyncio.run(asyncio.wait_for(stage(batches_of(shard, tmp_path)[1]), 60)).to_pylist()
    assert dict(receipts[0]["statuses"])["ok"] == 4


def test_a_drain_leaves_images_that_were_not_asked_to_the_next_run(shard, tmp_path):
    job = parse_job(raw_job(tmp_path, engine={"kind": "echo", "batch_images": 5}))
    run = RunIdentity(recipe="r" * 16, slots=("long", "tags"), versions={})
    stage = None

    def answer(question):
        stage.close()
        return echo(question)

    stage = Caption(CaptionSpec(job=job, run=run), Answering(answer), MemoryStore(f"memory://{uuid.uuid4().hex}"), 1)
    [batch] = batches_of(shard, tmp_path, job=job)
    receipts = asyncio.run(stage(batch)).to_pylist()
    rows = [row for receipt in receipts for row in receipt["rows"]]
    assert rows == [0, 2]  # the damaged image needs no answer
    assert stage.num_asked == stage.num_staged == 2


def test_batches_grow_after_the_first_ones_and_a_repeated_reader_sends_the_same(shard, tmp_path):
    job = parse_job(raw_job(tmp_path))
    spec = ReadSpec(
        source=job.source,
        images=job.images,
        geometry=FixedSize(SIDE_PX, SIDE_PX),
        batch_images=1,
        grown_batch_images=3,
        num_small=1,
    )
    first, again = (list(read_shard(spec, shard, ())) for _ in range(2))
    assert [len(batch["images"][0]) for batch in first] == [1, 3, 1]
    assert first == again


@pytest.mark.parametrize("takes_over", [False, True])
def test_a_repeated_batch_takes_over_what_its_dead_replica_staged_if_it_may(shard, tmp_path, takes_over):
    """Ray repeats whole batches, of which a replica may have staged most when it is killed."""
    job = parse_job(raw_job(tmp_path, engine={"kind": "echo", "batch_images": 5}))
    run = RunIdentity(recipe="r" * 16, slots=("long", "tags"), versions={})
    store, asked = MemoryStore(f"memory://{uuid.uuid4().hex}"), []
    spec = CaptionSpec(job=job, run=run)
    [batch] = batches_of(shard, tmp_path, job=job)
    # Killed after the fragments of its first batches, of another size, were staged.
    small = parse_job(raw_job(tmp_path, engine={"kind": "echo", "batch_images": 2}))
    stage = Caption(replace(spec, job=small), Answering(echo), store)
    first = batches_of(shard, tmp_path, job=small)[0]
    [lost] = asyncio.run(stage(first)).to_pylist()

    def answer(question):
        asked.append(int(question.id.split("#")[1]))
        return echo(question)

    receipts = asyncio.run(Caption(spec, Answering(answer), store, takes_over=takes_over)(batch)).to_pylist()
    assert sorted(set(asked)) == ([3, 4] if takes_over else [0, 1, 3, 4])
    assert sorted(row for receipt in receipts for row in receipt["rows"]) == list(range(5))
    assert sum(dict(receipt["statuses"])["ok"] for receipt in receipts) == 8
    assert (lost["fragment"] in [receipt["fragment"] for receipt in receipts]) is takes_over


def test_a_skipped_image_that_a_dead_replica_staged_is_counted_as_skipped(shard, tmp_path):
    job = parse_job(raw_job(tmp_path, engine={"kind": "echo", "batch_images": 5}))
    read = ReadSpec(
        source=job.source,
        images=job.images,
        geometry=FixedSize(SIDE_PX, SIDE_PX),
        batch_images=5,
        selection=Selection().up_to(4),
    )
    spec = CaptionSpec(job=job, run=RunIdentity(recipe="r" * 16, slots=("long", "tags"), versions={}))
    store = MemoryStore(f"memory://{uuid.uuid4().hex}")
    [batch] = read_shard(read, shard, ())
    [receipt] = asyncio.run(Caption(spec, Answering(echo), store)(batch)).to_pylist()
    assert receipt["num_skipped"] == 1
    assert asyncio.run(Caption(spec, Answering(echo), store, takes_over=True)(batch)).to_pylist() == [receipt]
