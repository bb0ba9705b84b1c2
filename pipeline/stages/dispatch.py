"""Sends the requests of a batch to an engine that may crash: every image ends with its responses.

Normally the requests of all batches run concurrently. If the engine crashes, it is unknown which image caused it. Each
batch then isolates its unfinished images, alone in the engine, and bisects them: halves without a crash are done, and a
single image that crashes the engine again becomes a failed row.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pipeline.engines import Engine, EngineRequest, EngineResponse
from pipeline.errors import EngineDead
from schemas.status import Reason

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImageRequests:
    """The k requests of one image. They go to one replica together and share its prefix."""

    name: str
    """Shard and row, for messages."""
    requests: tuple[EngineRequest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashLimits:
    """How many crashes are tolerated."""

    per_image: int
    """Crashes of the engine with an image alone in it; one more and the image becomes a failed row."""
    restarts: int
    """Restarts in all; one more crash and the replica fails."""


class Dispatcher:
    """Sends the requests of many batches concurrently to one engine, on one event loop."""

    def __init__(self, engine: Engine, limits: CrashLimits) -> None:
        self._engine = engine
        self._limits = limits
        self._lock = _ReadWriteLock()
        self._restarting = asyncio.Lock()
        self._restarts = 0

    @property
    def restarts(self) -> int:
        """Number of restarts of the engine."""
        return self._restarts

    async def ask(self, images: Sequence[ImageRequests]) -> dict[str, EngineResponse]:
        """Return a response for every request, by the request's id.

        Raises:
            EngineDead: the engine crashed more often than the limits allow, or does not start.
        """
        responses: dict[str, EngineResponse] = {}
        async with self._lock.shared():
            crashed = await self._try(images, responses)
        if crashed:
            await self._bisect(_unfinished(images, responses), responses)
        return responses

    async def _try(self, images: Sequence[ImageRequests], responses: dict[str, EngineResponse]) -> bool:
        """Send all requests once; add the responses of whole images. Returns whether the engine crashed."""
        async with self._restarting:  # a batch that comes during a restart waits for the new engine
            restarts = self._restarts
        results = await asyncio.gather(*(self._send(image) for image in images), return_exceptions=True)
        crashed = False
        for result in results:
            if isinstance(result, EngineDead):
                crashed = True
            elif isinstance(result, BaseException):
                raise result
            else:
                responses.update({response.id: response for response in result})
        if crashed:
            await self._restart(restarts)
        return crashed

    async def _send(self, image: ImageRequests) -> list[EngineResponse]:
        return await asyncio.gather(*(self._engine.answer(request) for request in image.requests))

    async def _restart(self, restarts_seen: int) -> None:
        """Restart the engine once for a crash, however many batches saw it."""
        async with self._restarting:
            if self._restarts != restarts_seen:
                return
            if self._restarts >= self._limits.restarts:
                raise EngineDead(
                    f"the engine crashed {self._restarts + 1} times; engine.max_restarts={self._limits.restarts}: "
                    "see the worker logs for the cause"
                )
            self._restarts += 1
            await self._engine.restart()

    async def _bisect(self, images: Sequence[ImageRequests], responses: dict[str, EngineResponse]) -> None:
        if not images:
            return
        async with self._lock.alone():
            crashes = 0
            while await self._try(images, responses):
                crashes += 1
                if len(images) > 1 or crashes > self._limits.per_image:
                    break
            else:
                return
        rest = _unfinished(images, responses)
        if len(images) == 1:
            _give_up(images[0], crashes, responses)
            return
        log.warning("the engine crashed with %d images in it (%s ...); bisecting", len(rest), rest[0].name)
        middle = (len(rest) + 1) // 2
        await self._bisect(rest[:middle], responses)
        await self._bisect(rest[middle:], responses)


def _give_up(image: ImageRequests, crashes: int, responses: dict[str, EngineResponse]) -> None:
    log.error("image %s crashes the engine; it becomes a failed row", image.name)
    message = f"the engine crashed {crashes} times with this image alone in it"
    for request in image.requests:
        responses[request.id] = EngineResponse(id=request.id, text=None, reason=Reason.ENGINE_KILLED, message=message)


def _unfinished(images: Sequence[ImageRequests], responses: dict[str, EngineResponse]) -> list[ImageRequests]:
    return [image for image in images if any(request.id not in responses for request in image.requests)]


class _ReadWriteLock:
    """Either many batches share the engine or one has it alone; new sharers wait behind one that wants it alone."""

    def __init__(self) -> None:
        self._condition = asyncio.Condition()
        self._sharers = 0
        self._alone = False
        self._waiting = 0

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._condition:
            await self._condition.wait_for(lambda: not self._alone and not self._waiting)
            self._sharers += 1
        try:
            yield
        finally:
            async with self._condition:
                self._sharers -= 1
                self._condition.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._condition:
            self._waiting += 1
            try:
                await self._condition.wait_for(lambda: not self._alone and not self._sharers)
            finally:
                self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            async with self._condition:
                self._alone = False
                self._condition.notify_all()
