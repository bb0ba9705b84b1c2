"""One or several OpenAI-compatible servers as an engine: the only module that imports openai.

With a chat API the server builds the prompt from a chat template. The templates on the hub may be wrong (no BOS, a
literal `<image>` line), and no answer shows it. So the server's token ids of a probe are compared with ours before its
first request, at start and after an outage, and the number of prompt tokens with every answer.
"""

import asyncio
import base64
import hashlib
import io
import itertools
import json
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import openai
from openai.types import Model
from openai.types.chat import ChatCompletion
from PIL import Image

from pipeline.config import EndpointConfig, without_secrets
from pipeline.engines.factory import EngineSpec
from pipeline.engines.hub_model import PromptTokens
from pipeline.engines.protocol import LOOP_REPEATS, LOOP_TOKENS, EngineRequest, EngineResponse, EngineStats
from pipeline.errors import ConfigError, EngineDead, ModelMismatch, PipelineError
from pipeline.models import FAMILIES, takes_images
from schemas.status import Reason

log = logging.getLogger(__name__)

REST_S = 30.0
"""Pause of a server that failed a request and all its retries; other servers answer meanwhile."""

POLL_S = 1.0
"""Interval of the checks whether a server is back."""

IN_FLIGHT = 256
"""Default of `engine.max_num_seqs`: requests in flight at all URLs together."""

_KEPT_IMAGES = 256
"""Encoded images kept for the other requests of an image: 110 MB at most for images of 150,000 pixels."""

