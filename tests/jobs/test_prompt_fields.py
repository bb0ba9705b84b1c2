"""A job whose prompts use fields of its source: read without being asked for, worded, planned, retried."""

import asyncio
import html
import io
import json
import re
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.plan import make_plan
from jobs.preview import _checked, sample_for
from pipeline.config import parse_job
from pipeline.engines import EngineResponse, EngineStats
from pipeline.flow.prepared_job import check_job, prepare_retry
from pipeline.ledger.retry_rows import replace_rows
from pipeline.report.preview_page import caption_sample, preview_page
from pipeline.stages.captioning import Caption
from pipeline.stages.read_batches import read_shard
from schemas.status import Status
from tests.outputs import committed_rows
from tests.run_in_process import run_in_process

TAGS = [["red", "square"], [], ["blue"], None, ["a", "b", "c"]]
CAPTIONS = [
    {"slot": "long", "mode": "descriptive", "extra": "The image has the tags {source.meta.tags}."},
    {"slot": "plain", "mode": "descriptive"},
]
OMIT = {"meta.tags": {"missing": "omit", "order": "shuffled"}}


def png(red):
    out = io.BytesIO()
    Image.new("RGB", (40, 30), (red, 0, 0)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    with tarfile.open(folder / "s.tar", "w") as tar:
        for number, tags in enumerate(TAGS):
            meta = {} if tags is None else {"meta": {"tags": tags, "other": 1}, "unused": 2, "alt": "An alt."}
            for name, data in ((f"{number}.png", png(number)), (f"{number}.json", json.dumps(meta).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return folder


def job_of(source, selection=None, **rest):
    job = {
        "source": {"urls": [str(source)], **(selection or {})},
        "output": str(source.parent / "out"),
        "model": "standin",
        "captions": CAPTIONS,
        "engine": {"kind": "echo", "batch_images": 2},
        "prompt_fields": OMIT,
        **rest,
    }
    return parse_job(job)


def test_what_prompts_use_is_carried_and_nothing_else(source):
    rows = run_in_process(job_of(source))
    of_long = [row for row in rows if row["slot"] == "long"]
    end = " The image has the tags "
    words = [row["prompt"].partition(end)[2].rstrip(".") for row in of_long]
    assert [sorted(text.split(", ")) for text in words] == [sorted(tags) if tags else [""] for tags in TAGS]
    assert [row["status"] for row in rows] == ["ok"] * 10
    assert [json.loads(row["source"]) for row in of_long] == [
        {} if tags is None else {"meta": {"other": 1, "tags": tags}} for tags in TAGS
    ]
    fields = json.loads((source.parent / "out/run.json").read_text())["recipe"]["fields"]
    assert fields["prompt_fields"]["meta.tags"]["missing"] == "omit"
    assert fields["captions"]["long"]["extra"] == [CAPTIONS[0]["extra"]]
    assert fields["rows"]["carry"] == []


class Answering:
    """Gives one answer to every request, and keeps the prompts."""

    def __init__(self, text):
        self.text, self.prompts = text, {}

    async def answer(self, request):
        self.prompts[request.id.rpartition("#")[0]] = request.prompt
        return EngineResponse(id=request.id, text=self.text, finish_reason="stop", prompt_tokens=7, caption_tokens=3)

    def stats(self):
        return EngineStats()


def test_a_retry_of_rows_words_the_same_prompts(source):
    job = job_of(source)
    first = Answering("")
    before = run_in_process(job, first)
    assert {row["status"] for row in before} == {"rejected"}
    prepared = prepare_retry(job, [Status.REJECTED])
    second = Answering("A red square.")
    stage = Caption(prepared.caption_spec, second, prepared.store)
    [task] = prepared.tasks
    batches = read_shard(prepared.read_spec, task.shard, (), task.retry_rows.rows)
    fragments = [asyncio.run(stage(batch)).to_pylist()[0]["fragment"] for batch in batches]
    replace_rows(prepared.store, prepared.run_identity, task.shard, task.retry_rows, fragments)
    after = committed_rows(source.parent / "out")
    assert {row["status"] for row in after} == {"ok"}
    assert [row["prompt"] for row in after] == [row["prompt"] for row in before]
    assert first.prompts == second.prompts


def test_a_plan_counts_rows_with_text_and_their_tokens(source):
    def planned(tags):
        extra = [CAPTIONS[0]["extra"]] if tags else []
        captions = [{**CAPTIONS[0], "extra": extra}]
        return make_plan(job_of(source, captions=captions, prompt_fields=OMIT if tags else {}), None, {})

    with_fields, without = planned(tags=True), planned(tags=False)
    assert with_fields["prompt_fields"] == {"rows": 5, "with_text": {"meta.tags": 3}}
    assert without["prompt_fields"] == {"rows": 0, "with_text": {}}
    chars = sum(len(f" The image has the tags {', '.join(tags)}.") for tags in TAGS if tags)
    assert with_fields["tokens"]["prompt"] - without["tokens"]["prompt"] == pytest.approx(chars / 5 / 4.5)


def test_a_plan_looks_at_rows_that_are_selected(source):
    where = {"fields": {"unused": {"equals": 2}}}
    selected = make_plan(job_of(source, {"where": where}), None, {})
    assert selected["prompt_fields"] == {"rows": 4, "with_text": {"meta.tags": 3}}
    assert selected["tokens"]["prompt"] > make_plan(job_of(source), None, {})["tokens"]["prompt"]
    sampled = make_plan(job_of(source, {"sample": 0.001}), None, {})
    assert sampled["prompt_fields"]["rows"] == 5


def test_a_preview_compares_with_a_job_that_selects_and_takes_other_fields(source):
    none = {"where": {"fields": {"absent": {"present": True}}}}
    jobs = [job_of(source), job_of(source, none, captions={**CAPTIONS[1], "existing": "alt"}, prompt_fields={})]
    recipes = [_checked("a.yaml", job) for job in jobs]
    sample = sample_for(recipes, jobs[0], 5)
    assert {name for drawn in sample.shards for row in drawn.rows for name in row.metadata} == {"meta"}
    other = asyncio.run(caption_sample("b", Answering("A cat."), recipes[1].caption, recipes[1].read, sample))
    assert sorted(row["caption"] for row in other.rows.values()) == ["A cat.", *["An alt."] * 4]


def test_a_parquet_shard_without_the_column_has_rows_without_the_field(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(pa.table({"image": [png(1)], "tags": [["x", "y"]]}), folder / "a.parquet")
    pq.write_table(pa.table({"image": [png(2)]}), folder / "b.parquet")
    captions = [{"slot": "a", "prompt": "Look. It has {source.tags}."}]
    rows = run_in_process(job_of(folder, captions=captions, prompt_fields={"tags": {"missing": "omit"}}))
    assert [row["prompt"] for row in rows] == ["Look. It has x, y.", "Look."]


def test_rows_count_the_tags_that_their_captions_mention(source):
    rows = run_in_process(job_of(source), Answering("A red_square and B."))
    counts = [(row["given"], row["mentioned"]) for row in rows if row["slot"] == "long"]
    assert counts == [(2, 2), (None, None), (1, 0), (None, None), (3, 2)]
    assert {(row["given"], row["mentioned"]) for row in rows if row["slot"] == "plain"} == {(None, None)}


def test_a_preview_marks_the_words_that_come_from_fields(source):
    hostile = {"captions": [{**CAPTIONS[0], "extra": "Its tags: {source.meta.tags}. <b>"}]}
    jobs = [job_of(source, captions=CAPTIONS[1], prompt_fields={}), job_of(source, **hostile)]
    recipes = [_checked("a.yaml", job) for job in jobs]
    sample = sample_for(recipes, jobs[0], 5)
    pages = [
        asyncio.run(caption_sample(recipe.name, Answering("A <i>cat</i>."), recipe.caption, recipe.read, sample))
        for recipe in recipes
    ]
    page = preview_page("both", pages, sample)
    marks = re.findall(r'<mark title="source\.(.*?)">(.*?)</mark>', page)
    assert sorted((field, sorted(text.split(", "))) for field, text in marks) == sorted(
        ("meta.tags", sorted(tags)) for tags in TAGS if tags
    )
    prompts = [html.unescape(re.sub("<.*?>", "", text)) for text in re.findall(r'<p class="prompt".*?>(.*?)</p>', page)]
    rows = [row for previewed in pages for row in previewed.rows.values()]
    assert sorted(prompts) == sorted(row["prompt"] for row in rows)
    assert "<b>" not in page


def test_fields_and_their_policies_are_part_of_the_recipe(source):
    def fingerprint(**rest):
        return check_job(job_of(source, **rest))[0].fingerprint

    plain = {"captions": CAPTIONS[1], "prompt_fields": {}}
    recipes = [
        fingerprint(**plain),
        fingerprint(),
        fingerprint(prompt_fields={}),
        fingerprint(prompt_fields={"meta.tags": {"separator": " "}}),
        fingerprint(captions=[{**CAPTIONS[0], "extra": ["{source.meta.tags}?"]}]),
    ]
    assert len(set(recipes)) == 5
    assert "prompt_fields" not in check_job(job_of(source, **plain))[0].fields
