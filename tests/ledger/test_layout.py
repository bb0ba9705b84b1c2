import pytest

from pipeline.errors import ConfigError
from pipeline.ledger import layout

SHARDS = [
    "a.tar",
    "deep/er/00001.tar",
    "x.parquet",
    "ünï #?%/a b.tar",
    "new\nline.tar",
    "staging/a",
    "captions/a.parquet",
]
ATTEMPT = "0123456789abcdef" * 2


@pytest.mark.parametrize("shard", SHARDS)
def test_every_path_leads_back_to_its_shard(shard):
    assert layout.shard_of_committed(layout.committed_path(shard)) == shard
    assert layout.shard_of_quarantined(layout.quarantine_path(shard)) == shard
    assert layout.shard_of_fragment(layout.fragment_path(shard, 7, ATTEMPT)) == shard
    assert layout.fragment_path(shard, 7, ATTEMPT).startswith(layout.staging_folder(shard) + "/0000000007-")


@pytest.mark.parametrize(
    "path",
    ["captions/a.tar", "captions/.parquet", "staging/a.tar/x.parquet", f"staging/0000000007-{ATTEMPT}.parquet",
     f"staging/a/007-{ATTEMPT}.parquet", "staging/.probe-1", ".tmp/1", "run.json", "report/a.json"],
)  # fmt: skip
def test_what_is_no_path_of_the_layout_is_none(path):
    assert layout.shard_of_committed(path) is None
    assert layout.shard_of_quarantined(path) is None
    assert layout.shard_of_fragment(path) is None


def test_fragments_sort_by_row():
    rows = [0, 9, 10, 99, 12345678901]
    assert [layout.fragment_path("a", row, ATTEMPT) for row in rows[:4]] == sorted(
        layout.fragment_path("a", row, ATTEMPT) for row in rows[:4]
    )
    assert layout.shard_of_fragment(layout.fragment_path("a", rows[4], ATTEMPT)) == "a"


def test_shards_whose_files_cannot_exist_side_by_side_are_refused():
    layout.check_shard_paths(SHARDS)
    with pytest.raises(ConfigError, match="shard a: occurs twice"):
        layout.check_shard_paths(["a", "b", "a"])
    with pytest.raises(ConfigError, match=r"shards a and a\.parquet/b: .* folder of the second"):
        layout.check_shard_paths(["a", "a.parquet/b"])
    with pytest.raises(ConfigError, match=r"shards x/a and x/a\.json/b/c"):
        layout.check_shard_paths(["x/a", "x/a.json/b/c"])
