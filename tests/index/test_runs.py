"""An index as an output: exactly once by shard, resumed after a kill at each call that writes, bound to its source."""

import os
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from jobs.commands import cli
from jobs.index import hashes_of, index_config
from pipeline.config import ImagesConfig
from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.flow.prepared_index import index_recipe
from pipeline.ledger.index_files import commit_rows, existing_rows, open_index, read_rows, refuse_other_source
from pipeline.readers import list_shards
from pipeline.storage import WriteResult, open_store
from pipeline.storage.parquet import decode_parquet, encode_parquet, read_metadata
from schemas.index import INDEX_SCHEMA, Hash
from tests.index.world import (
    BOTH,
    NUM_ROWS,
    config_of,
    identities,
    index_all,
    index_and_die,
    rows_of,
    write_source,
)
from tests.ledger.faults import Crash, crash
from tests.processes import was_killed
from tests.selection.world import write_parquet, write_tar

EVERY_IMAGE = [(shard, row) for shard in ("a.tar", "b.parquet") for row in range(NUM_ROWS)]


def verify(output, code=0):
    done = CliRunner().invoke(cli, ["verify", str(output)], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def write_job(folder, **source):
    path = folder / "job.yaml"
    lines = [f"source: {{urls: [{folder / 'in'}]{''.join(f', {key}: {value}' for key, value in source.items())}}}"]
    lines += [f"output: {folder / 'out'}", "model: standin", "captions: {slot: long, mode: descriptive}"]
    path.write_text("\n".join(lines))
    return str(path)


def test_every_image_is_one_row_and_verify_proves_it(tmp_path):
    index_all(config_of(write_source(tmp_path / "in"), tmp_path / "index", BOTH))
    assert identities(tmp_path / "index") == EVERY_IMAGE
    assert "2 of 2 shards indexed, 24 images = 24 index rows: each exactly once" in verify(tmp_path / "index")


def test_files_follow_each_other_in_one_glob_with_the_names_of_a_caption_output(tmp_path):
    index_all(config_of(write_source(tmp_path / "in"), tmp_path / "index"))
    files = sorted(path.relative_to(tmp_path / "index").as_posix() for path in tmp_path.glob("index/**/*.parquet"))
    assert files == ["index/a.tar.parquet", "index/b.parquet.parquet", "plan.parquet"]
    duckdb = pytest.importorskip("duckdb")
    [[images]] = duckdb.sql(f"SELECT count(*) FROM '{tmp_path}/index/index/**/*.parquet'").fetchall()
    assert images == 24


def test_an_index_is_resumed_and_its_files_stay(tmp_path):
    config = config_of(write_source(tmp_path / "in"), tmp_path / "index")
    index_all(config)
    removed = tmp_path / "index/index/b.parquet.parquet"
    kept = (tmp_path / "index/index/a.tar.parquet").read_bytes()
    removed.unlink()
    assert [shard.path for shard in index_all(config).todo] == ["b.parquet"]
    assert identities(tmp_path / "index") == EVERY_IMAGE
    assert (tmp_path / "index/index/a.tar.parquet").read_bytes() == kept


def check_end(folder, output):
    """The next run ends with every image once, and changes no file that the killed one has left."""
    before = {path: path.read_bytes() for path in output.glob("index/*.parquet")}
    index_all(config_of(folder, output))
    assert identities(output) == EVERY_IMAGE, output
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_ended_around_any_call_to_the_store_it_resumes_with_every_image_once(tmp_path, when):
    folder = write_source(tmp_path / "in")
    num_calls = index_and_die(str(folder), str(tmp_path / "whole"), 10**9, when)
    assert 12 < num_calls < 40
    num_crashed = 0
    for num in range(1, num_calls + 1):
        # Behind a call that raises, such as a read of a file that is not there, nothing can end it.
        with suppress(Crash):
            index_and_die(str(folder), str(tmp_path / f"out{num}"), num, when, crash)
            num_crashed -= 1
        num_crashed += 1
        check_end(folder, tmp_path / f"out{num}")
    assert num_crashed > num_calls / 2
    verify(tmp_path / f"out{num_calls // 2}")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_any_call_to_the_store_it_resumes_with_every_image_once(tmp_path, when):
    folder = write_source(tmp_path / "in")
    num_calls = index_and_die(str(folder), str(tmp_path / "whole"), 10**9, when)
    killed = [was_killed(index_and_die, str(folder), f"{tmp_path}/out{num}", num, when) for num in range(1, num_calls + 1)]  # fmt: skip  # noqa: E501
    assert sum(killed) > num_calls / 2
    for num in range(1, num_calls + 1):
        check_end(folder, tmp_path / f"out{num}")


def test_fast_decoding_is_bound_to_an_index_of_pixels_only(tmp_path):
    write_tar(tmp_path / "in")

    def fingerprint(hashes, **images):
        config = config_of(tmp_path / "in", tmp_path / "index", hashes)
        return index_recipe(config.model_copy(update={"images": ImagesConfig(**images)})).fingerprint

    for hashes, is_bound in (((Hash.SHA256,), False), (BOTH, True)):
        assert fingerprint(hashes, decode="exact") == fingerprint(hashes)
        assert (fingerprint(hashes, decode="fast") != fingerprint(hashes)) is is_bound
    assert "decode" not in index_recipe(config_of(tmp_path / "in", tmp_path / "index", BOTH)).fields["images"]


def test_of_two_writers_of_a_shard_one_wins(tmp_path):
    write_tar(tmp_path / "in")
    prepared = index_all(config_of(tmp_path / "in", tmp_path / "index"))
    [shard] = prepared.plan.shards.values()
    fingerprint, table = prepared.recipe.fingerprint, read_rows(prepared.store, prepared.recipe.fingerprint, shard)
    before = Path(tmp_path, "index/index/a.tar.parquet").read_bytes()
    other = commit_rows(prepared.store, fingerprint, shard, table, "1" * 32)
    assert (other.outcome, other.num_images, other.num_errors) == (WriteResult.EXISTS, 12, 0)
    assert Path(tmp_path, "index/index/a.tar.parquet").read_bytes() == before


def test_a_writer_that_died_after_its_commit_recognises_its_file(tmp_path):
    write_tar(tmp_path / "in")
    prepared = index_all(config_of(tmp_path / "in", tmp_path / "index"))
    [shard] = prepared.plan.shards.values()
    store, fingerprint = prepared.store, prepared.recipe.fingerprint
    table = read_rows(store, fingerprint, shard)
    store.delete(["index/a.tar.parquet"])
    assert existing_rows(store, fingerprint, shard, "1" * 32) is None
    assert commit_rows(store, fingerprint, shard, table, "1" * 32).outcome is WriteResult.CREATED
    assert existing_rows(store, fingerprint, shard, "1" * 32).outcome is WriteResult.OURS
    assert existing_rows(store, fingerprint, shard, "2" * 32).outcome is WriteResult.EXISTS


def test_another_config_needs_another_output(tmp_path):
    folder = write_source(tmp_path / "in")
    index_all(config_of(folder, tmp_path / "index"))
    with pytest.raises(OutputMismatch, match=r"hashes\.0: 'sha256' in the output, 'phash' in this run"):
        index_all(config_of(folder, tmp_path / "index", (Hash.PHASH,)))
    with pytest.raises(OutputMismatch, match=r"rows\.metadata_fields\.0: not set in the output, 'rating'"):
        index_all(config_of(folder, tmp_path / "index", metadata_fields=("rating",)))


def test_a_grown_source_is_extended_on_request_and_a_changed_shard_is_refused(tmp_path):
    write_tar(tmp_path / "in")
    config = config_of(tmp_path / "in", tmp_path / "index")
    index_all(config)
    write_parquet(tmp_path / "in", "b.parquet")
    prepared = index_all(config)
    assert any("1 shards, such as b.parquet, are not in the plan" in remark for remark in prepared.remarks)
    assert len(identities(tmp_path / "index")) == NUM_ROWS
    prepared = index_all(config, extend=True)
    assert any("are now in the plan of this index: generation 1" in remark for remark in prepared.remarks)
    assert identities(tmp_path / "index") == EVERY_IMAGE
    verify(tmp_path / "index")
    os.utime(tmp_path / "in/a.tar", ns=(1, 1))
    with pytest.raises(OutputMismatch, match=r"1 of 2 planned shards have changed: a\.tar was"):
        index_all(config)


def test_an_output_inside_the_source_is_refused_and_an_index_is_no_shard(tmp_path):
    write_source(tmp_path / "in")
    with pytest.raises(ConfigError, match="is inside the source"):
        index_all(config_of(tmp_path / "in", tmp_path / "in/index"))
    index_all(config_of(tmp_path / "in", tmp_path / "index"))
    (tmp_path / "index").rename(tmp_path / "in/index")
    assert [shard.path for shard in list_shards(config_of(tmp_path / "in", "x").source)] == ["a.tar", "b.parquet"]


def test_an_unreadable_shard_goes_to_quarantine_and_unquarantine_has_it_read_again(tmp_path):
    write_tar(tmp_path / "in")
    (tmp_path / "in/b.zip").write_bytes(b"no zip")
    config = config_of(tmp_path / "in", tmp_path / "index")
    index_all(config)
    assert index_all(config).todo == []
    assert "quarantined: b.zip: see quarantine/b.zip.json" in verify(tmp_path / "index", code=3)
    refuse_other_source(open_index(str(tmp_path / "index")), list_shards(config.source))  # it cannot be indexed
    done = CliRunner().invoke(cli, ["unquarantine", str(tmp_path / "index")], catch_exceptions=False)
    assert "run `joyfleet index` again to read them" in done.output
    assert [shard.path for shard in index_all(config).todo] == ["b.zip"]


def change(path, **columns):
    """Replace columns of row 3 in place, and keep the footer."""
    data = path.read_bytes()
    metadata, _ = read_metadata(data)
    rows = decode_parquet(data, INDEX_SCHEMA).to_pylist()
    rows[3] |= columns
    footer = {key.decode(): value.decode() for key, value in metadata.items() if key.startswith(b"joyfleet.")}
    path.write_bytes(encode_parquet(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), footer))


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"sha256": "0" * 64}, "image: a.tar: 1: row 3 sha256 '000"),
        ({"bytes": 5}, "image: a.tar: 1: row 3 bytes 5"),
        ({"key": "x"}, "key: a.tar: 1: row 3 key 'x'"),
        ({"width": 7}, "column: a.tar: 1: row 3 width 7"),
        ({"metadata": '{"a": 1}'}, "column: a.tar: 1: row 3 metadata"),
        ({"reason": "undecodable"}, "column: a.tar: 1: row 3 reason 'undecodable'"),
        ({"row": 4}, "missing_row: a.tar: 1: rows 3"),
        ({"row": 99}, "foreign_row: a.tar: 1: rows 99"),
        ({"phash": None}, "column: a.tar: 1: row 3 phash None"),
        ({"phash": 77}, "digest: a.tar: the footer's digest of the rows is"),
    ],
)
def test_verify_finds_a_row_that_the_source_does_not_give(tmp_path, columns, found):
    write_tar(tmp_path / "in")
    index_all(config_of(tmp_path / "in", tmp_path / "index", BOTH))
    change(tmp_path / "index/index/a.tar.parquet", **columns)
    assert found in verify(tmp_path / "index", code=1)


