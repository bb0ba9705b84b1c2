import hashlib
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ledger.caption_table import captions_sha256
from pipeline.ledger.layout import committed_path
from pipeline.ledger.quarantine import Quarantined, put_quarantine
from pipeline.ledger.shard_plan import Plan
from pipeline.ledger.verification import ShardVerdict, SourceImage, Violation, ViolationKind, verify_shard, verify_tree
from schemas.caption_row import CAPTION_ROW
from tests.ledger.world import IMAGES, NUM_IMAGES, OTHER, RUN, SHARD, caption_row, commit, committed, stage, violations


def rewrite(store, change=lambda table: table, footer=None):
    """Break the committed file as no JoyFleet would."""
    data = committed(store)
    table = change(pq.read_table(pa.BufferReader(data)))
    metadata = pq.read_metadata(pa.BufferReader(data)).metadata | (footer or {})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema) as writer:
        writer.add_key_value_metadata({k: v for k, v in metadata.items() if k.startswith(b"joyfleet.")})
        writer.write_table(table)
    store.put(committed_path(SHARD.path), sink.getvalue().to_pybytes())


def column(name, values_by_index):
    """A change of single values of one column."""

    def change(table):
        values = table[name].to_pylist()
        for index, value in values_by_index.items():
            values[index] = value
        at = table.column_names.index(name)
        return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))

    return change


@pytest.fixture
def done(store):
    commit(store, [stage(store, range(NUM_IMAGES))])
    return store


def without_digest(store):
    """Make the committed file one of an earlier version."""
    data = committed(store)
    metadata = pq.read_metadata(pa.BufferReader(data)).metadata
    table = pq.read_table(pa.BufferReader(data))
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema) as writer:
        keep = {key: value for key, value in metadata.items() if key.startswith(b"joyfleet.")}
        del keep[b"joyfleet.captions_sha256"]
        writer.add_key_value_metadata(keep)
        writer.write_table(table)
    store.put(committed_path(SHARD.path), sink.getvalue().to_pybytes())


def test_a_file_of_an_earlier_version_is_valid_and_its_missing_digest_is_reported(done):
    assert verify_shard(done, RUN, SHARD, NUM_IMAGES, IMAGES) == ShardVerdict((), True)
    without_digest(done)
    assert verify_shard(done, RUN, SHARD, NUM_IMAGES, IMAGES) == ShardVerdict((), False)


def test_the_digest_follows_its_definition():
    """Taken by hand, as a reader of another language would; neither order nor encoding of the rows counts."""
    rows = [caption_row(0, slot, "é, 1") | {"caption": text} for slot, text in (("long", "é, 1"), ("booru", "b"))]
    table = pa.Table.from_pylist(rows, schema=CAPTION_ROW)
    parts = []
    for slot, text in ((b"4:long,", "5:é, 1,".encode()), (b"5:booru,", b"1:b,")):
        parts += [
            b"1:0,",
            slot,
            b"4:key0,",
            b"64:" + b"0" * 64 + b",",
            b"1:p,",
            b"1:s,",
            b"1:0,",
            b"2:ok,",
            b"-,",
            text,
        ]
        parts += [b"-,"]
    expected = hashlib.sha256(b"".join(parts)).hexdigest()
    assert captions_sha256(table, ("long", "booru")) == expected
    assert captions_sha256(table.take([1, 0]), ("long", "booru")) == expected
    assert captions_sha256(table, ("booru", "long")) != expected
    encoded = table.set_column(3, CAPTION_ROW.field("slot"), pa.chunked_array([[row["slot"]] for row in rows]))
    assert captions_sha256(encoded, ("long", "booru")) == expected


def test_swapped_captions_are_reported(store):
    commit(store, [stage(store, range(5), text="red"), stage(store, range(5, NUM_IMAGES), text="blue")])
    assert violations(store) == []
    rewrite(store, column("caption", {0: "blue", 10: "red"}))
    assert [violation.kind for violation in violations(store)] == [ViolationKind.DIGEST]


def test_captions_of_another_shard_under_the_name_of_a_shard_are_reported(done):
    """Keys repeat from shard to shard in many data sets, so that hashes alone tell it."""
    others = [SourceImage(image.key, f"{number + 100:064x}") for number, image in enumerate(IMAGES)]
    (result,) = violations(done, others)
    assert result.kind is ViolationKind.IMAGE
    assert result.detail.startswith("20: (0, long) image_sha256 '000")


def test_an_image_that_could_not_be_read_then_and_can_be_now_is_no_violation(done):
    rewrite(done, column("image_sha256", {8: None, 9: None}))
    assert [violation.kind for violation in violations(done)] == [ViolationKind.DIGEST]


def test_a_text_that_is_no_utf8_is_a_damaged_file(done):
    rewrite(done, lambda table: table.set_column(0, "shard", pa.array([b"\xff"] * 20, pa.binary()).view(pa.string())))
    (result,) = violations(done)
    assert result.kind is ViolationKind.UNREADABLE


def test_a_whole_shard_has_no_violation(done):
    assert violations(done) == []
    assert violations(done, images=None) == []
    rewrite(done)
    assert violations(done) == []


