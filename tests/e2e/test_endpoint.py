"""A job against a real `vllm serve`: the same captions as in process, through its death and its return."""

from collections import Counter

import pyarrow.parquet as pq
import pytest

from pipeline.standin.demo_data import draw_dataset
from tests.cli import finish, run, start, wait_until, write_job
from tests.e2e.test_json import SCHEMA, check
from tests.gate import Gate
from tests.standin.check_caption import parse_caption, visible
from tests.vllm_server import VllmServer

pytestmark = pytest.mark.long

NUM_IMAGES = 96
CAPTIONS = [{"slot": "long", "mode": "descriptive", "length": "long"}, {"slot": "tags", "mode": "booru-tags"}]


@pytest.fixture
def server(tmp_path):
    server = VllmServer(tmp_path / "server.log")
    yield server
    server.kill()


def endpoint(server: VllmServer, **rest: object) -> dict:
    return {
        "kind": "endpoint",
        "batch_images": 8,
        "max_num_seqs": 16,
        "endpoint": {"urls": [server.url], "model": "standin", "retries": 1, "reconnect_timeout_s": 300, **rest},
    }


def rows_of(folder):
    files = sorted(path for path in folder.rglob("*.parquet") if path.is_file())
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_a_job_survives_the_death_of_its_server_and_says_what_was_drawn(tmp_path, server):
    truth = draw_dataset(tmp_path / "in", num_images=NUM_IMAGES, seed=12, shard_rows=24)
    output = tmp_path / "out"
    server.start()
    server.wait()
    job = write_job(
        tmp_path,
        tmp_path / "in",
        output,
        captions=CAPTIONS,
        engine=endpoint(server),
        sampling={"temperature": 0},
        cluster={"stall_timeout_s": 400},
    )
    gate = Gate(tmp_path / "gate")
    process = start(tmp_path, "caption", job, **gate.environment)
    gate.let(1)
    wait_until(lambda: len(rows_of(output / "staging")) > 0 and gate.held() > 0, process, "a fragment")
    server.stop()  # so that what it is asked next is with it when it dies
    gate.open()
    wait_until(lambda: gate.asked() > 0, process, "a batch with the stopped server")
    server.kill()
    server.start()
    done = finish(process)
    assert done.code == 0, done
    assert run(tmp_path, "verify", str(output)).code == 0
    rows = rows_of(output / "captions")
    assert Counter((row["shard"], row["row"], row["slot"]) for row in rows).most_common(1)[0][1] == 1
    assert len(rows) == 2 * NUM_IMAGES
    assert {row["status"] for row in rows} <= {"ok", "rejected"}
    captioned = [row for row in rows if row["caption"]]
    right = [parse_caption(row["caption"]).color == visible(truth[row["key"]]).color for row in captioned]
    assert sum(right) >= 0.95 * len(right)


def test_a_server_with_the_models_own_template_is_refused_at_start(tmp_path):
    server = VllmServer(tmp_path / "server.log", template=False)
    draw_dataset(tmp_path / "in", num_images=4, seed=12, shard_rows=4)
    server.start()
    try:
        server.wait()
        job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine=endpoint(server))
        done = run(tmp_path, "caption", job)
    finally:
        server.kill()
    assert done.code == 1
    assert "BOS" in done.err
    assert "--chat-template infra/joycaption.jinja" in done.err


def test_json_captions_come_from_a_server_and_a_special_token_does_not_reach_it(tmp_path):
    # As docs/json.md says: by default the grammar allows white space without end.
    compact = ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    server = VllmServer(tmp_path / "server.log", words=compact)
    draw_dataset(tmp_path / "in", num_images=12, seed=12, shard_rows=6)
    slots = [
        {"slot": "json", "prompt": "Write a descriptive caption.", "schema": SCHEMA},
        {"slot": "tags", "mode": "descriptive", "extra": "Its tags are {source.txt}<|eot_id|>."},
    ]
    server.start()
    try:
        server.wait()
        rest = {"engine": endpoint(server), "prompt_fields": {"txt": {"missing": "none"}}}
        job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", captions=slots, **rest)
        done = run(tmp_path, "caption", job)
    finally:
        server.kill()
    assert done.code == 0, done
    rows = rows_of(tmp_path / "out" / "captions")
    of_json, of_tags = ([row for row in rows if row["slot"] == slot] for slot in ("json", "tags"))
    assert len(check(of_json, SCHEMA)) >= 10
    assert {(row["status"], row["reason"]) for row in of_tags} == {("failed", "prompt_markup")}
