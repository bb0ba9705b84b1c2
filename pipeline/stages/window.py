"""Admits images of the open batches to an engine, and decides when the finished ones are staged.

A batch is as slow as its slowest caption, so an engine that is fed batch by batch runs short of requests. Here each
image that finishes makes room for the next one, of whatever batch, and no other image waits for a retry. What a kill
costs is bounded: at most twice `num_seqs` requests are asked and not staged.
"""

import asyncio
import heapq
import itertools
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")

UNSTAGED_SHARE = 2.0
"""Requests that are asked and not staged, as a multiple of `num_seqs`."""

EARLY_PART = 8
"""While fewer than `num_seqs` requests are with the engine and images wait for room, an eighth of a fragment is staged
at once. It keeps the engine full where the k requests of an image differ much in length, for some more small files."""

STARVED_SHARE = 0.9
"""Below this multiple of `num_seqs`, whatever is finished is staged at once."""


class Permit:
    """The room of one image in the window, from its first request until it is staged."""

    def __init__(self, window: "Window", num_requests: int) -> None:
        self._window = window
        self.num_requests = num_requests
        self.num_answered = 0

    def answered(self) -> None:
        """Say that one of the requests needs the engine no more: it has its last answer."""
        self.num_answered += 1
        self._window.note_answer()


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """What one image of a batch needs."""

    num_requests: int
    """0: nothing is asked of the engine, so the image needs no room."""
    run: Callable[[Permit], Awaitable[T]]
    """Calls `Permit.answered` once for each request."""


Stage = Callable[[list[T]], Coroutine[Any, Any, None]]


@dataclass(eq=False, slots=True)
class _OpenBatch(Generic[T]):
    number: int
    fragment_images: int
    stage: Stage[T]
    finished: list[tuple[Permit, T]] = field(default_factory=list["tuple[Permit, T]"])
    num_answered: int = 0
    """Of the finished images, those that were asked."""
    staging: list[asyncio.Task[None]] = field(default_factory=list["asyncio.Task[None]"])
    has_failed: bool = False


class Window:
    """The room of one engine. Lives on one event loop."""

    def __init__(self, num_seqs: int | None) -> None:
        """Admit images for `num_seqs` requests that the engine decodes together; None: admit every image at once."""
        self._capacity = math.inf if num_seqs is None else UNSTAGED_SHARE * num_seqs
        self._num_seqs = num_seqs or 0
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int, int, asyncio.Future[bool]]] = []
        self._open: set[_OpenBatch[Any]] = set()
        self._asked = 0
        self._answered = 0
        self._num_early = 0
        self._closed = False
        self.num_admitted = 0
        """Images so far."""
        self.num_staged = 0
        """Images so far."""

    @property
    def num_unstaged(self) -> int:
        """Requests that are asked and not staged: what a kill costs."""
        return self._asked

    def close(self) -> None:
        """Admit no further image: the run drains."""
        self._closed = True
        self._wake()

    async def run(self, images: Iterable[Work[T]], fragment_images: int, stage: Stage[T]) -> None:
        """Run the work of each image when there is room, the oldest batch first, and stage what is finished.

        `stage` gets at most `fragment_images` images that were asked, and with them those that needed no request. It
        gets fewer at the end of the batch, and where the engine would otherwise run short. Images that are not admitted
        before the window is closed are neither run nor staged.
        """
        batch = _OpenBatch(next(self._numbers), fragment_images, stage)
        self._open.add(batch)
        tasks: list[asyncio.Task[None]] = []
        try:
            for image in images:
                if image.num_requests and not await self._admit(batch.number, image.num_requests):
                    continue
                self.num_admitted += 1
                tasks.append(self._start(batch, image))
                if batch.has_failed:
                    break
            await asyncio.gather(*tasks)
            if batch.finished:
                self._cut(batch)
            await asyncio.gather(*batch.staging)
        finally:
            self._open.discard(batch)
            for task in (*tasks, *batch.staging):
                task.cancel()
            for permit, _ in batch.finished:
                self._leave(permit)

    async def _admit(self, number: int, num_requests: int) -> bool:
        """Wait for room; return False if the window is closed."""
        if self._closed:
            return False
        if not self._waiting and self._has_room(num_requests):
            self._asked += num_requests
            return True
        room: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (number, next(self._numbers), num_requests, room))
        self._relieve()
        return await room

    def _has_room(self, num_requests: int) -> bool:
        # An image with more slots than the whole window is asked alone.
        return self._asked == 0 or self._asked + num_requests <= self._capacity

    def _wake(self) -> None:
        while self._waiting and (self._closed or self._has_room(self._waiting[0][2])):
            _, _, num_requests, room = heapq.heappop(self._waiting)
            if room.cancelled():
                continue
            self._asked += 0 if self._closed else num_requests
            room.set_result(not self._closed)

    def _start(self, batch: _OpenBatch[T], image: Work[T]) -> asyncio.Task[None]:
        permit = Permit(self, image.num_requests)
        task = asyncio.create_task(self._finish(batch, image, permit))

        def give_back(ended: asyncio.Task[None]) -> None:
            # Here, since a task that is cancelled before its first step runs none of its own code.
            if ended.cancelled() or ended.exception() is not None:
                batch.has_failed = True
                self._leave(permit)

        task.add_done_callback(give_back)
        return task

    async def _finish(self, batch: _OpenBatch[T], image: Work[T], permit: Permit) -> None:
        result = await image.run(permit)  # first: the list may be another one after it
        batch.finished.append((permit, result))
        batch.num_answered += image.num_requests > 0
        if batch.num_answered >= batch.fragment_images:
            self._cut(batch)
        else:
            self._relieve()

    def note_answer(self) -> None:
        """For `Permit.answered`."""
        self._answered += 1
        self._relieve()

    def _relieve(self) -> None:
        """Stage finished images early if the engine would run short while images wait for room."""
        num_with_engine = self._asked - self._answered
        if not self._waiting or self._num_early or num_with_engine >= self._num_seqs:
            return
        fullest = max(self._open, key=lambda batch: batch.num_answered)
        few = 1 if num_with_engine < STARVED_SHARE * self._num_seqs else fullest.fragment_images // EARLY_PART
        if fullest.num_answered >= max(1, few):
            self._num_early += 1
            self._cut(fullest).add_done_callback(lambda _: self._end_early())

    def _end_early(self) -> None:
        self._num_early -= 1
        self._relieve()

    def _cut(self, batch: _OpenBatch[T]) -> asyncio.Task[None]:
        finished, batch.finished, batch.num_answered = batch.finished, [], 0
        results = [result for _, result in finished]
        task = asyncio.create_task(batch.stage(results))
        batch.staging.append(task)

        def give_back(ended: asyncio.Task[None]) -> None:
            if ended.cancelled() or ended.exception() is not None:
                batch.has_failed = True
            else:
                self.num_staged += len(finished)
            for permit, _ in finished:
                self._leave(permit)

        task.add_done_callback(give_back)
        return task

    def _leave(self, permit: Permit) -> None:
        self._asked -= permit.num_requests
        self._answered -= permit.num_answered
        self._wake()
