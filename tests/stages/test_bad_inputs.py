"""Every kind of bad shard ends as its table says: rows with reasons, or quarantine with a message; never a crash."""

import itertools

import pytest

from pipeline.config import ImagesConfig, SourceConfig
from pipeline.models import FixedSize
from pipeline.stages.read_batches import ReadSpec, read_shard
from schemas.batch import BatchKind
from tests.bad_inputs import bad_inputs, made
from tests.readers.shards import MAX_BYTES

CASES = bad_inputs()


def test_there_are_more_than_sixty_kinds():
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_ends_as_the_table_states(tmp_path, case):
    shard = made(case, tmp_path)
    images = ImagesConfig(max_bytes=MAX_BYTES)
    spec = ReadSpec(
        source=SourceConfig(urls=(shard.url,), metadata_fields=("*",)),
        images=images,
        geometry=FixedSize(32, 32),
        batch_images=7,
    )
    batches = [batch.to_pylist()[0] for batch in read_shard(spec, shard, [])]
    if case.rows is None:
        [batch] = batches
        assert batch["kind"] == BatchKind.UNREADABLE
        assert batch["message"].startswith(shard.url)
        assert case.message in batch["message"]
        return
    assert {batch["kind"] for batch in batches} == {BatchKind.IMAGES if case.rows else BatchKind.EMPTY}
    rows = list(itertools.chain.from_iterable(batch["images"] for batch in batches))
    assert [row["row"] for row in rows] == list(range(len(case.rows)))
    assert tuple(row["reason"] or "ok" for row in rows) == case.rows
    assert not rows or case.message in (rows[-1]["message"] or "")
