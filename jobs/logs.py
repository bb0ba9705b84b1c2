"""Redirects logs to a file, so that the terminal shows only progress, summary and errors."""

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
    """The original stdout and stderr, after they were redirected to the log."""

    out: TextIO
    err: TextIO

    def restore(self) -> None:
        """Undo the redirection, for a program that takes the place of this one."""
        for stream, number in ((self.out, 1), (self.err, 2)):
            stream.flush()
            os.dup2(stream.fileno(), number)


def new_log() -> Path:
    """Return the path of a new log file below logs/."""
    FOLDER.mkdir(exist_ok=True)
    return FOLDER / f"joyfleet-{datetime.now():%Y%m%d-%H%M%S-%f}.log"


class JsonFormatter(logging.Formatter):
    """One object a line, with the names that Ray uses for the lines of its workers."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "name": record.name,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
        }
        if record.exc_info:
            line["exc_text"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _formatter(form: LogFormat) -> logging.Formatter:
    if form is LogFormat.JSON:
        return JsonFormatter()
    return logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")


def redirect_output(path: Path, form: LogFormat = LogFormat.TEXT) -> Terminal:
    """Send logging, warnings and everything that is printed from now on to a file; return the terminal.

    Ray prints from Python loggers with their own handlers, from C++ and from threads that outlive a run, so the file
    descriptors of the process are redirected until it ends.
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
    sys.excepthook = _report_unexpected(terminal, path)
    return terminal


def _report_unexpected(terminal: Terminal, path: Path) -> ExceptHook:
    """Return a hook that reports an unexpected error on the terminal too, not only in the log."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        terminal.err.write(f"joyfleet: {kind.__name__}: {printable(error)}; the traceback is in {path}\n")
        sys.__excepthook__(kind, error, trace)

    return hook


def _copy(number: int) -> TextIO:
    return os.fdopen(os.dup(number), "w", buffering=1, encoding="utf-8")
