"""A run that produced nothing is no success."""

from types import SimpleNamespace

import pytest

from pipeline.errors import NothingDone
from pipeline.flow.run import Outcome, _refuse_nothing

PREPARED = SimpleNamespace(job=SimpleNamespace(output="out"))


def outcome(**facts):
    return Outcome(**{"shards_planned": 2, "shards_before": 0, **facts})


@pytest.mark.parametrize(
    "facts",
    [
        {"images": 3, "statuses": {"ok": 0, "rejected": 1, "failed": 2}},
        {"shards_quarantined": {"a.tar": "unreadable", "b.tar": "unreadable"}},
    ],
)
def test_images_without_one_caption_are_a_failure(facts):
    with pytest.raises(NothingDone, match="not one caption is ok"):
        _refuse_nothing(PREPARED, outcome(**facts))


@pytest.mark.parametrize(
    "facts",
    [
        {"images": 0},  # a source of empty shards
        {"images": 3, "statuses": {"ok": 1, "rejected": 1, "failed": 1}},
        {"images": 3, "shards_before": 1, "statuses": {"ok": 0, "rejected": 0, "failed": 3}},
        {"shards_lost": ["a.tar"]},
    ],
)
def test_anything_else_is_not(facts):
    _refuse_nothing(PREPARED, outcome(**facts))
