"""Duplicates and changed selections on a real Ray: the same rows for every pool, after kills, and on S3."""

import json
import signal
from collections import Counter
from pathlib import Path

import pytest

from pipeline.ledger.layout import committed_path
from pipeline.storage import open_store
from tests.cli import Done, finish, run, start, wait_until, write_job
from tests.flow.test_retry import spoil
from tests.gate import HOOKS, Gate
from tests.outputs import committed_rows, fragments_of, identities
from tests.s3_server import s3_environment  # noqa: F401 - a fixture
from tests.selection.test_duplicates import write_shard

pytestmark = [pytest.mark.slow, pytest.mark.long]

SHARDS, ROWS = 5, 20
NUMBERS = [[shard * 100 + row if row % 5 else 100 * (row % 4) + 1 for row in range(ROWS)] for shard in range(SHARDS)]
"""Pictures by shard and row: every fifth one is one of four, of which each occurs in many shards."""


def expected_images() -> set[tuple[str, int]]:
    """The first row of each picture."""
    first: dict[int, tuple[str, int]] = {}
    for shard, numbers in enumerate(NUMBERS):
        for row, number in enumerate(numbers):
            first.setdefault(number, (f"{shard}.tar", row))
    return set(first.values())


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copies")
    for shard, numbers in enumerate(NUMBERS):
        write_shard(folder / "in", f"{shard}.tar", numbers, score=[number % 10 for number in numbers])
    job = write_job(folder, {"urls": [str(folder / "in")], "metadata_fields": ["score"]}, folder / "unused")
    done = run(folder, "index", job, str(folder / "index"))
    assert done.code == 0, done
    return folder


def job_for(folder: Path, source: Path, **keys) -> str:
    duplicates = {"index": str(source / "index")}
    described = {"urls": [str(source / "in")], "metadata_fields": ["score"], "duplicates": duplicates, **keys}
    return write_job(folder, described, folder / "out", engine={"batch_images": 3})


def asked_images(rows) -> set[tuple[str, int]]:
    assert set(identities(rows).values()) == {1}
    assert Counter(row["status"] for row in rows).keys() <= {"ok", "skipped"}
    return {(row["shard"], row["row"]) for row in rows if row["status"] == "ok"}


def verified(folder: Path, output: object) -> None:
    done = run(folder, "verify", str(output))
    assert done.code == 0, done
    assert "each exactly once" in done.out


def succeeded(done: Done) -> Done:
    assert done.code == 0, done
    return done


@pytest.mark.parametrize("replicas", [1, 2, 7])
def test_each_different_image_is_asked_once_with_any_pool(tmp_path, source, replicas):
    asked = tmp_path / "asked"
    job = job_for(tmp_path, source)
    words = ("caption", job, "--set", f"engine.replicas={replicas}")
    done = succeeded(run(tmp_path, *words, **HOOKS, JFTEST_ASKED=str(asked)))
    assert asked_images(committed_rows(tmp_path / "out")) == expected_images()
    assert len(asked.read_bytes()) == len(expected_images()) < SHARDS * ROWS * 0.9
    assert "skipped: 20 rows by source.duplicates: {by: sha256}" in done.out
    verified(tmp_path, tmp_path / "out")


def test_the_same_images_are_asked_after_kills(tmp_path, source):
    job, gate = job_for(tmp_path, source), Gate(tmp_path / "gate")
    for permits in (1, 3):
        process = start(tmp_path, "caption", job, **gate.environment)
        gate.let(permits)
        wait_until(lambda: gate.permits == 0 and gate.held() > 0, process, "staged and held batches")
        process.send_signal(signal.SIGKILL)
        finish(process)
    assert fragments_of(tmp_path / "out")
    succeeded(run(tmp_path, "caption", job))
    assert asked_images(committed_rows(tmp_path / "out")) == expected_images()
    verified(tmp_path, tmp_path / "out")


def test_a_stand_in_is_asked_in_place_of_a_leader_that_failed(tmp_path, source):
    job = job_for(tmp_path, source)
    succeeded(run(tmp_path, "caption", job))
    spoil(tmp_path / "out" / committed_path("0.tar"), {0: "failed"})
    done = succeeded(run(tmp_path, "retry", str(tmp_path / "out"), "--rows", "duplicates-of-failed"))
    assert "1 images in 1 shards are captioned in place of images that failed" in done.out
    rows = {(row["shard"], row["row"]): row for row in committed_rows(tmp_path / "out")}
    [stand_in] = [row for row in rows.values() if row["duplicate_of"] and row["status"] == "ok"]
    assert stand_in["duplicate_of"] == "0.tar#0"
    verified(tmp_path, tmp_path / "out")
    done = succeeded(run(tmp_path, "retry", str(tmp_path / "out"), "--rows", "duplicates-of-failed"))
    assert "0 images in 0 shards" in done.out


