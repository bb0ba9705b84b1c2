"""The job's part of the doctor: source, output, clocks and the model's files, each broken for real."""

import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import EngineConfig, parse_job
from pipeline.doctor import CHECKS, Context, Level, Survey
from pipeline.doctor.golden import _compared, _is_plain, draw
from pipeline.doctor.stores import marked_output
from pipeline.engines import EngineResponse
from pipeline.errors import ConfigError, PipelineError, ShardUnreadable, StoreError
from pipeline.models import FAMILIES
from pipeline.recipe import find_weights
from pipeline.standin.demo_data import draw_dataset
from pipeline.storage import open_store
from pipeline.storage.clock import server_time, timed_servers
from tests.doctor.faults import fake_nvidia_smi
from tests.s3_proxy import s3_proxy
from tests.s3_server import s3_environment  # noqa: F401 - a fixture

STANDIN = Path(__file__).parents[2] / "pipeline" / "standin" / "model"


def job(source="in", output="out", **rest):
    fields = {
        "source": str(source),
        "output": str(output),
        "model": "standin",
        "captions": {"slot": "long", "mode": "descriptive"},
        "engine": {"max_model_len": 768},
        **rest,
    }
    return parse_job(fields, (), origin="test")


def context(**fields):
    return Context(job=job(**fields))


def run(name, context):
    return CHECKS[name].run(context)


@pytest.fixture
def drawn(tmp_path):
    draw_dataset(tmp_path / "in", num_images=6, seed=1, shard_rows=3)
    return tmp_path / "in"


def surveyed(**fields):
    result = context(**fields)
    return replace(result, survey=run("source", result).survey)


def test_a_source_that_can_be_read_is_counted_and_an_image_of_it_is_read(drawn):
    listed = run("source", context(source=drawn))
    assert (listed.level, listed.message.partition(",")[0]) == (Level.OK, "2 shards")
    assert run("reading", surveyed(source=drawn)).message.startswith("an image of ")


def test_a_source_that_is_not_there_has_failed(tmp_path):
    with pytest.raises(ConfigError, match="not found; give a folder, a glob or a shard that exists"):
        run("source", context(source=tmp_path / "nowhere"))
    unread = run("reading", context(source=tmp_path / "nowhere"))
    assert (unread.level, unread.message) == (Level.FAILED, "not read, since the source could not be listed")


def test_a_shard_that_this_node_cannot_read_has_failed(drawn):
    result = surveyed(source=drawn)
    Path(result.survey.smallest.url).unlink()
    with pytest.raises(ShardUnreadable, match="cannot be opened"):
        run("reading", result)


def test_a_shard_without_an_image_is_a_warning(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "a.txt").write_text("no image")
    with tarfile.open(tmp_path / "in" / "a.tar", "w") as tar:
        tar.add(tmp_path / "a.txt", "a.txt")
    finding = run("reading", surveyed(source=tmp_path / "in"))
    assert (finding.level, finding.message) == (
        Level.WARNING,
        f"{tmp_path}/in/a.tar: its first row has no image (missing_image, no image among its files (txt))",
    )


def test_a_source_of_empty_files_has_failed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").touch()
    assert run("source", context(source=tmp_path / "in")).message == "1 shards, 0.0 GiB: all of them are empty"


@pytest.fixture
def store(s3_environment, monkeypatch):  # noqa: F811 - a fixture
    """An S3 that does what its script says."""
    with s3_proxy(s3_environment["AWS_ENDPOINT_URL"]) as (endpoint, script):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield script


def test_credentials_that_are_refused_fail_source_and_output(store):
    store.refuses = True
    with pytest.raises(ConfigError, match="check the address and the credentials"):
        run("source", context(source="s3://out/doctor-in"))
    with pytest.raises(StoreError, match="check the bucket, its policy, the credentials"):
        run("output", context(output="s3://out/doctor"))


def test_an_output_that_cannot_create_conditionally_has_failed(store):
    assert run("output", context(output="s3://out/doctor")).level is Level.OK
    store.unconditional = True
    with pytest.raises(StoreError, match="does not honour create-if-absent"):
        run("output", context(output="s3://out/doctor"))
    assert list(open_store("s3://out/doctor").list("")) == []


