"""The same job by other programs: captions a second, CPU a caption, and what a kill costs.

`python -m tests.benchmarks.peers [--images N] [--rounds R] [--kills K] [--load L] [--only NAME,...] [--minutes M]
[--append 1]`. Programs and their settings are in `peers_programs`; those that infra/peers.sh has installed take part.
In each round every program captions cold data once, the first of a round is the second of the one before. Timed are the
time from the command to the first caption, to the last one and to the end of the program, and captions a second and CPU
a caption between 20 and 95 % of the captions, when its start is over. CPU is that of all processes of the program,
ended ones included (`process_tree`); beside it stands what the whole machine used, which on a quiet machine is nearly
the same. A kill ends all processes when half of the captions are made: lost are images whose caption was made and that
no file has. Then the same command runs again, and the captions that it makes again are counted. `--load 2` keeps two
other programs computing meanwhile.

The expected time is printed first. Each measurement is written to the JSON file when it is done; `--append 1` keeps
those that the file has (with `--rounds 0 --kills 0` it only prints them), and `--minutes M` begins none that is not
expected to end in time.
"""

import io
import json
import os
import signal
import statistics
import sys
import tarfile
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.benchmarks.peers_programs import PROGRAMS, TIMEOUT_S, answered_file, made_file, members
from tests.benchmarks.process_tree import ProcessTree, busy, machine_cpu_s
from tests.benchmarks.report import Middle, Row, arguments, publish, save, table

OURS = ("joyfleet", "joyfleet-seeded")
POLL_S = 0.1

WITH_LOAD = 1.6
"""By how much two busy programs on two cores make a run longer, for the expected time. A guess."""

LOOKS = 3000
"""Characters of a program's log in the row of a failed measurement."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is measured next: a whole run of a program in a round, or a kill and a restart."""

    name: str
    round: int
    kill: bool = False

    def expected_s(self, args: Namespace) -> float:
        """Return the seconds that it will take, by the measured ones of two quiet cores."""
        slower = WITH_LOAD if args.load else 1.0
        # A start, half of the captions, and another start with all of them at worst.
        return PROGRAMS[self.name].expected_s * slower * (1.8 if self.kill else 1.0)


def measurements(args: Namespace, names: Sequence[str]) -> list[Measurement]:
    """Return what is measured, in order: rounds with turned orders, then the kills."""
    rounds = [
        Measurement(name, number)
        for number in range(args.rounds)
        for name in [*names[number % len(names) :], *names[: number % len(names)]]
    ]
    return rounds + [Measurement(name, number, kill=True) for number in range(args.kills) for name in names]


def chosen(only: str) -> list[str]:
    """Return the names of `--only`, by default all.

    Raises:
        SystemExit: a name is unknown.
    """
    names = only.split(",") if only else list(PROGRAMS)
    unknown = [name for name in names if name not in PROGRAMS]
    if unknown:
        raise SystemExit(f"--only {only}: unknown {', '.join(unknown)}; allowed: {', '.join(PROGRAMS)}")
    return names


def whole(program: str, shards: Path, output: Path, num_images: int) -> dict[str, float]:
    """Run a program to its end and time it.

    Raises:
        RuntimeError: it failed, or captions are missing.
    """
    middle, began, machine_began = Middle(num_images), time.monotonic(), machine_cpu_s()
    first = last = 0.0
    with started(program, shards, output) as tree:
        for made in polls(tree, output):
            seconds, cpu_s = time.monotonic() - began, tree.cpu_s()
            first = first or (seconds if made else 0.0)
            last = last or (seconds if made >= num_images else 0.0)
            middle.look(made, seconds, cpu_s)
        check_end(tree, output)
        seconds, cpu_s, machine_s = time.monotonic() - began, tree.cpu_s(), machine_cpu_s() - machine_began
    num_kept = len(set(PROGRAMS[program].kept(output)))
    if num_kept < num_images:
        raise RuntimeError(f"{program} ended with captions of {num_kept} images of {num_images}:\n{log_of(output)}")
    rate = middle.rate()
    return {
        "captions_per_s": rate["per_s"],
        "cpu_ms": rate["cpu_ms"],
        "first_caption_s": first,
        "last_caption_s": last,
        "all_s": seconds,
        "cpu_s": cpu_s,
        "machine_cpu_s": machine_s,
        "cpu_exact": tree.exact,
    }


