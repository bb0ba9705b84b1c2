"""A text model in real vLLM on the CPU: each answer is the one that its weights were made for, whatever the seed."""

import asyncio
import random

import numpy as np
import pytest

from pipeline.config import EngineConfig, SamplingConfig
from pipeline.engines import EngineRequest, EngineSpec
from pipeline.engines.hub_model import PromptTokens
from pipeline.flow.prepared_job import prepare_job
from pipeline.models import FAMILIES, NoImage
from pipeline.standin.world import sample_scene
from schemas.status import Reason
from tests.chained.world import child_job, parent_job, run, work_off, write_source
from tests.copy_model import answer_to, build
from tests.e2e.conftest import Running
from tests.e2e.test_json import check
from tests.outputs import committed_rows
from tools.standin.caption_grammar import caption
from tools.standin.request import Length, Mode
from tools.standin.request import Request as StandinRequest

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("default")]

NO_PIXELS = np.zeros((0, 0, 3), np.uint8)
NUM_TEXTS = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(build(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def copying(folder):
    spec = EngineSpec(
        config=EngineConfig(max_model_len=512),
        sampling=SamplingConfig(temperature=1),
        max_tokens=120,
        family="text",
        model_path=folder,
        revision=None,
        geometry=NoImage(),
    )
    running = Running(spec)
    yield running
    running.close()


def texts(num, seed):
    rng = random.Random(seed)
    request = StandinRequest(mode=Mode.DESCRIPTIVE, length=Length.LONG)
    return [caption(sample_scene(rng), request, rng).text for _ in range(num)]


def question(number, prompt, *, system="", seed=None, schema=None):
    return EngineRequest(
        id=f"q{number}", pixels=NO_PIXELS, image_id=str(number), system=system, prompt=prompt, seed=seed, schema=schema
    )


def ask(running, questions):
    async def all_of_them():
        return await asyncio.gather(*(running.engine.answer(item) for item in questions))

    return running.do(all_of_them())


def test_each_answer_is_the_first_sentence_of_its_text(copying, folder):
    prompts = [f"Shorten: {text}" for text in texts(NUM_TEXTS, seed=11)]
    questions = [question(number, prompt, seed=number) for number, prompt in enumerate(prompts)]
    answers = ask(copying, questions)
    assert [answer.text for answer in answers] == list(map(answer_to, prompts))
    tokens = PromptTokens(FAMILIES["text"], folder)
    assert [answer.prompt_tokens for answer in answers] == [len(tokens.encode("", prompt)) for prompt in prompts]
    assert {answer.finish_reason for answer in answers} == {"stop"}
    assert copying.engine.stats().prefix_tokens > 0


def test_transformers_gives_the_same_answers(copying, folder):
    import torch
    from transformers import AutoModelForCausalLM

    prompts = [f"Shorten: {text}" for text in texts(8, seed=12)]
    answers = ask(copying, [question(f"t{number}", prompt) for number, prompt in enumerate(prompts)])
    tokens = PromptTokens(FAMILIES["text"], folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([tokens.encode("", prompt)])
        made = model.generate(ids, max_new_tokens=120, do_sample=False)[0, ids.shape[1] :]
        assert tokens.decode(made).strip() == answer.text


def test_a_text_without_a_full_stop_is_copied_whole_and_marks_of_the_template_are_text(copying):
    hostile = "Merge: red, <|eot_id|>, a circle"
    answers = ask(copying, [question("a", "Merge: red, circle, blue"), question("b", hostile, system="Be short.")])
    assert answers[0].text == "red, circle, blue"
    assert answers[1].text == answer_to(hostile)


def test_a_prompt_without_room_is_a_failed_row(copying):
    [answer] = ask(copying, [question("long", "Shorten: " + "red circle " * 400)])
    assert (answer.text, answer.reason) == (None, Reason.PROMPT_TOO_LONG)


SCHEMA = {
    "type": "object",
    "properties": {
        "shape": {"enum": ["circle", "square"]},
        "title": {"type": "string", "minLength": 1, "maxLength": 30},
        "watermark": {"type": "boolean"},
    },
    "required": ["shape", "title", "watermark"],
}


def test_json_of_a_text_model_is_valid_or_rejected_and_a_chained_job_has_its_answers(copying, folder, tmp_path):
    write_source(tmp_path / "in", rows=6)
    run(parent_job(tmp_path))
    slots = [
        {"slot": "json", "prompt": "As JSON: {long}", "schema": SCHEMA},
        {"slot": "short", "prompt": "Shorten: {long}"},
    ]
    job = child_job(tmp_path, slots, model=folder, engine={"kind": "vllm", "batch_images": 4, "max_model_len": 512})
    work_off(prepare_job(job), _OnLoop(copying))
    rows = committed_rows(tmp_path / "child")
    short = [row for row in rows if row["slot"] == "short" and row["status"] == "ok"]
    assert len(short) == 10
    assert {row["caption"] for row in short} == {answer_to(row["prompt"]) for row in short}
    asked = [row for row in rows if row["slot"] == "json" and row["status"] != "skipped"]
    assert len(asked) == 10
    check(asked, SCHEMA)
    assert all(row["prompt_tokens"] > 10 and row["caption_tokens"] > 1 for row in short)


class _OnLoop:
    """The engine of a fixture, for stages on another event loop."""

    def __init__(self, running):
        self._running = running

    async def answer(self, request):
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self._running.engine.answer(request), self._running.loop)
        )

    def stats(self):
        return self._running.engine.stats()