def test_a_folder_that_is_another_one_on_this_node_has_failed(tmp_path):
    ours, theirs = (context(output=tmp_path / name) for name in ("ours", "theirs"))
    with marked_output(ours) as marked:
        assert run("output", marked).level is Level.OK
        finding = run("output", replace(theirs, mark=marked.mark))
        assert finding.level is Level.FAILED
        assert finding.message.endswith("is another folder than on the machine of the driver")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / "file").touch()
    unwritable = context(output=tmp_path / "file")
    for other in (Context(), unwritable):
        with marked_output(other) as unmarked:
            assert unmarked == other
    with pytest.raises(StoreError, match="cannot be written"):
        run("output", unwritable)


@pytest.mark.parametrize(
    ("skew_s", "level", "message"),
    [
        (0, Level.OK, "within 1 s of http://127.0.0.1:"),
        (100, Level.WARNING, "s behind http://127.0.0.1:"),
        (-100, Level.WARNING, "s ahead of http://127.0.0.1:"),
        (1000, Level.FAILED, "S3 refuses requests that are more than 900 s off"),
    ],
)
def test_a_clock_that_is_off_is_found(store, skew_s, level, message):
    store.clock_s = skew_s
    finding = run("clock", context(output="s3://out/doctor"))
    assert finding.level is level
    assert message in finding.message


def test_a_store_without_a_time_and_a_job_without_a_store_are_reported(store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    finding = run("clock", context(output="s3://out/doctor"))
    assert (finding.level, finding.message) == (
        Level.WARNING,
        "http://127.0.0.1:9: no time; it does not answer, or sends no Date header",
    )
    assert run("clock", context()).message == "neither source nor output is in an object store"


def test_the_servers_of_a_job_are_named_once(s3_environment, monkeypatch):  # noqa: F811 - a fixture
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    urls = ("s3://a/b", "s3a://c", "gs://d", "gcs://e", "hf://f", "/local")
    assert timed_servers(urls) == [s3_environment["AWS_ENDPOINT_URL"], "https://storage.googleapis.com"]
    assert server_time("http://127.0.0.1:9") is None


def test_large_remote_shards_need_space_for_all_readers(drawn):
    result = surveyed(source=drawn)
    shard = replace(result.survey.smallest, url="s3://out/a.tar")
    large = replace(result, num_readers=7, survey=Survey(smallest=shard, largest_bytes=1 << 50))
    finding = run("disk", large)
    assert finding.level is Level.FAILED
    assert "; 7 shards of up to 1048576.0 GiB may need 7340032.0 GiB" in finding.message
    assert "cluster.max_concurrent_reads" in finding.remedy
    in_place = replace(large, survey=replace(large.survey, smallest=result.survey.smallest))
    assert "7 shards" not in run("disk", in_place).message


def hub_job(**rest):
    return context(model={"id": "fancyfeast/llama-joycaption-beta-one-hf-llava", "revision": "abc"}, **rest)


def test_weights_that_do_not_fit_into_the_cache_of_the_hub_have_failed(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=10 << 30))
    finding = run("disk of weights", hub_job())
    assert finding.level is Level.FAILED
    assert finding.message.endswith("hf-llava has about 17.3 GiB, 0 MiB of it are there")
    blobs = tmp_path / "hub" / "models--fancyfeast--llama-joycaption-beta-one-hf-llava" / "blobs"
    blobs.mkdir(parents=True)
    with (blobs / "a").open("wb") as file:
        file.truncate(17 << 30)  # a hole: it takes no space
    assert run("disk of weights", hub_job()).level is Level.OK
    assert run("disk of weights", context()).message == "standin is on the disk"


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(STANDIN, tmp_path / "standin")
    return tmp_path / "standin"


def with_model(folder, **rest):
    return context(model={"id": str(folder), "generation": "alpha-two"}, **rest)


