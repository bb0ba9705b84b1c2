"""What Ray must find in the environment before it is imported, so this module does not import it."""

from __future__ import annotations

import os

from pipeline.config import ClusterConfig
from pipeline.errors import ConfigError

ADDRESS_VARIABLE = "RAY_ADDRESS"
API_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Where jobs are submitted to, in Ray's own name for it."""

OWN = "local"
"""Ray's word for a Ray of one's own, where an address is asked for."""

_OF_OWN_RAY = ("num_cpus", "object_store_gib", "metrics_port")
"""Keys that only the one who starts a Ray can give it."""


TASK_EVENTS = {
    "RAY_task_events_max_num_task_in_gcs": "10000",
    "RAY_task_events_max_dropped_task_attempts_tracked_per_job_in_gcs": "10000",
}
"""What `gcs_server` keeps of tasks, for `ray.timeline` and the state API: of the last ones, some 80,000 images.

A batch is four tasks (read, begin, end, caption), each 4 kB there (measured: 23 to 131 MB over 26,000 tasks, still
rising). Ray keeps 100,000 of them by default, 400 MB, and the ids of a million that it dropped.
"""


def prepare_ray_env(config: ClusterConfig, sent_to: str | None = None) -> None:
    """Prepare this process for Ray; without an address, for a Ray of its own that nobody else can reach.

    Args:
        config: of the job.
        sent_to: of a job that is only sent from here, the address of the cluster's job server.

    Raises:
        ConfigError: the job goes to a cluster that is there already, with keys that hold for a Ray of its own.
    """
    address = sent_to or address_of(config)
    if address is not None:
        _refuse_keys_of_own_ray(config, address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # A thread of Ray Data that outlives a stopped run would otherwise start another Ray by asking for something.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    if address is not None:
        return
    for variable, value in TASK_EVENTS.items():
        os.environ.setdefault(variable, value)
    # A local Ray listens on all interfaces by default; without multi-node support it binds to loopback alone.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # Left to itself Ray switches tokens on when it finds ~/.ray/auth_token, and then refuses its own driver.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")


def address_of(config: ClusterConfig) -> str | None:
    """Return the address of the cluster to run on: configured, or from the environment; None for a Ray of one's own."""
    address = config.address or os.environ.get(ADDRESS_VARIABLE)
    return None if not address or address == OWN else address


def _refuse_keys_of_own_ray(config: ClusterConfig, address: str) -> None:
    given = {key: getattr(config, key) for key in _OF_OWN_RAY if getattr(config, key) is not None}
    if given:
        found = ", ".join(f"cluster.{key}={value}" for key, value in given.items())
        raise ConfigError(
            f"{found}: only a Ray of the run's own can be given this, and the run goes to the cluster at {address}, "
            f"which has its own; allowed there: null (--set cluster.{next(iter(given))}=null). A Ray of the run's own "
            f"is cluster.address: {OWN}"
        )
