"""Prompts with the captions of a parent and fields of the source: a thousand, against an independent renderer."""

import random

from pipeline.config import parse_job
from pipeline.prompts import RequestSampler
from tests.prompts import renderer

FIELDS = {"captions.long": "{long}", "captions.tags": "{tags}", "alt": "{source.alt}"}
PROMPTS = ("Shorten: {long}", "Merge {tags}. With {source.alt}! {long}", "{long} {long}\n{source.alt}", "In {tags}?")
WORDS = ["red", "circle", "“OPEN”", "3", "of", "{long}", "{source.alt}", "<|eot_id|>", "left.", "right!", "a\nb"]
SEED = 3


def chained(prompt, policies, model="standin"):
    used = {name: policies[name] for name, placeholder in FIELDS.items() if placeholder in prompt}
    return parse_job(
        {
            "source": {"captions": "out/parent"},
            "output": "o",
            "model": model,
            "captions": {"slot": "a", "prompt": prompt},
            "prompt_fields": used,
            "seed": SEED,
        }
    )


def drawn(rng):
    """(prompt, policies, metadata of a row)"""
    policies = {name: {"missing": rng.choice(["fail", "omit", "none known"])} for name in FIELDS}
    texts = {name: " ".join(rng.choices(WORDS, k=rng.randrange(1, 8))) for name in ("long", "tags")}
    captions = {name: text for name, text in texts.items() if rng.random() < 0.8}
    return rng.choice(PROMPTS), policies, {"captions": captions, **({"alt": "An alt."} if rng.random() < 0.8 else {})}


def test_a_thousand_prompts_of_chained_jobs_are_those_of_an_independent_renderer():
    rng = random.Random(5)
    num_missing = 0
    for number in range(1000):
        prompt, policies, metadata = drawn(rng)
        # A text model has no other prompts than a model for images: half of them are of one.
        model = {"id": "o/n", "generation": "text"} if number % 2 else "standin"
        [request] = RequestSampler(chained(prompt, policies, model)).requests("s", number, metadata)
        written = prompt.replace("{long}", "{source.captions.long}").replace("{tags}", "{source.captions.tags}")
        try:
            expected = renderer.render({"prompt": written}, policies, SEED, "s", number, metadata, len)[0]
        except renderer.Missing:
            num_missing += 1
            assert request.fault is not None, (prompt, metadata)
            continue
        assert (request.prompt, request.fault) == (expected, None)
        assert not request.system or number % 2 == 0
    assert 50 < num_missing < 500
