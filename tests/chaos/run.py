"""One chaos run: the job started, struck when it has got so far, started again until done, and judged."""

import contextlib
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.chaos.plan import DEADLY, ChaosPlan, Fault, Place, Step, Strike
from tests.chaos.world import World, build_world, can_mount
from tests.cli import Done, finish, run, start, write_job
from tests.gate import HOOKS, Gate
from tests.s3_proxy import Script, s3_proxy
from tests.trees import find, send, tree, writers

HANG_S = 240
"""A driver that takes longer than this over some hundred images has hung."""

GONE_S = 20
"""Within which the workers of a killed driver must have ended by themselves."""

LAST_RUNS = 4
"""Undisturbed runs, at most, until all is done: one is enough unless storage fails."""

SIGNALS = {"kill": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGSTOP": signal.SIGSTOP}
TARGETS = {
    "caption actor": "caption",
    "reader": "reader",
    "raylet": "raylet",
    "driver": "driver",
    "commit actor": "committer",
    "progress actor": "progress_actor",
}

CODES = {
    Fault.KILL_DRIVER: {-signal.SIGKILL},
    Fault.KILL_RAYLET: {1},
    Fault.TERM_DRIVER: {4},
    Fault.DISK_FULL: {1},
}
"""Exit codes that a fault may lead to, besides 0."""


@dataclass
class Result:
    """What one chaos run showed."""

    seed: int
    struck: Counter[Fault] = field(default_factory=Counter)
    missed: Counter[Fault] = field(default_factory=Counter)
    """Planned, and the run had ended before its turn, or nothing was there to be struck."""
    violations: list[str] = field(default_factory=list)
    num_rows: int = 0
    num_lost: int = 0
    num_double: int = 0
    num_survivors: int = 0
    num_drivers: int = 0
    storage_faults: Counter[str] = field(default_factory=Counter)
    images_asked_again: float | None = None
    """Images that were asked more than once; None where that is meant (a second run, a corrupt fragment)."""
    seconds: float = 0.0

    @property
    def num_kills(self) -> int:
        return sum(self.struck[fault] for fault in DEADLY)


def run_chaos(plan: ChaosPlan, folder: Path) -> Result:
    """Carry out a plan in an empty folder; the S3 server, if it needs one, is that of the environment."""
    result, started = Result(seed=plan.seed), time.monotonic()
    if plan.place is Place.SMALL_DISK and not can_mount(folder / "try"):
        result.violations.append("no small disk could be mounted; needs root")
        return result
    with build_world(plan, folder) as world, _storage(plan) as (environment, script):
        chaos = _Chaos(world, result, environment)
        for number, step in enumerate(plan.steps):
            chaos.step(step, random.Random(f"{plan.seed}/{number}"))
        if script is not None:
            result.storage_faults = Counter({str(kind): num for kind, num in script.counts.items()})
            result.struck[Fault.STORAGE] = sum(script.counts.values())
        chaos.finish_and_judge()
    result.seconds = time.monotonic() - started
    return result


@contextlib.contextmanager
def _storage(plan: ChaosPlan) -> Iterator[tuple[dict[str, str], Script | None]]:
    if not plan.storage_share:
        yield {}, None
        return
    server = os.environ["AWS_ENDPOINT_URL"]
    with s3_proxy(server, share=plan.storage_share, seed=plan.seed, stall_s=3.0) as (endpoint, script):
        yield {"AWS_ENDPOINT_URL": endpoint}, script


class _Chaos:
    def __init__(self, world: World, result: Result, environment: dict[str, str]) -> None:
        self._world, self._result = world, result
        self._asked = world.folder / "asked"
        self._environment = environment | {"JFTEST_ASKED": str(self._asked), **HOOKS}
        self._gates = itertools.count()
        self._job = write_job(
            world.folder,
            world.source.url,
            world.output.url,
            captions=[{"slot": slot, "mode": "descriptive"} for slot in world.plan.slots],
            engine=world.plan.engine,
            cluster={"max_concurrent_reads": world.plan.readers, "drain_timeout_s": 10},
        )
        self._caption = ("caption", self._job, *(["--extend"] if world.plan.grows else []))

    def step(self, step: Step, rng: random.Random) -> None:
        self._checked(self._struck_run(step.strikes), step.strikes)
        self._world.mark_fragments()
        for fault in step.between:
            self._between(fault, rng)

    def finish_and_judge(self) -> None:
        world, result = self._world, self._result
        for _ in range(LAST_RUNS):
            done = run(world.folder, *self._caption, **self._environment)
            result.num_drivers += 1
            if done.code == 0:
                break
        else:
            result.violations.append(f"not done after {LAST_RUNS} undisturbed runs: {done}")
        verified = run(world.folder, "verify", world.output.url)
        if verified.code != 0:
            result.violations.append(f"verify: {verified}")
        lost, double, not_kept = world.lost_and_double()
        result.num_rows = sum(world.expected().values())
        result.num_lost, result.num_double = sum(lost.values()), sum(double.values())
        result.num_survivors = len(world.survivors)
        if lost or double:
            result.violations.append(f"lost {sorted(lost)[:5]}, double {sorted(double)[:5]}")
        not_amended = world.not_amended()
        if not_amended:
            result.violations.append(f"amended rows lost their texts: {not_amended}")
        if not_kept:
            result.violations.append(
                f"{len(not_kept)} rows of earlier attempts did not survive: {sorted(not_kept)[:5]}"
            )
        self._check_commits("the end")
        if not result.struck[Fault.SECOND_RUN]:
            asked = self._asked.stat().st_size - world.rows_corrupted if self._asked.exists() else 0
            result.images_asked_again = asked / len(world.plan.slots) - world.num_sound

    def _between(self, fault: Fault, rng: random.Random) -> None:
        if fault is Fault.CORRUPT_FRAGMENT:
            (self._result.struck if self._world.corrupt_fragment(rng) else self._result.missed)[fault] += 1
            return
        if fault is Fault.ADDED_SHARD:
            self._world.add_shard(rng)
            self._result.struck[fault] += 1
            return
        if fault is Fault.AMENDED_ROW:
            self._amend_row(rng)
            return
        with self._world.changed_shard(rng):
            done = run(self._world.folder, *self._caption, **self._environment)
        self._result.struck[fault] += 1
        if done.code != 2 or "planned shards have changed" not in done.err:
            self._result.violations.append(f"a changed shard was not refused: {done}")

    def _amend_row(self, rng: random.Random) -> None:
        edits = self._world.draw_edit(rng)
        if edits is None:
            self._result.missed[Fault.AMENDED_ROW] += 1
            return
        done = run(self._world.folder, "amend", self._world.output.url, edits, **self._environment)
        self._result.struck[Fault.AMENDED_ROW] += 1
        if done.code != 0 or "1 rows changed" not in done.out:
            self._result.violations.append(f"a row was not amended: {done}")

    def _struck_run(self, strikes: tuple[Strike, ...]) -> list[tuple[Done, set[Fault]]]:
        """Start a run and strike it; return how it and those beside it ended, and what struck them."""
        gate = Gate(self._world.folder / f"gate-{next(self._gates)}")
        environment = self._environment | gate.environment
        attack = _Attack(
            self._world, self._result, gate, lambda: start(self._world.folder, *self._caption, **environment)
        )
        try:
            return attack.run(strikes)
        finally:
            attack.clear()

    def _checked(self, ends: list[tuple[Done, set[Fault]]], strikes: tuple[Strike, ...]) -> None:
        self._result.num_drivers += len(ends)
        for done, faults in ends:
            if "joyfleet: Ray did not start" in done.err:
                continue  # the machine was too busy for Ray's own 30 s; nothing was begun
            allowed = {0}.union(*(CODES.get(fault, set()) for fault in faults))
            if done.code not in allowed:
                self._result.violations.append(f"exit code {done.code} after {sorted(faults)}: {done}")
            # Ray ends a driver whose raylet died from within C++: no line of ours runs any more.
            if (
                done.code == 1
                and Fault.KILL_RAYLET not in faults
                and not done.err.splitlines()[-1].startswith("joyfleet: ")
            ):
                self._result.violations.append(f"no clear message after {sorted(faults)}: {done}")
        self._check_commits(f"a run with {[strike.fault for strike in strikes]}")

    def _check_commits(self, when: str) -> None:
        changed = self._world.changed_commits()
        if changed:
            self._result.violations.append(f"committed files changed in {when}: {changed}")


class _Attack:
    """One run under attack, with all that it started."""

    def __init__(self, world: World, result: Result, gate: Gate, start_run) -> None:
        self._world, self._result, self._gate, self._start = world, result, gate, start_run
        self._drivers = [start_run()]
        self._below: dict[int, psutil.Process] = {}
        self._stopped: list[tuple[float, list[psutil.Process]]] = []
        self._struck: set[Fault] = set()
        self._ballast = world.folder / "disk" / "ballast"

    def run(self, strikes: tuple[Strike, ...]) -> list[tuple[Done, set[Fault]]]:
        pending, before = list(strikes), set(self._world.fragments())
        seen: set[str] = set()
        until = time.monotonic() + HANG_S
        while any(driver.poll() is None for driver in self._drivers):
            if time.monotonic() > until:
                self._result.violations.append(f"hangs, struck by {sorted(self._struck)}")
                break
            self._resume(now=False)
            seen |= set(self._world.fragments()) - before
            while pending and len(seen) >= pending[0].after_fragments and self._drivers[0].poll() is None:
                self._strike(pending.pop(0))
            # One by one until the last strike: the run cannot end before it.
            if not pending:
                self._gate.open()
            elif not self._gate.permits:
                self._gate.let(1)
            time.sleep(0.05)
        for strike in pending:
            self._result.missed[strike.fault] += 1
        self._resume(now=True)
        return [(finish(driver), self._struck) for driver in self._drivers if driver.poll() is not None]

    def clear(self) -> None:
        """Wait until all that was started is gone; what does not go is killed and reported."""
        self._resume(now=True)
        self._ballast.unlink(missing_ok=True)
        _, alive = psutil.wait_procs(self._below.values(), timeout=GONE_S)
        for driver in self._drivers:
            alive += [process for process in tree(driver.pid) if process not in alive]
        late = writers(alive)
        if late:
            self._result.violations.append(f"{len(late)} workers outlived their driver by {GONE_S} s: {late[:3]}")
        send(alive, signal.SIGKILL)

    def _resume(self, *, now: bool) -> None:
        due = [entry for entry in self._stopped if now or entry[0] <= time.monotonic()]
        for entry in due:
            send(entry[1], signal.SIGCONT)
            self._stopped.remove(entry)

    def _strike(self, strike: Strike) -> None:
        fault = strike.fault
        driver = self._drivers[0].pid
        self._below |= {process.pid: process for process in tree(driver)[1:]}
        if fault is Fault.SECOND_RUN:
            self._drivers.append(self._start())
            hit = True
        elif fault is Fault.DISK_FULL:
            hit = self._fill_disk()
        else:
            hit = self._signal(fault, driver, strike.stop_s)
        if hit:
            self._struck.add(fault)
        (self._result.struck if hit else self._result.missed)[fault] += 1

    def _signal(self, fault: Fault, driver: int, stop_s: float) -> bool:
        number = next(number for word, number in SIGNALS.items() if fault.startswith(word))
        kind = next(kind for words, kind in TARGETS.items() if fault.endswith(words))
        victims = find(driver, kind)[:1]
        if number is signal.SIGSTOP:
            self._stopped.append((time.monotonic() + stop_s, victims))
        return send(victims, number) > 0

    def _fill_disk(self) -> bool:
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 12))
        return True