_KEY_OR_NAME_WRONG = (401, 403, 404)
_TRANSIENT = (408, 409, 429)
"""Statuses below 500 that the openai client retries; they say nothing about the request."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """The result of a successful check: the server supports the settings and builds prompts as the model expects."""

    max_model_len: int | None
    """None if the server does not report it; vLLM does."""


@dataclass(slots=True, eq=False)
class _Server:
    url: str
    client: openai.AsyncOpenAI
    checked: _Checked | None = None
    """None before the first check, and after an outage: another server may come back."""
    paused_until: float = 0.0
    """On the monotonic clock; infinite for a server that is excluded."""
    check_lock: asyncio.Lock = field(default_factory=asyncio.Lock)


_CheckResult = _Checked | openai.APIError | PipelineError
"""Success, why the server does not answer, or why it must not be used."""


class EndpointEngine:
    """See `pipeline.engines.protocol.Engine`."""

    def __init__(self, spec: EngineSpec, config: EndpointConfig) -> None:
        self._spec, self._config = spec, config
        self._family = FAMILIES[spec.family]
        self._tokens = PromptTokens(self._family, spec.model_path, spec.revision) if config.check_layout else None
        self._images: dict[str, str] = {}
        self._running = 0
        self._max_num_seqs = spec.config.max_num_seqs or IN_FLIGHT
        self._window = asyncio.Semaphore(self._max_num_seqs)
        # httpx logs every request at INFO.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        key = _key(config)
        self._secrets = (key,) if config.api_key_env else ()
        self._clients = {
            url: openai.AsyncOpenAI(base_url=url, api_key=key, timeout=config.timeout_s, max_retries=config.retries)
            for url in config.urls
        }
        self._failure: str | None = None
        self._servers = self._find_servers(self._check)

    def stats(self) -> EngineStats:
        return EngineStats(max_num_seqs=self._max_num_seqs, requests_running=self._running)

    async def answer(self, request: EngineRequest) -> EngineResponse:
        async with self._window:
            self._running += 1
            try:
                return await self._answered(request)
            finally:
                self._running -= 1

    async def _answered(self, request: EngineRequest) -> EngineResponse:
        for server in self._order(request.image_id):
            checked = await self._checked(server)
            if checked is None:
                continue
            try:
                return await self._send(server, checked, request)
            except openai.APIConnectionError as err:
                self._pause(server, err)
            except openai.APIStatusError as err:
                if err.status_code in _KEY_OR_NAME_WRONG:
                    # Without its cause, whose text may contain the key: Ray writes all causes to logs.
                    raise self._refused(server.url, err) from None
                if err.status_code < 500 and err.status_code not in _TRANSIENT:
                    return EngineResponse(
                        id=request.id, text=None, reason=Reason.ENGINE_ERROR, message=self._message_of(err)
                    )
                self._pause(server, err)
        raise EngineDead(
            f"engine.endpoint: none of {', '.join(self._config.urls)} answers; last error: {self._failure}"
        )

    async def _checked(self, server: _Server) -> _Checked | None:
        """Check a server before its first request, once for all requests that wait; None if it cannot be used now."""
        async with server.check_lock:
            if server.checked is None and server.paused_until <= time.monotonic():
                try:
                    result = await asyncio.to_thread(self._check, server.url)
                except (ConfigError, ModelMismatch) as fault:
                    self._exclude(server, fault)
                else:
                    if isinstance(result, _Checked):
                        server.checked = result
                    else:
                        self._pause(server, result)
            return server.checked

    def _pause(self, server: _Server, failure: openai.APIError) -> None:
        self._failure = self._message_of(failure)
        log.warning("endpoint=%s paused for %g s: %s", server.url, REST_S, self._failure)
        server.checked, server.paused_until = None, time.monotonic() + REST_S

    def _exclude(self, server: _Server, fault: PipelineError) -> None:
        """Send no more requests to a server.

        Raises:
            PipelineError: the fault, if this was the last server.
        """
        server.paused_until = math.inf
        if all(other.paused_until == math.inf for other in self._servers):
            raise fault
        log.error("endpoint=%s excluded: %s", server.url, fault)

    def _order(self, image_id: str) -> list[_Server]:
        """The servers that are not paused; the same one first for all requests of an image (rendezvous hashing)."""
        now = time.monotonic()
        active = [server for server in self._servers if server.paused_until <= now]
        return sorted(active, key=lambda server: hashlib.sha256(f"{server.url} {image_id}".encode()).digest())

    async def _send(self, server: _Server, checked: _Checked, request: EngineRequest) -> EngineResponse:
        markup = self._tokens and self._tokens.markup_in(request.prompt)
        if markup:
            return EngineResponse(
                id=request.id,
                text=None,
                reason=Reason.PROMPT_MARKUP,
                message=f"the prompt holds {markup!r}, which {server.url} would take for markup; the engine in process "
                "(engine.kind: vllm) sends it as text",
            )
        expected = self._expected_tokens(request)
        needed = (expected or 0) + self._spec.max_tokens
        if expected and checked.max_model_len and needed > checked.max_model_len:
            return EngineResponse(
                id=request.id,
                text=None,
                prompt_tokens=expected,
                reason=Reason.PROMPT_TOO_LONG,
                message=f"{expected} prompt tokens and sampling.max_tokens={self._spec.max_tokens} need "
                f"--max-model-len {needed} at {server.url}; found {checked.max_model_len}",
            )
        done: ChatCompletion = await server.client.chat.completions.create(
            model=self._model,
            messages=self._family.endpoint.messages(request.system, request.prompt, self._image_url(request)),
            max_tokens=self._spec.max_tokens,
            **self._sampling(request),
            **_response_format(request.schema),
        )
        return self._response(request, done, expected)

    @property
    def _model(self) -> str:
        return self._config.model or self._spec.model_path

    def _expected_tokens(self, request: EngineRequest) -> int | None:
        if self._tokens is None:
            return None
        height, width, _ = request.pixels.shape
        return self._tokens.num_tokens(self._tokens.encode(request.system, request.prompt), width, height)

    def _image_url(self, request: EngineRequest) -> str | None:
        """The pixels as PNG, which is lossless, encoded once for all requests of an image; None without an image."""
        if not request.pixels.size:
            return None
        if request.image_id not in self._images:
            while len(self._images) >= _KEPT_IMAGES:
                del self._images[next(iter(self._images))]
            self._images[request.image_id] = _data_url(Image.fromarray(request.pixels))
        return self._images[request.image_id]

    def _sampling(self, request: EngineRequest) -> dict[str, Any]:
        """The parameters of the chat API, and vLLM's additions in `extra_body`."""
        sampling = self._spec.sampling
        return {
            "temperature": sampling.temperature if request.temperature is None else request.temperature,
            "top_p": sampling.top_p,
            "seed": request.seed,
            "extra_body": {**self._only_vllm(request.repetition_penalty), **self._of_template},
        }

    @property
    def _of_template(self) -> dict[str, Any]:
        """Variables of the chat template, for the body of a request."""
        settings = dict(self._tokens.layout.template_settings) if self._tokens else {}
        return {"chat_template_kwargs": settings} if settings else {}

    def _only_vllm(self, penalty: float | None) -> dict[str, Any]:
        """The parameters that only vLLM supports, with this penalty (None: the run's own)."""
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
        self._servers = await asyncio.to_thread(self._find_servers, self._check_again)

    def close(self) -> None:
        self._images.clear()

    def _find_servers(self, check: Callable[[str], _CheckResult]) -> list[_Server]:
        """Wait until a server answers and passes the check; return all that can be used, now or after an outage.

        Raises:
            EngineDead: none answers within `reconnect_timeout_s`.
            ConfigError: from `check`, or the fault of one server if all are excluded.
            ModelMismatch: likewise.
        """
        until = time.monotonic() + self._config.reconnect_timeout_s
        for attempt in itertools.count():
            results = {url: check(url) for url in self._config.urls}
            servers = [
                _Server(url, self._clients[url], result if isinstance(result, _Checked) else None)
                for url, result in results.items()
                if not isinstance(result, PipelineError)
            ]
            if not servers:
                raise next(result for result in results.values() if isinstance(result, PipelineError))
            if any(server.checked for server in servers):
                return servers
            failure = next(result for result in results.values() if isinstance(result, openai.APIError))
            if time.monotonic() > until:
                raise EngineDead(
                    f"engine.endpoint: none of {', '.join(self._config.urls)} answers after "
                    f"{self._config.reconnect_timeout_s:g} s (endpoint.reconnect_timeout_s): "
                    f"{self._message_of(failure)}"
                )
            if not attempt:
                log.info("no endpoint answers yet: %s", self._message_of(failure))
            time.sleep(POLL_S)
        raise AssertionError("count() ends")

    def _check_again(self, url: str) -> _CheckResult:
        """Check a server in the middle of a run, where the fault of one server must not end the run."""
        try:
            return self._check(url)
        except (ConfigError, ModelMismatch) as fault:
            log.error("endpoint=%s excluded: %s", url, fault)
            return fault

    def _check(self, url: str) -> _Checked | openai.APIError:
        """Check a server, or return why it does not answer.

        Raises:
            ConfigError: it refuses the key, does not know the model, or does not support the sampling settings or a
                schema.
            ModelMismatch: its chat template produces another prompt.
        """
        used = self._clients[url]
        with openai.OpenAI(base_url=url, api_key=used.api_key, timeout=used.timeout, max_retries=0) as client:
            try:
                model = _find_model(client.models.list().data, self._model, url)
                if model.owned_by != "vllm":
                    self._refuse_only_vllm(url)
                if self._tokens is not None:
                    self._check_layout(client, url, self._tokens)
                if self._spec.schemas:
                    self._check_schemas(client, url)
            except openai.APIStatusError as err:
                if err.status_code < 500 and err.status_code not in _TRANSIENT:
                    raise self._refused(url, err) from None
                return err
            except openai.APIConnectionError as err:
                return err
        return _Checked((model.model_extra or {}).get("max_model_len"))

    def _refused(self, url: str, err: openai.APIStatusError) -> ConfigError:
        key = self._config.api_key_env or "none; set engine.endpoint.api_key_env to the name of its variable"
        return ConfigError(
            f"engine.endpoint: {url} answers {err.status_code}: {self._message_of(err)}; key sent: {key}"
        )

    def _message_of(self, err: openai.APIError) -> str:
        """The server's message without the key, which a server may repeat."""
        return without_secrets(err.message, *self._secrets)

    def _refuse_only_vllm(self, url: str) -> None:
        used = self._only_vllm(None) | self._only_vllm(self._spec.repair_penalty)
        if used:
            raise ConfigError(
                f"engine.endpoint: {url} is not a vLLM server and does not support {', '.join(used)}; set "
                "sampling.top_k: 0, sampling.stop_loops: false, sampling.repetition_penalty: 1 and "
                "quality.retry.repetition_penalty: null"
            )

    def _probe(self) -> tuple[list[Any], str]:
        """The messages of a probe, and its system turn: none for a model that may not take any."""
        system = _PROBE_SYSTEM if takes_images(self._spec.geometry) else ""
        width, height = self._spec.geometry.size_of(256, 256)
        image = _data_url(Image.new("RGB", (width, height))) if width else None
        return self._family.endpoint.messages(system, _PROBE_PROMPT, image), system

    def _check_layout(self, client: openai.OpenAI, url: str, tokens: PromptTokens) -> None:
        messages, system = self._probe()
        width, height = self._spec.geometry.size_of(256, 256)
        ours = tokens.encode(system, _PROBE_PROMPT)
        try:
            # Only vLLM has this path. With the token ids the message can name the fault.
            path = url.removesuffix("/v1") + "/tokenize"
            question = {"model": self._model, "messages": messages, **self._of_template}
            body: Any = client.post(path, cast_to=object, body=question)
            theirs = tokens.with_one_image(body["tokens"])
        except openai.NotFoundError:
            done: ChatCompletion = client.chat.completions.create(
                model=self._model, messages=messages, max_tokens=1, extra_body=self._of_template
            )
            found, expected = done.usage and done.usage.prompt_tokens, tokens.num_tokens(ours, width, height)
            if found != expected:
                message = f"{url}: the prompt has {found} tokens, expected {expected}; {self._how_to}"
                raise ModelMismatch(message) from None
            return
        try:
            tokens.layout.check(theirs)
        except ModelMismatch as err:
            raise ModelMismatch(f"{url}: {err}; {self._how_to}") from err
        if theirs != ours:
            raise ModelMismatch(
                f"{url}: the prompt has {len(theirs)} tokens that differ from the {len(ours)} expected; {self._how_to}"
            )

    def _check_schemas(self, client: openai.OpenAI, url: str) -> None:
        """Ask for JSON that only a server can give that honours the schema, then with one token for each schema."""
        messages, _ = self._probe()
        word = secrets.token_hex(4)
        only = {"type": "object", "properties": {word: {"type": "string", "enum": [word]}}}
        only |= {"required": [word], "additionalProperties": False}
        for schema, max_tokens in ((json.dumps(only), _PROBE_TOKENS), *((schema, 1) for schema in self._spec.schemas)):
            try:
                done: ChatCompletion = client.chat.completions.create(
                    model=self._model,
                    messages=messages,
                    max_tokens=max_tokens,
                    extra_body=self._of_template,
                    **_response_format(schema),
                )
            except openai.BadRequestError as err:
                raise ConfigError(
                    f"engine.endpoint: {url} refuses the schema {schema[:200]}: {self._message_of(err)}; change "
                    "captions.*.schema, or use the engine in process (engine.kind: vllm)"
                ) from None
            answer = done.choices[0].message.content or ""
            if max_tokens > 1 and _parsed(answer) != {word: word}:
                raise ConfigError(
                    f"engine.endpoint: {url} does not honour response_format: asked for the JSON object with {word!r} "
                    f"alone, it answered {answer[:80]!r}; use a server with structured outputs, such as vllm serve, or "
                    "remove captions.*.schema"
                )

    @property
    def _how_to(self) -> str:
        template = self._family.endpoint.chat_template
        how = f"with --chat-template {template}" if template else f"with the files of {self._spec.model_path}"
        return (
            f"the server's chat template does not build the prompt of {self._family.name}: start it {how} "
            "(engine.endpoint.check_layout: false skips this check)"
        )

    def _response(self, request: EngineRequest, done: ChatCompletion, expected: int | None) -> EngineResponse:
        usage, choice = done.usage, done.choices[0]
        prompt_tokens = usage.prompt_tokens if usage else None
        if expected is not None and prompt_tokens is not None and prompt_tokens != expected:
            return EngineResponse(
                id=request.id,
                text=None,
                prompt_tokens=prompt_tokens,
                reason=Reason.ENGINE_ERROR,
                message=f"the server counted {prompt_tokens} prompt tokens, expected {expected}; {self._how_to}",
            )
        return EngineResponse(
            id=request.id,
            text=(choice.message.content or "").strip(),
            finish_reason=choice.finish_reason,
            prompt_tokens=prompt_tokens,
            caption_tokens=usage.completion_tokens if usage else None,
        )


