"""The endpoint engine's manners with servers that refuse, fail, vanish and come back: scripted HTTP, no model."""

import asyncio
import functools
import json
import logging
import re
import socket
import threading
import traceback
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.config import EngineConfig, ModelConfig, SamplingConfig, parse_job
from pipeline.engines import EngineRequest, EngineSpec, start_engine
from pipeline.engines.hub_model import PromptTokens
from pipeline.errors import ConfigError, EngineDead, ModelMismatch, PipelineError
from pipeline.flow.prepared_job import check_job, engine_spec
from pipeline.models import FAMILIES
from pipeline.recipe import find_weights
from schemas.status import Reason

WEIGHTS = find_weights(ModelConfig(id="standin"))


class Script:
    """What a server says: to each chat the next of `statuses`, then 200 for ever."""

    def __init__(self, *statuses: int, owner: str = "vllm", prompt_tokens: int | None = 7) -> None:
        """Without `prompt_tokens` the prompt is worded, and counted, as it should be."""
        self.statuses = list(statuses)
        self.owner = owner
        self.prompt_tokens = prompt_tokens
        self.ignores_schemas = False
        self.chats: list[dict] = []
        self.keys: list[str | None] = []

    def reply(self, path: str, body: dict) -> tuple[int, dict]:
        if path.endswith("/models"):
            model = {"id": "standin", "object": "model", "created": 0, "owned_by": self.owner}
            return 200, {"object": "list", "data": [model]}
        if not path.endswith("/chat/completions"):
            return 404, {"error": {"message": "no such path"}}
        self.chats.append(body)
        status = self.statuses.pop(0) if self.statuses else 200
        if status != 200:
            return status, {"error": {"message": f"scripted {status}"}}
        message = {"role": "assistant", "content": self.content(body)}
        prompt_tokens = expected_tokens(body) if self.prompt_tokens is None else self.prompt_tokens
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 4, "total_tokens": 11}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "standin", "choices": [choice]}
        return 200, answer | {"usage": usage}

    def content(self, body: dict) -> str:
        """A text; for a JSON Schema, its object of single values, unless the server ignores what it is asked for."""
        if self.ignores_schemas or "response_format" not in body:
            return " A red circle. "
        properties = body["response_format"]["json_schema"]["schema"]["properties"]
        return json.dumps({name: part["enum"][0] for name, part in properties.items()})

    @property
    def probes(self) -> int:
        return sum(is_probe(chat) for chat in self.chats)


def is_probe(chat: dict) -> bool:
    return chat["max_tokens"] == 1


class _Server(ThreadingHTTPServer):
    # Twenty requests connect at once. Beyond the five of http.server a busy machine loses connections.
    request_queue_size = 128


@contextmanager
def serving(script: Script, port: int = 0):
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            script.keys.append(self.headers.get("authorization"))
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, reply = script.reply(self.path, json.loads(body or b"{}"))
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def spec(
    *urls: str, sampling: SamplingConfig | None = None, repair_penalty: float | None = None, **rest: object
) -> EngineSpec:
    own = {"urls": urls, "model": "standin", "check_layout": False, "retries": 0, "reconnect_timeout_s": 0, **rest}
    return EngineSpec(
        config=EngineConfig.model_validate({"kind": "endpoint", "endpoint": own}),
        sampling=sampling or SamplingConfig(temperature=0.5, top_k=3, repetition_penalty=1.1),
        repair_penalty=repair_penalty,
        max_tokens=50,
        family="joycaption",
        model_path=WEIGHTS.path,
        revision=None,
        geometry=FAMILIES["joycaption"].geometry_of(WEIGHTS.stated),
    )


def question(number: int = 0) -> EngineRequest:
    pixels = np.full((90, 90, 3), number, np.uint8)
    return EngineRequest(id=f"q{number}", pixels=pixels, image_id=f"i{number}", system="S", prompt="P", seed=number)


def ask(engine_spec: EngineSpec, *questions: EngineRequest):
    async def all_of_them(engine):
        answers = [await engine.answer(question) for question in questions]
        engine.close()
        return answers

    return asyncio.run(all_of_them(start_engine(engine_spec)))


