"""The sizes of batches: as the job says, or so that engines are full and the driver has little to do."""

import pytest

from pipeline.config import EngineConfig
from pipeline.engines.batch_plan import GROWN_BYTES, BatchPlan, batches_to_feed, plan_batches, seqs_to_feed
from pipeline.models import FAMILIES

JOYCAPTION = 384 * 384
DIMS = FAMILIES["joycaption"].dims


def plan(num_seqs, max_pixels=JOYCAPTION, num_slots=1, **engine):
    return plan_batches(EngineConfig(**engine), num_seqs, max_pixels, num_slots)


def test_a_job_that_sets_the_batches_in_flight_gets_so_many_of_one_fragment_each():
    assert plan(256, batches_in_flight=3) == BatchPlan(images=64, grown_images=64, in_flight=3)


@pytest.mark.parametrize(
    ("num_seqs", "num_slots", "grown", "in_flight"),
    [
        (256, 1, 256, 7),
        (256, 4, 256, 3),
        (64, 1, 256, 3),
        (64, 4, 64, 3),
        (16, 1, 64, 3),
        (8, 4, 64, 2),
        (None, 1, 256, 2),
    ],
)
def test_batches_grow_as_far_as_one_replica_works_them_off_soon(num_seqs, num_slots, grown, in_flight):
    assert plan(num_seqs, num_slots=num_slots) == BatchPlan(images=64, grown_images=grown, in_flight=in_flight)


@pytest.mark.parametrize(("side", "grown"), [(384, 256), (448, 192), (1024, 64), (4096, 64)])
def test_the_pixels_of_a_grown_batch_have_room_in_memory(side, grown):
    assert plan(256, max_pixels=side * side).grown_images == grown
    assert grown == 64 or grown * side * side * 3 <= GROWN_BYTES


def test_a_replica_has_batches_for_six_times_what_its_engine_decodes_together():
    assert [batches_to_feed(256, 64, slots) for slots in (1, 4)] == [25, 7]


def test_the_number_is_that_of_the_largest_card_and_echo_has_one_only_if_the_job_says_so():
    cards = {"H100": {"max_num_seqs": 512}, "L4": {"max_num_seqs": 64}}
    assert seqs_to_feed(EngineConfig.model_validate({"per_accelerator": cards}), DIMS, gpu=True) == 512
    assert seqs_to_feed(EngineConfig(), DIMS, gpu=False) == 64
    assert seqs_to_feed(EngineConfig(kind="echo"), DIMS, gpu=False) is None
    assert seqs_to_feed(EngineConfig(kind="echo", max_num_seqs=8), DIMS, gpu=False) == 8
