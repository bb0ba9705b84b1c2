import json
import logging
import pickle
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import PipelineError
from pipeline.ledger.fragments import FragmentInfo, Invalid, read_fragment_info, write_fragment
from schemas.caption_row import CAPTION_ROW
from tests.ledger.world import NUM_IMAGES, RUN, SHARD, paths, rows_table, stage


def read(store, path, run=RUN, shard=SHARD):
    return read_fragment_info(store, path, run, shard)


def test_a_fragment_lists_its_rows_and_is_sorted(store):
    table = rows_table([7, 2, 3, 9])
    path = write_fragment(store, RUN, SHARD, NUM_IMAGES, table)
    assert path.startswith(f"staging/{SHARD.path}/0000000002-")
    facts = read(store, path)
    assert isinstance(facts, FragmentInfo)
    assert facts.path == path
    assert facts.num_images == NUM_IMAGES
    assert facts.rows.tolist() == [2, 3, 7, 9]
    metadata = pq.read_metadata(pa.BufferReader(store.get(path))).metadata
    assert json.loads(metadata[b"joyfleet.rows"]) == [[2, 2], [7, 1], [9, 1]]
    stored = pq.read_table(pa.BufferReader(store.get(path)))
    assert list(zip(stored["row"].to_pylist(), stored["slot"].to_pylist(), strict=True)) == [
        (row, slot) for row in (2, 3, 7, 9) for slot in ("long", "booru")
    ]


def test_the_same_rows_twice_are_two_fragments(store):
    assert stage(store, [1]) != stage(store, [1])
    assert len(paths(store)) == 2


def test_columns_are_converted_to_the_schema(store):
    table = rows_table([0])
    loose = table.set_column(1, "row", table["row"].cast(pa.int32())).select(list(reversed(CAPTION_ROW.names)))
    path = write_fragment(store, RUN, SHARD, NUM_IMAGES, loose)
    assert pq.read_schema(pa.BufferReader(store.get(path))).equals(CAPTION_ROW)


def with_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda table: table.drop_columns(["seed"]), r"missing \['seed'\], unknown \[\]"),
        (lambda table: table.append_column("extra", table["seed"]), r"missing \[\], unknown \['extra'\]"),
        (lambda table: with_column(table, "width", ["wide", "x"]), "column width does not convert to int32"),
        (lambda table: with_column(table, "attempts", [None, 1]), "column attempts has 1 nulls; allowed: none"),
        (lambda table: with_column(table, "shard", ["x.tar", SHARD.path]), "rows with shard 'x.tar'; allowed: 'photos"),
        (lambda table: with_column(table, "recipe", ["other"] * 2), "rows with recipe 'other'; allowed: 'recipe-1'"),
        (
            lambda table: with_column(table, "slot", ["long", "none"]),
            "slot that the shard does not have; allowed: rows 0..9",
        ),
        (lambda table: with_column(table, "row", [10, 10]), "image or slot that the shard does not have"),
        (lambda table: with_column(table, "row", [-1, -1]), "image or slot that the shard does not have"),
        (lambda table: table.slice(1), r"not each of .* once for 1 images; missing \(0, long\)"),
        (lambda table: with_column(table, "slot", ["long", "long"]), r"missing \(0, booru\)"),
        (lambda table: pa.concat_tables([table, table]), "4 caption rows are not each of .* missing none"),
    ],
)
def test_rows_that_are_not_whole_images_of_this_shard_are_refused(store, spoil, message):
    with pytest.raises(PipelineError, match=message):
        write_fragment(store, RUN, SHARD, NUM_IMAGES, spoil(rows_table([0])))
    assert paths(store) == []


def test_an_empty_fragment_is_refused(store):
    with pytest.raises(ValueError, match="a fragment without rows"):
        write_fragment(store, RUN, SHARD, NUM_IMAGES, rows_table([]))


