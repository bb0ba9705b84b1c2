"""What a job takes, reckoned: every figure from counted things."""

from dataclasses import replace

import pytest

from pipeline.config import parse_job
from pipeline.cost import Rate, Tokens, Workload, card_rates, estimate, guess_tokens

TOKENS = Tokens(prompt=800, caption=120, source="test")
WORK = Workload(
    shards=30, bytes=10**9, images=36_000, largest_shard_bytes=5 * 10**7, shards_planned=2500, remote_source=True
)


def job(**more):
    base = {"source": "in", "output": "out", "model": "standin"}
    return parse_job({**base, "captions": [{"slot": slot, "mode": "descriptive"} for slot in ("a", "b")], **more})


def test_time_and_money_are_images_by_rate_and_price():
    rates = [
        Rate(name="h100", images_per_s=10, gpus=1, source="s"),
        Rate(name="machine", images_per_s=20, gpus=2, source="s", start_s=360),
    ]
    made = estimate(job(), WORK, TOKENS, rates, {"h100": 2.5}, max_pixels=384 * 384)
    first, second = made.times
    assert (first.hours, first.gpu_hours, first.cost) == (1.0, 1.0, 2.5)
    assert (second.hours, second.gpu_hours, second.cost) == (pytest.approx(0.6), pytest.approx(1.2), None)
    assert (made.captions, made.prompt_tokens, made.caption_tokens) == (72_000, 57_600_000, 8_640_000)


def test_requests_that_are_not_sent_cost_no_time():
    rates = [Rate(name="h100", images_per_s=10, gpus=1, source="s")]
    half = estimate(job(), replace(WORK, requests_per_image=1.0), TOKENS, rates, {}, max_pixels=384 * 384)
    assert (half.captions, half.times[0].hours) == (36_000, 0.5)
    none = estimate(job(), replace(WORK, requests_per_image=0.0), TOKENS, rates, {}, max_pixels=384 * 384)
    assert (none.captions, none.times[0].hours) == (0, 0.0)


def test_samples_of_a_slot_are_captions():
    several = parse_job({**job().model_dump(), "captions": [{"slot": "a", "mode": "descriptive", "samples": 3}]})
    assert estimate(several, WORK, TOKENS, [], {}, max_pixels=384 * 384).captions == 3 * WORK.images


def test_requests_are_those_of_reads_fragments_and_commits():
    made = estimate(job(engine={"batch_images": 100}), WORK, TOKENS, [], {}, max_pixels=384 * 384)
    fragments = 360 + 30
    assert made.requests == {"GET": 60 + fragments, "HEAD": 60, "PUT": fragments + 30, "LIST": 39, "DELETE": 30}


def test_images_in_flight_are_what_rays_store_holds():
    config = job(engine={"batch_images": 10, "batches_in_flight": 4, "replicas": 3})
    made = estimate(config, WORK, TOKENS, [], {}, max_pixels=100 * 100)
    assert made.object_store_bytes == 3 * 60 * 100 * 100 * 3


def test_every_card_has_a_rate_and_faster_cards_a_higher_one():
    rates = {rate.name: rate.images_per_s for rate in card_rates(job(), TOKENS)}
    assert rates["a10g"] < rates["a100"] < rates["h100"] < rates["h200"]


def test_words_that_are_asked_for_count():
    short, long = (
        guess_tokens(job(captions={"slot": "a", "mode": "descriptive", "length": words})) for words in (20, 200)
    )
    assert (short.caption, long.caption) == (27.0, 270.0)
    assert 769 < short.prompt < 800
