import logging
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import OutputMismatch, PipelineError, StoreError
from pipeline.ledger.caption_table import captions_sha256, from_parquet
from pipeline.ledger.layout import committed_path, fragment_path
from pipeline.storage import WriteResult, publish
from schemas.caption_row import CAPTION_ROW
from tests.ledger.faults import Crash, Interposed, crash, dying, losing_answers
from tests.ledger.world import (
    RUN,
    SHARD,
    commit,
    committed,
    paths,
    rows_table,
    stage,
    violations,
)


def rows_of(data):
    return pq.read_table(pa.BufferReader(data))


def check(store):
    assert violations(store) == []


def test_fragments_become_one_sorted_file_and_staging_is_removed(store):
    fragments = [stage(store, [9, 0, 4]), stage(store, [1, 2, 3]), stage(store, [5, 6, 7, 8])]
    result = commit(store, fragments)
    assert result.won
    assert result.outcome is WriteResult.CREATED
    assert (result.shard, result.num_images, result.num_rows) == (SHARD.path, 10, 20)
    assert result.statuses == {"ok": 16, "rejected": 0, "failed": 4, "skipped": 0}
    assert result.num_bytes == len(committed(store))
    assert paths(store) == [f"captions/{SHARD.path}.parquet"]
    table = rows_of(committed(store))
    assert table.schema.equals(CAPTION_ROW, check_metadata=False)
    assert table.schema.field("width").metadata[b"doc"] == b"px, after EXIF rotation"
    assert table["row"].to_pylist() == [row for row in range(10) for _ in RUN.slots]
    assert table["slot"].to_pylist() == ["long", "booru"] * 10
    check(store)


def test_the_footer_describes_the_file(store):
    commit(store, [stage(store, range(10))])
    metadata = pq.read_metadata(pa.BufferReader(committed(store))).metadata
    stored = {key.decode(): value.decode() for key, value in metadata.items() if key.startswith(b"joyfleet.")}
    assert len(stored.pop("joyfleet.attempt")) == 32
    assert stored.pop("joyfleet.captions_sha256") == captions_sha256(from_parquet(committed(store)), RUN.slots)
    assert stored == {
        "joyfleet.schema_version": "2",
        "joyfleet.recipe": "recipe-1",
        "joyfleet.shard": SHARD.path,
        "joyfleet.size": "1234",
        "joyfleet.etag": "etag-1",
        "joyfleet.num_images": "10",
        "joyfleet.slots": '["long", "booru"]',
        "joyfleet.versions": '{"joyfleet": "0.1.0", "vllm": "0.29.0"}',
        "joyfleet.statuses": '{"failed": 4, "ok": 16, "rejected": 0, "skipped": 0}',
    }


def test_an_empty_shard_is_an_empty_file(store):
    result = commit(store, [], num_images=0)
    assert result.won
    assert result.num_rows == 0
    assert rows_of(committed(store)).num_rows == 0
    assert violations(store, [], 0) == []


def test_all_slots_of_a_row_come_from_the_first_fragment_by_name(store):
    item, two = stage(store, range(5), text="one"), stage(store, range(3, 10), text="two")
    commit(store, [two, item, two])
    table = rows_of(committed(store))
    texts = [
        caption or message
        for caption, message in zip(*(table[c].to_pylist() for c in ("caption", "message")), strict=True)
    ]
    assert texts == ["one"] * 10 + ["two"] * 10
    check(store)


@pytest.mark.parametrize(
    ("staged", "message"),
    [
        ([[0, 1, 2]], r"14 caption rows missing \(\(3, long\), \(3, booru\), \(4, long\), \.\.\.\), 0 double"),
        ([], r"0 fragments .* 20 caption rows missing \(\(0, long\)"),
        ([range(9)], r"2 caption rows missing \(\(9, long\), \(9, booru\)\)"),
    ],
)
def test_an_incomplete_shard_is_not_committed_and_keeps_its_fragments(store, staged, message):
    fragments = [stage(store, rows) for rows in staged]
    with pytest.raises(PipelineError, match=message):
        commit(store, fragments)
    assert paths(store) == sorted(fragments)


