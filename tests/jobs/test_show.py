"""What `joyfleet show` prints: whole images, the same ones at each call, with the source's metadata."""

import json

import pytest
from click.testing import CliRunner

from jobs.commands import cli
from pipeline.ledger.commit import commit_shard
from pipeline.ledger.fragments import write_fragment
from pipeline.report.caption_sample import sample_captions
from tests.jobs.test_status import make_output
from tests.ledger.world import NUM_IMAGES, OTHER, RUN, SHARD, rows_table, stage


def shown(output, *words):
    done = CliRunner().invoke(cli, ["show", str(output), *words])
    assert done.exit_code == 0, done
    return done.stdout


@pytest.fixture
def store(tmp_path):
    made = make_output(tmp_path)
    commit_shard(made, RUN, OTHER, NUM_IMAGES, [stage(made, range(NUM_IMAGES), OTHER)])
    return made


def test_the_images_are_spread_over_the_shards_and_have_all_their_captions(store):
    sample = sample_captions(store, 4)
    assert [shard for shard, _ in sample] == [SHARD.path] * 2 + [OTHER.path] * 2
    for captions in sample.values():
        assert [row["slot"] for row in captions] == list(RUN.slots)
        assert len({(row["row"], row["key"]) for row in captions}) == 1
    assert sample == sample_captions(store, 4)
    assert len(sample_captions(store, 500)) == 2 * NUM_IMAGES


def test_one_image_costs_one_committed_file(store, monkeypatch):
    read = []
    get = type(store).get
    monkeypatch.setattr(type(store), "get", lambda self, path: (read.append(path), get(self, path))[1])
    assert len(sample_captions(store, 1)) == 1
    assert len(read) == 1


def with_metadata(table, source):
    index = table.schema.get_field_index("source")
    return table.set_column(index, table.schema.field(index), [[json.dumps(source)] * len(table)])


def test_an_image_is_printed_with_its_metadata_and_each_caption_or_reason(tmp_path):
    store = make_output(tmp_path)
    table = with_metadata(
        rows_table(range(NUM_IMAGES), "two red rings", OTHER), {"alt": "rings\x1b[2J", "a\nb": "x", "likes": 3}
    )
    commit_shard(store, RUN, OTHER, NUM_IMAGES, [write_fragment(store, RUN, OTHER, NUM_IMAGES, table)])
    blocks = shown(tmp_path, "-n", "20").split("\n\n")
    [ok] = [block for block in blocks if block.startswith("photos/00002.tar, row 3,")]
    assert ok.splitlines() == [
        "photos/00002.tar, row 3, key key3",
        "  source.alt     rings\\x1b[2J",
        "  source.a\\x0ab  x",
        "  source.likes   3",
        "  long           two red rings",
        "  booru          two red rings",
    ]
    [failed] = [block for block in blocks if block.startswith("photos/00002.tar, row 4,")]
    assert "  long           [failed: undecodable] two red rings" in failed.splitlines()
    assert "source.likes" not in shown(tmp_path, "-n", "20", "--field", "alt")


def test_a_field_that_no_image_has_is_refused_with_those_that_exist(store, tmp_path):
    done = CliRunner().invoke(cli, ["show", str(tmp_path), "--field", "alt"])
    assert "--field alt: none of these images has it; found: no field" in str(done.exception)


def test_an_output_without_a_committed_shard_says_so(tmp_path):
    store = make_output(tmp_path)
    store.delete([entry.path for entry in store.list("captions")])
    done = CliRunner().invoke(cli, ["show", str(tmp_path)])
    assert "no shard is committed yet" in str(done.exception)