def killed(program: str, shards: Path, output: Path, num_images: int) -> dict[str, Any]:
    """Kill a program at half of the captions, start it again, and count what it kept and what it makes again."""
    with started(program, shards, output) as tree:
        for made in polls(tree, output):
            if made >= num_images // 2:
                break
        else:
            raise RuntimeError(f"ended with {tree.process.returncode} before the kill:\n{log_of(output)}")
        tree.kill()
    num_made, num_kept = num_made_of(output), len(set(PROGRAMS[program].kept(output)))
    made_file(output).unlink(missing_ok=True)
    answered_file(output).unlink(missing_ok=True)
    with started(program, shards, output) as tree:
        for _ in polls(tree, output):
            pass
        check_end(tree, output)
    rows = PROGRAMS[program].kept(output)
    again = int(answered_file(output).read_text()) if answered_file(output).exists() else num_made_of(output)
    return {
        "made": num_made,
        "lost": max(0, num_made - num_kept),
        "made_by_restart": again,
        "restart": "goes on" if again < num_images else "starts over",
        "images_at_end": len(set(rows)),
        "rows_at_end": len(rows),
    }


def started(program: str, shards: Path, output: Path) -> ProcessTree:
    words = [PROGRAMS[program].python, "-m", "tests.benchmarks.peers", "--part", program, str(shards), str(output)]
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with log_file(output).open("a") as log:
        return ProcessTree(words, log, env)


def polls(tree: ProcessTree, output: Path) -> Iterator[int]:
    """Yield the number of captions made, ten times a second until the program has ended.

    Raises:
        RuntimeError: it has not ended after TIMEOUT_S.
    """
    deadline = time.monotonic() + TIMEOUT_S
    ended = False
    while not ended:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no end after {TIMEOUT_S} s:\n{log_of(output)}")
        time.sleep(POLL_S)
        ended = tree.process.poll() is not None
        yield num_made_of(output)


def check_end(tree: ProcessTree, output: Path) -> None:
    if tree.process.returncode:
        raise RuntimeError(f"ended with {tree.process.returncode}:\n{log_of(output)}")


def num_made_of(output: Path) -> int:
    return made_file(output).stat().st_size if made_file(output).exists() else 0


def log_file(output: Path) -> Path:
    return output.with_suffix(".log")


def log_of(output: Path) -> str:
    return log_file(output).read_text(errors="replace")[-LOOKS:]


def measured(args: Namespace, measurement: Measurement, shards: Path, folder: Path) -> dict[str, Any]:
    """Return the row of a measurement; one that failed has the column `error`."""
    row: dict[str, Any] = {"program": measurement.name, "round": measurement.round, "load": args.load}
    measure = killed if measurement.kill else whole
    try:
        return row | measure(measurement.name, shards, folder / "output", args.images)
    except RuntimeError as err:
        print(f"{measurement.name}: {err}", file=sys.stderr, flush=True)
        return row | {"error": str(err)}


