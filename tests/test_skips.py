"""A skip that nobody allowed fails in CI, and nowhere else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import ALLOWED

PROJECT = Path(__file__).parents[1]
TESTS = f"""
import pytest

def test_without_a_program():
    pytest.skip("no such program here")

@pytest.mark.skipif(True, reason="no browser here")
def test_without_a_browser(): ...

def test_allowed():
    pytest.skip({next(iter(ALLOWED))!r} + ": the rest")

@pytest.mark.xfail
def test_that_is_expected_to_fail():
    raise AssertionError

def test_good(): ...
"""


def run_pytest(folder, text, **environment):
    (folder / "test_some.py").write_text(text)
    words = ["-p", "tests.skips", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={folder}", "test_some.py"]
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "CI": "", **environment}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def test_a_skip_that_is_not_allowed_fails_in_ci_and_names_test_and_reason(tmp_path):
    done = run_pytest(tmp_path, TESTS, CI="true")
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error" in done.stdout
    assert (
        "test_some.py::test_without_a_program was skipped (no such program here), and in CI it must run" in done.stdout
    )
    assert "test_some.py::test_without_a_browser was skipped (no browser here), and in CI it must run" in done.stdout


def test_a_module_that_is_skipped_as_a_whole_fails_in_ci(tmp_path):
    done = run_pytest(tmp_path, 'import pytest\npytest.importorskip("no_such_module")\n', CI="true")
    assert done.returncode != 0
    assert "test_some.py was skipped (could not import 'no_such_module'" in done.stdout


@pytest.mark.parametrize("ci", ["", "false"])
def test_elsewhere_skips_are_skips(tmp_path, ci):
    done = run_pytest(tmp_path, TESTS, CI=ci)
    assert done.returncode == 0
    assert "1 passed, 3 skipped, 1 xfailed" in done.stdout
