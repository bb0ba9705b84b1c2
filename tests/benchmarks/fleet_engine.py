"""An engine for `fleet` that takes as long as one with a GPU would, and costs nothing; some are slow, some die."""

import asyncio
import os
import random
import signal
import threading
import time
import zlib
from typing import Any

from pipeline.engines import EngineRequest, EngineResponse, EngineStats
from pipeline.flow import ray_dataset
from pipeline.flow.ray_dataset import CaptionActor, FlowSpec

NUM_SEQS = 32
TOKENS = (110, 0.5, 300)
"""Median, spread of the logarithm, most: JoyCaption's long descriptions."""
TOKEN_S = 0.041
"""5 s for a mean caption: 6 images a second and engine."""
SLOW_EVERY, SLOW = 8, 2.0
"""One replica in so many takes so much longer."""
DIES_EVERY, DIES_AFTER_S = 8, (20.0, 60.0)
"""One process of a replica in so many is killed, so long after its start."""


class FleetEngine:
    """See `pipeline.engines.protocol.Engine`."""

    def __init__(self, replica: int) -> None:
        self._rng = random.Random(replica)
        self._slowness = SLOW if replica % SLOW_EVERY == 0 else 1.0
        self._free = asyncio.Semaphore(NUM_SEQS)
        self._running = 0

    async def answer(self, request: EngineRequest) -> EngineResponse:
        async with self._free:
            self._running += 1
            median, spread, most = TOKENS
            tokens = max(5.0, min(most, median * self._rng.lognormvariate(0.0, spread)))
            await asyncio.sleep(tokens * TOKEN_S * self._slowness)
            self._running -= 1
        text = f"a caption with the number {self._rng.getrandbits(60)}"
        return EngineResponse(
            id=request.id, text=text, finish_reason="stop", prompt_tokens=800, caption_tokens=int(tokens)
        )

    async def restart(self) -> None:
        raise AssertionError("its core is this process")

    def stats(self) -> EngineStats:
        return EngineStats(max_num_seqs=NUM_SEQS, requests_running=self._running)

    def close(self) -> None:
        pass


class FleetCaptionActor(CaptionActor):
    """A replica with such an engine."""

    def __init__(self, spec: FlowSpec) -> None:
        replica = zlib.crc32(f"{os.getpid()}/{time.monotonic()}".encode())
        started: Any = lambda spec: FleetEngine(replica)  # noqa: E731 - in place of a function
        ray_dataset.start_engine = started
        super().__init__(spec)
        if replica // SLOW_EVERY % DIES_EVERY == 0:
            after_s = random.Random(replica).uniform(*DIES_AFTER_S)
            threading.Timer(after_s, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
