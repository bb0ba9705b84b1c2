"""An OpenAI-compatible server as an engine, several URLs of it if need be: the only module that imports openai.

A chat API words the prompt at the server, by a chat template that JoyCaption's own repository gets wrong for it
(no BOS, sometimes a literal `<image>` line), and no answer shows it. So the token ids that the server makes of a
probe are compared with ours before it is asked anything, at start or when it comes back, and the number of prompt
tokens with every answer.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openai
from openai.types import Model
from openai.types.chat import ChatCompletion
from PIL import Image

from pipeline.config import EndpointConfig, without_secrets
from pipeline.engines.factory import EngineSpec
from pipeline.engines.loops import LOOP_REPEATS, LOOP_TOKENS
from pipeline.engines.prompt_layout import PromptTokens
from pipeline.engines.protocol import EngineRequest, EngineResponse, EngineStats
from pipeline.errors import ConfigError, EngineDead, ModelMismatch, PipelineError
from schemas.status import Reason

log = logging.getLogger(__name__)

REST_S = 30.0
"""How long a server that failed a request and all its retries is left alone while others answer."""

POLL_S = 1.0
"""Between two looks whether a server is back."""

IN_FLIGHT = 256
"""Requests at all URLs together, unless `engine.max_num_seqs` says otherwise."""

_KEPT_IMAGES = 256
"""Encoded images kept for the other requests of an image: at most 110 MB of incompressible 384 px squares."""

_KEY_OR_NAME_WRONG = (401, 403, 404)
_COMES_BACK = (408, 409, 429)
"""Statuses below 500 that the openai client tries again, and that say nothing about the request."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """A server does what it is asked to, and words prompts as the model was taught."""

    max_model_len: int | None
    """Where the server tells it, as vLLM does."""


@dataclass(slots=True, eq=False)
class _Server:
    url: str
    client: openai.AsyncOpenAI
    checked: _Checked | None = None
    """None until it was looked at, and again when it was away: it may come back as another."""
    rests_until: float = 0.0
    """By the monotonic clock; infinite for one that is left out."""
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)


_Look = _Checked | openai.APIError | PipelineError
"""What a look at a server found: that it may be asked, why it does not answer, or why it must not be asked."""


class EndpointEngine:
    """See `pipeline.engines.protocol.Engine`."""

    def __init__(self, spec: EngineSpec, config: EndpointConfig) -> None:
        self._spec, self._config = spec, config
        self._tokens = PromptTokens(spec.model_path, spec.revision) if config.check_layout else None
        self._images: dict[str, str] = {}
        self._running = 0
        self._window = asyncio.Semaphore(spec.config.max_num_seqs or IN_FLIGHT)
        # httpx logs every request at INFO.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        key = _key(config)
        self._secrets = (key,) if config.api_key_env else ()
        self._clients = {
            url: openai.AsyncOpenAI(base_url=url, api_key=key, timeout=config.timeout_s, max_retries=config.retries)
            for url in config.urls
        }
        self._failure: str | None = None
        self._servers = self._find_servers(self._look)

    def stats(self) -> EngineStats:
        return EngineStats(requests_running=self._running)

    async def answer(self, question: EngineRequest) -> EngineResponse:
        async with self._window:
            self._running += 1
            try:
                return await self._answered(question)
            finally:
                self._running -= 1

    async def _answered(self, question: EngineRequest) -> EngineResponse:
        for server in self._order(question.image_id):
            checked = await self._admit(server)
            if checked is None:
                continue
            try:
                return await self._ask(server, checked, question)
            except openai.APIConnectionError as err:
                self._rest(server, err)
            except openai.APIStatusError as err:
                if err.status_code in _KEY_OR_NAME_WRONG:
                    # Without its cause, whose text may hold the key; Ray writes all causes to logs.
                    raise self._refused(server.url, err) from None
                if err.status_code < 500 and err.status_code not in _COMES_BACK:
                    return EngineResponse(
                        id=question.id, text=None, reason=Reason.ENGINE_ERROR, message=self._told(err)
                    )
                self._rest(server, err)
        raise EngineDead(f"{', '.join(self._config.urls)}: no server answers; the last said: {self._failure}")

    async def _admit(self, server: _Server) -> _Checked | None:
        """Look at a server before its first question, once for all that wait; None if it is away or left out."""
        async with server.looking:
            if server.checked is None and server.rests_until <= time.monotonic():
                try:
                    found = await asyncio.to_thread(self._look, server.url)
                except (ConfigError, ModelMismatch) as fault:
                    self._leave_out(server, fault)
                else:
                    if isinstance(found, _Checked):
                        server.checked = found
                    else:
                        self._rest(server, found)
            return server.checked

    def _rest(self, server: _Server, failure: openai.APIError) -> None:
        self._failure = self._told(failure)
        log.warning("endpoint=%s rests for %g s: %s", server.url, REST_S, self._failure)
        server.checked, server.rests_until = None, time.monotonic() + REST_S

    def _leave_out(self, server: _Server, fault: PipelineError) -> None:
        """Ask a server nothing more.

        Raises:
            PipelineError: the fault, if no other server is left.
        """
        server.rests_until = math.inf
        if all(one.rests_until == math.inf for one in self._servers):
            raise fault
        log.error("endpoint=%s is left out: %s", server.url, fault)

    def _order(self, image_id: str) -> list[_Server]:
        """The servers at work, the same one first for all requests of an image (rendezvous hashing)."""
        now = time.monotonic()
        at_work = [server for server in self._servers if server.rests_until <= now]
        return sorted(at_work, key=lambda server: hashlib.sha256(f"{server.url} {image_id}".encode()).digest())

    async def _ask(self, server: _Server, checked: _Checked, question: EngineRequest) -> EngineResponse:
        expected = self._expected_tokens(question)
        needed = (expected or 0) + self._spec.max_tokens
        if expected and checked.max_model_len and needed > checked.max_model_len:
            return EngineResponse(
                id=question.id,
                text=None,
                prompt_tokens=expected,
                reason=Reason.PROMPT_TOO_LONG,
                message=f"{expected} prompt tokens and sampling.max_tokens={self._spec.max_tokens} need "
                f"--max-model-len {needed} at {server.url}; it is {checked.max_model_len}",
            )
        done: ChatCompletion = await server.client.chat.completions.create(
            model=self._model,
            messages=_messages(question.system, question.prompt, self._image_url(question)),
            max_tokens=self._spec.max_tokens,
            **self._sampling(question),
        )
        return _answer(question, done, expected)

    @property
    def _model(self) -> str:
        return self._config.model or self._spec.model_path

    def _expected_tokens(self, question: EngineRequest) -> int | None:
        if self._tokens is None:
            return None
        return len(self._tokens.encode(question.system, question.prompt)) - 1 + self._tokens.image.tokens

    def _image_url(self, question: EngineRequest) -> str:
        """The pixels as PNG, without loss, encoded once for all requests of an image."""
        if question.image_id not in self._images:
            while len(self._images) >= _KEPT_IMAGES:
                del self._images[next(iter(self._images))]
            self._images[question.image_id] = _data_url(Image.fromarray(question.pixels))
        return self._images[question.image_id]

    def _sampling(self, question: EngineRequest) -> dict[str, Any]:
        """What the chat API has, and in `extra_body` what vLLM adds to it."""
        sampling = self._spec.sampling
        return {
            "temperature": sampling.temperature if question.temperature is None else question.temperature,
            "top_p": sampling.top_p,
            "seed": question.seed,
            "extra_body": self._only_vllm(question.repetition_penalty),
        }

    def _only_vllm(self, penalty: float | None) -> dict[str, Any]:
        """What only vLLM can do of what is asked, with this penalty or, None, the run's own."""
        sampling = self._spec.sampling
        penalty = sampling.repetition_penalty if penalty is None else penalty
        shortest, longest = LOOP_TOKENS
        loops = {"min_pattern_size": shortest, "max_pattern_size": longest, "min_count": LOOP_REPEATS}
        return {
            **({"top_k": sampling.top_k} if sampling.top_k else {}),
            **({"repetition_penalty": penalty} if penalty != 1 else {}),
            **({"repetition_detection": loops} if sampling.stop_loops else {}),
        }

    async def restart(self) -> None:
        self.close()
        log.warning("waiting up to %g s for %s", self._config.reconnect_timeout_s, ", ".join(self._config.urls))
        self._servers = await asyncio.to_thread(self._find_servers, self._look_again)

    def close(self) -> None:
        self._images.clear()

    def _find_servers(self, look: Callable[[str], _Look]) -> list[_Server]:
        """Wait until a server answers and is checked; return those that may be asked, now or when they are back.

        Raises:
            EngineDead: none answers within `reconnect_timeout_s`.
            ConfigError: as `look`, or that of a server if all are left out.
            ModelMismatch: likewise.
        """
        until = time.monotonic() + self._config.reconnect_timeout_s
        for attempt in itertools.count():
            found = {url: look(url) for url in self._config.urls}
            servers = [
                _Server(url, self._clients[url], one if isinstance(one, _Checked) else None)
                for url, one in found.items()
                if not isinstance(one, PipelineError)
            ]
            if not servers:
                raise next(one for one in found.values() if isinstance(one, PipelineError))
            if any(server.checked for server in servers):
                return servers
            away = next(one for one in found.values() if isinstance(one, openai.APIError))
            if time.monotonic() > until:
                raise EngineDead(
                    f"engine.endpoint: none of {', '.join(self._config.urls)} answers after "
                    f"{self._config.reconnect_timeout_s:g} s (endpoint.reconnect_timeout_s): {self._told(away)}"
                )
            if not attempt:
                log.info("no endpoint answers yet: %s", self._told(away))
            time.sleep(POLL_S)
        raise AssertionError("count() ends")

    def _look_again(self, url: str) -> _Look:
        """Look at a server in the middle of a run, where its fault is no reason to end it."""
        try:
            return self._look(url)
        except (ConfigError, ModelMismatch) as fault:
            log.error("endpoint=%s is left out: %s", url, fault)
            return fault

    def _look(self, url: str) -> _Checked | openai.APIError:
        """Check a server, or return why it does not answer.

        Raises:
            ConfigError: it refuses the key, does not know the model, or cannot do what the sampling asks.
            ModelMismatch: it words prompts otherwise.
        """
        theirs = self._clients[url]
        with openai.OpenAI(base_url=url, api_key=theirs.api_key, timeout=theirs.timeout, max_retries=0) as client:
            try:
                model = _find_model(client.models.list().data, self._model, url)
                if model.owned_by != "vllm":
                    self._refuse_only_vllm(url)
                if self._tokens is not None:
                    self._check_layout(client, url, self._tokens)
            except openai.APIStatusError as err:
                if err.status_code < 500 and err.status_code not in _COMES_BACK:
                    raise self._refused(url, err) from None
                return err
            except openai.APIConnectionError as err:
                return err
        return _Checked((model.model_extra or {}).get("max_model_len"))

    def _refused(self, url: str, err: openai.APIStatusError) -> ConfigError:
        key = self._config.api_key_env or "none; engine.endpoint.api_key_env names its variable"
        return ConfigError(f"engine.endpoint: {url} answers {err.status_code}: {self._told(err)}; key sent: {key}")

    def _told(self, err: openai.APIError) -> str:
        """What a server said, without the key that it may say back."""
        return without_secrets(err.message, *self._secrets)

    def _refuse_only_vllm(self, url: str) -> None:
        asked = self._only_vllm(None) | self._only_vllm(self._spec.repair_penalty)
        if asked:
            raise ConfigError(
                f"engine.endpoint: {url} is no vLLM server and cannot do {', '.join(asked)}; set sampling.top_k: 0, "
                "sampling.stop_loops: false, sampling.repetition_penalty: 1 and quality.retry.repetition_penalty: "
                "null, as far as they are not"
            )

    def _check_layout(self, client: openai.OpenAI, url: str, tokens: PromptTokens) -> None:
        probe = _probe_question(self._spec.side_px)
        messages = _messages(probe.system, probe.prompt, _data_url(Image.fromarray(probe.pixels)))
        ours = tokens.encode(probe.system, probe.prompt)
        try:
            # vLLM's own; with the token ids we see what is wrong, not only that something is.
            path = url.removesuffix("/v1") + "/tokenize"
            body: Any = client.post(path, cast_to=object, body={"model": self._model, "messages": messages})
            theirs = tokens.with_one_image(body["tokens"])
        except openai.NotFoundError:
            done: ChatCompletion = client.chat.completions.create(model=self._model, messages=messages, max_tokens=1)
            found, wanted = done.usage and done.usage.prompt_tokens, len(ours) - 1 + tokens.image.tokens
            if found != wanted:
                raise ModelMismatch(f"{url}: {found} prompt tokens, not {wanted}; {_HOW_TO}") from None
            return
        try:
            tokens.check(theirs)
        except ModelMismatch as err:
            raise ModelMismatch(f"{url}: {err}; {_HOW_TO}") from err
        if theirs != ours:
            raise ModelMismatch(f"{url}: the prompt is {len(theirs)} tokens other than our {len(ours)}; {_HOW_TO}")


