"""The machine's part of `joyfleet doctor`, each fault provoked on this machine."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobs.commands import cli
from jobs.doctor import _grouped, _named, _print
from pipeline.doctor import CHECKS, Context, Finding, Level, Place, Result, checks_at, examine
from pipeline.doctor.check import failed, ok
from tests.cli import Done, run
from tests.doctor.faults import by_name, checks, fake_nvidia_smi, not_ok

PROJECT = Path(__file__).parents[2]
MACHINE = ["driver", "CUDA", "GPU memory", "compiler", "shared memory", "open files", "disk"]


def shell(folder: Path, before: str, *words: str, **environment: str) -> Done:
    """Run `doctor --json` after a line of shell that breaks something for it alone."""
    line = f"{before} exec {sys.executable} -m jobs doctor --json"
    env = {**os.environ, "PYTHONPATH": str(PROJECT), **environment}
    done = subprocess.run(
        [*words, "bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_a_good_machine_is_checked_without_a_job_and_nothing_is_written(tmp_path):
    done = run(tmp_path, "doctor", "--json")
    actual = by_name(done)
    assert list(actual) == MACHINE
    assert {name for name in actual if name not in ("open files", "shared memory", "disk")} <= {
        name for name, (level, _) in actual.items() if level == "ok"
    }
    assert list(tmp_path.iterdir()) == []


def test_no_compiler_is_a_warning_without_a_gpu_and_a_failure_with_one(tmp_path):
    empty = tmp_path / "bin"
    empty.mkdir()
    level, message = by_name(run(tmp_path, "doctor", "--json", PATH=str(empty)))["compiler"]
    assert (level, message.partition(";")[0]) == ("warning", "no g++ on PATH")
    fake_nvidia_smi(empty)
    level, message = by_name(run(tmp_path, "doctor", "--json", PATH=str(empty)))["compiler"]
    assert (level, message.partition(";")[0]) == ("failed", "no g++ on PATH")


def test_a_compiler_without_pythons_headers_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    finding = CHECKS["compiler"].run(Context(needs_gpu=True))
    assert finding.level is Level.FAILED
    assert "does not compile a program with Python.h: " in finding.message
    assert "Python.h: No such file" in finding.message
    assert "python3-dev" in finding.remedy


@pytest.mark.parametrize(("limit", "level"), [(3000, "failed"), (5000, "warning"), (10000, "ok")])
def test_a_low_limit_of_open_files_is_found(tmp_path, limit, level):
    actual = by_name(shell(tmp_path, f"ulimit -n {limit};"))["open files"]
    assert (actual[0], actual[1].partition(";")[0]) == (level, f"a process may open {limit:,} files")


def test_small_shared_memory_and_a_full_disk_are_found(tmp_path):
    unshare = ["unshare", "-r", "-m"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces")
    small = tmp_path / "small"
    small.mkdir()
    mounts = f"mount -t tmpfs -o size=64m none /dev/shm; mount -t tmpfs -o size=300m none {small};"
    actual = not_ok(shell(tmp_path, mounts, *unshare, TMPDIR=str(small)))
    assert actual["shared memory"][0] == "warning"
    assert actual["shared memory"][1].startswith("/dev/shm: 64 MiB of 64 MiB are free; Ray's object store takes ")
    assert actual["disk"] == ("failed", f"{small}: 0.3 GiB are free; Ray may need 1.0 GiB")


@pytest.mark.parametrize(
    ("broken", "level", "message"),
    [
        ({}, "ok", "driver 580.65.06, 1 x NVIDIA H100 80GB HBM3"),
        ({"driver": "570.133.20"}, "failed", "driver 570.133.20; PyTorch 2.13 is built for CUDA 13.0, which needs 580"),
        (
            {"first": "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18"},
            "failed",
            "nvidia-smi does not list the GPUs (exit code 18: Failed to initialize NVML: Driver/library version",
        ),
        ({"first": "echo 0, NVIDIA H100; exit 0"}, "failed", "nvidia-smi does not list the GPUs (its answer has "),
    ],
)
def test_the_driver_is_judged_by_its_own_program(tmp_path, monkeypatch, broken, level, message):
    monkeypatch.setenv("PATH", fake_nvidia_smi(tmp_path / "bin", **broken))
    finding = CHECKS["driver"].run(Context())
    assert finding.level == level
    assert finding.message.startswith(message)


def test_a_node_with_gpus_for_ray_and_without_a_driver_has_failed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = CHECKS["driver"].run(Context(needs_gpu=True))
    assert (finding.level, finding.message) == (Level.FAILED, "this node needs a GPU, and nvidia-smi lists none")


def test_a_gpu_in_use_and_the_cpu_build_beside_a_gpu_are_found(tmp_path):
    actual = not_ok(run(tmp_path, "doctor", "--json", PATH=fake_nvidia_smi(tmp_path / "bin", free=20480)))
    assert actual["GPU memory"] == (
        "warning",
        "GPU 0 NVIDIA H100 80GB HBM3: 20.0 of 79.6 GiB are free; an engine claims 71.7 GiB "
        "(engine.gpu_memory_utilization 0.9)",
    )
    level, message = actual["CUDA"]
    assert level == "failed"
    assert message.endswith("is a build for the CPU, and this node has GPUs")


def test_a_check_that_crashes_or_hangs_has_failed_and_the_others_go_on(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("import os; os.abort()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", fake_nvidia_smi(tmp_path / "bin", first="sleep 600"))
    # Not the first check: to that one the start of the process is added.
    names = ["open files", "driver", "shared memory", "CUDA", "disk"]
    short = [replace(CHECKS[name], timeout_s=1) if name == "driver" else CHECKS[name] for name in names]
    results = examine(short, Context(), "n")
    assert [result.check for result in results] == names
    assert results[1].finding.message == "did not end within 1 s"
    assert results[3].finding.message.startswith("the check crashed (signal 6): ")
    assert {results[index].finding.level for index in (1, 3)} == {Level.FAILED}
    assert not any("crashed" in results[index].finding.message for index in (0, 2, 4))


def test_an_exception_of_a_check_is_its_finding_without_the_secrets_in_it(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise RuntimeError('key marker-of-a-secret-5c')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SOME_API_KEY", "marker-of-a-secret-5c")
    crashed, after = examine([CHECKS["CUDA"], CHECKS["open files"]], Context(), "n")
    assert crashed.finding == failed("the check crashed: RuntimeError: key ***", crashed.finding.remedy)
    assert "files" in after.finding.message


def test_a_child_that_does_not_start_fails_every_check(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    results = examine([CHECKS["open files"], CHECKS["disk"]], Context(), "n")
    assert [(result.finding.level, result.finding.message) for result in results] == [
        (Level.FAILED, "the check crashed (exit code 1): it wrote nothing")
    ] * 2


def test_the_checks_of_the_job_are_left_out_without_one():
    assert [check.name for check in checks_at(Place.NODE, Context())] == MACHINE
    assert checks_at(Place.DRIVER, Context()) == checks_at(Place.ENGINE, Context()) == []


def test_nodes_with_the_same_finding_share_a_line():
    results = [Result(node=f"n{n}", check="disk", finding=ok(f"{n} GiB")) for n in range(5)]
    results += [Result(node="n5", check="disk", finding=failed("full", "free space"))]
    assert [(_named(nodes), result.finding.message) for nodes, result in _grouped(results)] == [
        ("n0, n1, n2 and 2 more", "0 GiB"),
        ("n5", "full"),
    ]


def test_the_table_says_what_to_do_and_shows_no_control_characters(tmp_path):
    file = tmp_path / "table"
    bad = Finding(level=Level.FAILED, message="found \x1b[2J", remedy="do this")
    with file.open("w") as out:
        _print(
            [Result(node="a", check="driver", finding=bad), Result(node="a", check="disk", finding=ok("9 GiB"))], out
        )
    lines = [re.sub(r" +", " ", line).strip() for line in file.read_text().splitlines()]
    assert lines[1:] == [
        r"driver failed found \x1b[2J a",
        "-> do this",
        "disk ok 9 GiB a",
        "1 ok, 0 warning, 1 failed",
    ]


def test_a_wrong_job_file_is_refused_before_any_check():
    result = CliRunner().invoke(cli, ["doctor", "nowhere.yaml"])
    assert "nowhere.yaml: cannot be read" in str(result.exception)


def test_every_result_of_this_machine_says_what_to_do(tmp_path):
    assert len(checks(run(tmp_path, "doctor", "--json"))) == len(MACHINE)
