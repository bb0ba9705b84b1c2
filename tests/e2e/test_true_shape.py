"""JoyCaption's true shape with random weights: what the stand-in cannot show, and what the hub's files would break.

Of the model on the hub this has 384 px, 729 image tokens, ids from 128,000 on, the names of the weights in several
files, Llama 3.1's rope and the config files of transformers 4. It needs 5 GB of disk and 10 GiB of memory.

vLLM and transformers run in processes of their own: a session has one vLLM engine, and each of them needs 8 GiB.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from pipeline.standin.demo_data import draw_dataset
from tests.cli import run, write_job
from tests.e2e.true_shape import IMAGE_TOKENS, LOUD, NEW_TOKENS, TEXT
from tests.outputs import committed_rows, expected, identities

pytestmark = pytest.mark.long

PROJECT = Path(__file__).parents[2]
NEEDED_BYTES = 10 << 30
TIMEOUT_S = 1800


def program(*words):
    """Run a command of `tests.e2e.true_shape` and return the JSON of its last line, if it prints any."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.true_shape", *map(str, words)],
        cwd=PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines and words[0] != "build" else None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    if psutil.virtual_memory().available < NEEDED_BYTES:
        pytest.skip("needs 10 GiB of free memory")
    folder = tmp_path_factory.mktemp("true-shape") / "model"
    program("build", folder)
    yield folder
    shutil.rmtree(folder)


def test_greedy_ids_in_float32_are_those_of_transformers(checkpoint):
    ours, theirs = program("vllm", checkpoint), program("transformers", checkpoint)
    assert [answer["ids"] for answer in ours] == [answer["ids"] for answer in theirs]
    assert [answer["text"] for answer in ours] == [answer["text"].strip() for answer in theirs]
    # Other texts for other images: the pixels reach the model.
    assert len({tuple(answer["ids"]) for answer in ours}) == len(ours)
    for mine, reference in zip(ours, theirs, strict=True):
        # The hub's template with one placeholder is our layout; the processor and vLLM put 729 tokens in its place.
        image = mine["prompt"].index(128077)
        assert reference["prompt"] == [
            *mine["prompt"][:image],
            *[128077] * IMAGE_TOKENS,
            *mine["prompt"][image + 1 :],
        ]
        assert mine["prompt"][0] == 128000
        assert mine["prompt"][image - 1 : image + 2] == [128078, 128077, 128079]
        assert mine["prompt_tokens"] == len(reference["prompt"])
        assert reference["rope"] == {**TEXT["rope_scaling"], "rope_theta": TEXT["rope_theta"]}
    # An end token that only the config files name ends some texts, and `max_tokens` the others.
    ended = [answer["ids"][-1] == LOUD for answer in ours]
    assert [answer["finish_reason"] for answer in ours] == ["stop" if end else "length" for end in ended]
    assert 0 < sum(ended) < len(ours)
    assert {len(answer["ids"]) for answer, end in zip(ours, ended, strict=True) if not end} == {NEW_TOKENS}


def test_a_job_through_ray_captions_with_it(tmp_path, checkpoint):
    draw_dataset(tmp_path / "in", num_images=4, seed=5, shard_rows=2)
    job = write_job(
        tmp_path,
        tmp_path / "in",
        tmp_path / "out",
        model={"id": str(checkpoint), "generation": "beta-one"},
        captions=[{"slot": "long", "mode": "descriptive"}, {"slot": "tags", "mode": "danbooru-tags"}],
        engine={"kind": "vllm", "max_model_len": 1024, "max_num_seqs": 8},
        sampling={"max_tokens": NEW_TOKENS},
        # Random weights write random words.
        quality={"retry": {"attempts": 0}},
        cluster={"stall_timeout_s": TIMEOUT_S},
    )
    done = run(tmp_path, "caption", job)
    assert done.code == 0, done
    rows = committed_rows(tmp_path / "out")
    images = {(shard, row) for shard, row, _ in expected(tmp_path / "in", 4)}
    assert identities(rows) == Counter((*image, slot) for image in images for slot in ("long", "tags"))
    assert {row["status"] for row in rows} <= {"ok", "rejected"}
    assert any(row["status"] == "ok" for row in rows)
    assert all(row["prompt_tokens"] > IMAGE_TOKENS for row in rows)
    verified = run(tmp_path, "verify", str(tmp_path / "out"))
    assert verified.code == 0, verified
