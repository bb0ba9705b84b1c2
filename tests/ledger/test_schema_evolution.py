"""A release may add nullable columns and keys: older and newer files are read, verified, resumed, retried and kept.

"Newer" is a release with one column more, so a file that it wrote is one of the future to the release of today, and a
file of today is an old one to it.
"""

import json
import re
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ledger.caption_table import from_parquet
from pipeline.ledger.fragments import FragmentInfo, read_fragment_info
from pipeline.ledger.layout import committed_path, quarantine_path
from pipeline.ledger.quarantine import Quarantined, list_quarantine, put_quarantine
from pipeline.ledger.retry_rows import RANK, find_retry_rows, replace_rows
from pipeline.ledger.run_events import RunInfo, RunLog, read_runs
from pipeline.ledger.shard_plan import claim_plan, read_plan
from pipeline.ledger.staging_cleanup import clean
from pipeline.report.committed import committed_files
from pipeline.report.quality_stats import COLUMNS, measure_quality
from pipeline.storage.parquet import conform, encode_parquet
from schemas.caption_row import CAPTION_ROW
from schemas.plan import PLAN as PLAN_SCHEMA
from schemas.run_event import RunProgress
from schemas.status import Status
from tests.ledger.world import NUM_IMAGES, PLAN, RUN, SHARD, commit, committed, paths, resume, stage, violations

SHARPNESS = pa.field("sharpness", pa.float32(), metadata={"doc": "a column of the next release"})
NEWER = pa.schema([*list(CAPTION_ROW)[:20], SHARPNESS, *list(CAPTION_ROW)[20:]])


@pytest.fixture
def next_release(monkeypatch):
    """Return a function that makes all code use the schema of the next release, and one that undoes it."""

    def upgrade():
        for module in list(sys.modules.values()):
            if getattr(module, "CAPTION_ROW", None) is CAPTION_ROW and module.__name__ != __name__:
                monkeypatch.setattr(module, "CAPTION_ROW", NEWER)

    return upgrade, monkeypatch.undo


def bad_rows_retried(store):
    """Retry the failed rows; return the caption rows before and after."""
    before = from_parquet(committed(store)).to_pylist()
    retry_rows = find_retry_rows(store, RUN, SHARD, (Status.FAILED,))
    assert retry_rows is not None
    assert replace_rows(store, RUN, SHARD, retry_rows, [stage(store, retry_rows.rows)]).won
    return before, from_parquet(committed(store)).to_pylist()


def spoil(store, path, field, values):
    """Add a column to a stored file, as a release would that has it in its schema."""
    data = store.get(path)
    table = pq.read_table(pa.BufferReader(data)).append_column(field, pa.array(values, field.type))
    kept = {key.decode(): value.decode() for key, value in pq.read_metadata(pa.BufferReader(data)).metadata.items()}
    kept = {key: value for key, value in kept.items() if key.startswith("joyfleet.")}
    store.put(path, encode_parquet(table, kept))


def test_an_output_of_an_older_release_is_resumed_verified_cleaned_and_retried(store, next_release):
    upgrade, _ = next_release
    old = [stage(store, range(3)), stage(store, [5])]
    upgrade()
    assert isinstance(read_fragment_info(store, old[0], RUN, SHARD), FragmentInfo)
    assert clean(store, RUN, PLAN).removed == []
    assert set(old) <= set(paths(store))
    resume(store)
    assert violations(store) == []
    assert "sharpness" in pq.read_schema(pa.BufferReader(committed(store))).names
    before, after = bad_rows_retried(store)
    assert [row["sharpness"] for row in after] == [None] * len(before)
    assert violations(store) == []


def test_a_committed_file_of_an_older_release_is_verified_reported_and_retried(store, next_release):
    upgrade, _ = next_release
    commit(store, [stage(store, range(NUM_IMAGES))])
    upgrade()
    assert violations(store) == []
    assert measure_quality(store).groups["rows"].to_pylist() == [2 * NUM_IMAGES]
    [file] = committed_files(store)
    assert [batch.column_names for batch in file.batches([*COLUMNS, "sharpness"])] == [[*COLUMNS, "sharpness"]]
    before, after = bad_rows_retried(store)
    assert [row for row in before if row["status"] == "ok"] == [
        row for row, old in zip(after, before, strict=True) if old["status"] == "ok"
    ]
    assert violations(store) == []


def test_an_output_of_a_newer_release_is_resumed_verified_and_cleaned(store, next_release):
    upgrade, downgrade = next_release
    upgrade()
    newer = [stage(store, range(3)), stage(store, [5])]
    assert pq.read_schema(pa.BufferReader(store.get(newer[0]))).names == NEWER.names
    downgrade()
    assert clean(store, RUN, PLAN).removed == []
    assert set(newer) <= set(paths(store))
    resume(store)
    assert violations(store) == []
    assert "sharpness" in pq.read_schema(pa.BufferReader(committed(store))).names