def test_a_text_model_on_the_hub_has_no_known_size(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    captions = [{"slot": "short", "prompt": "Shorten: {source.text}"}]
    asked = context(
        model={"id": "owner/name", "generation": "text", "revision": "abc"},
        source={"urls": [str(tmp_path)], "texts": True},
        captions=captions,
    )
    finding = run("disk of weights", asked)
    assert finding.level is Level.WARNING
    assert finding.message.endswith("the size of owner/name is not known here")


def test_whole_weights_are_ok(copy):
    assert run("weights", with_model(copy)).message == "1 files of weights, 0.00 GiB"


def test_weights_that_are_cut_missing_or_something_else_have_failed(copy):
    weights = copy / "model.safetensors"
    size = weights.stat().st_size
    os.truncate(weights, size - 1)
    finding = run("weights", with_model(copy))
    assert finding.level is Level.FAILED
    assert finding.message == f"{weights}: has {size - 1:,} bytes, and its header says {size:,}"
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert run("weights", with_model(copy)).message == f"{weights}: is not a safetensors file"
    listing = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(listing))
    assert "model-00001-of-00002.safetensors: is missing" in run("weights", with_model(copy)).message
    (copy / "model.safetensors.index.json").unlink()
    weights.unlink()
    assert run("weights", with_model(copy)).message == f"{copy}: has no *.safetensors"


@pytest.mark.slow
def test_a_model_of_another_layout_has_failed(copy):
    good = run("layout", with_model(copy))
    assert good.message == "joycaption, alpha-two: 36 tokens for an image of 90 x 90 px"
    with pytest.raises(ConfigError, match=r"engine\.max_model_len must be at least"):
        run("layout", with_model(copy, engine={"max_model_len": 128}))
    stated = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**stated, "image_token_index": 7}))
    with pytest.raises(PipelineError, match="image_token_index is 7, but the tokenizer's"):
        run("layout", with_model(copy))
    (copy / "config.json").write_text(json.dumps(stated))
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    finding = run("layout", with_model(copy))
    assert finding.level is Level.FAILED
    assert finding.message.startswith(f"{copy} cannot be loaded: ")


def test_a_model_that_does_not_fit_its_gpu_has_failed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", fake_nvidia_smi(tmp_path / "bin"))
    assert run("GPU memory", hub_job()).level is Level.OK
    small = "echo '0, NVIDIA A10G, 580.1, 16384, 16384, 8.6'; exit 0"
    monkeypatch.setenv("PATH", fake_nvidia_smi(tmp_path / "bin", first=small))
    with pytest.raises(ConfigError, match=r"GPU 0: engine: NVIDIA A10G has 1 x 16.0 GiB"):
        run("GPU memory", hub_job())
    monkeypatch.setenv("PATH", fake_nvidia_smi(tmp_path / "bin", free=100))
    assert run("GPU memory", hub_job()).level is Level.FAILED


def test_ranks_of_a_replica_need_shared_memory(monkeypatch):
    usage = shutil.disk_usage("/dev/shm")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(total=64 << 20, free=64 << 20))
    assert run("shared memory", context()).level is Level.WARNING
    finding = run("shared memory", context(engine={"tensor_parallel_size": 2}))
    assert (finding.level, finding.message) == (
        Level.FAILED,
        "/dev/shm: 64 MiB of 64 MiB are free; 2 ranks of a replica need 1.0 GiB",
    )
    assert run("shared memory", context(cluster={"object_store_gib": 0.05})).level is Level.OK


def test_the_golden_image_is_a_red_disc_on_white():
    pixels = draw(90, 60)
    assert (pixels.shape, pixels.dtype) == ((60, 90, 3), "uint8")
    assert [tuple(map(int, pixels[y, x])) for y, x in ((30, 45), (0, 0), (30, 75), (30, 72))] == [
        (215, 30, 35), (246, 246, 246), (246, 246, 246), (215, 30, 35),
    ]  # fmt: skip


def test_another_caption_than_the_known_one_has_failed():
    [known] = FAMILIES["joycaption"].known_captions
    assert known.model_digest == find_weights(job().model).digest
    right = EngineResponse(id="g", text=known.text, caption_tokens=known.num_tokens)
    assert _compared(right, known, "it took 1 s").level is Level.OK
    for wrong in ({"text": known.text.replace("red", "blue")}, {"caption_tokens": 32}):
        finding = _compared(replace(right, **wrong), known, "it took 1 s")
        assert finding.level is Level.FAILED
        assert finding.message.startswith("another caption than the known one: found 'This image shows a large ")


def test_a_caption_in_other_number_formats_is_not_compared():
    assert _is_plain(EngineConfig())
    for other in ({"dtype": "float32"}, {"quantization": "fp8"}, {"kv_cache_dtype": "fp8"}):
        assert not _is_plain(EngineConfig(**other))
