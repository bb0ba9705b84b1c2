"""The seam between captioning and what computes captions: questions in, answers out, matched by id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas.status import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """One request as an engine sees it."""

    id: str
    """Unique among the questions in flight."""
    pixels: npt.NDArray[np.uint8]
    """RGB, shape (height, width, 3), at the model's input size."""
    image_id: str
    """Equal for equal pixels: the engine's caches go by it."""
    system: str
    prompt: str
    seed: int | None
    """In [0, 2**63); None lets the engine draw as it likes."""
    temperature: float | None = None
    """None is the run's own, as in the next field."""
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineResponse:
    """What became of a question: text, or the reason why there is none."""

    id: str
    text: str | None
    finish_reason: str | None = None
    """stop, length, or repetition where `sampling.stop_loops` ended it."""
    prompt_tokens: int | None = None
    """The image's tokens included."""
    caption_tokens: int | None = None
    """The end token included."""
    reason: Reason | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """What an engine tells of itself: levels of now, and sums since it was built, its restarts included."""

    requests_running: int = 0
    requests_waiting: int = 0
    kv_cache_used: float = 0.0
    """Share, 0 to 1."""
    prefix_tokens: int = 0
    """Tokens of prompts that were looked up in the prefix cache."""
    prefix_hits: int = 0
    """Those of them that were found there."""
    preemptions: int = 0
    """Requests that had to make room for others and were computed again: the KV cache is too small."""


class Engine(Protocol):
    """A running engine. Its methods are called from one event loop."""

    async def answer(self, question: EngineRequest) -> EngineResponse:
        """Answer one question; many run at once, and the engine batches them.

        A question that the engine refuses gets an answer with a reason.

        Raises:
            EngineDead: the engine died; so did every question in flight.
        """
        ...

    async def restart(self) -> None:
        """Replace a dead engine by a new one.

        Raises:
            EngineDead: it does not start.
        """
        ...

    def stats(self) -> EngineStats:
        """Tell how the engine does; may be called from any thread."""
        ...

    def close(self) -> None:
        """Free the device; the engine is of no use after it."""
        ...
