"""An engine that does not start, or dies, says why: the end of its core's standard error, and what to do."""

import asyncio
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import psutil
import pytest

from pipeline.config import EngineConfig, ModelConfig, SamplingConfig
from pipeline.engines import EngineRequest, EngineSpec, start_engine
from pipeline.engines.factory import NOSET_VARIABLE
from pipeline.engines.gpus import attention_backend
from pipeline.engines.start_hints import HINTS, hint_for
from pipeline.engines.stderr_tail import QUOTED_LINES, StderrTail, last_lines
from pipeline.errors import ConfigError, EngineDead
from pipeline.models import FAMILIES
from pipeline.recipe import find_weights
from pipeline.standin.demo_data import draw_dataset
from tests.cli import run, write_job
from tests.gate import HOOKS
from tests.outputs import committed_rows, expected, identities

TEXTS = (
    "RuntimeError: The NVIDIA driver on your system is too old (found version 12040).",
    "RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist",
    "RuntimeError: Failed to find C compiler. Please specify via CC environment variable",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 112.00 MiB.",
    "huggingface_hub.errors.GatedRepoError: 401 Client Error.",
    "OSError: [Errno 28] No space left on device",
    "RuntimeError: No CUDA GPUs are available",
    "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered",
    "ImportError: vllm/_C.abi3.so: undefined symbol: _ZN3c104cuda9SetDeviceEab",
    "Fatal Python error: Bus error",
)


@pytest.mark.parametrize(("text", "hint"), list(zip(TEXTS, (hint for _, hint in HINTS), strict=True)))
def test_each_known_cause_has_its_hint(text, hint):
    assert hint_for(f"Traceback (most recent call last):\n{text}\n") == hint


def test_an_unknown_cause_has_no_hint():
    assert hint_for("ZeroDivisionError: division by zero") is None


def test_the_last_lines_are_those_that_say_something():
    noise = ["", "WARNING 11-28 05:48:04 [vllm.py:663] x", "/a.py:1: UserWarning: y", "    warn(", "   ^^^^"]
    text = "\n".join([f"line {number}" for number in range(20)] + noise)
    assert last_lines(text).splitlines() == [f"line {number}" for number in range(20 - QUOTED_LINES, 20)]


def test_the_standard_error_of_a_child_is_kept_and_passed_on(capfd):
    tail = StderrTail()
    write = "import sys; sys.stderr.write('(EngineCore pid=12) ' + 'x' * 99999 + '\\n(EngineCore pid=12) last\\n')"
    with tail.recorded():
        subprocess.run([sys.executable, "-c", write], check=True)
    assert tail.text(10).endswith("x\nlast")
    assert len(tail.text()) < 40_000
    os.write(2, b"ours\n")
    err = capfd.readouterr().err
    assert "(EngineCore pid=12) last\n" in err
    assert err.endswith("ours\n")
    assert "ours" not in tail.text()


@pytest.mark.parametrize(
    ("kv", "capability", "backend"),
    [
        ("fp8", (8, 9), "TRITON_ATTN"),
        ("fp8", (10, 0), "TRITON_ATTN"),
        ("fp8", (9, 0), None),
        ("auto", (8, 9), None),
        ("auto", None, None),
    ],
)
def test_an_fp8_cache_never_needs_a_compiler_for_cuda(kv, capability, backend):
    assert attention_backend(EngineConfig(kv_cache_dtype=kv), capability) == backend


WEIGHTS = find_weights(ModelConfig(id="standin"))
SPEC = EngineSpec(
    config=EngineConfig(max_model_len=768),
    sampling=SamplingConfig(temperature=0),
    max_tokens=30,
    model_path=WEIGHTS.path,
    revision=None,
    family="joycaption",
    geometry=FAMILIES["joycaption"].geometry_of(WEIGHTS.stated),
)
DRIVER = "The NVIDIA driver on your system is too old (found version 12040)"


def test_gpus_that_ray_assigns_in_secret_are_refused(monkeypatch):
    monkeypatch.setenv(NOSET_VARIABLE, "1")
    with pytest.raises(ConfigError, match=rf"{NOSET_VARIABLE}=1: .* all replicas of a node would use GPU 0"):
        start_engine(SPEC)


def test_flashinfers_sampler_is_off_unless_the_user_set_it(monkeypatch):
    from pipeline.engines.factory import _prepare_process

    for before, after in ((None, "0"), ("1", "1")):
        monkeypatch.delenv("VLLM_USE_FLASHINFER_SAMPLER", raising=False)
        if before:
            monkeypatch.setenv("VLLM_USE_FLASHINFER_SAMPLER", before)
        _prepare_process(EngineConfig())
        assert os.environ["VLLM_USE_FLASHINFER_SAMPLER"] == after


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_a_core_that_ends_at_its_start_is_quoted(monkeypatch):
    for name, value in {**HOOKS, "JFTEST_CORE": DRIVER}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EngineDead) as caught:
        start_engine(SPEC)
    message = str(caught.value)
    assert ": the engine does not start: " in message
    assert f"  RuntimeError: {DRIVER}" in message
    assert "Probable cause: the NVIDIA driver is too old" in message


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_a_core_that_dies_before_the_first_request_is_an_error_and_the_next_core_answers(caplog):
    async def ask(name):
        request = EngineRequest(
            id=name, pixels=np.zeros((90, 90, 3), np.uint8), image_id="i", system="s", prompt="p", seed=1
        )
        return await asyncio.wait_for(engine.answer(request), 60)

    async def kill_and_ask():
        for process in psutil.Process().children(recursive=True):
            if "EngineCore" in process.name():
                process.kill()
        with pytest.raises(EngineDead, match="the engine died"):
            await ask("first")
        await engine.restart()
        return await ask("second")

    engine = start_engine(SPEC)
    assert asyncio.run(kill_and_ask()).finish_reason
    setup = engine.stats().setup
    engine.close()
    for word in ("device: CPU", "kv_tokens: ", "runner: CPUModelRunner V1", "attention: CPU_ATTN", "sampler: "):
        assert word in setup
    assert f"engine: {setup}" in caplog.text


@pytest.mark.long
def test_a_run_whose_core_ends_at_its_start_shows_the_cause(tmp_path):
    draw_dataset(tmp_path / "in", num_images=8, seed=2, shard_rows=8)
    engine = {"kind": "vllm", "max_model_len": 768}
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine=engine)
    done = run(tmp_path, "caption", job, **HOOKS, JFTEST_CORE=DRIVER)
    assert done.code == 1, done
    assert "no replica can start (3 starts failed); the last one, " in done.err
    assert f"RuntimeError: {DRIVER}" in done.err
    assert "Probable cause: the NVIDIA driver is too old" in done.err
    print(done.err)


@pytest.mark.long
def test_a_run_survives_an_import_that_ends_its_process(tmp_path):
    draw_dataset(tmp_path / "in", num_images=8, seed=2, shard_rows=8)
    engine = {"kind": "vllm", "max_model_len": 768}
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine=engine)
    # Ray notices after this time only, 120 s by default.
    soon = {"RAY_worker_register_timeout_seconds": "15"}
    done = run(tmp_path, "caption", job, **HOOKS, **soon, JFTEST_IMPORT=str(tmp_path / "imported"))
    assert done.code == 0, done
    assert (tmp_path / "imported").exists()
    assert identities(committed_rows(tmp_path / "out")) == Counter(expected(tmp_path / "in", 8))
