"""A local Ray: only a process with its token can join it, and none of its processes outlives the run."""

import os
import signal
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from pipeline.errors import ConfigError
from pipeline.flow.ray_env import session_folder
from pipeline.standin.demo_data import draw_dataset
from tests.cli import finish, start, wait_until, write_job
from tests.signal_sweep import MARK, marked, num_left
from tests.trees import KINDS, find, send, tree

STOPPED = ("caption", "progress_actor")


@pytest.fixture
def running(tmp_path):
    """A run that waits for its engine, and the mark of its processes."""
    draw_dataset(tmp_path / "in", num_images=240, seed=3, shard_rows=24)
    slow = {"echo_latency_s": 600.0, "batches_in_flight": 1, "batch_images": 4}
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine=slow, cluster={"stall_timeout_s": 600})
    mark = uuid.uuid4().hex
    process = start(tmp_path, "caption", job, **{MARK: mark})
    wait_until(lambda: all(find(process.pid, kind) for kind in STOPPED), process, f"a process of each of {STOPPED}")
    yield process, mark
    send(marked(mark), signal.SIGKILL)
    if process.returncode is None:
        finish(process)


@pytest.mark.slow
def test_no_process_of_a_run_outlives_its_killed_driver_by_a_minute(running):
    process, mark = running
    # A stopped process cannot find out by itself that its raylet is gone, as one whose timers stand still.
    for kind in STOPPED:
        send(find(process.pid, kind), signal.SIGSTOP)
    kinds = {kind for kind in KINDS if find(process.pid, kind)}
    assert {"raylet", *STOPPED} <= kinds
    assert len(tree(process.pid)) > len(kinds)
    process.kill()
    assert num_left(mark) == 0


JOIN = """
import sys
from ray._raylet import GcsClient
print("joined", len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=60)))
"""


def join(address, **variables):
    """Ask a Ray for its nodes as any process of the machine may try; what it says."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    words = [sys.executable, "-c", JOIN, address]
    done = subprocess.run(words, env={**env, **variables}, capture_output=True, text=True, timeout=300, check=False)
    return done.stdout + done.stderr


UNUSED = (
    *("dashboard/dashboard.py", "autoscaler/_private/monitor.py", "autoscaler/v2/monitor.py", "log_monitor.py"),
    *("ray::_StatsActor", "ray::_AutoscalingCoordinatorActor", "ray::ActorLocationTracker"),
)


@pytest.mark.slow
def test_workers_have_the_drivers_niceness_and_other_processes_need_the_token_to_join(running):
    process, _ = running
    commands = [item.cmdline() for item in tree(process.pid)]
    assert not [command for command in commands for unused in UNUSED if unused in " ".join(command)]
    assert {worker.nice() for kind in STOPPED for worker in find(process.pid, kind)} == {
        psutil.Process(process.pid).nice()
    }
    (raylet,) = find(process.pid, "raylet")
    [agent] = [word for word in raylet.cmdline() if word.startswith("--dashboard_agent_command=")]
    assert "--minimal" in agent.split()
    address = next(word for word in raylet.cmdline() if word.startswith("--gcs-address=")).partition("=")[2]
    token = raylet.environ()["RAY_AUTH_TOKEN"]
    assert "joined 1" in join(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
    for variables in (
        {"RAY_AUTH_MODE": "disabled"},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * len(token)},
    ):
        output = join(address, **variables)
        assert "joined" not in output
        assert "nauthenticated" in output, output
    session = next(file.path for file in raylet.open_files() if "/session_" in file.path)
    parent = next(folder for folder in Path(session).parents if folder.name == f"joyfleet-{os.getuid()}")
    assert stat.filemode(parent.lstat().st_mode) == "drwx------"


def test_only_its_user_can_enter_the_session_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert session_folder() == session_folder() == tmp_path / f"joyfleet-{os.getuid()}" / "ray"
    (tmp_path / f"joyfleet-{os.getuid()}").chmod(0o755)
    with pytest.raises(
        ConfigError, match=r"found drwxr-xr-x of user \d+; allowed: .*\(drwx------\), .*\. Remove it, or set RAY_TMPDIR"
    ):
        session_folder()
    (tmp_path / f"joyfleet-{os.getuid()}").rmdir()
    (tmp_path / f"joyfleet-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="found lrwx"):
        session_folder()
