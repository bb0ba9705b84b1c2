"""Which replicas could not start, where, and when to give up: on a device, and on the run.

A replica whose engine does not start reports it and ends its own process. Ray starts the actor again, wherever a device
is free. It has answered no batch, and Ray repeats the batches that an earlier process of the actor had, so no row is
lost or written twice. A device on which `TRIES_PER_DEVICE` starts in a row failed is occupied by an actor that does
nothing, so that Ray places no replica there for the rest of the run. The run ends when no replica is up or starting and
no device is left to try.
"""

import platform
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

TRIES_PER_DEVICE = 3
"""A first start may fail for a cause that passes: memory of a process that is ending, a hub that answers 429."""

DEVICES_PER_REPLICA = 2
"""Devices that a replica tries while no replica of the run is up. Two that fail alike say that it is not the device:
on 8 GPUs with a wrong driver, 6 starts of a minute each instead of 24."""


@dataclass(frozen=True, slots=True)
class Device:
    """What a replica runs on."""

    node: str
    """Ray's id."""
    gpus: tuple[int, ...]
    """Their ids on the node; empty for a CPU."""
    num_gpus: float
    """That a replica is given; below 1, several replicas share a GPU."""
    host: str

    def __str__(self) -> str:
        return f"{self.host}, " + (f"GPU {', '.join(map(str, self.gpus))}" if self.gpus else "CPU")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStarts:
    """Starts that failed, as the driver sees them."""

    failed: int = 0
    last: str | None = None
    """Where the last one failed, and why."""
    hopeless: bool = False
    """No replica is up or starting, and there is nothing left to try."""


@dataclass
class StartLog:
    """All starts of a run. Lives in the progress actor: if that restarts, devices are tried again."""

    starting: dict[str, Device] = field(default_factory=dict[str, Device])
    """By actor id, which an actor keeps when Ray restarts it."""
    _in_a_row: Counter[Device] = field(default_factory=Counter[Device])
    _by_replica: Counter[str] = field(default_factory=Counter[str])
    """Failed starts of each replica since any replica was up."""
    _failed: int = 0
    _last: str | None = None

    def begin(self, replica: str, device: Device) -> bool:
        """Note a start; return False for a device that is given up."""
        if self._in_a_row[device] >= TRIES_PER_DEVICE:
            return False
        self.starting[replica] = device
        return True

    def succeed(self, replica: str) -> None:
        device = self.starting.pop(replica, None)
        if device is not None:
            del self._in_a_row[device]
        self._by_replica.clear()

    def fail(self, replica: str, device: Device, message: str) -> bool:
        """Note a failed start; return whether the device is given up now."""
        self.starting.pop(replica, None)
        self._failed += 1
        self._in_a_row[device] += 1
        self._by_replica[replica] += 1
        self._last = f"{device}: {message}"
        return self._in_a_row[device] == TRIES_PER_DEVICE

    def state(self, *, hopeless: bool) -> ReplicaStarts:
        return ReplicaStarts(failed=self._failed, last=self._last, hopeless=hopeless)

    def is_hopeless(self, device_left: Callable[[Collection[Device]], bool]) -> bool:
        """Whether no start is under way and none is worth a try, given that no replica is up."""
        given_up = [device for device, times in self._in_a_row.items() if times >= TRIES_PER_DEVICE]
        if self.starting or not given_up:
            return False
        enough = TRIES_PER_DEVICE * DEVICES_PER_REPLICA
        return min(self._by_replica.values(), default=0) >= enough or not device_left(given_up)


def current_device() -> Device:
    """Return the device of this actor."""
    context = ray.get_runtime_context()
    num_gpus = float(context.get_assigned_resources().get("GPU", 0.0))
    gpus = tuple(sorted(int(gpu) for gpu in ray.get_gpu_ids()))
    return Device(context.get_node_id(), gpus, num_gpus, platform.node())


class _Occupant:
    """Does nothing, with a device."""


def occupy(device: Device) -> Any:  # noqa: ANN401 - Ray's handles have no useful type
    """Take a device out of use, as soon as the process that failed there has ended; None for a CPU."""
    if not device.num_gpus:
        return None
    there: Any = NodeAffinitySchedulingStrategy(device.node, soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "num_gpus": device.num_gpus, "scheduling_strategy": there}
    return ray.remote(**options)(_Occupant).remote()


def device_is_left(given_up: Collection[Device]) -> bool:
    """Whether the cluster has a device for a replica besides those that are given up."""
    num_gpus = next(iter(given_up)).num_gpus
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        gone = sum(device.node == node["NodeID"] for device in given_up)
        has = node["Resources"].get("GPU", 0.0) / num_gpus if num_gpus else 1
        if int(has) > gone:
            return True
    return False
