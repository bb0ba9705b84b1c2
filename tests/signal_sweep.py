"""What a run does with one signal, at each moment of its life: `python -m tests.signal_sweep --step 0.1`.

Each point is a new run on a new output that gets one signal so many seconds after its start. The table has a line a
point; the end code is 1 when a point breaks the promise: exit code 4 with one line, or 0 where the run was complete,
and no process of the run left.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.standin.demo_data import draw_dataset
from tests.cli import finish, run, start, write_job

MARK = "JFTEST_SWEEP"
LEFT_S = 60
"""Within which all processes of a run must be gone; the guards need less than a second."""


@dataclass(frozen=True)
class Point:
    """What came of one signal."""

    at_s: float
    number: signal.Signals
    code: int
    lines: tuple[str, ...]
    left: int
    """Processes of the run that outlived it by LEFT_S."""
    took_s: float
    """From the signal to the end."""
    ready: bool
    """Whether the process had taken its signals; before, Python itself starts, and what it does is its own."""
    next_code: int | None
    """Exit code of another run on the output; None without one."""

    def fault(self) -> str | None:
        printed = [line for line in self.lines if not line.startswith("joyfleet: note: ")]
        if self.left:
            return f"{self.left} processes are left"
        if self.next_code:
            return f"the next run ended with {self.next_code}"
        if not self.ready or self.code == 0 or (self.code == 4 and len(printed) == 1):
            return None
        return f"exit code {self.code} and {len(printed)} lines"


def strike(folder: Path, verb: list[str], number: signal.Signals, at_s: float, *, resume: bool = False) -> Point:
    """Start a command, send it a signal, and see."""
    mark = uuid.uuid4().hex
    process = start(folder, *verb, **{MARK: mark})
    time.sleep(at_s)
    ready = process.poll() is not None or catches_sigterm(process.pid)
    since = time.monotonic()
    process.send_signal(number)
    done = finish(process)
    took_s = time.monotonic() - since
    return Point(
        at_s=at_s,
        number=number,
        code=done.code,
        lines=tuple(line for line in done.err.splitlines() if line.startswith("joyfleet: ")),
        left=num_left(mark),
        took_s=took_s,
        ready=ready,
        next_code=run(folder, *verb).code if resume else None,
    )


def catches_sigterm(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM, as /proc says; one that has ended counts, too."""
    caught = re.search(r"^SigCgt:\t(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return caught is None or bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def num_left(mark: str) -> int:
    """Number of processes with the mark that live on, after at most LEFT_S."""
    until = time.monotonic() + LEFT_S
    while num := sum(1 for _ in marked(mark)):
        if time.monotonic() > until:
            break
        time.sleep(0.2)
    return num


def marked(mark: str) -> Iterator[psutil.Process]:
    """The processes that were started with the mark in their environment."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):
            continue


def prepare(folder: Path, latency_s: float = 1.0) -> list[str]:
    """Make a job of about 15 seconds in a folder of its own; the words of its command."""
    folder.mkdir(parents=True)
    draw_dataset(folder / "in", num_images=48, seed=3, shard_rows=24)
    engine = {"echo_latency_s": latency_s, "batches_in_flight": 1, "batch_images": 4}
    return ["caption", write_job(folder, folder / "in", folder / "out", engine=engine)]


def sweep(root: Path, moments: list[float], numbers: list[signal.Signals], jobs: int, resume_every: int) -> list[Point]:
    def sweep_point(number: int) -> Point:
        at_s, which = moments[number // len(numbers)], numbers[number % len(numbers)]
        folder = root / f"{number:04d}"
        resume = bool(resume_every) and number % resume_every == 0
        point = strike(folder, prepare(folder), which, at_s, resume=resume)
        print(line(point), flush=True)
        if point.fault():
            for log in sorted(folder.glob("logs/*.log")):
                print("\n".join(log.read_text().splitlines()[-40:]), flush=True)
        return point

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(sweep_point, range(len(moments) * len(numbers))))


def line(point: Point) -> str:
    lines = "; ".join(point.lines)[:110]
    after = "" if point.next_code is None else f" next {point.next_code}"
    fault = point.fault()
    state = "" if point.ready else " (Python was starting)"
    return (
        f"{point.at_s:5.2f} s  {point.number.name:7}  exit {point.code:3}  after {point.took_s:5.1f} s  "
        f"left {point.left}{after}  {lines}{f'  <-- {fault}' if fault else ''}{state}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="first", type=float, default=0.0, help="seconds")
    parser.add_argument("--until", type=float, default=15.0, help="seconds")
    parser.add_argument("--step", type=float, default=0.1, help="seconds")
    parser.add_argument("--signals", default="SIGTERM,SIGINT")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--resume-every", type=int, default=10, help="run so many of the points again; 0 none")
    options = parser.parse_args()
    num_steps = int((options.until - options.first) / options.step + 1e-9) + 1
    moments = [options.first + options.step * step for step in range(num_steps)]
    numbers = [signal.Signals[name] for name in options.signals.split(",")]
    with tempfile.TemporaryDirectory(prefix="joyfleet-sweep-", ignore_cleanup_errors=True) as root:
        points = sweep(Path(root), moments, numbers, options.jobs, options.resume_every)
    codes = Counter((point.number.name, point.code) for point in points)
    print(f"{len(points)} runs (load {os.getloadavg()[0]:.1f}):")
    for (name, code), count in sorted(codes.items()):
        print(f"  {name}: exit code {code} in {count}")
    faults = [point for point in points if point.fault()]
    print(f"  faults: {len(faults)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
