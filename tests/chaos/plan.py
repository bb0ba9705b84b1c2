"""What will happen to one job, all of it drawn from a seed: its data, its faults and when they strike."""

import random
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What a run has to survive."""

    KILL_CAPTION = "kill -9 caption actor"
    KILL_READER = "kill -9 reader"
    KILL_RAYLET = "kill -9 raylet"
    KILL_DRIVER = "kill -9 driver"
    TERM_DRIVER = "SIGTERM driver"
    STOP_CAPTION = "SIGSTOP caption actor"
    STOP_READER = "SIGSTOP reader"
    STOP_RAYLET = "SIGSTOP raylet"
    STOP_DRIVER = "SIGSTOP driver"
    SECOND_RUN = "second run beside it"
    DISK_FULL = "disk full in staging"
    STORAGE = "storage faults"
    CORRUPT_FRAGMENT = "corrupt fragment"
    CHANGED_SHARD = "changed source shard"


IN_RUN = tuple(Fault)[:10]
DEADLY = {Fault.KILL_CAPTION, Fault.KILL_READER, Fault.KILL_RAYLET, Fault.KILL_DRIVER}
"""Those that cost what was in flight."""

LIKELY = {Fault.KILL_CAPTION: 4, Fault.KILL_READER: 4, Fault.KILL_DRIVER: 4, Fault.SECOND_RUN: 1}
"""Weights; 2 for the others."""


class Place(StrEnum):
    """Where the output lies."""

    LOCAL = "local"
    SMALL_DISK = "small disk"
    S3 = "s3"


@dataclass(frozen=True, kw_only=True)
class Strike:
    """One fault of a run, struck when the run has staged so many fragments."""

    fault: Fault
    after_fragments: int
    stop_s: float
    """How long a SIGSTOP lasts."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One run of the job, and what happens to the output after it."""

    strikes: tuple[Strike, ...]
    between: tuple[Fault, ...]


@dataclass(frozen=True, kw_only=True)
class ChaosPlan:
    """One chaos run. Equal seeds give equal plans."""

    seed: int
    place: Place
    storage_share: float
    """Of the calls to storage that fail; S3 only."""
    shards: tuple[tuple[str, int], ...]
    """File name and images of each."""
    slots: tuple[str, ...]
    engine: dict[str, object]
    readers: int
    steps: tuple[Step, ...]

    @property
    def num_images(self) -> int:
        return sum(images for _, images in self.shards)


def draw_plan(seed: int) -> ChaosPlan:
    rng = random.Random(f"chaos/{seed}")
    place = rng.choices(tuple(Place), (4, 2, 3))[0]
    shards = tuple(
        (f"{rng.choice(('', 'deep/er/'))}{number:05d}.{rng.choice(('tar', 'tar', 'parquet', 'tar.gz'))}", size)
        for number, size in enumerate(rng.choices((1, 20, 40, 60, 80), k=rng.randint(3, 6)))
    )
    shards += ((f"{len(shards):05d}.tar", 60),)
    engine: dict[str, object] = {
        "batch_images": rng.choice((3, 4, 6, 8)),
        "batches_in_flight": rng.choice((2, 3)),
        "replicas": rng.choice((1, 1, 2)),
        "echo_latency_s": rng.choice((0.2, 0.3, 0.5)),
    }
    return ChaosPlan(
        seed=seed,
        place=place,
        storage_share=rng.choice((0.05, 0.05, 0.0)) if place is Place.S3 else 0.0,
        shards=shards,
        slots=("long", "tags", "third")[: rng.choice((1, 2, 3))],
        engine=engine,
        readers=rng.choice((1, 2)),
        steps=tuple(_step(rng, place, first=number == 0) for number in range(rng.randint(2, 3))),
    )


def _step(rng: random.Random, place: Place, *, first: bool) -> Step:
    weights = [LIKELY.get(fault, 2) for fault in IN_RUN]
    faults = rng.choices(IN_RUN, weights, k=rng.choice((1, 2)))
    if place is Place.SMALL_DISK and first:
        faults = [Fault.DISK_FULL]
    after = sorted(rng.randint(2, 9) for _ in faults)
    strikes = tuple(
        Strike(fault=fault, after_fragments=when, stop_s=rng.uniform(1, 6))
        for fault, when in zip(faults, after, strict=True)
    )
    between = tuple(fault for fault in (Fault.CORRUPT_FRAGMENT, Fault.CHANGED_SHARD) if rng.random() < 0.4)
    return Step(strikes=strikes, between=between)
