from dataclasses import replace

import pytest

from pipeline.ledger.layout import fragment_path
from pipeline.ledger.quarantine import Quarantined, put_quarantine
from pipeline.ledger.shard_plan import Plan
from pipeline.ledger.staging_cleanup import Cleaned, clean
from tests.ledger.world import NUM_IMAGES, OTHER, RUN, SHARD, commit, paths, stage

KILLED = ".tmp/" + "a" * 32
PROBE = "staging/.probe-" + "b" * 32
PLAN = Plan({SHARD.path: SHARD, OTHER.path: OTHER})


def test_leftovers_are_removed_and_everything_else_is_kept(local):
    commit(local, [stage(local, range(NUM_IMAGES))])
    local.put("captions/not in the plan.tar.parquet", b"")
    local.put("captions/.odd", b"")
    local.put("report/index.html", b"")
    local.put("run.json", b"{}")
    record = Quarantined(shard=OTHER.path, message="m", attempts=1, time="t", versions={})
    put_quarantine(local, record)
    good = stage(local, [3, 4], shard=OTHER)
    kept = paths(local)
    torn = fragment_path(OTHER.path, 0, "0" * 32)
    local.put(torn, local.get(good)[:-5])
    leftovers = [
        KILLED,
        stage(local, [0]),
        stage(local, [0], shard=OTHER, run=replace(RUN, recipe="recipe-2")),
        stage(local, [0], shard=replace(OTHER, etag="of another time")),
        stage(local, [0], shard=replace(OTHER, path="in no plan.tar")),
        PROBE,
        torn,
    ]
    for path in (KILLED, PROBE):
        local.put(path, b"")
    everything = paths(local)
    assert clean(local, RUN, PLAN, dry_run=True) == Cleaned(sorted(leftovers))
    assert paths(local) == everything
    assert clean(local, RUN, PLAN) == Cleaned(sorted(leftovers))
    assert paths(local) == kept
    assert clean(local, RUN, PLAN) == Cleaned()


def test_an_empty_output_is_clean(store):
    assert clean(store, RUN, PLAN) == Cleaned()


STRANGE = (
    ".tmp/thesis.odt",
    ".tmp/deeper/" + "0" * 32,
    ".tmp/" + "0" * 31,
    "staging/notes.txt",
    "staging/.probe-1",
    f"staging/{SHARD.path}/0000000000.parquet",
    f"staging/{SHARD.path}/0000000000-{'0' * 32}.parquet.bak",
)


def test_files_with_foreign_names_are_kept_and_listed(local):
    for path in STRANGE:
        local.put(path, b"theirs")
    result = clean(local, RUN, PLAN)
    assert result == Cleaned([], dict.fromkeys(sorted(STRANGE), "its name is not one of JoyFleet's temporary files"))
    assert paths(local) == sorted(STRANGE)


@pytest.mark.parametrize("link", ["staging", ".tmp", "staging/photos"])
def test_nothing_behind_a_link_is_removed(local, tmp_path, link):
    """Also what bears our names: it is another output's."""
    other = tmp_path / "elsewhere"
    names = ["0" * 32, "a.tar/0000000000-" + "0" * 32 + ".parquet", "thesis.odt"]
    for name in names:
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_bytes(b"theirs")
    local.put("run.json", b"{}")
    at = tmp_path / "out" / link
    at.parent.mkdir(exist_ok=True)
    if at.is_dir():
        at.rmdir()
    at.symlink_to(other)
    result = clean(local, RUN, PLAN)
    assert result.removed == []
    assert set(result.kept.values()) <= {"it is a link, or behind a link"}
    assert all((other / name).read_bytes() == b"theirs" for name in names)
    assert at.is_symlink()


def test_a_file_that_is_a_link_stays(local, tmp_path):
    (tmp_path / "theirs").write_bytes(b"")
    local.put(PROBE, b"")
    (tmp_path / "out" / KILLED).symlink_to(tmp_path / "theirs")
    assert clean(local, RUN, PLAN) == Cleaned([PROBE], {KILLED: "it is a link, or behind a link"})
    assert (tmp_path / "out" / KILLED).is_symlink()
