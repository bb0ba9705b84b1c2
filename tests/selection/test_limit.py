"""`source.limit`: exactly so many selected rows, the first in order, from no more shards than hold them."""

from dataclasses import replace

import pytest

from pipeline.errors import StoreError
from pipeline.ledger.limit_record import claim_limit, read_limit
from pipeline.readers import list_shards
from pipeline.stages import limit_rows
from pipeline.stages.limit_rows import find_limit
from tests.memory_store import MemoryStore
from tests.readers.shards import tar_of
from tests.selection.world import NUM_ROWS, caption, job_of, spec_of, write_parquet, write_tar


@pytest.fixture
def folder(tmp_path):
    """Four shards of 12 rows: two tars, two Parquet files."""
    for number, write in enumerate((write_tar, write_parquet, write_tar, write_parquet)):
        write(tmp_path / "in", f"{number}.{write.__name__.removeprefix('write_')}")
    return tmp_path / "in"


def selected_rows(job):
    """The rows that are asked of the shards that the limit plans, in order, and these shards."""
    spec, shards = spec_of(job), list_shards(job.source)
    end_rows = find_limit(spec, shards, job.source.limit)
    asked = []
    for shard in shards:
        if shard.path in end_rows:
            rows, engine = caption(job, shard, replace(spec, selection=spec.selection.up_to(end_rows[shard.path])))
            assert {row["status"] for row in rows} <= {"ok", "skipped"}
            assert len(rows) == NUM_ROWS * 2
            asked += sorted({(shard.path, row) for _, row, _ in engine.asked})
    return asked, end_rows


@pytest.mark.parametrize("limit", [1, 12, 13, 30, 48])
@pytest.mark.parametrize("source", [{}, {"sample": 0.5}, {"where": {"fields": {"rating": {"equals": "safe"}}}}])
def test_exactly_so_many_rows_are_asked_and_they_are_the_first(folder, limit, source):
    without = job_of(folder, **source)
    all_rows = []
    for shard in list_shards(without.source):
        _, engine = caption(without, shard)
        all_rows += sorted({(shard.path, row) for _, row, _ in engine.asked})

    asked, end_rows = selected_rows(job_of(folder, limit=limit, **source))

    assert asked == all_rows[:limit]
    needed = sorted({shard for shard, _ in all_rows[:limit]})
    assert [shard for shard in end_rows if shard in needed] == needed
    assert list(end_rows) == sorted(end_rows)
    assert max(end_rows) == needed[-1] or limit > len(all_rows)


def test_no_shard_behind_the_last_row_is_opened(monkeypatch, folder):
    (folder / "3.parquet").write_bytes(b"not to be read")
    opened = []
    for name in ("open_shard", "count_images"):
        work = getattr(limit_rows, name)
        monkeypatch.setattr(
            limit_rows, name, lambda shard, *rest, work=work: opened.append(shard.path) or work(shard, *rest)
        )
    for source in ({}, {"where": {"width": {"min": 1}}}, {"sample": 1.0}):
        opened.clear()
        job = job_of(folder, limit=24, **source)
        assert find_limit(spec_of(job), list_shards(job.source), 24) == {"0.tar": None, "1.parquet": 12}
        assert set(opened) == {"0.tar", "1.parquet"}


def test_rows_that_cannot_be_captioned_count_since_they_are_selected(tmp_path):
    write_tar(tmp_path / "in", damaged=(1,))
    job = job_of(tmp_path / "in", limit=3, where={"height": {"min": 1}})
    assert find_limit(spec_of(job), list_shards(job.source), 3) == {"a.tar": 3}


def test_a_shard_that_cannot_be_read_adds_no_row_and_the_next_ones_fill_the_limit(folder):
    (folder / "0.tar").write_bytes(b"no tar")
    job = job_of(folder, limit=13)
    assert find_limit(spec_of(job), list_shards(job.source), 13) == {"0.tar": 0, "1.parquet": None, "2.tar": 1}


def test_a_source_with_fewer_rows_is_taken_whole(folder):
    job = job_of(folder, limit=1000)
    assert set(find_limit(spec_of(job), list_shards(job.source), 1000).values()) == {None}


def test_a_long_tar_is_counted_by_its_headers_and_not_by_its_bytes(monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.readers.tar.COUNT_BYTES", 2500)
    (tmp_path / "in").mkdir()
    # By its first bytes it would hold half as many images.
    files = [("000.png", b"x" * 1500), *((f"{row:03d}.png", b"x") for row in range(1, 61))]
    (tmp_path / "in" / "a.tar").write_bytes(tar_of(files))
    job = job_of(tmp_path / "in", limit=61)
    assert find_limit(spec_of(job), list_shards(job.source), 61) == {"a.tar": 61}


def test_the_first_record_of_a_limit_stays():
    store = MemoryStore("memory://limit")
    assert read_limit(store) is None
    assert claim_limit(store, lambda: {"a": None, "b": 3}) == {"a": None, "b": 3}
    assert claim_limit(store, lambda: {"a": 9}) == {"a": None, "b": 3}


def test_of_two_drivers_one_counts_for_both():
    store = MemoryStore("memory://limit-race")

    def count():
        claim_limit(store, lambda: {"a": 1})  # the other driver is faster
        return {"a": 2}

    assert claim_limit(store, count) == {"a": 1}


def test_a_damaged_record_is_refused():
    store = MemoryStore("memory://limit-damaged")
    store.put("limit.json", b'{"end_rows": 5}')
    with pytest.raises(StoreError, match=r"memory://limit-damaged/limit\.json: damaged"):
        read_limit(store)
