"""One vLLM replica in this process: the only module that imports vLLM.

Requests reach vLLM in the form that its own input processing produces: token ids with the image's tokens in place,
normalised pixels and a hash. `generate` accepts this form directly, without its thread for raw prompts.

`AsyncLLM` runs its core in a process of its own, so this process survives a dead core and starts another. The k
requests of an image may run together: vLLM shares the KV blocks of their common prefix within one step (measured with
4 prompts an image: 11,264 of 16,128 prompt tokens came from the cache, the same as when the first one ran alone).
"""

import asyncio
import logging
import textwrap
from collections.abc import Callable, Coroutine, Mapping, Sequence
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from vllm import AsyncEngineArgs, SamplingParams
from vllm.config import StructuredOutputsConfig
from vllm.inputs.engine import MultiModalInput, TokensInput, mm_input, tokens_input
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RepetitionDetectionParams, RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine import utils
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor.uniproc_executor import UniProcExecutor
from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.metrics.stats import IterationStats, MultiModalCacheStats, SchedulerStats

from pipeline.engines.factory import EngineSpec
from pipeline.engines.gpus import attention_backend
from pipeline.engines.grammar import BACKEND, grammar_fault
from pipeline.engines.hub_model import PromptTokens, image_processor
from pipeline.engines.orphan_reaper import OrphanReaper, start_with_reaper
from pipeline.engines.protocol import LOOP_REPEATS, LOOP_TOKENS, EngineRequest, EngineResponse, EngineStats
from pipeline.engines.sizing import Device, Size, size_for
from pipeline.engines.start_hints import hint_for
from pipeline.engines.stderr_tail import DRAIN_S, StderrTail, last_lines
from pipeline.engines.vllm_worker import ChoicesOfWorker
from pipeline.errors import ConfigError, EngineDead, ModelMismatch
from pipeline.models import FAMILIES, ModelFamily, takes_images
from pipeline.models.family import Pixels
from schemas.status import Reason

log = logging.getLogger(__name__)

T = TypeVar("T")

DEAD_POLL_S = 1.0
"""How often a new engine's first requests check that its core lives."""


