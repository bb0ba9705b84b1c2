"""One vLLM replica in this process: the only module that imports vLLM.

Questions reach it as vLLM's own input processing would hand them on (token ids with the image's tokens in
place, normalised pixels, a hash), so that none of it is done in vLLM: it is the form that `generate` takes
without a detour over its thread for raw prompts.

`AsyncLLM` runs its core in a process of its own, so this process outlives a dead core and starts
another. The k questions of an image may be asked together: vLLM shares the KV blocks of their
common prefix within one step (measured with 4 prompts an image: 11,264 of 16,128 prompt tokens came
from the cache, the same as with the first asked alone).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import torch
from vllm import AsyncEngineArgs, SamplingParams
from vllm.inputs.engine import MultiModalInput, mm_input
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RepetitionDetectionParams, RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor.uniproc_executor import UniProcExecutor
from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.metrics.stats import IterationStats, MultiModalCacheStats, SchedulerStats

from pipeline.engines.factory import EngineSpec
from pipeline.engines.loops import LOOP_REPEATS, LOOP_TOKENS
from pipeline.engines.orphan_reaper import start_with_reaper
from pipeline.engines.pixels import PixelTable, image_processor
from pipeline.engines.prompt_layout import PromptTokens
from pipeline.engines.protocol import EngineRequest, EngineResponse, EngineStats
from pipeline.engines.sizing import Device, Size, size_for
from pipeline.errors import EngineDead, ModelMismatch
from schemas.status import Reason

log = logging.getLogger(__name__)


class VllmEngine:
    """See `pipeline.engines.protocol.Engine`."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._tokens = PromptTokens(spec.model_path, spec.revision)
        self._tokens.check_room(spec.max_tokens, spec.config.max_model_len)
        if self._tokens.image.side_px != spec.side_px:
            raise ModelMismatch(
                f"{spec.model_path}: takes images of {self._tokens.image.side_px} px; planned were {spec.side_px}"
            )
        self._size = size_for(spec.config, self._tokens.shape, _device())
        self._items = _ImageItems(
            PixelTable(
                image_processor(spec.model_path, spec.revision),
                spec.side_px,
                getattr(torch, spec.config.dtype),
                spec.model_path,
            )
        )
        self._stats = _Stats()
        self._llm, self._guard = start_with_reaper(lambda: _start(spec, self._size, self._stats))

    async def answer(self, question: EngineRequest) -> EngineResponse:
        ids = self._tokens.encode(question.system, question.prompt)
        prompt_tokens = len(ids) - 1 + self._tokens.image.tokens
        needed = prompt_tokens + self._spec.max_tokens
        if needed > self._spec.config.max_model_len:
            return EngineResponse(
                id=question.id,
                text=None,
                prompt_tokens=prompt_tokens,
                reason=Reason.PROMPT_TOO_LONG,
                message=f"{prompt_tokens} prompt tokens and sampling.max_tokens={self._spec.max_tokens} need "
                f"engine.max_model_len={needed}; it is {self._spec.config.max_model_len}",
            )
        try:
            return self._answer(question, prompt_tokens, await self._generate(question, ids))
        except EngineDeadError as err:
            raise EngineDead(f"{self._spec.model_path}: the engine died: {err}") from err
        except ValueError as err:  # vLLM's refusal of one request; the engine lives on
            return EngineResponse(id=question.id, text=None, reason=Reason.ENGINE_ERROR, message=str(err))

    async def _generate(self, question: EngineRequest, ids: tuple[int, ...]) -> RequestOutput:
        prompt = self._input(question, ids)
        sampling = _sampling(self._spec, question)
        final: RequestOutput | None = None
        async for output in self._llm.generate(prompt, sampling, request_id=question.id):
            final = output
        if final is None or not final.finished:
            raise EngineDeadError(suppress_context=True)
        return final

    def _answer(self, question: EngineRequest, prompt_tokens: int, output: RequestOutput) -> EngineResponse:
        completion = output.outputs[0]
        return EngineResponse(
            id=question.id,
            text=self._tokens.decode(completion.token_ids).strip(),
            finish_reason=completion.finish_reason,
            prompt_tokens=prompt_tokens,
            caption_tokens=len(completion.token_ids),
        )

    def _input(self, question: EngineRequest, ids: tuple[int, ...]) -> MultiModalInput:
        before, after = self._tokens.around_image(ids)
        image = self._tokens.image
        return mm_input(
            [*before, *[image.token] * image.tokens, *after],
            MultiModalKwargsItems({"image": [self._items.of(question)]}),
            {"image": [question.image_id]},
            {"image": [PlaceholderRange(offset=len(before), length=image.tokens)]},
        )

    async def restart(self) -> None:
        self.close()
        log.warning("engine of %s died; starting another", self._spec.model_path)
        self._llm, self._guard = await asyncio.to_thread(
            start_with_reaper, lambda: _start(self._spec, self._size, self._stats)
        )

    def stats(self) -> EngineStats:
        return EngineStats(**self._stats.levels, **self._stats.sums)

    def close(self) -> None:
        self._llm.shutdown()
        self._guard.release()


class _Stats:
    """Where one engine after the other adds up what vLLM tells after each step."""

    def __init__(self) -> None:
        self.levels: dict[str, Any] = {}
        self.sums = dict.fromkeys(("prefix_tokens", "prefix_hits", "preemptions"), 0)

    def add(self, **told: int) -> None:
        self.sums = {name: value + told.get(name, 0) for name, value in self.sums.items()}


