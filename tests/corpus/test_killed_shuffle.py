"""A corpus that is killed at any of its writes, from its first published file on, ends with the same files."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.corpus.test_job import TAGS, corpus, lines, make

PROJECT = Path(__file__).parents[2]


def sweep(job: Path, started: Path, *epochs: str) -> int:
    words = [sys.executable, "-m", "tests.corpus.kill_at_writes", str(job), str(started), *epochs]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.search(r"(\d+) points", done.stdout)[1])


@pytest.fixture
def job(tmp_path):
    """Write the job of a corpus of two sources; return its file and its config."""
    rows = [{"id": number, "tags": TAGS, "long": f"A cat sees {number} dogs."} for number in range(12)]
    tables = [{"name": name, "urls": lines(tmp_path / f"{name}.jsonl", rows)} for name in ("a", "b")]
    keys = {"tables": tables, "shuffle": {"rows": 10}, "split": {"validation": 0}, "epochs": 2, "dedupe": []}
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"output": str(tmp_path / "corpus"), "memory_gib": 0.5, **keys}))
    return file, corpus(tmp_path, **keys)


@pytest.mark.long
def test_a_shuffled_corpus_killed_at_any_write_has_the_same_files(tmp_path, job):
    file, config = job
    make(config, until="publish")
    shutil.move(tmp_path / "corpus", tmp_path / "started")
    assert sweep(file, tmp_path / "started") > 60


@pytest.mark.long
def test_an_extension_killed_at_any_write_has_the_same_files(tmp_path, job):
    file, config = job
    make(config)
    shutil.move(tmp_path / "corpus", tmp_path / "started")
    assert sweep(file, tmp_path / "started", "3") > 30
