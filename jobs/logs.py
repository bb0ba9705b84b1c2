"""Where noise goes: one file, so that the terminal keeps to progress, summary and errors."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TextIO

from jobs.signals import SIGNALS
from jobs.terminal import printable
from pipeline.config import LogFormat

ExceptHook = Callable[[type[BaseException], BaseException, TracebackType | None], None]

FOLDER = Path("logs")


@dataclass(frozen=True, slots=True)
class Terminal:
    """What the user sees, whatever else is printed."""

    out: TextIO
    err: TextIO


def new_log() -> Path:
    """Return the path of a new log file below logs/."""
    FOLDER.mkdir(exist_ok=True)
    return FOLDER / f"joyfleet-{datetime.now():%Y%m%d-%H%M%S-%f}.log"


class JsonFormatter(logging.Formatter):
    """One object a line, with the names that Ray gives the lines of its workers."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "name": record.name,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
        }
        if record.exc_info:
            told["exc_text"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def _formatter(form: LogFormat) -> logging.Formatter:
    if form is LogFormat.JSON:
        return JsonFormatter()
    return logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")


def redirect_output(path: Path, form: LogFormat = LogFormat.TEXT) -> Terminal:
    """Send logging, warnings and all that is printed from now on to a file; return the terminal.

    Ray prints from Python loggers with handlers of their own, from C++ and from threads that outlive
    a run, so the process's file descriptors themselves are redirected, to its end.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    terminal = Terminal(out=_copy(1), err=_copy(2))
    SIGNALS.terminal = terminal.err.fileno()
    with path.open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter(form))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    sys.excepthook = _tell(terminal, path)
    return terminal


def _tell(terminal: Terminal, path: Path) -> ExceptHook:
    """Return a hook that tells of an error nobody expected on the terminal too, not in the log alone."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        terminal.err.write(f"joyfleet: {kind.__name__}: {printable(error)}; the traceback is in {path}\n")
        sys.__excepthook__(kind, error, trace)

    return hook


def _copy(number: int) -> TextIO:
    return os.fdopen(os.dup(number), "w", buffering=1, encoding="utf-8")
