"""What Ray must find in the environment before it is imported, so this module does not import it."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from pipeline.config import ClusterConfig
from pipeline.errors import ConfigError

ADDRESS_VARIABLE = "RAY_ADDRESS"
API_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Where jobs are submitted to, in Ray's own name for it."""

AUTH_MODE_VARIABLE = "RAY_AUTH_MODE"
AUTH_TOKEN_VARIABLE = "RAY_AUTH_TOKEN"

TMPDIR_VARIABLE = "RAY_TMPDIR"
"""Where Ray keeps its sessions, in Ray's own name for it."""

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
    # Other users of the machine reach loopback, too: without the token, Ray runs whatever anyone sends it.
    os.environ[AUTH_MODE_VARIABLE] = "token"
    # Ray reads it once in a process; a file of the user's, ~/.ray/auth_token, comes after it.
    os.environ[AUTH_TOKEN_VARIABLE] = os.environ.get(AUTH_TOKEN_VARIABLE) or secrets.token_hex(32)


def own_folder() -> Path:
    """Return the folder for the sessions of a Ray that a run starts itself; only this user can open its parent.

    Ray makes all of its folders accessible to everybody (0777), sockets and logs included. It would itself use
    /tmp/ray, or ray/ in RAY_TMPDIR.

    Raises:
        ConfigError: something else has the parent's name, or it belongs to another user.
    """
    parent = Path(os.environ.get(TMPDIR_VARIABLE) or tempfile.gettempdir(), f"joyfleet-{os.getuid()}")
    with suppress(FileExistsError):
        parent.mkdir(mode=0o700, parents=True)
    found = parent.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(
            f"{parent}: found {stat.filemode(found.st_mode)} of user {found.st_uid}; the sessions of Ray need a "
            f"folder that only user {os.getuid()} can enter (drwx------). Remove it, or set {TMPDIR_VARIABLE} to "
            "another folder"
        )
    return parent / "ray"


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
