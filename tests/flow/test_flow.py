"""The whole way on a real Ray with the echo engine: every row once, whatever the shards hold and whoever is killed."""

import io
import json
import shutil
import signal
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from pipeline.config import ModelConfig, load_job
from pipeline.flow.prepared_job import prepare_job
from pipeline.recipe import find_weights
from pipeline.standin.demo_data import draw_dataset
from pipeline.storage import open_store
from tests.cli import finish, run, start, wait_until, write_job
from tests.gate import Gate
from tests.outputs import committed_rows, expected, fragments_of, identities, mark
from tests.s3_server import s3_environment  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow


@pytest.mark.long
@pytest.mark.parametrize(("replicas", "num_cpus"), [(3, 2), (1, 1), (1, 2), (3, 1)])
def test_the_flow_ends_on_small_clusters_with_every_pool(tmp_path, num_cpus, replicas):
    draw_dataset(tmp_path / "in", num_images=60, seed=1, shard_rows=10)
    job = write_job(
        tmp_path, tmp_path / "in", tmp_path / "out", cluster={"num_cpus": num_cpus}, engine={"replicas": replicas}
    )
    done = run(tmp_path, "caption", job)
    assert done.code == 0, done
    assert set(identities(committed_rows(tmp_path / "out")).values()) == {1}
    verified = run(tmp_path, "verify", str(tmp_path / "out"))
    assert verified.code == 0, verified
    assert "60 images x 1 slots = 60 caption rows: each exactly once" in verified.out


def tar_of(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def jpeg(colour) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(out, "JPEG")
    return out.getvalue()


def test_a_killed_driver_costs_only_what_was_in_flight(tmp_path):
    draw_dataset(tmp_path / "in", num_images=240, seed=2, shard_rows=60)
    output = tmp_path / "out"
    job = write_job(
        tmp_path, tmp_path / "in", output, engine={"batches_in_flight": 2}, cluster={"max_concurrent_reads": 2}
    )
    gate = Gate(tmp_path / "gate")
    process = start(tmp_path, "caption", job, **gate.environment)
    gate.let(4)
    wait_until(lambda: len(fragments_of(output)) == 4 and gate.held() == 2, process, "4 fragments and 2 in flight")
    process.send_signal(signal.SIGKILL)
    finish(process)
    # Workers outlive a killed driver by a moment; the gate stays closed, so that they stage nothing more.
    marked = mark(fragments_of(output))
    assert len(marked) == 4 * 8
    done = run(tmp_path, "caption", job)
    assert done.code == 0, done
    rows = committed_rows(output)
    assert identities(rows) == Counter(dict.fromkeys(expected(tmp_path / "in", 240), 1))
    survived = {(row["shard"], row["row"]) for row in rows if row["caption"].startswith("MARKED ")}
    assert survived == marked
    assert f"resumed     {len(marked)} images" in " ".join(done.out.split("\n"))
    assert f"captioned   {240 - len(marked)} images" in done.out
    assert not fragments_of(output)
    assert run(tmp_path, "verify", str(output)).code == 0


STALL_S = 20
"""Longer than a replica takes to start on a busy machine: until it is up, its start is what stands still."""


@pytest.mark.long
def test_an_engine_that_never_answers_is_named_by_the_watchdog(tmp_path):
    draw_dataset(tmp_path / "in", num_images=10, seed=4, shard_rows=10)
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", cluster={"stall_timeout_s": STALL_S})
    done = run(tmp_path, "caption", job, **Gate(tmp_path / "gate").environment)
    assert done.code == 1, done
    assert f"images are with the engines and no answer comes, and nothing moved for {STALL_S} s" in done.err


def test_another_recipe_on_the_same_output_is_refused_before_anything_starts(tmp_path):
    draw_dataset(tmp_path / "in", num_images=10, seed=5, shard_rows=10)
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out")
    prepare_job(load_job(job))
    done = run(tmp_path, "caption", job, "--set", "sampling.temperature=0.1")
    assert done.code == 2, done
    assert "sampling.temperature: 0.6 in the output, 0.1 in this run" in done.err


@pytest.mark.long
def test_a_source_without_one_good_image_is_no_success(tmp_path):
    (tmp_path / "in").mkdir()
    tar_of(tmp_path / "in" / "bad.tar", {"a.jpg": b"no", "b.jpg": b"image"})
    done = run(tmp_path, "caption", write_job(tmp_path, tmp_path / "in", tmp_path / "out"))
    assert done.code == 1, done
    assert (
        "no caption is ok: 2 images committed with rows 0 ok, 0 rejected, 2 failed, 0 skipped; 0 shards in quarantine"
        in done.err
    )


def test_shards_and_captions_may_live_on_s3(tmp_path, s3_environment):  # noqa: F811 - a fixture
    draw_dataset(tmp_path / "in", num_images=40, seed=6, shard_rows=10)
    store = open_store("s3://out/photos")
    for shard in (tmp_path / "in").rglob("*.*"):
        store.put(shard.relative_to(tmp_path / "in").as_posix(), shard.read_bytes())
    job = write_job(tmp_path, "s3://out/photos", "s3://out/captions/v1")
    done = run(tmp_path, "caption", job)
    assert done.code == 0, done
    verified = run(tmp_path, "verify", "s3://out/captions/v1")
    assert "40 images x 1 slots = 40 caption rows: each exactly once" in verified.out, verified


@pytest.mark.long
def test_a_model_of_another_shape_ends_the_run_with_one_line(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(find_weights(ModelConfig(id="standin")).path, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "image_token_index": 7}))
    draw_dataset(tmp_path / "in", num_images=10, seed=7, shard_rows=10)
    named = {"id": str(model), "generation": "alpha-two"}
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", model=named, engine={"kind": "vllm"})
    done = run(tmp_path, "caption", job)
    assert done.code == 1, done
    assert done.err.splitlines()[-1].startswith(f"joyfleet: {model}: image_token_index is 7, but the tokenizer's")