class VllmEngine:
    """See `pipeline.engines.protocol.Engine`."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        _check_grammars(spec.schemas)
        family = FAMILIES[spec.family]
        self._tokens = PromptTokens(family, spec.model_path, spec.revision)
        self._tokens.check_room(spec.max_tokens, spec.config.max_model_len)
        if self._tokens.geometry != spec.geometry:
            raise ModelMismatch(
                f"{spec.model_path}: its config.json gives {self._tokens.geometry}, but the images are prepared with "
                f"{spec.geometry}; use the same weights on the driver and on all replicas"
            )
        self._device = _device()
        self._size = size_for(spec.config, self._tokens.dims, self._device)
        self._items: _ImageItems | None = None
        if family.prepare_images is not None:
            process = image_processor(spec.model_path, spec.revision)
            self._items = _ImageItems(family.prepare_images(process, spec.geometry, spec.config.dtype, spec.model_path))
        self._stats = _Stats()
        self._stderr = StderrTail()
        self._setup: dict[str, str] = {}
        self._llm, self._guard = self._started()

    def _started(self) -> tuple[AsyncLLM, OrphanReaper]:
        self._answered, self._choices = False, None
        llm, guard = start_with_reaper(lambda: self._start())
        config = llm.vllm_config
        self._setup = {
            "device": self._device.name if self._device else "CPU",
            "kv_tokens": str(getattr(config.cache_config, "kv_cache_size_tokens", "unknown")),
        }
        return llm, guard

    def _start(self) -> AsyncLLM:
        try:
            with self._stderr.recorded():
                args = _engine_args(self._spec, self._size, self._device)
                return AsyncLLM.from_engine_args(args, stat_loggers=[_stat_logger(self._stats)])
        except (RuntimeError, ValueError, OSError) as err:
            reason = f"{self._spec.model_path}: the engine does not start: {err}"
            raise EngineDead(_explained(reason, self._stderr.text(DRAIN_S))) from err

    async def answer(self, request: EngineRequest) -> EngineResponse:
        ids = self._tokens.encode(request.system, request.prompt)
        height, width, _ = request.pixels.shape
        prompt_tokens = self._tokens.num_tokens(ids, width, height)
        needed = prompt_tokens + self._spec.max_tokens
        if needed > self._spec.config.max_model_len:
            return EngineResponse(
                id=request.id,
                text=None,
                prompt_tokens=prompt_tokens,
                reason=Reason.PROMPT_TOO_LONG,
                message=f"{prompt_tokens} prompt tokens and sampling.max_tokens={self._spec.max_tokens} need "
                f"engine.max_model_len={needed}; found {self._spec.config.max_model_len}",
            )
        try:
            return self._response(request, prompt_tokens, await self._generate(request, ids))
        except EngineDeadError as err:
            reason = f"{self._spec.model_path}: the engine died: {err}"
            raise EngineDead(_explained(reason, self._stderr.text())) from err
        except ValueError as err:  # vLLM refuses one request and stays alive
            return EngineResponse(id=request.id, text=None, reason=Reason.ENGINE_ERROR, message=str(err))

    async def _generate(self, request: EngineRequest, ids: tuple[int, ...]) -> RequestOutput:
        if self._choices is None:
            self._choices = asyncio.create_task(self._ask_choices(self._llm))
        work = self._final_output(self._input(request, ids), _sampling(self._spec, request), request.id)
        output = await (work if self._answered else self._while_alive(work))
        self._answered = True
        return output

    async def _final_output(
        self, prompt: MultiModalInput | TokensInput, sampling: SamplingParams, name: str
    ) -> RequestOutput:
        final: RequestOutput | None = None
        async for output in self._llm.generate(prompt, sampling, request_id=name):
            final = output
        if final is None or not final.finished:
            raise EngineDeadError(suppress_context=True)
        return final

    async def _while_alive(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for what the core computes, and give up when the core dies.

        vLLM 0.29 reads the core's socket in a task that the first request starts. If the core dies before, vLLM's
        monitor thread finds no task to cancel and closes the socket under the task that starts meanwhile, which then
        waits for ever (`MPClient`'s `BackgroundResources.__call__`). From the first output on, vLLM raises itself.
        """
        task = asyncio.ensure_future(work)
        llm, dead = self._llm, 0
        # Twice, so that an error that vLLM raises itself comes first.
        while dead < 2:
            done, _ = await asyncio.wait({task}, timeout=DEAD_POLL_S)
            if done:
                return task.result()
            dead = dead + 1 if llm.errored else 0
        task.cancel()
        raise EngineDeadError(suppress_context=True)

    async def _ask_choices(self, llm: AsyncLLM) -> None:
        """Log what vLLM chose for this device; a core that dies meanwhile is reported by its requests."""
        try:
            [choices, *_] = await self._while_alive(llm.collective_rpc("joyfleet_choices"))
        except EngineDeadError:
            return
        self._setup |= choices
        # A warning, since Ray's workers keep nothing below it.
        log.warning("engine: %s", _joined(self._setup))

    def _response(self, request: EngineRequest, prompt_tokens: int, output: RequestOutput) -> EngineResponse:
        completion = output.outputs[0]
        return EngineResponse(
            id=request.id,
            text=self._tokens.decode(completion.token_ids).strip(),
            finish_reason=completion.finish_reason,
            prompt_tokens=prompt_tokens,
            caption_tokens=len(completion.token_ids),
        )

    def _input(self, request: EngineRequest, ids: tuple[int, ...]) -> MultiModalInput | TokensInput:
        layout = self._tokens.layout
        if self._items is None or layout.image_token is None:
            return tokens_input(list(ids))
        before, after = self._tokens.around_image(ids)
        height, width, _ = request.pixels.shape
        num_image_tokens = layout.image_tokens(width, height)
        return mm_input(
            [*before, *[layout.image_token] * num_image_tokens, *after],
            MultiModalKwargsItems({"image": [self._items.of(request)]}),
            {"image": [request.image_id]},
            {"image": [PlaceholderRange(offset=len(before), length=num_image_tokens)]},
        )

    async def restart(self) -> None:
        self.close()
        log.warning("the engine of %s died; starting a new one", self._spec.model_path)
        self._llm, self._guard = await asyncio.to_thread(self._started)

    def stats(self) -> EngineStats:
        counts: dict[str, Any] = {**self._stats.levels, **self._stats.sums}
        return EngineStats(**counts, max_num_seqs=self._size.max_num_seqs, setup=_joined(self._setup))

    def close(self) -> None:
        self._llm.shutdown()
        self._guard.release()


