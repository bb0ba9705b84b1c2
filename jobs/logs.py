"""Where noise goes: one file, so that the terminal keeps to progress and summary."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

FOLDER = Path("logs")


def new_log() -> Path:
    """Return the path of a new log file below logs/."""
    FOLDER.mkdir(exist_ok=True)
    return FOLDER / f"joyfleet-{datetime.now():%Y%m%d-%H%M%S-%f}.log"


@contextmanager
def quiet_terminal(path: Path) -> Iterator[TextIO]:
    """Send logging, warnings and all that is printed to a file; yield the terminal for those who may use it.

    Ray prints from Python loggers with handlers of their own and from C++, so the process's file
    descriptors themselves are redirected, and come back at the end.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {number: os.dup(number) for number in (1, 2)}
    with path.open("a", encoding="utf-8") as log:
        for number in saved:
            os.dup2(log.fileno(), number)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    try:
        with os.fdopen(os.dup(saved[2]), "w", encoding="utf-8") as terminal:
            yield terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in saved.items():
            os.dup2(copy, number)
            os.close(copy)