def test_a_fragment_of_another_number_of_images_is_refused(store):
    fragments = [stage(store, range(5)), stage(store, range(5, 10), num_images=11)]
    with pytest.raises(PipelineError, match=r"fragment staging/.* was written for a shard of 11 images, expected 10"):
        commit(store, fragments)


def test_fragments_of_another_run_or_torn_or_gone_are_refused(store):
    fragments = [stage(store, range(5)), stage(store, range(5, 10), run=replace(RUN, recipe="recipe-2"))]
    with pytest.raises(PipelineError, match="is invalid: recipe is 'recipe-2', expected 'recipe-1'; run again"):
        commit(store, fragments)
    store.put(fragments[1], store.get(fragments[0])[:-1])
    with pytest.raises(PipelineError, match="is invalid: not a whole Parquet file"):
        commit(store, fragments)
    store.delete([fragments[1]])
    with pytest.raises(PipelineError, match="is invalid: is gone"):
        commit(store, fragments)
    assert paths(store, "captions") == []


@pytest.mark.parametrize("err", [TimeoutError(), ConnectionResetError(), FileExistsError()])
def test_a_lost_answer_is_our_own_commit(store, err):
    result = commit(losing_answers(store, err), [stage(store, range(10))])
    assert result.outcome is WriteResult.OURS
    assert result.won
    assert paths(store) == [committed_path(SHARD.path)]
    check(store)


def test_what_stays_unclear_keeps_the_fragments_and_the_next_run_finds_the_commit(store):
    fragment = stage(store, range(10))
    left = ["the first creation arrives"]

    def arrive_once(_, name):
        if name == "create" and not left:
            raise TimeoutError

    def lose(_, name):
        if name == "create":
            left.clear()
            raise TimeoutError

    def hide(_, name):
        if name == "get" and not left:
            raise StoreError("no answer either")

    with pytest.raises(StoreError, match="no clear answer to 6"):
        commit(Interposed(store, before=arrive_once, after=lose), [fragment])
    assert paths(store) == [committed_path(SHARD.path), fragment]
    left.append("again")
    store.delete([committed_path(SHARD.path)])
    with pytest.raises(StoreError, match="no answer either"):
        commit(Interposed(store, before=hide, after=lose), [fragment])
    assert paths(store) == [committed_path(SHARD.path), fragment]
    assert commit(store, [fragment]).outcome is WriteResult.EXISTS
    check(store)


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_repeated_after_its_process_died_is_recognised_as_ours(store, arrives):
    fragment = stage(store, range(10))
    num_create = 3  # exists, get, create
    with pytest.raises(Crash):
        commit(dying(store, num_create, "after" if arrives else "before", crash), [fragment], attempt="a" * 32)
    again = commit(store, [fragment], attempt="a" * 32)
    assert again.outcome is (WriteResult.OURS if arrives else WriteResult.CREATED)
    assert again.won
    assert (again.num_rows, again.num_bytes) == (20, len(committed(store)))
    assert paths(store) == [committed_path(SHARD.path)]
    assert commit(store, [fragment], attempt="b" * 32).outcome is WriteResult.EXISTS


def test_a_zombie_changes_nothing(store):
    early = [stage(store, range(10), text="zombie")]
    commit(store, [stage(store, range(10), text="winner")])
    before = committed(store)
    late = stage(store, range(10), text="zombie")
    for fragments in (early, [late], []):
        result = commit(store, fragments)
        assert not result.won
        assert result.outcome is WriteResult.EXISTS
        assert result.statuses == {"ok": 16, "rejected": 0, "failed": 4, "skipped": 0}
        assert result.num_rows == 20
        assert committed(store) == before
    assert paths(store) == [committed_path(SHARD.path)]