@pytest.mark.parametrize(
    ("run", "shard", "reason"),
    [
        (replace(RUN, recipe="recipe-2"), SHARD, "recipe is 'recipe-1', expected 'recipe-2'"),
        (replace(RUN, slots=("booru", "long")), SHARD, r"slots is \['long', 'booru'\], expected \['booru', 'long'\]"),
        (RUN, replace(SHARD, size=1), "size is 1234, expected 1"),
        (RUN, replace(SHARD, etag="x"), "etag is 'etag-1', expected 'x'"),
        (RUN, replace(SHARD, path="x"), "shard is 'photos/00001.tar', expected 'x'"),
    ],
)
def test_a_fragment_of_another_run_or_shard_is_invalid(store, caplog, run, shard, reason):
    path = stage(store, [0, 1])
    with caplog.at_level(logging.WARNING):
        result = read(store, path, run, shard)
    assert isinstance(result, Invalid)
    assert len(caplog.records) == 1
    assert path in caplog.text
    assert re.search(reason, result.reason)


def test_versions_and_url_are_no_part_of_the_check(store):
    path = stage(store, [0, 1])
    elsewhere = read(store, path, replace(RUN, versions={}), replace(SHARD, url="elsewhere"))
    assert isinstance(elsewhere, FragmentInfo)


def test_a_missing_fragment_is_invalid(store):
    assert "is gone" in read(store, "staging/a/0-b.parquet").reason


def test_a_torn_fragment_is_invalid(store):
    path = stage(store, range(4))
    whole = store.get(path)
    for length in range(len(whole)):
        store.put(path, whole[:length])
        assert isinstance(read(store, path), Invalid)
    store.put(path, whole)
    assert isinstance(read(store, path), FragmentInfo)


def test_a_flipped_byte_is_never_another_caption(store):
    path = stage(store, range(4))
    whole = store.get(path)
    before = pq.read_table(pa.BufferReader(whole))
    footer_bytes = int.from_bytes(whole[-8:-4], "little") + 8
    noticed = 0
    for at in range(4, len(whole) - footer_bytes, 7):
        store.put(path, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        result = read(store, path)
        noticed += isinstance(result, Invalid)
        if isinstance(result, FragmentInfo):
            assert pq.read_table(pa.BufferReader(store.get(path))).equals(before)
    assert noticed > 50


def spoiled_footer(store, path, changes):
    table = pq.read_table(pa.BufferReader(store.get(path)))
    metadata = pq.read_metadata(pa.BufferReader(store.get(path))).metadata | changes
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, CAPTION_ROW) as writer:
        kept = metadata.items()
        writer.add_key_value_metadata({k: v for k, v in kept if v is not None and k.startswith(b"joyfleet.")})
        writer.write_table(table.cast(CAPTION_ROW))
    store.put(path, sink.getvalue().to_pybytes())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({b"joyfleet.schema_version": b"99"}, "schema version '99'; this JoyFleet reads only '2'"),
        ({b"joyfleet.schema_version": None}, "no joyfleet.schema_version in the footer"),
        ({b"joyfleet.etag": None}, "no joyfleet.etag in the footer"),
        ({b"joyfleet.size": b"many"}, "joyfleet.size in the footer is malformed: b'many'"),
        ({b"joyfleet.slots": b"7"}, "joyfleet.slots in the footer is malformed: b'7'"),
        ({b"joyfleet.versions": b"[]"}, "joyfleet.versions in the footer"),
        ({b"joyfleet.rows": b"[[0, 3]]"}, "its footer says ((0, 3),)"),
        ({b"joyfleet.rows": None}, "its footer says None"),
        ({b"joyfleet.rows": b"[1]"}, "joyfleet.rows in the footer"),
        ({b"joyfleet.num_images": b"1"}, "image or slot that the shard does not have"),
    ],
)
def test_a_footer_that_does_not_match_its_rows_is_invalid(store, changes, reason):
    path = stage(store, [0, 1])
    spoiled_footer(store, path, changes)
    result = read(store, path)
    assert isinstance(result, Invalid)
    assert reason in result.reason


def test_fragment_infos_pickle(store):
    facts = read(store, stage(store, [3, 4]))
    again = pickle.loads(pickle.dumps(facts))
    assert again.path == facts.path
    assert np.array_equal(again.rows, facts.rows)
    assert pickle.loads(pickle.dumps(RUN)) == RUN