@pytest.mark.parametrize(
    ("change", "kind", "detail"),
    [
        (lambda table: table.slice(1), "missing_row", "1: (0, long)"),
        (lambda table: pa.concat_tables([table.slice(0, 2), table]), "double_row", "2: (0, long), (0, booru)"),
        (column("row", {0: 10}), "foreign_row", "1: [(10, 'long')]"),
        (column("row", {0: -1}), "foreign_row", "1: [(-1, 'long')]"),
        (column("slot", {1: "tags"}), "foreign_row", "1: [(0, 'tags')]"),
        (lambda table: table.take([1, 0, *range(2, 20)]), "order", "rows are not sorted by row, then by slot"),
        (column("shard", {3: "x.tar"}), "foreign_row", "1: (1, booru) shard 'x.tar'"),
        (column("recipe", {3: "other"}), "recipe", "1: (1, booru) recipe 'other'"),
        (column("key", {2: "x", 3: "y"}), "key", "2: (1, long) key 'x', (1, booru) key 'y'"),
        (column("status", {0: "done"}), "status", "1: (0, long) status 'done'"),
        (column("reason", {0: "undecodable"}), "status", "1: (0, long) status 'ok'"),
        (column("reason", {8: None}), "status", "1: (4, long) status 'failed'"),
        (column("reason", {8: "bad luck"}), "status", "1: (4, long) status 'failed'"),
        (column("caption", {0: None}), "caption", "1: (0, long) status 'ok'"),
        (column("caption", {0: ""}), "caption", "1: (0, long) status 'ok'"),
        (column("caption", {0: " \n"}), "caption", "1: (0, long) status 'ok'"),
        (column("image_sha256", {0: "0" * 64, 2: "f" * 64}), "image", "1: (1, long) image_sha256 'ffff"),
        (column("image_sha256", {0: None}), "image", "1: (0, long) image_sha256 None"),
        (column("caption", {0: "another"}), "digest", "that of the rows is"),
        (column("prompt", {0: "another"}), "digest", "that of the rows is"),
        (column("seed", {0: None}), "digest", "that of the rows is"),
        (column("rejected_text", {8: "refused"}), "digest", "that of the rows is"),
        (column("caption", {8: "an error text"}), "caption", "1: (4, long) status 'failed'"),
        (
            lambda table: table.drop_columns(["attempts"]),
            "unreadable",
            "unknown [], missing ['attempts: int32 not null']",
        ),
        (
            lambda table: table.rename_columns({"attempts": "atempts"}),
            "unreadable",
            "unknown ['atempts: int32 not null'], missing ['attempts: int32 not null']",
        ),
    ],
)
def test_every_violation_in_the_rows_is_reported(done, change, kind, detail):
    rewrite(done, change)
    result = [violation for violation in violations(done) if violation.kind == kind]
    assert len(result) == 1
    assert result[0].shard == SHARD.path
    assert detail in result[0].detail


@pytest.mark.parametrize(
    ("footer", "kind", "detail"),
    [
        ({b"joyfleet.recipe": b"other"}, "footer", "recipe is 'other', expected 'recipe-1'"),
        ({b"joyfleet.etag": b"other"}, "footer", "etag is 'other', expected 'etag-1'"),
        ({b"joyfleet.size": b"1"}, "footer", "size is 1, expected 1234"),
        ({b"joyfleet.shard": b"x"}, "footer", "shard is 'x', expected 'photos/00001.tar'"),
        ({b"joyfleet.slots": b'["long"]'}, "footer", "slots is ['long'], expected ['long', 'booru']"),
        ({b"joyfleet.num_images": b"11"}, "footer", "written for 11 images, the source has 10"),
        (
            {b"joyfleet.statuses": json.dumps({"ok": 20}).encode()},
            "footer",
            "the footer counts {'ok': 20}, the rows are",
        ),
        ({b"joyfleet.schema_version": b"99"}, "unreadable", "schema version '99'"),
    ],
)
def test_every_violation_in_the_footer_is_reported(done, footer, kind, detail):
    rewrite(done, footer=footer)
    (result,) = violations(done)
    assert result.kind == kind
    assert detail in result.detail


def test_a_source_that_has_more_or_fewer_images_is_seen(done):
    assert {violation.kind for violation in violations(done, [*IMAGES, SourceImage("new", None)], 11)} == {
        "footer",
        "missing_row",
    }
    assert {violation.kind for violation in violations(done, IMAGES[:9], 9)} == {"footer", "foreign_row"}


def test_an_absent_or_torn_file_is_reported(done):
    whole = committed(done)
    for length in range(0, len(whole), 7):
        done.put(committed_path(SHARD.path), whole[:length])
        (result,) = violations(done)
        assert result.kind is ViolationKind.UNREADABLE
    done.delete([committed_path(SHARD.path)])
    assert violations(done) == [Violation(SHARD.path, ViolationKind.NOT_COMMITTED, "no committed file")]


def test_a_tree_is_compared_with_its_plan(done):
    third, fourth = replace(OTHER, path="third.tar"), replace(OTHER, path="fourth.tar")
    plan = Plan({shard.path: shard for shard in (SHARD, OTHER, third, fourth)})
    done.put("captions/alien.tar.parquet", b"")
    done.put("captions/odd.txt", b"")
    stage(done, [0], shard=third)
    stage(done, [0])
    for shard in (OTHER, SHARD):
        put_quarantine(done, Quarantined(shard=shard.path, message="m", attempts=1, time="t", versions={}))
    verdict = verify_tree(done, plan)
    assert {(violation.shard, str(violation.kind)) for violation in verdict.violations} == {
        ("alien.tar", "unplanned"),
        ("captions/odd.txt", "unplanned"),
        (OTHER.path, "quarantined"),
        ("third.tar", "not_committed"),
        ("fourth.tar", "not_committed"),
    }
    assert "planned, not committed; 1 fragments staged" in [violation.detail for violation in verdict.violations]
    assert verdict.remarks == (
        f"quarantine record of committed shard {SHARD.path}",
        "1 files in staging that no run needs; run `joyfleet clean`",
    )
    assert verify_tree(done, Plan({SHARD.path: SHARD})).violations[0].kind is ViolationKind.UNPLANNED
