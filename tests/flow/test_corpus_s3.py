"""`joyfleet corpus` with all inputs and the output on S3: the texts equal those on disk, no credential is stored."""

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.storage import open_store
from tests.cli import run
from tests.corpus.outputs import write_output
from tests.corpus.test_job import corpus, database, entry, make, shards
from tests.flow.test_s3_secrets import CREDENTIALS, SECRET, TOKEN, leaks
from tests.s3_server import s3_environment  # noqa: F401 - a fixture

pytestmark = pytest.mark.long

ROOT = "s3://out/corpus"


@pytest.fixture
def inputs(s3_environment, tmp_path):  # noqa: F811 - a fixture
    """Write captions, a database, tag files and a list to disk and S3; return the config entries of both."""
    local, remote = tmp_path / "here", open_store(f"{ROOT}/in")
    local.mkdir()
    rows = [{**row, "key": f"{20 * int(row['shard'][:5]) + row['row']}.webp"} for row in shards(2, 20)]
    database(local / "danbooru.sqlite")
    (local / "posts.jsonl").write_text(json.dumps({"id": 700, "long": "A dog sleeps by a wall.", "tags": "dog"}))
    (local / "aliases.csv").write_text("long_hair,very_long_hair\n")
    (local / "benchmark.txt").write_text("photos/00000.tar#3\n")
    for file in local.iterdir():
        remote.put(file.name, file.read_bytes())
    captions = {"here": write_output(local / "captions", rows), "s3": write_output(f"{ROOT}/in/captions", rows)}
    return {
        side: {
            "captions": entry(captions[side]),
            "tables": [
                {"name": "danbooru", "urls": f"{at}/danbooru.sqlite", "join": "id"},
                {"name": "posts", "urls": f"{at}/posts.jsonl"},
            ],
            "tag_files": {"aliases": f"{at}/aliases.csv"},
            "decontaminate": {"identities": f"{at}/benchmark.txt"},
            "epochs": 2,
            "split": {"validation": 0.2},
            "formats": ["parquet", "jsonl"],
        }
        for side, at in (("here", str(local)), ("s3", f"{ROOT}/in"))
    }


def texts(objects: Mapping[str, bytes]) -> dict[str, list]:
    return {
        path: pq.read_table(pa.BufferReader(data)).to_pylist()
        for path, data in objects.items()
        if path.startswith("text/") and path.endswith(".parquet")
    }


def test_a_corpus_on_s3_equals_that_on_disk_and_contains_no_credential(tmp_path, inputs):
    output = f"{ROOT}/out"
    cluster = {"num_cpus": 2, "object_store_gib": 0.2, "stall_timeout_s": 120}
    job = tmp_path / "corpus.yaml"
    job.write_text(yaml.safe_dump({**inputs["s3"], "output": output, "memory_gib": 0.5, "cluster": cluster}))
    done = run(tmp_path, "corpus", str(job), **CREDENTIALS)
    assert done.code == 0, done
    store = open_store(output)
    objects = {entry.path: store.get(entry.path) for entry in store.list("")}
    assert {"README.md", "run.json", "report/counts.parquet"} < objects.keys()
    assert not [path for path in objects if path.startswith("staging/")]
    make(corpus(tmp_path, **inputs["here"]))
    disk = tmp_path / "corpus"
    same = {str(file.relative_to(disk)): file.read_bytes() for file in disk.rglob("*") if file.is_file()}
    assert texts(objects) == texts(same)
    assert sum(map(len, texts(objects).values())) == 2 * (40 + 1 - 1)
    words = [SECRET.encode(), TOKEN.encode()]
    assert not [path for path, data in objects.items() if any(word in data for word in words)]
    assert leaks(tmp_path, done.out, done.err) == []
    [log] = [line.removeprefix("log: ") for line in done.out.splitlines() if line.startswith("log: ")]
    assert leaks(Path(log).parent) == []
