"""Shards and images of every kind of damage through the whole flow, in one run: each image is one row with a reason."""

import io
import json
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.status import Reason
from tests.cli import Done, run, write_job
from tests.flow.test_flow import jpeg, tar_of
from tests.gate import HOOKS
from tests.odd_images import build_odd_images
from tests.outputs import committed_rows

pytestmark = pytest.mark.slow

POISON = "POISON-OF-DECODERS"
DEADLY_ROW = 13


def write_odd_shards(source: Path) -> None:
    """Shards of every kind: whole, damaged, empty, unreadable, with bad images and repeated keys."""
    red = jpeg("red")
    tar_of(source / "whole.tar", {"a.jpg": red, "a.json": b'{"tags": ["x"]}', "b.jpg": jpeg("blue")})
    tar_of(
        source / "bad_images.tar",
        {"a.jpg": red[:200], "b.jpg": b"", "c.jpg": b"<html>", "d.txt": b"alone", "e.jpg": red},
    )
    tar_of(source / "empty.tar", {})
    tar_of(source / "cut.tar", {f"{name}.jpg": red for name in "abcdef"})
    whole = (source / "cut.tar").read_bytes()
    (source / "cut.tar").write_bytes(whole[: len(whole) // 2])
    (source / "not_a.parquet").write_bytes(b"PAR1 and then nothing")
    keys = pa.table({"key": ["same", "same", "third"], "jpg": [red, jpeg("green"), None]})
    pq.write_table(keys, source / "keys.parquet")


def write_odd_images(file: Path) -> int:
    """Hundreds of odd files, for instance in every format, as one shard; return how many."""
    odd = build_odd_images()
    with tarfile.open(file, "w") as tar:
        for number, image in enumerate(odd):
            info = tarfile.TarInfo(f"{number:05d}.jpg")
            info.size = len(image.data)
            tar.addfile(info, io.BytesIO(image.data))
    return len(odd)


def deadly_images() -> dict[str, bytes]:
    """20 images, of which one kills the process that decodes it."""
    images = {f"{number:02d}.jpg": jpeg((number, 0, 0)) for number in range(20)}
    images[f"{DEADLY_ROW}.jpg"] += POISON.encode()
    return images


@dataclass(frozen=True)
class Odd:
    folder: Path
    job: str
    num_odd: int
    done: Done
    rows: dict[str, list[dict]]
    """By shard."""


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The run, ended."""
    folder = tmp_path_factory.mktemp("odd")
    source = folder / "in"
    source.mkdir()
    write_odd_shards(source)
    num_odd = write_odd_images(source / "odd.tar")
    tar_of(source / "deadly.tar", deadly_images())
    job = write_job(
        folder, {"urls": [str(source)], "metadata_fields": ["*"]}, folder / "out", engine={"batch_images": 4}
    )
    done = run(folder, "caption", job, JFTEST_POISON=POISON, **HOOKS)
    rows: dict[str, list[dict]] = {}
    for row in committed_rows(folder / "out"):
        rows.setdefault(row["shard"], []).append(row)
    return Odd(folder, job, num_odd, done, rows)


def test_odd_shards_end_as_rows_with_reasons(odd):
    assert [row["reason"] for row in odd.rows["bad_images.tar"]] == [
        "truncated_image",
        "empty_file",
        "unsupported_format",
        "missing_image",
        None,
    ]
    cut = odd.rows["cut.tar"]
    assert cut[-1]["reason"] == "shard_damaged"
    assert [row["status"] for row in cut[:-1]] == ["ok"] * (len(cut) - 1)
    assert [row["key"] for row in odd.rows["keys.parquet"]] == ["same", "same", "third"]
    assert json.loads(odd.rows["whole.tar"][0]["source"]) == {"tags": ["x"]}
    assert pq.read_metadata(odd.folder / "out/captions/empty.tar.parquet").num_rows == 0
    assert all((row["caption"] is None) == (row["status"] != "ok") for rows in odd.rows.values() for row in rows)


def test_every_odd_file_becomes_one_row(odd):
    rows = odd.rows["odd.tar"]
    assert [row["key"] for row in rows] == [f"{number:05d}" for number in range(odd.num_odd)]
    reasons = Counter(row["reason"] for row in rows if row["status"] == "failed")
    assert set(reasons) <= set(Reason)
    assert {row["status"] for row in rows} == {"ok", "failed"}


def test_an_image_that_kills_the_reader_becomes_a_failed_row(odd):
    rows = odd.rows["deadly.tar"]
    size = len(deadly_images()[f"{DEADLY_ROW}.jpg"])
    message = f"the decoder process died on this image of {size} bytes, the only one in it"
    failed = [(row["row"], row["reason"], row["message"]) for row in rows if row["status"] != "ok"]
    assert failed == [(DEADLY_ROW, "decoder_killed", message)]
    assert [row["row"] for row in rows] == list(range(20))


@pytest.mark.long
def test_an_unreadable_shard_is_in_quarantine_and_comes_back_there(odd):
    """The last of this module: it changes the output."""
    assert odd.done.code == 3, odd.done
    assert "quarantined: not_a.parquet" in odd.done.out
    assert run(odd.folder, "verify", "out").code == 3
    assert "1 shards out of quarantine" in run(odd.folder, "unquarantine", "out").out
    again = run(odd.folder, "caption", odd.job)
    assert again.code == 3, again
    assert "0 shards, 0 images" in again.out
