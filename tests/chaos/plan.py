"""What will happen to one job, all of it drawn from a seed: its data, its faults and when they strike."""

import random
from dataclasses import dataclass, replace
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
    ADDED_SHARD = "added source shard"
    AMENDED_ROW = "amended caption row"
    KILL_COMMITTER = "kill -9 commit actor"
    KILL_COUNTS = "kill -9 progress actor"


PASSING = (
    *(Fault.KILL_CAPTION, Fault.KILL_READER, Fault.STOP_CAPTION, Fault.STOP_READER, Fault.STOP_RAYLET),
    *(Fault.STOP_DRIVER, Fault.SECOND_RUN),
)
"""Those that a run goes on after."""
WEIGHTS = (5, 5, 2, 2, 2, 2, 1)

BESIDE = (Fault.KILL_COMMITTER, Fault.KILL_COUNTS)
"""Of the actors beside the driver, without which a run goes on as well."""

ENDING = (Fault.KILL_DRIVER, Fault.KILL_RAYLET, Fault.TERM_DRIVER)
"""Those that end it, so that there is something left for the next."""

DEADLY = {Fault.KILL_CAPTION, Fault.KILL_READER, Fault.KILL_RAYLET, Fault.KILL_DRIVER}
"""Those that cost what was in flight."""


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
    def grows(self) -> bool:
        """Whether the source gains shards, so that its runs extend the plan."""
        return any(Fault.ADDED_SHARD in step.between for step in self.steps)

    @property
    def num_images(self) -> int:
        return sum(images for _, images in self.shards)


def draw_plan(seed: int) -> ChaosPlan:
    rng = random.Random(f"chaos/{seed}")
    # Drawn apart from the rest, so that the other faults of a seed stay what they were without these.
    growth = random.Random(f"chaos/{seed}/growth")
    beside = random.Random(f"chaos/{seed}/beside")
    place = rng.choices(tuple(Place), (4, 2, 3))[0]
    shards = tuple(
        (f"{rng.choice(('', 'deep/er/'))}{number:05d}.{rng.choice(('tar', 'tar', 'parquet', 'tar.gz'))}", size)
        for number, size in enumerate(rng.choices((1, 30, 60, 90), k=rng.randint(3, 5)))
    )
    shards += ((f"{len(shards):05d}.tar", 60),)
    num_steps = rng.randint(2, 3)
    engine: dict[str, object] = {
        "batch_images": rng.choice((3, 4, 6, 8)),
        "batches_in_flight": rng.choice((2, 3)),
        "replicas": rng.choice((1, 1, 2)),
        "echo_latency_s": rng.choice((0.2, 0.3, 0.5)),
    }
    if beside.random() < 0.5:
        # A window that is smaller than the batches in flight, which are larger than a fragment.
        engine |= {"batches_in_flight": None, "max_num_seqs": beside.choice((4, 8)), "echo_latency_s": 0.2}
    return ChaosPlan(
        seed=seed,
        place=place,
        storage_share=rng.choice((0.05, 0.05, 0.0)) if place is Place.S3 else 0.0,
        shards=shards,
        slots=("long", "tags", "third")[: rng.choice((1, 2, 3))],
        engine=engine,
        readers=rng.choice((1, 2)),
        steps=tuple(
            _with_strikes_beside(_step(rng, growth, place, first=number == 0, last=number == num_steps - 1), beside)
            for number in range(num_steps)
        ),
    )


def _step(rng: random.Random, growth: random.Random, place: Place, *, first: bool, last: bool) -> Step:
    faults = rng.choices(PASSING, WEIGHTS, k=rng.choice((0, 1, 1, 2)))
    if place is Place.SMALL_DISK and first:
        faults = [Fault.DISK_FULL]
    elif not last:
        faults.append(rng.choices(ENDING, (3, 1, 2))[0])
    after = sorted(rng.randint(2, 8) for _ in faults)
    strikes = tuple(
        Strike(fault=fault, after_fragments=when, stop_s=rng.uniform(1, 6))
        for fault, when in zip(faults, after, strict=True)
    )
    between = tuple(fault for fault in (Fault.CORRUPT_FRAGMENT, Fault.CHANGED_SHARD) if rng.random() < 0.4)
    between += tuple(fault for fault in (Fault.ADDED_SHARD, Fault.AMENDED_ROW) if growth.random() < 0.5)
    return Step(strikes=strikes, between=() if last else between)


def _with_strikes_beside(step: Step, beside: random.Random) -> Step:
    """Kill an actor beside the driver in some of the steps."""
    if beside.random() < 0.5:
        return step
    strike = Strike(fault=beside.choice(BESIDE), after_fragments=beside.randint(2, 8), stop_s=0.0)
    strikes = sorted((*step.strikes, strike), key=lambda strike: strike.after_fragments)
    return replace(step, strikes=tuple(strikes))
