"""What SIGTERM and SIGINT do to a command, from its planning to its end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import Interrupted


class StopRequest:
    """Whether the first signal has come, and what it does."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        """Set by a signal that comes while the run is going."""
        self._drains = False

    def drain_from_now_on(self) -> None:
        """Let the run end itself: a signal sets `asked`, and no longer raises."""
        self._drains = True

    def take(self) -> None:
        """Do what the first signal is to do now.

        Raises:
            Interrupted: there is no run yet that could drain.
        """
        if not self._drains:
            raise Interrupted(
                "stopped while planning; nothing was asked of a model yet; run the same command again to go on"
            )
        self.asked.set()


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Yield what the first SIGTERM or SIGINT acts on; a second one ends the process as usual."""
    stop = StopRequest()
    before: dict[int, signal.Handlers | int | None] = {}

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, before[number])  # pyright: ignore[reportArgumentType] - what getsignal gave
        stop.take()

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.getsignal(number)  # pyright: ignore[reportArgumentType] - see above
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType] - see above