_PROBE_SYSTEM = "You are a helpful image captioner."
_PROBE_PROMPT = "Write a detailed description for this image."


_PROBE_TOKENS = 64
"""For an object with a word of 8 digits as its key and value."""


def _response_format(schema: str | None) -> dict[str, Any]:
    """The parameter of the chat API for an answer under a JSON Schema."""
    if schema is None:
        return {}
    named = {"name": "caption", "schema": json.loads(schema), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _parsed(text: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(text)
    except ValueError:
        return None


def _data_url(image: Image.Image) -> str:
    sink = io.BytesIO()
    # Level 1 takes a third of the time of the default and 5 % more bytes; servers are usually nearby.
    image.save(sink, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()


def _find_model(models: Sequence[Model], name: str, url: str) -> Model:
    for model in models:
        if model.id == name:
            return model
    served = ", ".join(model.id for model in models) or "none"
    raise ConfigError(f"engine.endpoint.model: {url} does not serve {name!r}; allowed: {served}")


def _key(config: EndpointConfig) -> str:
    if config.api_key_env is None:
        return "none"  # the client requires a key
    key = os.environ.get(config.api_key_env)
    if not key:
        raise ConfigError(
            f"engine.endpoint.api_key_env: {config.api_key_env} is not set in the process of this engine; set it "
            "in the environment of the workers (runtime_env, or a secret of the pod)"
        )
    return key
