"""Where the time of a run goes: py-spy on every process, Ray's timeline, vLLM's own metrics, of one run with vLLM.

`python -m tests.benchmarks.profile [--images N] [--seconds S]`. From 20 % of the images on, py-spy samples driver,
readers, caption actor and engine core for S seconds; Ray's timeline is taken behind it. The samples (speedscope.app
reads them) and the timeline (chrome://tracing, ui.perfetto.dev) stay in out/bench/profile.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.report import FOLDER, arguments, part, publish
from tests.trees import KINDS, find

KEPT = FOLDER / "profile"
RATE = 50
"""Samples a second of each thread that is running."""
TOP = 6
NO_PYTHON = "(no Python)"
ENGINE = "VLLM::EngineCore"
"""What vLLM calls its core's process."""


class Sampled:
    """The run, looked at: py-spy beside it, Ray's timeline, and what the replicas tell of their engines."""

    def __init__(self, folder: Path, seconds: int) -> None:
        self._folder, self._seconds = folder, seconds
        self._samplers: list[subprocess.Popen[bytes]] = []
        self._tasks: dict[str, list[float]] = {}
        self._details: list[Any] = []
        self._cpu: dict[str, tuple[float, float]] = {}

    def look(self, now: Any, num_images: int) -> None:
        if not self._samplers and now.images_done > 0.2 * num_images:
            self._start()
        elif self._samplers and not self._tasks and all(sampler.poll() is not None for sampler in self._samplers):
            self._stop()

    def add(self, detail: Any) -> None:
        if detail is not None and self._samplers and not self._tasks:
            self._details.append(detail)

    def result(self) -> dict[str, Any]:
        if not self._tasks:
            raise RuntimeError("the run ended before py-spy did: more images or fewer seconds are needed")
        return {"roles": self._roles(), "tasks": self._tasks, "engine": self._engine()}

    def _start(self) -> None:
        for role, process in processes().items():
            words = ["record", "--pid", str(process.pid), "--duration", str(self._seconds), "--rate", str(RATE)]
            words += ["--format", "raw", "--function", "--nonblocking", "--output", str(self._folder / f"{role}.txt")]
            words = [str(Path(sys.executable).with_name("py-spy")), *words]
            self._samplers.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            times = process.cpu_times()
            self._cpu[role] = (time.monotonic(), times.user + times.system)

    def _stop(self) -> None:
        for role, process in processes().items():
            if role in self._cpu:
                began, before = self._cpu[role]
                times = process.cpu_times()
                self._cpu[role] = (time.monotonic() - began, times.user + times.system - before)
        import ray

        ray.timeline(str(self._folder / "timeline.json"))
        for event in json.loads((self._folder / "timeline.json").read_text()):
            self._tasks.setdefault(f"{event['name']} ({event['cat']})", []).append(event["dur"] / 1e6)

    def _roles(self) -> list[dict[str, Any]]:
        rows = []
        for role, (seconds, cpu_s) in self._cpu.items():
            own = Counter[str]()
            for line in _lines(self._folder / f"{role}.txt"):
                stack, _, samples = line.rpartition(" ")
                own[stack.rpartition(";")[2]] += int(samples)
            rows += [
                {
                    "process": role,
                    "of_a_core": cpu_s / seconds,
                    "running_itself": function,
                    "of_its_samples": samples / own.total(),
                }
                for function, samples in own.most_common(TOP)
            ]
        return rows

    def _engine(self) -> dict[str, float]:
        stats = [replica.stats.engine for detail in self._details for replica in detail.replicas.values()]
        if not stats:
            return {}
        asked = stats[-1].prefix_tokens - stats[0].prefix_tokens
        return {
            "requests running, mean": round(sum(item.requests_running for item in stats) / len(stats), 1),
            "requests waiting, mean": round(sum(item.requests_waiting for item in stats) / len(stats), 1),
            "KV cache used, mean": round(sum(item.kv_cache_used for item in stats) / len(stats), 3),
            "prompt tokens from the prefix cache": round(
                (stats[-1].prefix_hits - stats[0].prefix_hits) / max(1, asked), 3
            ),
            "preemptions": stats[-1].preemptions,
        }


def _lines(file: Path) -> list[str]:
    """Of a process that is no Python, as the raylet, there are none."""
    return file.read_text().splitlines() if file.exists() else [f"{NO_PYTHON} 1"]


def processes() -> dict[str, psutil.Process]:
    """The processes of this driver's run by role: one replica, its engine's core, the readers, Ray's own."""
    me = os.getpid()
    result = {f"{kind}{number or ''}": item for kind in KINDS for number, item in enumerate(find(me, kind))}
    for item in psutil.Process(me).children(recursive=True):
        if ENGINE in " ".join(item.cmdline()):
            result["engine core"] = item
    return {"driver": psutil.Process(me)} | result


def run(shards: Path, output: Path, num_images: int, seconds: int) -> dict[str, Any]:
    from pipeline.flow.ray_env import prepare_ray_env
    from tests.benchmarks.saturation import job_of

    job = job_of(shards, output)
    prepare_ray_env(job.cluster)
    import threading

    from pipeline.flow import driver as flow
    from pipeline.flow.prepared_job import prepare_job

    KEPT.mkdir(parents=True, exist_ok=True)
    sampled, prepared = Sampled(KEPT, seconds), prepare_job(job)
    read_detail = flow.read_detail

    def recorded(progress_actor: Any) -> Any:
        detail = read_detail(progress_actor)
        sampled.add(detail)
        return detail

    flow.read_detail = recorded
    outcome = flow.RunResult.of(prepared)
    flow.run_job(prepared, outcome, lambda now: sampled.look(now, num_images), threading.Event())
    return sampled.result()


def main() -> None:
    args = arguments("profile", __doc__, images=2400, seconds=20)
    if args.part:
        print(json.dumps(run(Path(args.part[1]), Path(args.part[2]), args.images, args.seconds)))
        return
    from pipeline.standin.demo_data import draw_dataset

    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder, "shards")
        draw_dataset(shards, num_images=args.images, seed=4, shard_rows=120)
        result = part("profile", "run", shards, Path(folder, "out"), images=args.images, seconds=args.seconds)
    tasks = sorted(result["tasks"].items(), key=lambda entry: -sum(entry[1]))[:TOP]
    summary = {f"Ray: {name}": f"{len(spans)} x {sum(spans) / len(spans):.3f} s" for name, spans in tasks}
    publish(args, result["roles"], {**summary, **{f"vLLM: {name}": value for name, value in result["engine"].items()}})


if __name__ == "__main__":
    main()
