"""Questions of one batch through an engine that may die under them: every image ends with its answers.

Normally all questions of all batches run together. When the engine dies, nobody knows which image
killed it, so each batch takes its unfinished images aside, alone in the engine, and bisects: halves
that survive are done, and a single image that kills the engine again becomes a failed row.
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
    """The k questions of one image. They go to one replica together and share its prefix."""

    name: str
    """Shard and row, for messages."""
    questions: tuple[EngineRequest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashLimits:
    """When to give up: on an image, and on the engine."""

    per_image: int
    """Deaths of the engine with the image alone in it, beyond which the image fails."""
    restarts: int
    """Restarts in all, beyond which the engine is given up."""


class Dispatcher:
    """Asks one engine on behalf of many batches at once. Lives on one event loop."""

    def __init__(self, engine: Engine, limits: CrashLimits) -> None:
        self._engine = engine
        self._limits = limits
        self._lane = _ReadWriteLock()
        self._restarting = asyncio.Lock()
        self._restarts = 0

    @property
    def restarts(self) -> int:
        """How often the engine was started again."""
        return self._restarts

    async def ask(self, images: Sequence[ImageRequests]) -> dict[str, EngineResponse]:
        """Return the answers by question id, one for every question.

        Raises:
            EngineDead: the engine died more often than the limits allow, or does not start.
        """
        answers: dict[str, EngineResponse] = {}
        async with self._lane.shared():
            died = await self._try(images, answers)
        if died:
            await self._bisect(_unfinished(images, answers), answers)
        return answers

    async def _try(self, images: Sequence[ImageRequests], answers: dict[str, EngineResponse]) -> bool:
        """Ask once; whole images that were answered enter `answers`. Returns whether the engine died."""
        async with self._restarting:  # a batch that comes while the engine restarts waits for the new one
            life = self._restarts
        results = await asyncio.gather(*(self._ask_image(image) for image in images), return_exceptions=True)
        died = False
        for result in results:
            if isinstance(result, EngineDead):
                died = True
            elif isinstance(result, BaseException):
                raise result
            else:
                answers.update({answer.id: answer for answer in result})
        if died:
            await self._revive(life)
        return died

    async def _ask_image(self, image: ImageRequests) -> list[EngineResponse]:
        return await asyncio.gather(*(self._engine.answer(question) for question in image.questions))

    async def _revive(self, life: int) -> None:
        """Restart the engine once per death, however many batches saw it die."""
        async with self._restarting:
            if self._restarts != life:
                return
            if self._restarts >= self._limits.restarts:
                raise EngineDead(
                    f"the engine died {self._restarts + 1} times; engine.max_restarts={self._limits.restarts}: "
                    "see the worker logs for the cause"
                )
            self._restarts += 1
            await self._engine.restart()

    async def _bisect(self, images: Sequence[ImageRequests], answers: dict[str, EngineResponse]) -> None:
        if not images:
            return
        async with self._lane.alone():
            deaths = 0
            while await self._try(images, answers):
                deaths += 1
                if len(images) > 1 or deaths > self._limits.per_image:
                    break
            else:
                return
        rest = _unfinished(images, answers)
        if len(images) == 1:
            _give_up(images[0], deaths, answers)
            return
        log.warning("the engine died with %d images in it (%s ...); halving", len(rest), rest[0].name if rest else "-")
        middle = (len(rest) + 1) // 2
        await self._bisect(rest[:middle], answers)
        await self._bisect(rest[middle:], answers)


def _give_up(image: ImageRequests, deaths: int, answers: dict[str, EngineResponse]) -> None:
    log.error("image %s kills the engine; it becomes a failed row", image.name)
    message = f"the engine died {deaths} times with this image alone in it"
    for question in image.questions:
        answers[question.id] = EngineResponse(id=question.id, text=None, reason=Reason.ENGINE_KILLED, message=message)


def _unfinished(images: Sequence[ImageRequests], answers: dict[str, EngineResponse]) -> list[ImageRequests]:
    return [image for image in images if any(question.id not in answers for question in image.questions)]


class _ReadWriteLock:
    """Many may share the engine, or one may have it alone; whoever waits to be alone lets no new sharer in."""

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
