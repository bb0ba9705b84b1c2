"""Keeps the end of what an engine's processes write to standard error, so that an error message can quote it.

vLLM's core is a process of its own. When it dies, the exception here says "See stack trace above for the root cause",
and the stack trace is in a worker's log file, on Kubernetes in a pod that is gone.
"""

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TAIL_BYTES = 32 << 10
"""A stack trace of vLLM with its causes has 5 to 15 kB."""

QUOTED_LINES = 8
QUOTED_CHARS = 1500

DRAIN_S = 2.0
"""How long a reader of the text waits for the last bytes of processes that have ended."""

_PREFIX = re.compile(r"^\([\w .=:-]*pid=\d+\) ?|\x1b\[[0-9;]*m")
"""vLLM's processes mark each line: `(EngineCore pid=123) `."""

_NOISE = re.compile(
    r"^\s*$|resource_tracker|Warning: |^WARNING |^INFO |^\[transformers\]|^\s*(warnings\.)?warn\(|^Loading safetensors"
    r"|^\s+[\^~]+\s*$"
)


class StderrTail:
    """Copies the standard error of processes to this process's own, and keeps its end."""

    def __init__(self) -> None:
        self._kept = b""
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record all processes that start inside, as long as they live."""
        sys.stderr.flush()
        own, (read_end, write_end) = os.dup(2), os.pipe()
        with self._lock:
            self._kept = b""
        self._reader = threading.Thread(target=self._copy, args=(read_end, own), name="stderr", daemon=True)
        self._reader.start()
        os.dup2(write_end, 2)
        os.close(write_end)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(own, 2)

    def _copy(self, read_end: int, own: int) -> None:
        with os.fdopen(read_end, "rb", buffering=0) as pipe:
            while data := pipe.read(64 << 10):
                with self._lock:
                    self._kept = (self._kept + data)[-TAIL_BYTES:]
                while data:
                    data = data[os.write(own, data) :]
        os.close(own)

    def text(self, wait_s: float = 0.0) -> str:
        """Return what is kept, without the marks of processes; wait so long for processes that are ending."""
        if self._reader is not None:
            self._reader.join(wait_s)
        with self._lock:
            kept = self._kept.decode(errors="replace")
        return "\n".join(_PREFIX.sub("", line).rstrip() for line in kept.replace("\r", "\n").splitlines())


def last_lines(text: str) -> str:
    """Return the last lines of a text that say something."""
    lines = [line for line in text.splitlines() if not _NOISE.search(line)]
    return "\n".join(lines[-QUOTED_LINES:])[-QUOTED_CHARS:]
