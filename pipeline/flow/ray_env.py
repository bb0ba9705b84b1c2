"""Sets the environment variables that Ray reads when it is imported, so this module does not import Ray."""

import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from pipeline.config import ClusterConfig, LogFormat
from pipeline.errors import ConfigError

ADDRESS_VARIABLE = "RAY_ADDRESS"
API_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Ray's variable for the job server that jobs are submitted to."""

AUTH_MODE_VARIABLE = "RAY_AUTH_MODE"
AUTH_TOKEN_VARIABLE = "RAY_AUTH_TOKEN"

TMPDIR_VARIABLE = "RAY_TMPDIR"
"""Ray's variable for the folder of its sessions."""

LOCAL_RAY = "local"
"""Address with which Ray starts a local Ray and connects to no cluster."""

_LOCAL_RAY_KEYS = ("num_cpus", "object_store_gib", "metrics_port")
"""Keys of `cluster` that only apply to a Ray that the run starts."""


TASK_EVENTS = {
    "RAY_task_events_max_num_task_in_gcs": "10000",
    "RAY_task_events_max_dropped_task_attempts_tracked_per_job_in_gcs": "10000",
}
"""Limits of the task history that `gcs_server` keeps for `ray.timeline` and the state API: the last 10,000 batches.

A task has 4 kB (measured: 23 to 131 MB over 26,000 tasks, still growing), and a batch has one. By default Ray keeps
100,000 tasks, which is 400 MB, and the ids of a million dropped ones.
"""


WORKER_NICENESS = {"RAY_worker_niceness": "0"}
"""Ray starts its workers at niceness 15, where each has 3.5 % of the weight of any other program that computes.

An engine lives in a worker. Beside two programs that computed on 2 cores, the demo's 240 images took 123 s at niceness
0, and at 15 not one image was done after 300 s (measured; 66 s on a machine without other work).
"""


WORKER_START = {"RAY_worker_register_timeout_seconds": "120"}
"""Ray ends a worker that has not called after 60 s, and starts another one. Those of replicas import vLLM first
(`core_server`), which takes long from a slow disk or on a busy machine. Ray waits as long for one that has died."""


def prepare_ray_env(config: ClusterConfig, job_server: str | None = None) -> None:
    """Set this process's variables for Ray; without an address, for a local Ray that no other user can reach.

    Args:
        config: `cluster` of the job.
        job_server: address of the job server that the job is submitted to; None for a run of this process.

    Raises:
        ConfigError: the job runs on an existing cluster and sets keys that only apply to a local Ray.
    """
    address = job_server or address_of(config)
    if address is not None:
        _refuse_local_ray_keys(config, address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # Otherwise a thread of Ray Data that outlives a stopped run starts another Ray with its next call.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    if address is not None:
        return
    for variable, value in (TASK_EVENTS | WORKER_NICENESS | WORKER_START).items():
        os.environ.setdefault(variable, value)
    # By default a local Ray listens on all interfaces; without multi-node support it binds to loopback only.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # Other users of the machine reach loopback too: without a token, Ray would run the code that they send.
    os.environ[AUTH_MODE_VARIABLE] = "token"
    # Ray reads the token once per process; the variable precedes the user's file ~/.ray/auth_token.
    os.environ[AUTH_TOKEN_VARIABLE] = os.environ.get(AUTH_TOKEN_VARIABLE) or secrets.token_hex(32)


def session_folder() -> Path:
    """Return the folder for the sessions of a local Ray; only this user can enter its parent.

    Ray makes all of its folders accessible to every user (0777), sockets and logs included. Its default is /tmp/ray, or
    ray/ in RAY_TMPDIR.

    Raises:
        ConfigError: the parent is not a folder, belongs to another user, or is accessible to other users.
    """
    parent = Path(os.environ.get(TMPDIR_VARIABLE) or tempfile.gettempdir(), f"joyfleet-{os.getuid()}")
    with suppress(FileExistsError):
        parent.mkdir(mode=0o700, parents=True)
    status = parent.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigError(
            f"{parent}: found {stat.filemode(status.st_mode)} of user {status.st_uid}; allowed: a folder that only "
            f"user {os.getuid()} can enter (drwx------), for the sessions of Ray. Remove it, or set "
            f"{TMPDIR_VARIABLE} to another folder"
        )
    return parent / "ray"


def changes_loggers(logs: LogFormat) -> bool:
    """Whether Ray's start changes the loggers of this process: it applies the format of its workers' logs here too."""
    return logs is LogFormat.JSON or "RAY_LOGGING_CONFIG_ENCODING" in os.environ


def address_of(config: ClusterConfig) -> str | None:
    """Return the address of the cluster, from the config or the environment; None for a local Ray."""
    address = config.address or os.environ.get(ADDRESS_VARIABLE)
    return None if not address or address == LOCAL_RAY else address


def _refuse_local_ray_keys(config: ClusterConfig, address: str) -> None:
    values = {key: getattr(config, key) for key in _LOCAL_RAY_KEYS if getattr(config, key) is not None}
    if values:
        settings = ", ".join(f"cluster.{key}={value}" for key, value in values.items())
        raise ConfigError(
            f"{settings}: only applies to a Ray that the run starts, and this run uses the cluster at {address}; "
            f"allowed there: null (--set cluster.{next(iter(values))}=null). For a local Ray, set cluster.address to "
            f"{LOCAL_RAY}"
        )
