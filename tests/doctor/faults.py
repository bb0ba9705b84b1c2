"""Broken machines for the doctor: programs on PATH, and results by the name of their check."""

import json
import os
import stat
from pathlib import Path

from tests.cli import Done

NVIDIA_SMI = """#!/bin/sh
{first}
echo '0, NVIDIA H100 80GB HBM3, {driver}, 81559, {free}, 9.0'
"""


def fake_nvidia_smi(folder: Path, driver: str = "580.65.06", free: int = 81000, first: str = "") -> str:
    """Write an `nvidia-smi` that lists one H100; return a PATH on which it comes first."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text(NVIDIA_SMI.format(driver=driver, free=free, first=first))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def checks(done: Done) -> list[dict]:
    """Every result of `doctor --json`."""
    assert done.out, done.err
    answer = json.loads(done.out)
    assert answer["failed"] == any(check["level"] == "failed" for check in answer["checks"])
    assert done.code == int(answer["failed"])
    # A line that is not ok says what to do, in its message where that is an error of ours.
    assert all(check["remedy"] or ";" in check["message"] for check in answer["checks"] if check["level"] != "ok")
    return answer["checks"]


def by_name(done: Done) -> dict[str, tuple[str, str]]:
    """Level and message of each check on the only node."""
    result = {check["check"]: (check["level"], check["message"]) for check in checks(done)}
    assert len(result) == len(checks(done))
    return result


def not_ok(done: Done) -> dict[str, tuple[str, str]]:
    return {name: finding for name, finding in by_name(done).items() if finding[0] != "ok"}