def _stat_logger(stats: _Stats) -> type[PrometheusStatLogger]:
    """Return what vLLM is to call after each step.

    vLLM adds its own Prometheus logger unless one of ours is of that class. That, and its variant for Ray, observe a
    histogram for every token of every request, 8 and 17 us each on a busy core (measured), 256 times a step.
    """

    class StatLogger(PrometheusStatLogger):
        def __init__(self, vllm_config: object, engine_indexes: list[int] | None = None) -> None:
            del vllm_config, engine_indexes  # nothing of vLLM's registry is made

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
    """What the engine is sent of an image, made once for its k questions, which come right behind each other."""

    def __init__(self, table: PixelTable) -> None:
        self._table = table
        self._last: tuple[str, MultiModalKwargsItem] | None = None

    def of(self, question: EngineRequest) -> MultiModalKwargsItem:
        if self._last is None or self._last[0] != question.image_id:
            pixels = MultiModalFieldElem(data=self._table(question.pixels), field=MultiModalBatchedField())
            self._last = question.image_id, MultiModalKwargsItem({"pixel_values": pixels})
        return self._last[1]


def _device() -> Device | None:
    """The GPU of this process, or None: read once, before the engine starts."""
    if current_platform.is_cpu():
        return None
    capability = current_platform.get_device_capability()
    return Device(
        name=current_platform.get_device_name(),
        memory_bytes=float(current_platform.get_device_total_memory()),
        capability=(capability.major, capability.minor) if capability else (0, 0),
    )


def _start(spec: EngineSpec, size: Size, stats: _Stats) -> AsyncLLM:
    try:
        return AsyncLLM.from_engine_args(_engine_args(spec, size), stat_loggers=[_stat_logger(stats)])
    except (RuntimeError, ValueError, OSError) as err:
        raise EngineDead(f"{spec.model_path}: the engine does not start: {err}") from err


def _engine_args(spec: EngineSpec, size: Size) -> AsyncEngineArgs:
    config = spec.config
    cpu = current_platform.is_cpu()
    # Inside a placement group vLLM would spread the ranks over Ray actors of its own.
    device: dict[str, Any] = {"distributed_executor_backend": "mp"} if config.tensor_parallel_size > 1 else {}
    if cpu:
        device = {
            # vLLM 0.29: a seeded request with chunked prefill kills the CPU engine ("CPU Generator does not
            # use offset"). Without it a prompt must fit into one step.
            "enable_chunked_prefill": False,
            # The CPU default of 128 hardly ever shares a prefix of short prompts; multiples of 32 only.
            "block_size": 32,
            # Left alone it runs the model in a third process, bound to one core: the same one for every engine of
            # the machine. As a class, since it takes the name of this one for a mistake.
            "distributed_executor_backend": UniProcExecutor,
            **device,
        }
    return AsyncEngineArgs(
        model=spec.model_path,
        revision=spec.revision,
        tokenizer_revision=spec.revision,
        dtype=config.dtype,
        **_quantized(config.quantization),
        kv_cache_dtype=config.kv_cache_dtype,
        tensor_parallel_size=config.tensor_parallel_size,
        max_model_len=config.max_model_len,
        max_num_seqs=size.max_num_seqs,
        max_num_batched_tokens=size.max_num_batched_tokens,
        gpu_memory_utilization=config.gpu_memory_utilization,
        enforce_eager=cpu if config.enforce_eager is None else config.enforce_eager,
        trust_remote_code=config.trust_remote_code,
        limit_mm_per_prompt={"image": 1},
        enable_prefix_caching=True,
        # It would keep what vLLM's own preparation made; ours is cheaper than the look into it. The encoder's
        # output is kept all the same, by the image's id.
        mm_processor_cache_gb=0,
        disable_log_stats=False,
        **device,
    )


def _quantized(quantization: str | None) -> dict[str, Any]:
    """Arguments of the config's `quantization`; fp8 means the language model alone.

    By channel and token, as in the checkpoints that are published as FP8-Dynamic; vLLM refuses it where it would
    have to multiply in bfloat16. Its plain `fp8` would take the vision tower and the projector along.
    """
    if quantization != "fp8":
        return {"quantization": quantization}
    kept = [rf"re:{part}\..*" for part in ("vision_tower", "multi_modal_projector")]
    return {"quantization": "fp8_per_channel", "quantization_config": {"ignore": kept}}


def _sampling(spec: EngineSpec, question: EngineRequest) -> SamplingParams:
    sampling = spec.sampling
    penalty = question.repetition_penalty
    shortest, longest = LOOP_TOKENS
    loops = RepetitionDetectionParams(min_pattern_size=shortest, max_pattern_size=longest, min_count=LOOP_REPEATS)
    return SamplingParams(
        temperature=sampling.temperature if question.temperature is None else question.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        repetition_penalty=sampling.repetition_penalty if penalty is None else penalty,
        max_tokens=spec.max_tokens,
        seed=question.seed,
        repetition_detection=loops if sampling.stop_loops else None,
        output_kind=RequestOutputKind.FINAL_ONLY,
        # vLLM would do it token by token; the whole is decoded once at the end.
        detokenize=False,
    )
