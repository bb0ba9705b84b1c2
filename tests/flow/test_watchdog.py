"""A run that stands still ends, and names the stage."""

import pytest

from pipeline.errors import Stalled
from pipeline.flow.progress_actor import Counts
from pipeline.flow.watchdog import Watchdog, stalled_stage


@pytest.mark.parametrize(
    ("counts", "commits", "stage"),
    [
        (Counts(read=64, dispatched=64, staged=32, replicas=1), 0, "caption: 32 images are with the engines"),
        (Counts(read=64, dispatched=0, staged=0, replicas=0), 0, "caption: no replica is up"),
        (
            Counts(read=64, dispatched=32, staged=32, replicas=1),
            0,
            "caption: 32 images were read and no replica takes them",
        ),
        (Counts(read=64, dispatched=64, staged=64, replicas=1), 0, "read: 64 images were read and no more come"),
        (Counts(read=64, dispatched=64, staged=64, replicas=1), 2, "commit: 2 shards wait for the output's storage"),
    ],
)
def test_the_stage_that_blocks_the_others_is_named(counts, commits, stage):
    assert stalled_stage(counts, commits).startswith(stage)


def test_a_run_is_ended_only_when_its_progress_stands_still(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pipeline.flow.watchdog.time.monotonic", lambda: now[0])
    watchdog = Watchdog(10)

    def check(counts):
        watchdog.check((counts, 0, 0), stalled_stage(counts, 0))

    for step in range(5):
        now[0] += 9
        check(Counts(read=step, dispatched=step, staged=step, replicas=1))
    for timeouts in range(5):
        now[0] += 9
        check(Counts(read=4, dispatched=4, staged=4, replicas=1, decode_timeouts=timeouts))
    now[0] += 9
    check(Counts(read=4, dispatched=4, staged=4, replicas=1, decode_timeouts=4))
    now[0] += 2
    with pytest.raises(
        Stalled, match="read: 4 images were read and no more come from the source, and nothing moved for 10 s"
    ):
        check(Counts(read=4, dispatched=4, staged=4, replicas=1, decode_timeouts=4))
