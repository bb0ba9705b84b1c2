"""The processes of a run: found below its driver, stopped, resumed and killed by their ids alone."""

import signal
from collections.abc import Iterable

import psutil

KINDS = {
    "caption": "CaptionActor",
    "reader": "ray::Read",
    "raylet": "raylet/raylet",
    "progress_actor": "ray::_ProgressActor",
    "committer": "ray::_Committer",
}
"""What the command line of each kind holds. Ray names a worker after what it is doing."""


def tree(pid: int) -> list[psutil.Process]:
    """The process and all below it, parents first; none when it is gone."""
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def find(pid: int, kind: str) -> list[psutil.Process]:
    """The processes of a kind of the run whose driver is `pid`, by id."""
    if kind == "driver":
        return tree(pid)[:1]
    return sorted((process for process in tree(pid)[1:] if KINDS[kind] in _words(process)), key=lambda item: item.pid)


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def writers(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that may still write into an output. Ray's own agents need a minute to miss their raylet."""
    words = [KINDS[kind] for kind in ("caption", "reader", "committer")]
    return [process for process in processes if any(word in _words(process) for word in words)]


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> int:
    """Signal those that still live; return how many did."""
    sent = 0
    for process in processes:
        try:
            process.send_signal(number)
            sent += 1
        except psutil.NoSuchProcess:
            continue
    return sent