def test_a_loser_that_checks_first_reads_no_fragment_and_uploads_nothing(store):
    commit(store, [stage(store, range(10))])
    calls = []
    commit(Interposed(store, before=lambda _, name: calls.append(name)), ["staging/x"])
    assert calls == ["exists", "get", "list", "delete"]


def test_fragments_removed_by_the_winner_during_the_merge_mean_lost(store):
    fragments = [stage(store, range(5)), stage(store, range(5, 10))]

    def win_meanwhile(_, name):
        if name == "get" and not store.exists(committed_path(SHARD.path)):
            commit(store, fragments)

    assert not commit(Interposed(store, before=win_meanwhile), fragments).won
    check(store)


@pytest.mark.parametrize("kind", ["store", "local", "s3"])
def test_of_two_committers_one_wins_and_both_know(request, kind):
    store = request.getfixturevalue(kind)
    barrier = threading.Barrier(2)

    def meet(_, name):
        if name == "create":
            barrier.wait(20)

    def race(text):
        fragments = [stage(store, range(10), text=text)]
        barrier.wait(20)
        return commit(Interposed(store, before=meet), fragments)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(race, ["short", "a much longer text"]))
    assert sorted(result.won for result in results) == [False, True]
    assert {result.num_bytes for result in results} == {len(committed(store))}
    assert paths(store) == [committed_path(SHARD.path)]
    check(store)


@pytest.mark.parametrize(
    ("changes", "actual"),
    [
        ({"run": replace(RUN, recipe="recipe-2")}, "recipe is 'recipe-1', expected 'recipe-2'"),
        ({"shard": replace(SHARD, etag="new")}, "etag is 'etag-1', expected 'new'"),
        ({"num_images": 11}, "written for 10 images, expected 11"),
    ],
)
def test_a_committed_file_of_another_shard_is_refused_and_nothing_is_removed(store, changes, actual):
    commit(store, [stage(store, range(10))])
    late = stage(store, range(10))
    with pytest.raises(OutputMismatch, match=f"{actual}; nothing was removed. Give the run its own output"):
        commit(store, [late], **changes)
    assert paths(store) == [committed_path(SHARD.path), late]


def test_a_committed_file_that_is_none_is_refused(store):
    store.put(committed_path(SHARD.path), b"a stranger's")
    with pytest.raises(OutputMismatch, match="not a whole Parquet file of 12 bytes"):
        commit(store, [stage(store, range(10))])
    store.put(committed_path(SHARD.path), store.get(stage(store, range(10))))
    with pytest.raises(OutputMismatch, match="a fragment, not a committed file"):
        commit(store, [stage(store, range(10))])


def test_staging_of_a_shard_below_this_one_stays(store):
    inner = replace(SHARD, path=f"{SHARD.path}/inner.tar")
    kept = stage(store, [0], shard=inner)
    commit(store, [stage(store, range(10))])
    assert kept in paths(store)
    assert fragment_path(SHARD.path, 0, "0" * 32) not in paths(store)


def test_a_shard_too_large_for_one_request_is_refused(store, monkeypatch):
    monkeypatch.setattr(publish, "MAX_BYTES", 1000)
    fragment = stage(store, range(10))
    with pytest.raises(StoreError, match=r"below 1000, .* Make the source's shards smaller"):
        commit(store, [fragment])
    assert paths(store) == [fragment]


def test_a_result_pickles_and_a_commit_logs_one_line(store, caplog):
    with caplog.at_level(logging.INFO):
        result = commit(store, [stage(store, range(10))])
    assert pickle.loads(pickle.dumps(result)) == result
    assert len(caplog.records) == 1
    assert f"shard={SHARD.path} committed rows=20" in caplog.text


def test_tables_with_other_chunks_merge_the_same(store):
    table = pa.concat_tables([rows_table([row], text="t") for row in range(10)])
    assert table.num_rows == 20
    commit(store, [stage(store, [row], text="t") for row in range(10)])
    assert rows_of(committed(store)).equals(table)