_HOW_TO = (
    "the server's chat template does not word JoyCaption's prompt: start it with --chat-template "
    "infra/joycaption.jinja (engine.endpoint.check_layout: false lets it pass)"
)


def _probe_question(side_px: int) -> EngineRequest:
    return EngineRequest(
        id="probe",
        pixels=np.zeros((side_px, side_px, 3), np.uint8),
        image_id="probe",
        system="You are a helpful image captioner.",
        prompt="Write a detailed description for this image.",
        seed=0,
    )


def _messages(system: str, prompt: str, image_url: str) -> list[Any]:
    content = [{"type": "image_url", "image_url": {"url": image_url}}, {"type": "text", "text": prompt}]
    return [{"role": "system", "content": system}, {"role": "user", "content": content}]


def _data_url(image: Image.Image) -> str:
    sink = io.BytesIO()
    # Level 1 takes a third of the time of the default and 5 % more bytes, which travel no further than a rack.
    image.save(sink, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()


def _answer(question: EngineRequest, done: ChatCompletion, expected: int | None) -> EngineResponse:
    usage, choice = done.usage, done.choices[0]
    prompt_tokens = usage.prompt_tokens if usage else None
    if expected is not None and prompt_tokens is not None and prompt_tokens != expected:
        return EngineResponse(
            id=question.id,
            text=None,
            prompt_tokens=prompt_tokens,
            reason=Reason.ENGINE_ERROR,
            message=f"the server saw {prompt_tokens} prompt tokens, not {expected}; {_HOW_TO}",
        )
    return EngineResponse(
        id=question.id,
        text=(choice.message.content or "").strip(),
        finish_reason=choice.finish_reason,
        prompt_tokens=prompt_tokens,
        caption_tokens=usage.completion_tokens if usage else None,
    )


def _find_model(models: Sequence[Model], name: str, url: str) -> Model:
    for model in models:
        if model.id == name:
            return model
    served = ", ".join(model.id for model in models) or "none"
    raise ConfigError(f"engine.endpoint.model: {url} has no {name!r}; allowed: {served}")


def _key(config: EndpointConfig) -> str:
    if config.api_key_env is None:
        return "none"  # the client insists on one
    key = os.environ.get(config.api_key_env)
    if not key:
        raise ConfigError(
            f"engine.endpoint.api_key_env: {config.api_key_env} is not set where this engine runs; set it in the "
            "environment of the workers (runtime_env, or a secret of the pod)"
        )
    return key
