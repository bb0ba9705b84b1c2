"""A chain killed at each of its writes: the next run finishes it, with every row once and none stale."""

import pytest

from pipeline.flow.prepared_job import Extension, prepare_job
from pipeline.ledger.edits import Edit, apply_edits
from pipeline.ledger.stale_rows import count_stale_rows
from pipeline.ledger.verification import verify_tree
from pipeline.storage import open_store
from pipeline.storage.local import LocalStore
from schemas.edit import EditStatus
from tests.chained.world import NUM_ROWS, child_job, parent_job, retry, rows_of, run, write_source
from tests.ledger.faults import sigkill
from tests.outputs import committed_rows, identities
from tests.processes import was_killed

WRITES = ("put", "create", "replace", "delete")


def chain(folder):
    """What a user does with a chain; each command again after a kill."""
    parent, child = parent_job(folder), child_job(folder)
    run(parent)
    run(child)
    prepared = prepare_job(parent)
    edit = Edit(line=1, shard="a.tar", row=1, slot="long", editor="ann", status=EditStatus.OK, caption="Edited.")
    apply_edits(prepared.store, prepared.run_identity, prepared.plan.shards["a.tar"], [edit], "2026-01-01T00:00:00Z")
    retry(child)
    if not (folder / "in/c.tar").exists():
        write_source(folder / "in", "c.tar")
    run(parent, extension=Extension())
    run(child, extension=Extension())


def die_at(number, when):
    """Kill this process before or after its `number`-th write to any output."""
    left = [number]

    def dying(write):
        def wrapped(*arguments):
            left[0] -= 1
            is_last = left[0] == 0  # a write may call another one
            if is_last and when == "before":
                sigkill()
            try:
                return write(*arguments)
            finally:  # also after a write that was refused, as the probe's second one is
                if is_last:
                    sigkill()

        return wrapped

    for name in WRITES:
        setattr(LocalStore, name, dying(getattr(LocalStore, name)))


def chain_and_die(folder, number, when):
    die_at(number, when)
    chain(folder)


def check(folder):
    chain(folder)
    for name, job, slots in (("parent", parent_job(folder), 2), ("child", child_job(folder), 3)):
        prepared = prepare_job(job)
        assert verify_tree(prepared.store, prepared.plan).violations == ()
        counts = identities(committed_rows(folder / name))
        assert (len(counts), set(counts.values())) == (3 * NUM_ROWS * slots, {1})
    parent, child = open_store(str(folder / "parent")), open_store(str(folder / "child"))
    assert count_stale_rows(child, parent, ["a.tar", "b.tar", "c.tar"]).rows == 0
    assert rows_of(folder)["a.tar", 1, "short"]["prompt"] == "Shorten this: Edited."


def killed_chain(folder, number, when):
    folder.mkdir()
    write_source(folder / "in")
    return was_killed(chain_and_die, folder, number, when)


def test_a_chain_that_is_not_killed_ends_complete(tmp_path):
    write_source(tmp_path / "in")
    chain(tmp_path)
    check(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_chain_killed_around_any_write_loses_and_doubles_nothing(tmp_path, when):
    number = 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        if not killed_chain(folder, number, when):
            break
        check(folder)
    assert number > 50