def test_an_answer_is_text_with_its_counts_and_the_sampling_reaches_the_server():
    script = Script()
    with serving(script) as url:
        (answer,) = ask(spec(url), question(5))
    assert (answer.text, answer.finish_reason, answer.prompt_tokens, answer.caption_tokens) == (
        "A red circle.",
        "stop",
        7,
        4,
    )
    chat = script.chats[0]
    assert (chat["temperature"], chat["top_p"], chat["seed"], chat["max_tokens"]) == (0.5, 0.9, 5, 50)
    assert (chat["top_k"], chat["repetition_penalty"]) == (3, 1.1)
    assert chat["repetition_detection"] == {"min_pattern_size": 8, "max_pattern_size": 32, "min_count": 4}
    assert [part["type"] for part in chat["messages"][1]["content"]] == ["image_url", "text"]


def test_a_special_token_in_a_prompt_reaches_no_server():
    script = Script(prompt_tokens=None)
    with serving(script) as url:
        hostile = replace(question(1), prompt="It has <|eot_id|> on it.")
        refused, fine = ask(spec(url, check_layout=True), hostile, question(2))
    assert (refused.text, refused.reason) == (None, Reason.PROMPT_MARKUP)
    assert refused.message == (
        f"the prompt holds '<|eot_id|>', which {url} would take for markup; the engine in process (engine.kind: vllm) "
        "sends it as text"
    )
    assert fine.text == "A red circle."
    assert not any("eot_id" in str(chat) for chat in script.chats)


COLOUR = json.dumps({"type": "object", "properties": {"colour": {"enum": ["red"]}}, "required": ["colour"]})


def test_a_schema_reaches_the_server_which_is_probed_for_it():
    script = Script()
    with serving(script) as url:
        asked = replace(question(1), schema=COLOUR)
        first, second = ask(replace(spec(url), schemas=(COLOUR,)), asked, question(2))
    assert (first.text, second.text) == ('{"colour": "red"}', "A red circle.")
    word, tried, chat, plain = script.chats
    assert word["max_tokens"] > 1
    assert [word["response_format"]["type"], tried["max_tokens"]] == ["json_schema", 1]
    assert chat["response_format"] == tried["response_format"]
    assert chat["response_format"]["json_schema"]["schema"] == json.loads(COLOUR)
    assert "response_format" not in plain


def test_a_server_that_ignores_or_refuses_schemas_is_refused():
    script = Script()
    script.ignores_schemas = True
    with serving(script) as url:
        with pytest.raises(
            ConfigError, match=r"does not honour response_format: asked for the JSON object with .*alone, "
        ):
            start_engine(replace(spec(url), schemas=(COLOUR,)))
        script.ignores_schemas, script.statuses = False, [200, 400]
        with pytest.raises(ConfigError, match=r"refuses the schema .*colour.*: .*scripted 400; change captions"):
            start_engine(replace(spec(url), schemas=(COLOUR,)))
        script.ignores_schemas = True
        assert ask(spec(url), question())[0].text == "A red circle."


def test_a_server_that_is_busy_is_asked_again_and_a_refused_request_is_a_row():
    script = Script(429, 503, 200, 400)
    with serving(script) as url:
        first, second = ask(spec(url, retries=2), question(1), question(2))
    assert first.text == "A red circle."
    assert (second.text, second.reason) == (None, Reason.ENGINE_ERROR)
    assert "scripted 400" in str(second.message)


def test_a_server_that_keeps_failing_leaves_its_requests_to_another():
    bad, good = Script(*[500] * 50), Script()
    with serving(bad) as first, serving(good) as second:
        answers = ask(spec(first, second), *map(question, range(12)))
    assert all(answer.text for answer in answers)
    # It rests after its first failure.
    assert len(bad.chats) == 1
    assert len(good.chats) == 12


def test_requests_of_an_image_go_to_one_server_and_images_to_all():
    scripts = Script(), Script()
    with serving(scripts[0]) as first, serving(scripts[1]) as second:
        ask(spec(first, second), *[question(number) for number in range(12) for _ in range(2)])
    seen = [{chat["messages"][1]["content"][0]["image_url"]["url"] for chat in script.chats} for script in scripts]
    assert all(seen)
    assert not seen[0] & seen[1]


def test_with_no_server_left_the_engine_is_dead():
    with serving(Script(*[500] * 9)) as url, pytest.raises(EngineDead, match=r"none of .* answers; last error.*500"):
        ask(spec(url), question())


def test_a_server_that_never_answers_is_waited_for_and_named():
    with pytest.raises(EngineDead, match=r"none of http://\S+ answers after 0 s \(endpoint.reconnect_timeout_s\)"):
        start_engine(spec("http://127.0.0.1:9/v1"))


