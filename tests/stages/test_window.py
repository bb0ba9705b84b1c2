"""Images are admitted and staged one by one: the engine stays full, and a kill costs little."""

import asyncio
from collections import Counter

import pytest

from pipeline.engines.batch_plan import batches_to_feed
from pipeline.stages.window import UNSTAGED_SHARE, Window, Work
from tests.stages.drawn_engine import DrawnEngine, caption
from tests.virtual_time import run_virtually

NUM_SEQS = 64

MIXED = (180, 60, 30, 100)
"""A long caption, tags, a title, a prompt: an image waits for the slot that takes six times as long as another."""


def fed(num_slots, batch_images, medians=(110,)):
    async def feed():
        engine = DrawnEngine(NUM_SEQS, medians)
        num_batches = 4 * batches_to_feed(NUM_SEQS, batch_images, num_slots)
        return engine, num_batches, await caption(engine, num_slots, batch_images, num_batches, fragment_images=16)

    return run_virtually(feed())


@pytest.mark.parametrize("batch_images", [16, 64])
@pytest.mark.parametrize("num_slots", [1, 4])
def test_an_engine_is_kept_full_and_a_kill_costs_at_most_twice_what_it_works_on(num_slots, batch_images):
    engine, num_batches, staged = fed(num_slots, batch_images)
    assert engine.mean_running() >= 0.95 * NUM_SEQS
    assert NUM_SEQS < engine.most_unstaged <= UNSTAGED_SHARE * NUM_SEQS
    assert Counter(staged) == Counter((batch, row) for batch in range(num_batches) for row in range(batch_images))


def test_slots_of_very_different_lengths_leave_an_engine_nearly_full():
    engine, _, _ = fed(4, 16, MIXED)
    assert engine.mean_running() >= 0.85 * NUM_SEQS
    assert engine.most_unstaged <= UNSTAGED_SHARE * NUM_SEQS


def run_window(window, batches, fragment_images=2):
    """Run batches of works concurrently; return what was staged, call by call."""
    staged = []

    async def stage(images):
        staged.append(images)

    async def all_of_them():
        return await asyncio.gather(
            *(window.run(batch, fragment_images, stage) for batch in batches), return_exceptions=True
        )

    return run_virtually(all_of_them()), staged


def work(name, seconds=1.0, num_requests=1):
    async def run(permit):
        await asyncio.sleep(seconds)
        for _ in range(num_requests):
            permit.answered()
        return name

    return Work(num_requests, run)


def test_without_a_number_a_batch_is_one_fragment_and_images_that_need_nothing_go_with_it():
    images = [work("a"), work("skipped", 0.0, 0), work("b"), work("also skipped", 0.0, 0)]
    assert run_window(Window(None), [images])[1] == [["skipped", "also skipped", "a", "b"]]


def test_a_fragment_has_at_most_so_many_images_that_were_asked():
    staged = run_window(Window(None), [[work(n, seconds=n) for n in range(1, 6)]])[1]
    assert staged == [[1, 2], [3, 4], [5]]


def test_the_oldest_batch_goes_first_and_no_image_waits_for_a_slow_one():
    order = []

    def noted(name, seconds):
        async def run(permit):
            order.append(name)
            await asyncio.sleep(seconds)
            permit.answered()
            return name

        return Work(1, run)

    first = [noted(f"first {n}", 50.0 if n == 0 else 1.0) for n in range(4)]
    second = [noted(f"second {n}", 1.0) for n in range(4)]
    run_window(Window(1), [first, second])
    assert order == [f"first {n}" for n in range(4)] + [f"second {n}" for n in range(4)]


def test_an_image_with_more_requests_than_the_window_has_room_for_is_asked_alone():
    assert run_window(Window(1), [[work("a", num_requests=5), work("b", num_requests=5)]])[1] == [["a"], ["b"]]


def test_a_closed_window_asks_nothing_more_and_stages_what_was_asked():
    window = Window(1)

    async def closing(permit):
        window.close()
        permit.answered()
        return "the last"

    images = [Work(1, closing), *(work(n) for n in range(3))]
    staged = run_window(window, [images])[1]
    assert [name for images in staged for name in images] == ["the last", 0]
    assert (window.num_admitted, window.num_staged, window.num_unstaged) == (2, 2, 0)


def test_an_error_of_one_image_ends_its_batch_and_no_other():
    async def broken(permit):
        raise ZeroDivisionError("a defect")

    window = Window(1)
    results, staged = run_window(window, [[Work(1, broken), *(work(n) for n in range(9))], [work("other")]])
    assert [type(result) for result in results] == [ZeroDivisionError, type(None)]
    assert ["other"] in staged
    assert window.num_unstaged == 0


def test_an_error_of_staging_ends_the_batch():
    async def stage(images):
        raise OSError("disk full")

    async def staged():
        await Window(1).run([work(n) for n in range(9)], 2, stage)

    with pytest.raises(OSError, match="disk full"):
        run_virtually(staged())
