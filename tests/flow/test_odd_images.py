"""Hundreds of odd files through the whole flow: one row each, with pixels or a reason."""

import io
import tarfile
from collections import Counter

import pyarrow.parquet as pq
import pytest

from schemas.status import Reason
from tests.cli import run, write_job
from tests.odd_images import build_odd_images

pytestmark = pytest.mark.slow


def test_every_odd_file_becomes_one_row(tmp_path):
    odd = build_odd_images()
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "odd.tar", "w") as tar:
        for number, image in enumerate(odd):
            info = tarfile.TarInfo(f"{number:05d}.jpg")
            info.size = len(image.data)
            tar.addfile(info, io.BytesIO(image.data))
    done = run(tmp_path, "caption", write_job(tmp_path, tmp_path / "in", tmp_path / "out"))
    assert done.code == 0, done
    rows = pq.read_table(tmp_path / "out/captions/odd.tar.parquet").to_pylist()
    assert [row["key"] for row in rows] == [f"{number:05d}" for number in range(len(odd))]
    reasons = Counter(row["reason"] for row in rows if row["status"] == "failed")
    assert set(reasons) <= set(Reason)
    assert {row["status"] for row in rows} == {"ok", "failed"}
    assert all((row["caption"] is not None) == (row["status"] == "ok") for row in rows)