def test_verify_finds_files_that_are_missing_or_not_planned(tmp_path):
    index_all(config_of(write_source(tmp_path / "in"), tmp_path / "index"))
    (tmp_path / "index/index/b.parquet.parquet").rename(tmp_path / "index/index/c.parquet")
    printed = verify(tmp_path / "index", code=1)
    assert "not_committed: b.parquet: planned, and has no rows yet" in printed
    assert "unplanned: c: index/c.parquet is not in the plan" in printed


def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path):
    write_tar(tmp_path / "in")
    prepared = index_all(config_of(tmp_path / "in", tmp_path / "index"))
    [shard] = prepared.plan.shards.values()
    path = tmp_path / "index/index/a.tar.parquet"
    with pytest.raises(OutputMismatch, match=r"a\.tar\.parquet: fingerprint is .*, expected 'other'; index the source"):
        read_rows(prepared.store, "other", shard)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"a\.tar\.parquet: not a whole Parquet file .* run `joyfleet index` again"):
        read_rows(prepared.store, prepared.recipe.fingerprint, shard)


def test_what_is_no_index_is_refused_and_a_verb_of_captions_refuses_an_index(tmp_path):
    from pipeline.ledger.run_record import claim_run
    from pipeline.recipe import Recipe

    claim_run(open_store(str(tmp_path / "captions")), Recipe(fields={}), {"job": {}})
    with pytest.raises(ConfigError, match="is not an index of images; make one with `joyfleet index SOURCE OUTPUT`"):
        open_index(str(tmp_path / "captions"))
    write_tar(tmp_path / "in")
    index_all(config_of(tmp_path / "in", tmp_path / "index"))
    for verb in ("status", "quality", "show"):
        done = CliRunner().invoke(cli, [verb, str(tmp_path / "index")])
        assert "is an index of images, and this verb takes captions" in str(done.exception), verb
    done = CliRunner().invoke(cli, ["clean", str(tmp_path / "index")], catch_exceptions=False)
    assert done.output == "0 files removed\n"


