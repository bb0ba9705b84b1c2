"""Planning says that a run has work as soon as it knows, and not before: two requests show it for an open output."""

import pytest

from pipeline.config import load_job
from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.flow import prepared_job
from pipeline.flow.extension import Extension
from pipeline.flow.prepared_job import prepare_job
from pipeline.ledger.layout import committed_path, quarantine_path
from pipeline.storage import open_store
from tests.cli import write_job
from tests.readers.shards import tar_of

SHARDS = ("a.tar", "b.tar", "c.tar")


@pytest.fixture
def job(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for name in SHARDS:
        (source / name).write_bytes(tar_of([("1.jpg", b"jpeg")]))
    return write_job(tmp_path, source, tmp_path / "out")


def signals(job, *overrides):
    """How often planning has called `work_found`."""
    calls = []
    prepare_job(load_job(job, overrides), work_found=lambda: calls.append(1))
    return len(calls)


def finish(tmp_path, *shards, path=committed_path):
    for shard in shards:
        open_store(str(tmp_path / "out")).put(path(shard), b"")


def test_a_first_run_has_work(job):
    assert signals(job) == 1


def test_a_run_whose_last_shard_is_open_has_work(job, tmp_path):
    signals(job)
    finish(tmp_path, "a.tar", "b.tar")
    assert signals(job) == 1


@pytest.mark.parametrize("path", [committed_path, quarantine_path])
def test_a_run_with_nothing_to_do_has_none(job, tmp_path, path):
    signals(job)
    finish(tmp_path, *SHARDS, path=path)
    assert signals(job) == 0


def test_a_mistake_in_the_source_of_a_first_run_comes_before_any_work(job, tmp_path):
    with pytest.raises(ConfigError, match="not found"):
        signals(job, f"source.urls=[{tmp_path / 'absent'}]")


def test_another_recipe_is_said_whatever_the_listings_of_the_output_say(job, monkeypatch):
    signals(job)

    def failing(store):
        raise StoreError(f"{store.url}: does not answer")

    monkeypatch.setattr(prepared_job, "list_output", failing)
    with pytest.raises(OutputMismatch, match="bound to recipe"):
        signals(job, "seed=5")
    with pytest.raises(StoreError, match="does not answer"):
        signals(job)


def test_a_plan_whose_last_generation_changes_only_the_selection_has_an_end(job, tmp_path):
    signals(job)
    prepare_job(load_job(job, ["source.where={format: JPEG}"]), Extension())
    finish(tmp_path, "a.tar")
    assert signals(job, "source.where={format: JPEG}") == 1
