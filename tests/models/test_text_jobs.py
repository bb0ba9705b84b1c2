"""Jobs of a text model: over the captions of an output and over a table of texts, without one byte of an image."""

import asyncio
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from click.testing import CliRunner
from PIL import Image

from jobs.export import export
from jobs.plan import make_plan
from jobs.preview import preview
from jobs.verify import verify
from pipeline.config import ModelConfig, parse_job
from pipeline.doctor import CHECKS, Context
from pipeline.engines import EngineSpec, start_engine
from pipeline.errors import ConfigError
from pipeline.flow.prepared_job import check_job, engine_spec, prepare_job, read_spec
from pipeline.readers import list_source, open_shard
from pipeline.recipe import find_weights
from pipeline.report.preview_page import caption_sample, preview_page
from pipeline.stages.source_sample import draw_sample
from pipeline.storage import open_store
from tests.chained.world import Answers, child_job, parent_job, rows_of, run, write_source
from tests.copy_model import build
from tests.s3_proxy import s3_proxy
from tests.s3_server import s3_environment  # noqa: F401 - a fixture

SHORTEN = {"slot": "short", "prompt": "Shorten: {long}"}
ALTS = ["A red bus, 3 m high.", "", None, "Two dogs. They run.", "x"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(build(tmp_path_factory.mktemp("model")))


def png() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((300, 300), 90).save(out, "PNG")
    return out.getvalue()


def write_table(file: Path, *, images: bool = False) -> Path:
    """A table of texts, perhaps with a column of images, in row groups of two rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {"id": [f"k{number}" for number in range(len(ALTS))], "alt": ALTS, "score": [1, 2, 3, 4, 5]}
    if images:
        columns["image"] = [png() for _ in ALTS]
    pq.write_table(pa.table(columns), file, row_group_size=2)
    return file


def table_job(folder, model, source=None, **rest):
    return parse_job(
        {
            "source": {"urls": [str(folder / "in")], "texts": True, **(source or {})},
            "output": str(folder / "child"),
            "model": model,
            "captions": {"slot": "short", "prompt": "Shorten: {source.alt}"},
            "engine": {"kind": "echo", "batch_images": 2},
            **rest,
        }
    )


@pytest.mark.parametrize("images", [False, True])
def test_a_table_of_texts_is_a_source(tmp_path, model, images):
    write_table(tmp_path / "in/a.parquet", images=images)
    engine = run(table_job(tmp_path, model))
    rows = rows_of(tmp_path)
    assert engine.prompts == {("a.parquet", row, "short"): f"Shorten: {alt}" for row, alt in enumerate(ALTS) if alt}
    assert [row["status"] for row in rows.values()] == ["ok", "failed", "failed", "ok", "ok"]
    assert [row["key"] for row in rows.values()] == ["k0", "k1", "k2", "k3", "k4"]
    of_image = ("image_sha256", "image_bytes", "image_format", "width", "height")
    assert {row[name] for row in rows.values() for name in of_image} == {None}
    assert [row["reason"] for row in rows.values()][1:3] == ["missing_field"] * 2
    done = CliRunner().invoke(verify, [str(tmp_path / "child")])
    assert done.exit_code == 0, done.output
    assert "5 images x 1 slots = 5 caption rows: each exactly once" in done.output


def test_a_table_of_texts_is_selected_and_limited_by_its_fields(tmp_path, model):
    write_table(tmp_path / "in/a.parquet")
    where = {"fields": {"score": {"min": 2}, "alt": {"min_length": 1}}}
    [task] = prepare_job(table_job(tmp_path, model, {"where": where, "limit": 1}, output=str(tmp_path / "one"))).tasks
    assert task.end_row == 4
    run(table_job(tmp_path, model, {"where": where}))
    rows = list(rows_of(tmp_path).values())
    assert [row["status"] for row in rows] == ["skipped", "skipped", "skipped", "ok", "ok"]
    assert rows[0]["message"].startswith("source.where.fields.score")
    assert CliRunner().invoke(verify, [str(tmp_path / "child")]).exit_code == 0


def use(endpoint, monkeypatch):
    """Let the clients of S3 in this process use another endpoint."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_a_table_in_a_store_is_read_without_its_column_of_images(tmp_path, model, s3_environment, monkeypatch):  # noqa: F811
    data = write_table(tmp_path / "a.parquet", images=True).read_bytes()
    open_store("s3://out/texts/in").put("a.parquet", data)
    with s3_proxy(s3_environment["AWS_ENDPOINT_URL"]) as (endpoint, script):
        use(endpoint, monkeypatch)
        source = read_spec(
            table_job(tmp_path, model, {"urls": ["s3://out/texts/in"]}), find_weights(ModelConfig(id=model))
        ).source
        with open_shard(list_source(source).shards[0], source, 1 << 20) as reader:
            rows = list(reader.rows(None))
    assert [row.metadata.get("alt") for row in rows] == ALTS
    assert all(row.data is None and row.reason is None for row in rows)
    assert 0 < script.sent["/out/texts/in/a.parquet"] < len(data) / 2


@pytest.fixture
def chain(tmp_path):
    write_source(tmp_path / "in")
    run(parent_job(tmp_path))
    return tmp_path


def test_a_text_model_reads_captions_and_carries_what_the_parent_says_about_the_image(chain, model):
    engine = run(child_job(chain, [SHORTEN], model=model))
    rows = rows_of(chain)
    assert engine.prompts["a.tar", 0, "short"] == "Shorten: the long of a.tar 0"
    assert [row["status"] for row in rows.values()] == ["ok", "ok", "ok", "ok", "skipped", "ok"] * 2
    parents = rows_of(chain, "parent")
    for (shard, number, _), row in rows.items():
        parent = parents[shard, number, "long"]
        assert all(row[name] == parent[name] for name in ("key", "image_sha256", "width", "height"))
    done = CliRunner().invoke(verify, [str(chain / "child")])
    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_a_text_job_sends_no_request_to_the_source_of_the_images(tmp_path, model, s3_environment, monkeypatch):  # noqa: F811
    write_source(tmp_path / "in")
    photos = open_store("s3://out/text/photos")
    for file in (tmp_path / "in").iterdir():
        photos.put(file.name, file.read_bytes())
    urls = {"urls": ["s3://out/text/photos"], "metadata_fields": ["alt"]}
    run(parent_job(tmp_path, source=urls).model_copy(update={"output": "s3://out/text/parent"}))
    parent = {"captions": "s3://out/text/parent"}
    requests = {}
    for name, of in (("text", {"model": model}), ("images", {})):
        with s3_proxy(s3_environment["AWS_ENDPOINT_URL"]) as (endpoint, script):
            use(endpoint, monkeypatch)
            run(child_job(tmp_path, [SHORTEN], name, parent, **of))
        assert len(rows_of(tmp_path, name)) == 12
        requests[name] = [path for _, _, path in script.asked if "text/photos" in path or "text%2Fphotos" in path]
        assert any("/text/parent/" in path for _, _, path in script.asked)
        assert bool(sum(size for path, size in script.sent.items() if "/text/photos/" in path)) == (name == "images")
    assert requests["text"] == []
    assert len(requests["images"]) >= 2


def test_the_rules_about_kept_texts_judge_a_child(chain, model):
    texts = {"short": "the long of a.tar"}
    kept = {"actions": {"lost_fact": "flag", "length_ratio": "reject"}, "kept": {"max_ratio": 0.9, "texts": "long"}}
    job = child_job(chain, [SHORTEN], model=model, quality={**kept, "retry": {"attempts": 0}})
    run(job, Answers(**texts))
    rows = rows_of(chain)
    assert rows["a.tar", 0, "short"]["flags"] == ["lost_fact"]
    long = child_job(chain, [SHORTEN], "other", model=model, quality={**kept, "retry": {"attempts": 1}})
    run(long, Answers(short="the long of a.tar 0 and more"))
    rejected = rows_of(chain, "other")["a.tar", 0, "short"]
    assert (rejected["reason"], rejected["attempts"]) == ("length_ratio", 2)
    assert rejected["message"].startswith("length_ratio: 7 words of 5 in the prompt's texts, 1.40, above")
    assert json.loads((chain / "child/run.json").read_text())["recipe"]["fields"]["quality"]["kept"]["texts"] == [
        "long"
    ]


def test_plan_and_preview_know_that_there_are_no_images(chain, model):
    job = child_job(chain, [SHORTEN], model=model)
    planned = make_plan(job, None, {})
    assert planned["estimate"]["object_store_bytes"] == 0
    assert 15 < planned["tokens"]["prompt"] < 25
    assert {time["name"] for time in planned["estimate"]["times"]} >= {"h100", "a10g"}
    hub = child_job(chain, [SHORTEN], model={"id": "owner/name", "generation": "text"})
    planned = make_plan(hub, None, {})
    assert planned["estimate"]["times"] == []
    assert planned["remarks"][-1] == (
        "model: no rate for owner/name, whose dimensions are not known here; --calibrate measures it, or give a local "
        "folder with its config.json"
    )
    read = read_spec(job, find_weights(job.model))
    sample = draw_sample(read, list_source(read.source).shards, job.seed, 4)
    prepared = prepare_job(job)
    done = asyncio.run(caption_sample("job.yaml", Answers(), prepared.caption_spec, read, sample))
    page = preview_page("job.yaml", [done], sample)
    assert "the long of a.tar" in page
    assert '<mark title="source.captions.long">' in page
    assert "<img" not in page.partition("<section")[2]
    assert "None" not in page.partition("<section")[2]


def test_a_preview_of_two_kinds_of_models_is_refused(chain, model, tmp_path):
    for name, of in (("a.yaml", {"model": model}), ("b.yaml", {})):
        (tmp_path / name).write_text(json.dumps(child_job(chain, [SHORTEN], **of).model_dump(mode="json")))
    words = [str(tmp_path / "a.yaml"), "--compare", str(tmp_path / "b.yaml"), "--page", str(tmp_path / "p.html")]
    with pytest.raises(ConfigError, match=r"--compare .*b\.yaml: one of the jobs has a model without images"):
        CliRunner().invoke(preview, words, catch_exceptions=False)


def test_the_echo_engine_answers_a_request_without_an_image(tmp_path, model):
    write_table(tmp_path / "in/a.parquet")
    job = table_job(tmp_path, model)
    recipe, weights, _ = check_job(job)
    run(job, start_engine(engine_spec(job, recipe, weights)))
    assert next(iter(rows_of(tmp_path).values()))["caption"].startswith("prompt of 7 words, seed ")


def test_shards_without_columns_are_no_texts(tmp_path, model):
    write_source(tmp_path / "in")
    with pytest.raises(
        ConfigError, match=r"source\.texts: 2 of 2 shards hold files, such as .*a\.tar; allowed: tables"
    ):
        prepare_job(table_job(tmp_path, model))


def test_an_export_of_texts_has_the_tables_columns_and_no_images(tmp_path, model):
    write_table(tmp_path / "in/a.parquet", images=True)
    run(table_job(tmp_path, model))
    words = [str(tmp_path / "child"), str(tmp_path / "table"), "--to", "parquet"]
    with pytest.raises(
        ConfigError, match=r"export: parquet writes the images of the source, and this output has texts"
    ):
        CliRunner().invoke(export, [*words, "--images"], catch_exceptions=False)
    done = CliRunner().invoke(export, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    [file] = (tmp_path / "table").rglob("*.parquet")
    table = pq.read_table(file)
    assert {"id", "alt", "score", "caption"} <= set(table.column_names)
    assert table["caption"].to_pylist() == [f"the short of a.parquet {row}" for row in (0, 3, 4)]


def test_the_doctor_reads_a_row_and_checks_the_chat_template(tmp_path, model):
    write_table(tmp_path / "in/a.parquet")
    context = Context(job=table_job(tmp_path, model, engine={"kind": "vllm", "max_model_len": 512}))
    context = Context(job=context.job, survey=CHECKS["source"].run(context).survey)
    assert CHECKS["reading"].run(context).message.startswith("a row of a.parquet in ")
    assert CHECKS["layout"].run(context).message == "text: the chat template is that of the tokenizer; no images"
    assert CHECKS["weights"].run(context).message.startswith("1 files of weights")
    small = Context(job=table_job(tmp_path, model, engine={"kind": "vllm", "max_model_len": 128}))
    with pytest.raises(ConfigError, match=r"the shortest prompt has 8 tokens, so engine\.max_model_len must be"):
        CHECKS["layout"].run(small)


def test_an_engine_of_a_text_model_pickles(model):
    import pickle

    job = parse_job(
        {
            "source": {"captions": "out/p"},
            "output": "o",
            "model": model,
            "captions": SHORTEN,
            "engine": {"kind": "echo"},
        }
    )
    recipe, weights, _ = check_job(job)
    spec = engine_spec(job, recipe, weights)
    assert isinstance(pickle.loads(pickle.dumps(spec)), EngineSpec)
