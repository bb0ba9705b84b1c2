"""The rate of a calibration, from the snapshots of its run."""

import pytest

from pipeline.cost import Tokens
from pipeline.errors import NothingDone
from pipeline.flow.calibrate import _measured, _spread_evenly
from pipeline.flow.progress import Snapshot
from schemas.status import no_rows


def snapshot(images_done, seconds):
    return Snapshot(
        shards_done=0, shards=1, images_done=images_done, captions=images_done, captions_per_s=0.0, statuses=no_rows(),
        bytes_done=0.0, bytes_total=1, eta_s=None, replicas=1, seconds=seconds,
    )  # fmt: skip


TOKENS = Tokens(**dict.fromkeys(Tokens.__dataclass_fields__, 1))


def test_the_rate_excludes_the_start_of_the_engine():
    measured = _measured([snapshot(10, 32.0), snapshot(30, 36.0), snapshot(50, 40.0)], TOKENS, 50)
    assert (measured.images, measured.images_per_s, measured.start_s) == (50, 5.0, 30.0)


@pytest.mark.parametrize(("snapshots", "num_staged"), [([], 0), ([snapshot(8, 3.0)], 8)])
def test_without_two_snapshots_there_is_no_rate(snapshots, num_staged):
    with pytest.raises(NothingDone, match=rf"--calibrate 9: {num_staged} images were staged, all at once"):
        _measured(snapshots, TOKENS, 9)


def test_the_first_shards_of_a_trial_come_from_the_whole_source():
    tasks = list(range(640))
    spread = _spread_evenly(tasks)
    assert spread[:64] == list(range(0, 640, 10))
    assert sorted(spread) == tasks