def test_a_retry_keeps_the_columns_and_keys_of_a_newer_release(store):
    path = committed_path(SHARD.path)
    commit(store, [stage(store, range(NUM_IMAGES))])
    spoil(store, path, SHARPNESS, np.arange(2 * NUM_IMAGES, dtype=np.float32))
    data = store.get(path)
    metadata = {k.decode(): v.decode() for k, v in pq.read_metadata(pa.BufferReader(data)).metadata.items()}
    own = {key: value for key, value in metadata.items() if key.startswith("joyfleet.")}
    store.put(path, encode_parquet(pq.read_table(pa.BufferReader(data)), {**own, "joyfleet.licence": "CC0"}))
    before, after = bad_rows_retried(store)
    replaced = [new["attempts"] > old["attempts"] for new, old in zip(after, before, strict=True)]
    assert any(replaced)
    assert not all(replaced)
    for new, old, is_replaced in zip(after, before, replaced, strict=True):
        # Nobody here can say how sharp the image of a replaced row is.
        assert new["sharpness"] == (None if is_replaced else old["sharpness"])
    stored = pq.read_schema(pa.BufferReader(store.get(path)))
    assert pq.read_metadata(pa.BufferReader(store.get(path))).metadata[b"joyfleet.licence"] == b"CC0"
    assert stored.field("sharpness").metadata[b"doc"] == SHARPNESS.metadata[b"doc"]
    assert violations(store) == []


def test_a_column_that_may_not_be_null_is_refused_as_a_change_of_meaning(store):
    fragment = stage(store, range(3))
    spoil(store, fragment, pa.field("unit", pa.int32(), nullable=False), [1] * 6)
    assert "unknown ['unit: int32 not null'], missing []" in read_fragment_info(store, fragment, RUN, SHARD).reason


@pytest.mark.parametrize(
    ("stored", "fault"),
    [
        (pa.table({"a": pa.array([1], pa.int64())}), "unknown ['a: int64'], missing ['a: int32']"),
        (pa.table({"b": pa.array(["x"])}), "missing ['a: int32 not null']"),
        (pa.table([[1], [2]], names=["a", "a"]), "columns ['a'] occur twice"),
    ],
)
def test_a_stored_table_that_does_not_fit_is_refused(stored, fault):
    schema = pa.schema([pa.field("a", pa.int32(), nullable="a" in stored.column_names)])
    with pytest.raises(ValueError, match=re.escape(fault)):
        conform(stored, schema)


def test_a_plan_of_a_newer_release_is_read(store):
    claim_plan(store, [SHARD])
    spoil(store, "plan.parquet", pa.field("num_images", pa.int64()), [10])
    assert read_plan(store).shards == {SHARD.path: SHARD}


def test_a_plan_of_an_older_release_is_read(store, monkeypatch):
    claim_plan(store, [SHARD])
    newer = pa.schema([pa.field("num_images", pa.int64()), *PLAN_SCHEMA])
    monkeypatch.setattr("pipeline.ledger.plan_generations.PLAN", newer)
    assert read_plan(store).shards == {SHARD.path: SHARD}


def test_a_quarantine_record_of_a_newer_release_is_read(store):
    record = Quarantined(shard=SHARD.path, message="m", attempts=1, time="t", versions={})
    put_quarantine(store, record)
    fields = json.loads(store.get(quarantine_path(SHARD.path)))
    fields |= {"node": "gpu-7"}
    del fields["traceback"]
    store.put(quarantine_path(SHARD.path), json.dumps(fields).encode())
    assert list_quarantine(store) == [record]


def test_run_events_of_a_newer_release_are_read(store):
    progress = RunProgress(
        seconds=1, shards=1, shards_done=0, shards_quarantined=0, shards_lost=0, images=3, captions=6,
        statuses={"ok": 5, "skipped": 1}, bytes_done=1, bytes_total=2, captions_per_s=6, eta_s=None, replicas=1,
    )  # fmt: skip
    log = RunLog(store, RunInfo(sources=["in"], source_bytes=1, shards=1, recipe="r", versions={}), every_s=0)
    log.start()
    log.heartbeat(progress)
    log._writer.join()
    lines = [json.loads(line) for line in store.get(log.path).splitlines()]
    lines[-1]["run"]["facets"]["joyfleet"]["moment"]["watts"] = 300
    store.put(log.path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    assert read_runs(store, newest=1)[0].progress == progress


def test_every_status_has_a_rank():
    assert set(RANK) == set(Status)