def test_a_defect_of_a_reader_costs_its_shard_and_the_run_continues(tmp_path):
    (tmp_path / "in").mkdir()
    files = {f"{number}.jpg": jpeg("red") for number in range(8)}
    tar_of(tmp_path / "in" / "a.tar", {**files, "0.mask.png": jpeg("blue")})
    tar_of(tmp_path / "in" / "z.tar", {**files, "5.json": b'{"break": "a reader"}'})
    # Python runs it in each process of the run: a reader that fails in the middle of one shard.
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "sitecustomize.py").write_text(
        "import json\n"
        "loads = json.loads\n"
        "def broken(data, *args, **kwargs):\n"
        '    if data == b\'{"break": "a reader"}\':\n'
        "        raise IndexError('string index out of range')\n"
        "    return loads(data, *args, **kwargs)\n"
        "json.loads = broken\n"
    )
    output = tmp_path / "out"
    source = {"urls": [str(tmp_path / "in")], "metadata_fields": ["*"]}
    job = write_job(tmp_path, source, output, engine={"batch_images": 2})

    done = run(tmp_path, "caption", job, PYTHONPATH=f"{tmp_path}/hooks:{Path(__file__).parents[2]}")

    assert done.code == 3, done
    assert "quarantined: z.tar: " in done.out
    assert "a defect of JoyFleet ended its reading (IndexError: string index out of range)" in done.out
    assert "Traceback" not in done.out + done.err
    assert "note: 1 file with the name of an image is not read (masks and the like" in done.out
    assert "a.tar: 0.mask.png" in done.out
    assert [row["status"] for row in committed_rows(output)] == ["ok"] * 8
    record = json.loads((output / "quarantine" / "z.tar.json").read_text())
    assert "IndexError: string index out of range" in record["traceback"]
    assert not (output / "captions" / "z.tar.parquet").exists()