def test_what_only_vllm_can_do_is_refused_of_another_server():
    with serving(Script(owner="someone")) as url:
        with pytest.raises(ConfigError, match="is not a vLLM server and does not support top_k, repetition_pe"):
            start_engine(spec(url))
        plain = SamplingConfig(stop_loops=False)
        assert ask(spec(url, sampling=plain), question())[0].text


def test_an_unknown_model_names_those_that_are_served():
    with serving(Script()) as url, pytest.raises(ConfigError, match="does not serve 'other'; allowed: standin"):
        start_engine(spec(url, model="other"))


def test_a_refused_key_names_its_variable_and_never_the_key(monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    script = Script(401)
    with serving(script) as url, pytest.raises(ConfigError, match=r"answers 401.*key sent: MY_KEY") as caught:
        ask(spec(url, api_key_env="MY_KEY"), question())
    assert "s3cret" not in str(caught.value)
    assert script.keys[-1] == "Bearer s3cret"
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ConfigError, match="MY_KEY is not set"):
        start_engine(spec(url, api_key_env="MY_KEY"))


def test_a_penalty_of_repairs_alone_is_refused_of_another_server_at_start():
    plain = SamplingConfig(stop_loops=False)
    with serving(Script(owner="someone")) as url:
        with pytest.raises(ConfigError, match=r"support repetition_penalty; set .*quality.retry.repetition_penalty"):
            start_engine(spec(url, sampling=plain, repair_penalty=1.2))
        assert start_engine(spec(url, sampling=plain, repair_penalty=1.0))


@pytest.mark.parametrize(("attempts", "penalty"), [(2, 1.2), (0, None)])
def test_the_engine_hears_of_the_penalty_of_the_repairs_that_a_job_makes(attempts, penalty):
    job = parse_job(
        {
            "source": "in",
            "output": "out",
            "model": "standin",
            "captions": {"slot": "long", "mode": "descriptive"},
            "quality": {"retry": {"attempts": attempts, "repetition_penalty": 1.2}},
        }
    )
    recipe, weights, _ = check_job(job)
    assert engine_spec(job, recipe, weights).repair_penalty == penalty


def test_a_prompt_of_another_length_is_refused_at_start_and_with_each_answer():
    script = Script()
    with (
        serving(script) as url,
        pytest.raises(ModelMismatch, match=r"prompt has 7 tokens, expected .* --chat-temp"),
    ):
        start_engine(spec(url, check_layout=True))
    script.prompt_tokens = expected_tokens(script.chats[0])
    with serving(script) as url:
        (answer,) = ask(spec(url, check_layout=True), question())
    assert answer.reason is Reason.ENGINE_ERROR
    assert "prompt tokens, expected" in str(answer.message)


@functools.cache
def our_tokens() -> PromptTokens:
    return PromptTokens(FAMILIES["joycaption"], WEIGHTS.path)


def expected_tokens(chat: dict) -> int:
    tokens = our_tokens()
    system, user = chat["messages"]
    return tokens.num_tokens(tokens.encode(system["content"], user["content"][1]["text"]), 90, 90)


def ask_before_and_after(engine_spec: EngineSpec, come_back, script: Script):
    """Ask, have a server come back with `script`, ask twenty questions; return their answers."""

    async def both(engine):
        assert (await engine.answer(question())).text
        with come_back(script):
            return await asyncio.gather(*(engine.answer(question(number)) for number in range(20)))

    return asyncio.run(both(start_engine(engine_spec)))


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr("pipeline.engines.endpoint.REST_S", 0.0)


def test_a_server_that_was_away_at_start_is_checked_once_before_its_first_question(no_pause):
    here, later, port = Script(prompt_tokens=None), Script(prompt_tokens=None), free_port()
    with serving(here) as url:
        both = spec(url, f"http://127.0.0.1:{port}/v1", check_layout=True)
        answers = ask_before_and_after(both, lambda script: serving(script, port), later)
    assert all(answer.text for answer in answers)
    assert (is_probe(later.chats[0]), later.probes) == (True, 1)
    assert len(later.chats) > 1
    assert here.probes == 1