def medians(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a row for each program and load: medians of the rounds with their ranges, and our ratio to it.

    The ratio is that of the captions a second of the same round, or of the medians where the rounds do not match.
    """
    timed = [row for row in rows if "captions_per_s" in row]
    result: list[dict[str, Any]] = []
    for load, name in dict.fromkeys((row["load"], row["program"]) for row in timed):
        mine = [row for row in timed if (row["load"], row["program"]) == (load, name)]
        columns = ("captions_per_s", "cpu_ms", "first_caption_s", "last_caption_s", "all_s")
        line = {"program": PROGRAMS[name].title, "load": load, "rounds": len(mine)}
        line |= {column: spread([row[column] for row in mine]) for column in columns}
        for ours in OURS:
            if name not in OURS and (ratios := ratios_of(timed, ours, mine)):
                line[f"{ours} to it"] = spread(ratios)
        result.append(line)
    return result


def ratios_of(timed: Sequence[Row], ours: str, theirs: Sequence[Row]) -> list[float]:
    """Return the ratios of our captions a second to theirs, in rounds that have both."""
    rates = {(row["load"], row["round"]): row["captions_per_s"] for row in timed if row["program"] == ours}
    places = [(row, (row["load"], row["round"])) for row in theirs]
    return [rates[place] / row["captions_per_s"] for row, place in places if place in rates]


def spread(values: Sequence[float]) -> str:
    """Return the median, and the least and the greatest value where there are several."""
    middle = f"{statistics.median(values):.3g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3g}-{max(values):.3g})"


def drawn(folder: Path, num_images: int) -> Path:
    """Draw the stand-in's pictures and put them into tar shards of 60, all of them JPEG."""
    from PIL import Image

    from pipeline.standin.demo_data import draw_dataset

    draw_dataset(folder / "drawn", num_images=2 * num_images, seed=12, shard_rows=120)
    images, shards = members(folder / "drawn"), folder / "jpeg"
    shards.mkdir()
    edges = [*range(0, num_images, 60), num_images]
    for number, (begin, end) in enumerate(pairwise(edges)):
        with tarfile.open(shards / f"{number:04d}.tar", "w") as tar:
            for _ in range(end - begin):
                key, data = next(images)
                encoded = io.BytesIO()
                Image.open(io.BytesIO(data)).convert("RGB").save(encoded, "JPEG", quality=90)
                info = tarfile.TarInfo(f"{key}.jpg")
                info.size = len(encoded.getvalue())
                tar.addfile(info, io.BytesIO(encoded.getvalue()))
    return shards


def earlier_rows(args: Namespace) -> list[Row]:
    return json.loads(args.json.read_text())["rows"] if args.append and args.json.exists() else []


def installed(names: Sequence[str]) -> list[str]:
    """Return the names of programs that can run here, and say how to install the others."""
    missing: Mapping[str, str | None] = {name: PROGRAMS[name].missing() for name in names}
    for name, command in missing.items():
        if command:
            print(f"{name} is not installed: {command}", flush=True)
    return [name for name in names if not missing[name]]


def measure_all(args: Namespace, names: Sequence[str]) -> list[Row]:
    """Measure in order; write each row when it is known."""
    planned, rows, began = measurements(args, names), earlier_rows(args), time.monotonic()
    if not planned:
        return rows
    expected = sum(one.expected_s(args) for one in planned)
    print(f"{len(planned)} measurements of {', '.join(names)}: about {expected / 60:.0f} minutes", flush=True)
    with tempfile.TemporaryDirectory() as scratch, busy(args.load):
        shards = drawn(Path(scratch, "in"), args.images)
        for number, measurement in enumerate(planned):
            seconds = time.monotonic() - began
            if args.minutes and seconds + measurement.expected_s(args) > 60 * args.minutes:
                print(f"{measurement} left out: {seconds:.0f} s of {args.minutes} minutes are over", flush=True)
                continue
            folder = Path(scratch, str(number))
            folder.mkdir()
            rows.append(measured(args, measurement, shards, folder))
            print(rows[-1], flush=True)
            save(args, rows, {})
    return rows


def main() -> int:
    """Return 1 if a measurement failed."""
    defaults = {"images": 480, "rounds": 3, "kills": 1, "load": 0, "minutes": 0, "only": "", "append": 0}
    args = arguments("peers", __doc__, **defaults)
    if args.part:
        name, shards, output = args.part
        PROGRAMS[name].run(Path(shards), Path(output))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the programs are ended
    rows = measure_all(args, installed(chosen(args.only)))
    publish(args, rows, {"medians": medians(rows)})
    print(table(medians(rows)), flush=True)
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
