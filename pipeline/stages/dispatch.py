"""Sends requests to an engine that may crash: every one ends with its response.

Normally all requests run concurrently. If the engine crashes, it is unknown which image caused it, so all images that
were with it are suspects. They are asked again, alone in the engine, and bisected: halves without a crash are done, and
a single image that crashes the engine again becomes a failed row.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engines import Engine, EngineRequest, EngineResponse
from pipeline.errors import EngineDead
from schemas.status import Reason

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImageRequests:
    """Requests of one image. They go to one replica together and share its prefix."""

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


@dataclass(frozen=True, slots=True, eq=False)
class _Suspect:
    """A request that was with the engine when it crashed."""

    image: str
    request: EngineRequest
    response: asyncio.Future[EngineResponse]


class Dispatcher:
    """Sends requests concurrently to one engine, on one event loop."""

    def __init__(self, engine: Engine, limits: CrashLimits) -> None:
        self._engine = engine
        self._limits = limits
        self._entrance = _Entrance()
        self._restarts = 0
        self._suspects: list[_Suspect] = []
        self._isolation: asyncio.Task[None] | None = None

    @property
    def restarts(self) -> int:
        """Number of restarts of the engine."""
        return self._restarts

    async def answer(self, image: str, request: EngineRequest) -> EngineResponse:
        """Return the response to one request of an image; the name of the image is for messages and for isolation.

        Raises:
            EngineDead: the engine crashed more often than the limits allow, or does not start.
        """
        await self._entrance.enter()
        try:
            return await self._engine.answer(request)
        except EngineDead:
            suspect = _Suspect(image, request, asyncio.get_running_loop().create_future())
            # Before the request leaves: whoever waits for the engine to be empty must know all suspects.
            self._suspects.append(suspect)
        finally:
            self._entrance.leave()
        if self._isolation is None:
            self._isolation = asyncio.create_task(self._isolate())
        return await suspect.response

    async def _isolate(self) -> None:
        """Find a response for every suspect, with no other request in the engine."""
        await self._entrance.close()
        suspects, self._suspects = self._suspects, []
        images = _by_image(suspects)
        responses: dict[str, EngineResponse] = {}
        try:
            await self._restart()
            await self._bisect(images, responses)
        except BaseException as err:  # noqa: BLE001 - raised by each suspect
            for suspect in suspects:
                if not suspect.response.done():
                    suspect.response.set_exception(err)
        else:
            for suspect in suspects:
                if not suspect.response.done():
                    suspect.response.set_result(responses[suspect.request.id])
        finally:
            self._isolation = None
            self._entrance.open()

    async def _try(self, images: Sequence[ImageRequests], responses: dict[str, EngineResponse]) -> bool:
        """Send all requests once; add the responses of whole images. Returns whether the engine crashed."""
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
            await self._restart()
        return crashed

    async def _send(self, image: ImageRequests) -> list[EngineResponse]:
        return await asyncio.gather(*(self._engine.answer(request) for request in image.requests))

    async def _restart(self) -> None:
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


def _by_image(suspects: Sequence[_Suspect]) -> list[ImageRequests]:
    images: dict[str, list[EngineRequest]] = {}
    for suspect in suspects:
        images.setdefault(suspect.image, []).append(suspect.request)
    return [ImageRequests(name, tuple(requests)) for name, requests in images.items()]


def _give_up(image: ImageRequests, crashes: int, responses: dict[str, EngineResponse]) -> None:
    log.error("image %s crashes the engine; it becomes a failed row", image.name)
    message = f"the engine crashed {crashes} times with this image alone in it"
    for request in image.requests:
        responses[request.id] = EngineResponse(id=request.id, text=None, reason=Reason.ENGINE_KILLED, message=message)


def _unfinished(images: Sequence[ImageRequests], responses: dict[str, EngineResponse]) -> list[ImageRequests]:
    return [image for image in images if any(request.id not in responses for request in image.requests)]


class _Entrance:
    """Requests enter the engine while it is open; whoever closes it waits until the last one has left."""

    def __init__(self) -> None:
        self._is_open, self._is_empty = asyncio.Event(), asyncio.Event()
        self._is_open.set()
        self._num_inside = 0

    async def enter(self) -> None:
        while not self._is_open.is_set():
            await self._is_open.wait()
        self._num_inside += 1

    def leave(self) -> None:
        self._num_inside -= 1
        if not self._num_inside:
            self._is_empty.set()

    async def close(self) -> None:
        self._is_open.clear()
        while self._num_inside:
            self._is_empty.clear()
            await self._is_empty.wait()

    def open(self) -> None:
        self._is_open.set()
