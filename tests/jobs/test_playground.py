"""The playground as its users meet it: the real app, the real engine, a real browser."""

import contextlib
import re
import socket
import time

import pytest
import yaml

from pipeline.config import parse_job
from pipeline.errors import ConfigError
from pipeline.report.playground_session import Choice, job_of, lengths_of, modes_of, prompt_of, recipe_yaml, tones_of
from tests.browser import looking_at, needs_chromium
from tests.cli import finish, start, wait_until

BASE = parse_job(
    {"source": "in", "output": "out", "model": "standin", "captions": {"slot": "x", "mode": "descriptive"}}
)
CHOICE = Choice(
    generation="alpha-two",
    mode="descriptive",
    tone="casual",
    length="40",
    options=("lighting", "refer-by-name"),
    name=" Ada ",
)


def test_a_choice_becomes_a_request_of_the_config():
    job = job_of(BASE, CHOICE, 3, 5)
    assert [slot.slot for slot in job.captions] == ["sample-1", "sample-2", "sample-3"]
    assert (job.captions[0].length, job.captions[0].name, job.seed) == (40, "Ada", 5)
    prompt, _ = prompt_of(BASE, CHOICE)
    assert "40 words" in prompt
    assert "Ada" in prompt


def test_what_a_generation_cannot_be_asked_is_told():
    wrong = Choice(generation="alpha-two", mode="danbooru-tags", tone="none", length="none", options=(), name="")
    with pytest.raises(ConfigError, match=r"captions\.0\.mode: found 'danbooru-tags'; alpha-two has: descriptive"):
        prompt_of(BASE, wrong)


def test_the_recipe_is_a_part_of_a_job_file():
    part = yaml.safe_load(recipe_yaml(BASE, CHOICE))
    job = parse_job({"source": "in", "output": "out", **part})
    assert job.captions[0].options == CHOICE.options
    assert job.model.generation == "alpha-two"


@pytest.mark.parametrize("generation", ["alpha-two", "beta-one"])
def test_all_that_is_offered_can_be_asked(generation):
    for mode in modes_of(generation):
        for tone in tones_of(generation, mode):
            for length in {lengths_of(generation, mode)[0], lengths_of(generation, mode)[-1]}:
                prompt_of(BASE, Choice(generation=generation, mode=mode, tone=tone, length=length, options=(), name=""))


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    pytest.importorskip("gradio", reason="no gradio here: pip install --no-deps -r infra/requirements-playground.lock")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = start(tmp_path_factory.mktemp("playground"), "playground", "--port", str(port))
    wait_until(lambda: answers(port), process, "an answer of the playground")
    yield f"http://127.0.0.1:{port}/"
    process.terminate()
    finish(process)


def answers(port):
    time.sleep(0.5)
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait_for_prompt(page, words):
    """The page is built and filled by its script: until then a control loses what is put into it."""
    page.wait_for_function(
        "words => Array.from(document.querySelectorAll('textarea')).some(one => one.value.includes(words))", arg=words
    )


@needs_chromium
@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_from_an_image_to_a_recipe_in_a_browser(address):
    with looking_at(address) as (page, seen):
        prompt = page.get_by_label("Prompt, as the model sees it")
        wait_for_prompt(page, "Write a descriptive caption")
        page.locator(".gallery-item, .examples button, [class*=example] img").first.click()
        page.get_by_label("Length").fill("30")
        page.keyboard.press("Enter")
        page.get_by_label("Name, for refer-by-name").click()
        wait_for_prompt(page, "30 words")
        assert "30 words" in prompt.input_value()
        page.get_by_role("button", name="Caption").click()
        page.wait_for_selector("article.card", timeout=120_000)
        cards = page.locator("article.card")
        assert cards.count() == 3
        texts = cards.locator(".caption").all_inner_texts()
        assert all(len(text.split()) > 8 for text in texts)
        assert all(re.search(r"\d+ tokens", text) for text in cards.all_inner_texts())
        assert re.search(r"3 samples in [\d.]+ s", page.locator("body").inner_text())
        assert "length: 30" in page.locator(".cm-content").inner_text()
        outside = [url for url in seen.requests if not url.startswith((address, "data:", "blob:"))]
        assert outside == []