def test_a_job_file_gives_source_images_and_the_fields_that_conditions_test(tmp_path):
    write_parquet(tmp_path / "in")
    where = "{fields: {score: {min: 3}, absent: {present: false}}, width: {min: 25}}"
    job = write_job(tmp_path, where=where, limit=3, metadata_fields="[rating]")
    config = index_config(job, str(tmp_path / "index"), (), ["caption"], ["images.max_pixels=5000"])
    assert config.source.metadata_fields == ("rating", "score", "absent", "caption")
    assert config.source.selection() == {}
    assert config.images.max_pixels == 5000
    index_all(config)
    assert len(rows_of(tmp_path / "index")) == NUM_ROWS
    assert '"rating": "odd", "score": 2' in rows_of(tmp_path / "index")[2]["metadata"]
    verify(tmp_path / "index")  # reads a column that the shard does not have as before


def test_a_url_takes_the_keys_of_a_source_and_a_selection_is_refused(tmp_path):
    config = index_config(str(tmp_path), "out", BOTH, ["*"], ["source.split=train", "cluster.num_cpus=1"])
    assert (config.source.metadata_fields, config.source.split, config.cluster.num_cpus) == (("*",), "train", 1)
    with pytest.raises(ConfigError, match="found limit; an index has a row for every image of the source"):
        index_config(str(tmp_path), "out", BOTH, [], ["source.limit=3"])
    with pytest.raises(ConfigError, match="sampling"):
        index_config(str(tmp_path), "out", BOTH, [], ["sampling.seed=3"])


def test_hashes_are_named_or_none():
    assert hashes_of("sha256, phash") == BOTH
    assert hashes_of("none") == ()
    with pytest.raises(ConfigError, match="--hash md5: allowed: sha256, phash, both with a comma, or none"):
        hashes_of("md5")
