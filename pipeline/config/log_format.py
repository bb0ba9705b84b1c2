"""How log lines are written."""

from enum import StrEnum


class LogFormat(StrEnum):
    """How log lines are written: the driver's below logs/ and those of Ray's workers."""

    TEXT = "text"
    JSON = "json"
    """One object a line, with the names of the standard library's log record."""
