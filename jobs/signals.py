"""SIGTERM and SIGINT end every command with exit code 4 and one line, from the first import to the end.

A first signal either ends the process at once, where nothing needs draining (planning, a verb that only reads), or
sets an event, where the verb drains what is in flight. A second signal ends the process at once.

A separate thread acts. It reads the signals from a pipe to which Python's C handler writes. A handler in Python would
run in the main thread only, between two bytecodes: never while that thread waits in a library, and an exception from
it could end up in any function. The thread imports nothing when it acts, since the main thread may hold an import
lock for seconds.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

EXIT_CODE = 4
"""`Interrupted.exit_code`, which is not imported: this module comes before all others."""

DEFAULT = "stopped before the command was done; run the same command again"
AGAIN = "stopped at once by a second signal; run the same command again to resume"

NUMBERS = (signal.SIGINT, signal.SIGTERM)
"""In the order in which they are taken: a process that catches SIGTERM has taken both."""

_HANDLED = b"\0"
"""Written to the pipe by the handler in Python; Python's handler in C writes the number of the signal."""

_CLEAR_LINE = b"\r\x1b[2K\x1b[?25h"
"""Clears a progress line and shows the cursor, which it hides."""


class Signals:
    """What a signal does now; the process has one, `SIGNALS`."""

    def __init__(self) -> None:
        self.drain_requested = threading.Event()
        """Set by the first signal while the command drains."""
        self.terminal = 2
        """Descriptor that the one line is written to."""
        self._message = DEFAULT
        self._taken = False
        self._drains = False
        self._exit_handlers = True
        self._exit_code: int | None = None
        self._own: set[int] = set()
        self._scratch: list[str] = []
        self._heard = self._handled = self._acted = 0
        self._ending = threading.Lock()
        self._pipe = (-1, -1)

    def take(self) -> None:
        """Handle both signals from now on; in the main thread."""
        if self._taken:
            return
        self._taken = True
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in NUMBERS:
            signal.signal(number, self._on_signal)
        os.register_at_fork(after_in_child=self._forget)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def drain(self) -> threading.Event:
        """From now on the first signal sets the event that is returned, which the command watches to its end."""
        self._drains = True
        return self.drain_requested

    def end_at_once(self, message: str) -> None:
        """From now on a signal, also one that has come, ends the process with this message: nothing is in flight."""
        self._message = message
        self._drains = False
        if self.drain_requested.is_set():
            self._end_now(message)

    def end_without_exit_handlers(self) -> None:
        """When the command is done, end the process as after a signal: something may still be starting."""
        self._exit_handlers = False

    def leave(self, number: signal.Signals) -> None:
        """Do not handle a signal: the command has its own handler for it."""
        self._own.add(number)

    @contextmanager
    def scratch_folder(self, prefix: str) -> Iterator[str]:
        """Yield a new folder that is removed at the end, also when a signal ends the process at once."""
        import tempfile  # noqa: PLC0415 - few commands need it

        with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
            self._scratch.append(folder)
            try:
                yield folder
            finally:
                self._scratch.remove(folder)

    def end(self, exit_code: int) -> None:
        """Note that the command is done: a signal no longer changes its exit code.

        After a signal the process ends here, without the exit handlers of libraries: Ray's waited forever for an
        import lock that the import in `RayAhead` held, and its threads abort if they outlive Python.
        """
        self._exit_code = exit_code
        for stream in (sys.stdout, sys.stderr):
            # The interpreter flushes again and reports errors.
            with suppress(OSError, ValueError):
                stream.flush()
        if self.drain_requested.is_set() or not self._exit_handlers:
            os._exit(exit_code)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Notify the thread, in case a library has replaced the pipe with its own descriptor (uvloop does)."""
        del frame
        if number not in self._own:
            with suppress(BlockingIOError):
                os.write(self._pipe[1], _HANDLED)

    def _listen(self) -> None:
        while True:
            for byte in os.read(self._pipe[0], 64):
                self._heard += byte in NUMBERS and byte not in self._own
                self._handled += byte == _HANDLED[0]
            # Each signal is heard, handled, or both; several that come together are handled once.
            self._act(max(self._heard, self._handled))

    def _act(self, count: int) -> None:
        if count <= self._acted:
            return
        self._acted = count
        if self._exit_code is not None:
            os._exit(self._exit_code)
        if count == 1 and self._drains:
            self.drain_requested.set()
            return
        self._end_now(AGAIN if self._drains else self._message)

    def _end_now(self, message: str) -> None:
        self._ending.acquire()  # never released: the first caller ends the process
        prefix = _CLEAR_LINE if os.isatty(self.terminal) else b""
        with suppress(OSError):
            os.write(self.terminal, prefix + f"joyfleet: {message}\n".encode())
        for folder in self._scratch:
            _remove(folder)
        os._exit(EXIT_CODE)

    def _forget(self) -> None:
        """Restore the default handlers in a forked process: its signals are not those of the command."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _remove(folder: str) -> None:
    for path, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with suppress(OSError):
                os.unlink(os.path.join(path, name))  # noqa: PTH108, PTH118 - pathlib is not imported, see above
        for name in folders:
            with suppress(OSError):
                os.rmdir(os.path.join(path, name))  # noqa: PTH106, PTH118 - as above
    with suppress(OSError):
        os.rmdir(folder)  # noqa: PTH106 - as above


SIGNALS = Signals()
