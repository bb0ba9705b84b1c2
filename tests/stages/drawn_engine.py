"""An engine that works on a fixed number of requests together, each for a drawn time; a replica that is fed with Ray's
batches. Time is that of the event loop, so `tests.virtual_time` makes it fast and exact.
"""

import asyncio
import random
from dataclasses import dataclass, field

from pipeline.engines.batch_plan import batches_to_feed
from pipeline.stages.window import Permit, Window, Work

STAGE_S = 0.1
"""A fragment on S3."""

RETRIED = 0.03
"""Share of answers that the rules reject."""

MOST_TOKENS = 300
TOKEN_S = 0.06
"""Of a request that is decoded with 255 others on an H100: 30 images a second at 120 tokens."""


@dataclass
class DrawnEngine:
    """Counts how many requests it works on, over time."""

    num_seqs: int
    medians: tuple[int, ...] = (110,)
    """Tokens of a caption, by slot; the last one for all further slots."""
    seed: int = 0
    running: int = 0
    most_unstaged: int = 0
    _areas: list[tuple[float, float]] = field(default_factory=list)
    _area: float = 0.0
    _since: float = 0.0

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._free = asyncio.Semaphore(self.num_seqs)

    def seconds(self, slot: int) -> float:
        median = self.medians[min(slot, len(self.medians) - 1)]
        return TOKEN_S * max(5.0, min(MOST_TOKENS, median * self._rng.lognormvariate(0.0, 0.5)))

    async def answer(self, slot: int) -> None:
        async with self._free:
            self._count(+1)
            await asyncio.sleep(self.seconds(slot))
            self._count(-1)

    def rejects(self) -> bool:
        return self._rng.random() < RETRIED

    def _count(self, change: int) -> None:
        now = asyncio.get_running_loop().time()
        self._area += self.running * (now - self._since)
        self._since, self.running = now, self.running + change
        self._areas.append((now, self._area))

    def mean_running(self) -> float:
        """The mean number of requests that it worked on, between 20 and 80 % of the time."""
        end = self._areas[-1][0]
        middle = [point for point in self._areas if 0.2 * end <= point[0] <= 0.8 * end]
        (first, before), (last, area) = middle[0], middle[-1]
        return (area - before) / (last - first)


async def caption(
    engine: DrawnEngine, num_slots: int, batch_images: int, num_batches: int, *, fragment_images: int = 64
) -> list[tuple[int, int]]:
    """Caption batches as a replica does, as many at once as Ray sends; return each staged image, in that order."""
    window = Window(engine.num_seqs)
    in_flight = asyncio.Semaphore(batches_to_feed(engine.num_seqs, batch_images, num_slots))
    staged: list[tuple[int, int]] = []

    def image(batch: int, row: int) -> Work[tuple[int, int]]:
        async def request(slot: int, permit: Permit) -> None:
            for _ in range(3):
                await engine.answer(slot)
                engine.most_unstaged = max(engine.most_unstaged, window.num_unstaged)
                if not engine.rejects():
                    break
            permit.answered()

        async def run(permit: Permit) -> tuple[int, int]:
            await asyncio.gather(*(request(slot, permit) for slot in range(num_slots)))
            return batch, row

        return Work(num_slots, run)

    async def stage(images: list[tuple[int, int]]) -> None:
        await asyncio.sleep(STAGE_S)
        staged.extend(images)

    async def run_batch(batch: int) -> None:
        async with in_flight:
            await window.run((image(batch, row) for row in range(batch_images)), fragment_images, stage)

    await asyncio.gather(*map(run_batch, range(num_batches)))
    return staged