def test_a_loosened_filter_asks_the_rest_also_after_kills(tmp_path, source):
    asked = tmp_path / "asked"
    environment = {**HOOKS, "JFTEST_ASKED": str(asked)}
    narrow = {"fields": {"score": {"min": 8}}}
    job = job_for(tmp_path, source, where=narrow)
    succeeded(run(tmp_path, "caption", job, **environment))
    first = asked_images(committed_rows(tmp_path / "out"))
    job = job_for(tmp_path, source, where={"fields": {"score": {"min": 2}}})
    done = run(tmp_path, "caption", job)
    assert done.code == 2
    assert "caption --extend" in done.err
    gate = Gate(tmp_path / "gate")
    process = start(tmp_path, "caption", job, "--extend", **gate.environment)
    gate.let(2)
    wait_until(lambda: gate.permits == 0 and gate.held() > 0, process, "held batches")
    process.send_signal(signal.SIGKILL)
    finish(process)
    asked.unlink()
    done = succeeded(run(tmp_path, "caption", job, **environment))
    rows = committed_rows(tmp_path / "out")
    assert first < asked_images(rows)
    scores = {(row["shard"], row["row"]): json.loads(row["source"])["score"] for row in rows}
    assert {scores[image] for image in asked_images(rows)} == {2, 3, 4, 6, 7, 8, 9}  # rows with 5 are copies of others
    pictures = [NUMBERS[int(shard[0])][row] for shard, row in asked_images(rows)]
    assert len(set(pictures)) == len(pictures)
    verified(tmp_path, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out" / "captions").rglob("*.parquet")}
    asked.write_bytes(b"")
    succeeded(run(tmp_path, "caption", job, "--extend", **environment))
    assert asked.read_bytes() == b""
    assert before == {path: path.read_bytes() for path in before}


# On S3: source, index and output.


@pytest.fixture
def bucket(s3_environment, source, tmp_path):  # noqa: F811 - the fixture
    store = open_store(f"s3://out/{tmp_path.name}")
    for path in sorted((source / "in").iterdir()):
        store.put(f"in/{path.name}", path.read_bytes())
    return store


def s3_job(folder: Path, store, output: str, **keys) -> str:
    described = {"urls": [f"{store.url}/in"], "metadata_fields": ["score"], **keys}
    return write_job(folder, described, f"{store.url}/{output}", engine={"batch_images": 3})


def s3_rows(folder: Path, store, output: str) -> list[dict]:
    """The committed rows of an output on S3, by a copy of its files."""
    copied = folder / f"copy-of-{output}"
    own = open_store(f"{store.url}/{output}")
    for entry in own.list("captions"):
        target = copied / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(own.get(entry.path))
    return committed_rows(copied)


@pytest.mark.parametrize(
    ("keys", "number"),
    [
        ({"where": {"fields": {"score": {"min": 5}}, "width": {"min": 25}}}, None),
        ({"sample": 0.3}, None),
        ({"limit": 33}, 33),
        ({"limit": 7, "sample": 0.5, "where": {"format": "PNG"}}, 7),
    ],
)
def test_a_selection_on_s3_is_that_on_a_disk(tmp_path, source, bucket, keys, number):
    succeeded(run(tmp_path, "caption", s3_job(tmp_path, bucket, "out", **keys)))
    on_s3 = asked_images(s3_rows(tmp_path, bucket, "out"))
    described = {"urls": [str(source / "in")], "metadata_fields": ["score"], **keys}
    succeeded(run(tmp_path, "caption", write_job(tmp_path, described, tmp_path / "disk")))
    assert on_s3 == asked_images(committed_rows(tmp_path / "disk"))
    assert number is None or len(on_s3) == number
    verified(tmp_path, f"{bucket.url}/out")


def test_duplicates_and_a_loosened_filter_on_s3(tmp_path, bucket):
    job = s3_job(tmp_path, bucket, "out")
    succeeded(run(tmp_path, "index", job, f"{bucket.url}/index"))
    duplicates = {"index": f"{bucket.url}/index"}
    succeeded(run(tmp_path, "caption", s3_job(tmp_path, bucket, "all", duplicates=duplicates)))
    assert asked_images(s3_rows(tmp_path, bucket, "all")) == expected_images()
    verified(tmp_path, f"{bucket.url}/all")

    narrow, wide = ({"fields": {"score": {"min": score}}} for score in (8, 0))
    succeeded(run(tmp_path, "caption", s3_job(tmp_path, bucket, "grown", duplicates=duplicates, where=narrow)))
    first = asked_images(s3_rows(tmp_path, bucket, "grown"))
    job = s3_job(tmp_path, bucket, "grown", duplicates=duplicates, where=wide)
    both = [start(tmp_path, "caption", job, "--extend") for _ in range(2)]
    done = [finish(process) for process in both]
    assert any(each.code == 0 for each in done), done
    succeeded(run(tmp_path, "caption", job))
    images = asked_images(s3_rows(tmp_path, bucket, "grown"))
    assert first < images
    assert len(images) == len(expected_images())
    verified(tmp_path, f"{bucket.url}/grown")