@pytest.mark.parametrize(
    ("later", "why"),
    [
        (Script(prompt_tokens=9), "the prompt has 9 tokens, expected .*--chat-template"),
        (Script(owner="someone", prompt_tokens=None), "is not a vLLM server and does not support top_k"),
        (Script(*[400] * 99), "answers 400: .*scripted 400"),
    ],
)
def test_a_server_that_fails_its_check_after_an_outage_is_excluded(no_pause, caplog, later, why):
    here, port = Script(prompt_tokens=None), free_port()
    with serving(here) as url:
        both = spec(url, f"http://127.0.0.1:{port}/v1", check_layout=True)
        answers = ask_before_and_after(both, lambda script: serving(script, port), later)
    assert all(answer.text for answer in answers)
    assert len(later.chats) == later.probes <= 1
    [message] = [record.message for record in caplog.records if "excluded" in record.message]
    assert re.match(rf"endpoint=http://127.0.0.1:{port}/v1 excluded: .*{why}", message)


def test_a_server_that_fails_is_checked_again_and_with_none_left_the_run_ends(no_pause):
    script = Script(200, 200, 500, prompt_tokens=None)  # the probe, an answer, a failure

    async def asked_on(engine):
        assert (await engine.answer(question())).text
        with pytest.raises(EngineDead):
            await engine.answer(question())
        assert (await engine.answer(question())).text
        script.statuses, script.prompt_tokens = [500], 9
        with pytest.raises(EngineDead):
            await engine.answer(question())
        with pytest.raises(ModelMismatch, match="the prompt has 9 tokens, expected"):
            await engine.answer(question())
        with pytest.raises(ModelMismatch, match="the prompt has 9 tokens, expected"):
            await engine.restart()

    with serving(script) as url:
        asyncio.run(asked_on(start_engine(spec(url, check_layout=True))))
    assert script.probes == 4


def test_a_restart_continues_with_the_servers_that_pass_the_check(caplog):
    good, bad = Script(prompt_tokens=None), Script(prompt_tokens=None)

    async def restarted(engine):
        bad.prompt_tokens = 9
        await engine.restart()
        return [await engine.answer(question(number)) for number in range(12)]

    with serving(good) as first, serving(bad) as second:
        answers = asyncio.run(restarted(start_engine(spec(first, second, check_layout=True))))
        assert all(answer.text for answer in answers)
        assert len(bad.chats) == bad.probes == 2
        assert f"endpoint={second} excluded: {second}: the prompt has 9 tokens" in caplog.text


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"kind": "endpoint"}, "kind=endpoint with endpoint absent"),
        ({"endpoint": {"urls": ["http://a/v1"]}}, "kind=vllm with endpoint set"),
        ({"kind": "endpoint", "endpoint": {"urls": ["ftp://a/v1"]}}, r"allowed: http\(s\)://host:port/v1"),
        ({"kind": "endpoint", "endpoint": {"urls": ["http://u:p@a/v1"]}}, "without credentials"),
        ({"kind": "endpoint", "endpoint": {"urls": ["http://a/v1"]}, "quantization": "fp8"}, "found quantization"),
        (
            {"kind": "endpoint", "endpoint": {"urls": ["http://a/v1"]}, "per_accelerator": {"L4": {"max_num_seqs": 9}}},
            "found per_accelerator; with kind: endpoint the server sets these",
        ),
    ],
)
def test_an_endpoint_that_makes_no_sense_is_refused(engine, message):
    with pytest.raises(ValidationError, match=message):
        EngineConfig.model_validate(engine)


class Echoing(Script):
    """A server that says the key back, as some do."""

    def __init__(self, status: int, at: str) -> None:
        super().__init__()
        self.status, self.at = status, at

    def reply(self, path: str, body: dict) -> tuple[int, dict]:
        if path.endswith(self.at):
            return self.status, {"error": {"message": f"Incorrect API key provided: {self.keys[-1]}"}}
        return super().reply(path, body)


@pytest.mark.parametrize(
    ("status", "at", "error"),
    [
        (401, "/models", ConfigError),
        (401, "/chat/completions", ConfigError),
        (400, "/chat/completions", None),
        (500, "/models", EngineDead),
        (500, "/chat/completions", EngineDead),
    ],
)
def test_a_key_that_a_server_says_back_is_in_no_message_row_or_log(monkeypatch, caplog, status, at, error):
    monkeypatch.setenv("SERVERS", "marker-5e0f3c")
    messages, raised = [], None
    with serving(Echoing(status, at)) as url, caplog.at_level(logging.INFO, logger="pipeline"):
        try:
            messages += [str(answer.message) for answer in ask(spec(url, api_key_env="SERVERS"), question())]
        except PipelineError as err:
            raised = type(err)
            messages += traceback.format_exception(err)
    assert raised is error
    assert "Incorrect API key provided: Bearer ***" in "".join(messages)
    assert "marker-5e0f3c" not in "".join(messages) + caplog.text