def start_cores_in(context: BaseContext) -> None:
    """Start the cores of all engines of this process in a context of `multiprocessing` (`core_server`)."""
    launcher: Any = utils
    launcher.get_mp_context = lambda: context


class _Stats:
    """The sum of what vLLM reports after each step, across restarts of the engine."""

    def __init__(self) -> None:
        self.levels: dict[str, Any] = {}
        self.sums: dict[str, int] = dict.fromkeys(("prefix_tokens", "prefix_hits", "preemptions"), 0)

    def add(self, **counts: int) -> None:
        self.sums = {name: value + counts.get(name, 0) for name, value in self.sums.items()}


def _stat_logger(stats: _Stats) -> type[PrometheusStatLogger]:
    """Return the class that vLLM calls after each step.

    vLLM adds its own Prometheus logger unless one of ours has that class. Its logger and the variant for Ray update a
    histogram for every token of every request, 8 and 17 us each on a busy core (measured), 256 times a step.
    """

    class StatLogger(PrometheusStatLogger):
        def __init__(self, vllm_config: object, engine_indexes: list[int] | None = None) -> None:
            del vllm_config, engine_indexes  # vLLM's registry is not used

        def record(
            self,
            scheduler_stats: SchedulerStats | None,
            iteration_stats: IterationStats | None,
            mm_cache_stats: MultiModalCacheStats | None = None,
            engine_idx: int = 0,
        ) -> None:
            del mm_cache_stats, engine_idx  # one core an engine
            if scheduler_stats is not None:
                prefix = scheduler_stats.prefix_cache_stats
                stats.levels = {
                    "requests_running": scheduler_stats.num_running_reqs,
                    "requests_waiting": scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs,
                    "kv_cache_used": scheduler_stats.kv_cache_usage,
                }
                stats.add(prefix_tokens=prefix.queries, prefix_hits=prefix.hits)
            if iteration_stats is not None:
                stats.add(preemptions=iteration_stats.num_preempted_reqs)

        def log_engine_initialized(self) -> None:
            pass

    return StatLogger


class _ImageItems:
    """The tensors of an image, computed once for its k requests, which follow each other directly."""

    def __init__(self, prepare: Callable[[Pixels], Mapping[str, Any]]) -> None:
        self._prepare = prepare
        self._last: tuple[str, MultiModalKwargsItem] | None = None

    def of(self, request: EngineRequest) -> MultiModalKwargsItem:
        if self._last is None or self._last[0] != request.image_id:
            fields = {
                name: MultiModalFieldElem(data=tensor, field=MultiModalBatchedField())
                for name, tensor in self._prepare(request.pixels).items()
            }
            self._last = request.image_id, MultiModalKwargsItem(fields)
        return self._last[1]


def _device() -> Device | None:
    """The GPU of this process, or None for a CPU: read once, before the engine starts."""
    if current_platform.is_cpu():
        return None
    capability = current_platform.get_device_capability()
    return Device(
        name=current_platform.get_device_name(),
        memory_bytes=float(current_platform.get_device_total_memory()),
        capability=(capability.major, capability.minor) if capability else (0, 0),
    )


def _explained(reason: str, stderr: str) -> str:
    """Add the end of the core's standard error, and what to do about a cause that is known."""
    quoted = last_lines(stderr)
    lines = [reason]
    if quoted:
        lines.append(f"The engine's last lines:\n{textwrap.indent(quoted, '  ')}")
    # The last lines first: a log before them may mention other troubles.
    hint = hint_for(f"{reason}\n{quoted}") or hint_for(stderr)
    if hint:
        lines.append(f"Probable cause: {hint}")
    return "\n".join(lines)


def _joined(setup: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in setup.items())


