"""The interface between captioning and what computes captions: requests in, responses out, matched by id."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas.status import Reason

LOOP_REPEATS = 4
LOOP_TOKENS = (8, 32)
"""`sampling.stop_loops` ends an answer when its last 8 to 32 tokens have occurred four times in a row, so never before
32 tokens. A shorter period counts by its multiples: `no, ` must occur 16 times. On the labelled set (the stand-in's
tokens, two for each word of prose) four repeats stop no clean text and three stop a poem; periods up to 16, 32 and
64 tokens save 21, 30 and 34 % of the loops' tokens (`tests/quality/test_stop_loops.py`). vLLM checks each period after
every token in its scheduler, 0.2 us each (measured on a busy core). Longer loops are left to
`pipeline.quality`: four repeats of them are most of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """One request to an engine."""

    id: str
    """Unique among the requests in flight."""
    pixels: npt.NDArray[np.uint8]
    """RGB, shape (height, width, 3), of the size that the model's geometry gives: 0 x 0 without images."""
    image_id: str
    """Equal for equal pixels: the key of the engine's caches. Without images, of the row."""
    system: str
    prompt: str
    seed: int | None
    """In [0, 2**63); None lets the engine choose."""
    schema: str | None = None
    """JSON Schema that the answer must satisfy, as JSON text: one of `EngineSpec.schemas`."""
    temperature: float | None = None
    """None: the value of the run, as in the next field."""
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineResponse:
    """The result of a request: text, or the reason for its absence."""

    id: str
    text: str | None
    finish_reason: str | None = None
    """stop, length, or repetition where `sampling.stop_loops` ended it."""
    prompt_tokens: int | None = None
    """Including the image's tokens."""
    caption_tokens: int | None = None
    """Including the end token."""
    reason: Reason | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Metrics of an engine: current levels, and sums since it was built, across restarts."""

    max_num_seqs: int | None = None
    """Requests that it works on together; None: as many as it gets."""
    requests_running: int = 0
    requests_waiting: int = 0
    kv_cache_used: float = 0.0
    """Share in [0, 1]."""
    prefix_tokens: int = 0
    """Prompt tokens that were looked up in the prefix cache."""
    prefix_hits: int = 0
    """Prompt tokens that the prefix cache contained."""
    preemptions: int = 0
    """Requests that were evicted and computed again, because the KV cache was too small."""
    setup: str = ""
    """What the engine chose for its device, for people: runner, attention backend, KV cache, sampler."""


class Engine(Protocol):
    """A running engine. Its methods are called from one event loop."""

    async def answer(self, request: EngineRequest) -> EngineResponse:
        """Answer one request. Many requests run concurrently, and the engine batches them.

        A request that the engine refuses gets a response with a reason.

        Raises:
            EngineDead: the engine died, and all requests in flight are lost.
        """
        ...

    async def restart(self) -> None:
        """Start a new engine in place of a dead one.

        Raises:
            EngineDead: the new engine does not start.
        """
        ...

    def stats(self) -> EngineStats:
        """Return the current metrics; may be called from any thread."""
        ...

    def close(self) -> None:
        """Free the device. The engine cannot be used afterwards."""
        ...
