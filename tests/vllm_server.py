"""`vllm serve` on 127.0.0.1 with the stand-in or another model, as a user would start it; tests may kill it."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import psutil

from pipeline.config import ModelConfig
from pipeline.recipe import find_weights

ROOT = Path(__file__).parents[1]
START_S = 300
"""Half a minute alone; a shared machine may be busy."""


class VllmServer:
    """One server at one port; `start` and `kill` as often as a test likes."""

    def __init__(self, log: Path, *, template: bool = True, words: Sequence[str] = (), model: str = "standin") -> None:
        """Without `template` the server uses the model's own; `model` is `standin` or a folder."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._log = log
        self._words = words
        self._model = find_weights(ModelConfig(id=model)).path
        self.name = Path(model).name
        self._template = ["--chat-template", str(ROOT / "infra" / "joycaption.jinja")] if template else []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["--model", self._model, "--served-model-name", self.name]
        words += ["--host", "127.0.0.1", "--port", str(self.port), "--max-model-len", "768", "--max-num-seqs", "16"]
        # Without chunked prefill, for the reason that pipeline/engines/vllm.py gives.
        words += ["--no-enable-chunked-prefill", "--block-size", "32", "--enforce-eager", *self._template]
        words += self._words
        own = {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                # What `vllm serve` starts; the CPU build has another name on PyPI, which `vllm` itself stumbles over.
                [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words],
                env=os.environ | own,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process is not None and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/models", timeout=5):
                    return
            except OSError:
                time.sleep(0.5)
        raise RuntimeError(f"vllm serve does not answer at {self.url}: {self._log.read_text(errors='replace')[-3000:]}")

    def stop(self) -> None:
        """SIGSTOP: it takes requests and answers none."""
        assert self._process is not None
        psutil.Process(self._process.pid).suspend()

    def kill(self) -> None:
        """SIGKILL to the server and to its core."""
        if self._process is None:
            return
        if self._process.poll() is None:
            server = psutil.Process(self._process.pid)
            for process in (*server.children(recursive=True), server):
                process.kill()
        self._process.wait()
        self._process = None
