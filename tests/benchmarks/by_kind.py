"""CPU and memory of a run by kind of process: driver, readers, replicas, committers, progress actor, Ray's own."""

import time
from collections import defaultdict
from dataclasses import dataclass, field

import psutil

from tests.trees import KINDS

OTHER = "Ray's other processes"
KIND_OF = {**KINDS, "gcs": "gcs_server", "reader ": "ray::IDLE"}
"""Ray calls a worker IDLE between two tasks: here that is a reader, since actors keep their names."""


@dataclass
class Point:
    """Sums by kind at one time."""

    images: int
    at: float
    cpu_s: dict[str, float]
    private_mib: dict[str, float]
    store_mib: float
    """Shared memory of the raylets: what they have of their object stores."""


@dataclass
class ByKind:
    """Sums over all processes below some process, those included that have ended since."""

    driver: int
    nodes: int | None = None
    """A process whose children are Ray's nodes, when the driver did not start them."""
    every_s: float = 2.0
    points: list[Point] = field(default_factory=list)
    _looking_s: float = 0.0
    _seen: dict[tuple[int, float], tuple[str, float]] = field(default_factory=dict)

    def look(self, images: int) -> None:
        if self.points and time.monotonic() - self.points[-1].at < self.every_s:
            return
        began = time.thread_time()
        private_mib: defaultdict[str, float] = defaultdict(float)
        store_mib = 0.0
        for process in self._processes():
            try:
                with process.oneshot():
                    times, memory = process.cpu_times(), process.memory_info()
                    key = (process.pid, process.create_time())
                    kind = self._kind(process)
            except psutil.Error:
                continue
            if kind == OTHER and key in self._seen:
                kind = self._seen[key][0]
            self._seen[key] = kind, times.user + times.system
            private_mib[kind] += (memory.rss - memory.shared) / 2**20
            store_mib += memory.shared / 2**20 if kind == "raylet" else 0.0
        # A look at 100 processes takes some 30 ms, in the driver.
        self._looking_s += time.thread_time() - began
        cpu_s: defaultdict[str, float] = defaultdict(float, {"driver": -self._looking_s})
        for kind, seconds in self._seen.values():
            cpu_s[kind] += seconds
        self.points.append(Point(images, time.monotonic(), dict(cpu_s), dict(private_mib), store_mib))

    def _processes(self) -> list[psutil.Process]:
        me = psutil.Process(self.driver)
        processes = [me, *me.children(recursive=True)]
        if self.nodes is not None:
            processes += psutil.Process(self.nodes).children(recursive=True)
        return processes

    def _kind(self, process: psutil.Process) -> str:
        if process.pid == self.driver:
            return "driver"
        words = " ".join(process.cmdline())
        return next((kind.strip() for kind, word in KIND_OF.items() if word in words), OTHER)

    def middle(self, num_images: int) -> dict[str, float]:
        """Return CPU ms an image by kind, and images/s, between 20 and 95 % of the images."""
        inside = [point for point in self.points if 0.2 * num_images <= point.images <= 0.95 * num_images]
        first, last = inside[0], inside[-1]
        images = last.images - first.images
        ms = {
            kind: 1000 * (seconds - first.cpu_s.get(kind, 0.0)) / images for kind, seconds in sorted(last.cpu_s.items())
        }
        return {**ms, "all": sum(ms.values()), "images_per_s": images / (last.at - first.at)}

    def peak_mib(self) -> dict[str, float]:
        """Return the most private memory of all processes of a kind together, and the most of the object stores."""
        kinds = {kind for point in self.points for kind in point.private_mib}
        private = {kind: max(point.private_mib.get(kind, 0.0) for point in self.points) for kind in sorted(kinds)}
        return {**private, "object store": max(point.store_mib for point in self.points)}