def _engine_args(spec: EngineSpec, size: Size, gpu: Device | None) -> AsyncEngineArgs:
    config = spec.config
    cpu = gpu is None
    # Inside a placement group vLLM would start Ray actors of its own for the ranks.
    device: dict[str, Any] = {"distributed_executor_backend": "mp"} if config.tensor_parallel_size > 1 else {}
    if cpu:
        device = {
            # vLLM 0.29: a seeded request with chunked prefill kills the CPU engine ("CPU Generator does not
            # use offset"). Without it a prompt must fit into one step.
            "enable_chunked_prefill": False,
            # With the CPU default of 128, short prompts hardly ever share a prefix. Only multiples of 32 are allowed.
            "block_size": 32,
            # By default vLLM runs the model in a third process, bound to one core: the same core for every engine of
            # the machine. It rejects this executor by name, so the class is given.
            "distributed_executor_backend": UniProcExecutor,
            **device,
        }
    return AsyncEngineArgs(
        model=spec.model_path,
        revision=spec.revision,
        tokenizer_revision=spec.revision,
        dtype=config.dtype,
        **_quantized(config.quantization, FAMILIES[spec.family]),
        kv_cache_dtype=config.kv_cache_dtype,
        attention_backend=attention_backend(config, gpu.capability if gpu else None),  # pyright: ignore[reportArgumentType] - vLLM converts the name
        worker_extension_cls=f"{ChoicesOfWorker.__module__}.{ChoicesOfWorker.__qualname__}",
        tensor_parallel_size=config.tensor_parallel_size,
        max_model_len=config.max_model_len,
        max_num_seqs=size.max_num_seqs,
        max_num_batched_tokens=size.max_num_batched_tokens,
        gpu_memory_utilization=config.gpu_memory_utilization,
        enforce_eager=cpu if config.enforce_eager is None else config.enforce_eager,
        trust_remote_code=config.trust_remote_code,
        # White space between tokens may be endless, and the captions have none in the end.
        structured_outputs_config=StructuredOutputsConfig(backend=BACKEND, disable_any_whitespace=True),
        **({"limit_mm_per_prompt": {"image": 1}} if takes_images(spec.geometry) else {}),
        enable_prefix_caching=True,
        # This cache keeps the result of vLLM's own preparation; ours costs less than the look-up. The encoder's output
        # is cached anyway, by the image's id.
        mm_processor_cache_gb=0,
        disable_log_stats=False,
        **device,
    )


def _check_grammars(schemas: Sequence[str]) -> None:
    """Make each grammar before the weights are loaded; vLLM would refuse each request."""
    for schema in schemas:
        fault = grammar_fault(schema)
        if fault:
            raise ConfigError(
                f"the schema {schema[:200]} has no grammar in {BACKEND}: {fault}; change captions.*.schema"
            )


def _quantized(quantization: str | None, family: ModelFamily) -> dict[str, Any]:
    """Arguments for the config's `quantization`; fp8 means the language model only.

    Scaled by channel and token, as in the checkpoints that are published as FP8-Dynamic; vLLM refuses it on devices
    that would multiply in bfloat16. Its plain `fp8` would include the vision tower and the projector.
    """
    if quantization != "fp8":
        return {"quantization": quantization}
    kept = [rf"re:{part}\..*" for part in family.unquantized]
    return {"quantization": "fp8_per_channel", "quantization_config": {"ignore": kept}}


def _sampling(spec: EngineSpec, request: EngineRequest) -> SamplingParams:
    sampling = spec.sampling
    penalty = request.repetition_penalty
    shortest, longest = LOOP_TOKENS
    loops = RepetitionDetectionParams(min_pattern_size=shortest, max_pattern_size=longest, min_count=LOOP_REPEATS)
    return SamplingParams(
        temperature=sampling.temperature if request.temperature is None else request.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        repetition_penalty=sampling.repetition_penalty if penalty is None else penalty,
        max_tokens=spec.max_tokens,
        seed=request.seed,
        repetition_detection=loops if sampling.stop_loops else None,
        structured_outputs=StructuredOutputsParams(json=request.schema) if request.schema else None,
        output_kind=RequestOutputKind.FINAL_ONLY,
        # vLLM would detokenize after each token; we decode once at the end.
        detokenize=False,
    )
