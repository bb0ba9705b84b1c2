"""A process killed at each call that reaches the store, and at each line: what does the next run see?"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline
from pipeline.ledger.staging_cleanup import clean
from pipeline.ledger.verification import verify_tree
from pipeline.storage import open_store
from tests.ledger.faults import dying, sigkill
from tests.ledger.world import NUM_IMAGES, PLAN, RUN, SHARD, committed, paths, resume, violations
from tests.processes import was_killed

OWN_CODE = tuple(str(Path(pipeline.__file__).parent / name) for name in ("ledger", "storage"))


def resume_and_die(url, num, when):
    resume(dying(open_store(url), num, when, sigkill))


def check_recovery(store):
    """The next run finishes the shard, changes nothing that was committed, and nothing is left."""
    before = committed(store) if paths(store, "captions") else None
    resume(store)
    assert before in (None, committed(store))
    clean(store, RUN, PLAN)
    assert paths(store) == [f"captions/{SHARD.path}.parquet"]
    assert violations(store) == []
    assert verify_tree(store, PLAN).violations == ()
    table = pq.read_table(pa.BufferReader(committed(store)))
    texts = [
        text or message
        for text, message in zip(table["caption"].to_pylist(), table["message"].to_pylist(), strict=True)
    ]
    assert texts[::2] == texts[1::2]  # both slots of an image from one attempt


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_any_call_to_the_store(tmp_path, when):
    for num in range(1, 100):
        store = open_store(f"{tmp_path}/{num}")
        killed = was_killed(resume_and_die, store.url, num, when)
        check_recovery(store)
        if not killed:
            break
    assert 8 < num < 50


@pytest.mark.slow
def test_killed_around_any_call_to_s3(s3):
    for num in range(1, 100, 3):
        store = open_store(f"{s3.url}/{num}")
        killed = was_killed(resume_and_die, store.url, num, "after")
        check_recovery(store)
        if not killed:
            break
    assert 8 < num < 50


def kill_at_line(num):
    """Kill this process at the `num`-th line of our own code that it comes to in a writing function."""
    left = [num]

    def count(frame, event, _):
        if event == "line":
            left[0] -= 1
            if not left[0]:
                sigkill()
        return count

    def enter(frame, *_):
        return count if frame.f_code.co_filename.startswith(OWN_CODE) else None

    sys.settrace(enter)


def resume_and_die_at_line(url, num):
    kill_at_line(num)
    resume(open_store(url), chunk=NUM_IMAGES)
    sys.settrace(None)


@pytest.mark.slow
def test_killed_at_any_line(tmp_path):
    num, step = 1, 29
    while was_killed(resume_and_die_at_line, f"{tmp_path}/{num}", num):
        check_recovery(open_store(f"{tmp_path}/{num}"))
        num += step
    assert num > 200


def test_killed_again_and_again_while_recovering(tmp_path):
    store = open_store(f"{tmp_path}/out")
    for num in (3, 4, 5, 6, 7, 5, 4):
        assert was_killed(resume_and_die, store.url, num, "after")
    check_recovery(store)
