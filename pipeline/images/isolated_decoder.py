"""Decoding under a time limit: an image that is too slow, or that kills its decoder, costs itself and not its shard.

A decoder is C code that cannot be interrupted, so only the end of its process ends it. A reader therefore decodes
in its own process under a watchdog that ends the process (`decode_or_exit`). The shard of a reader that died is
read again with an `IsolatedDecoder`, in a process of its own, which takes three times longer: there the slow image,
or the one that killed the reader by a bug in a C library or by the memory that it took, becomes a failed row.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from pipeline.config import ImagesConfig
from pipeline.errors import BadImage, PipelineError
from pipeline.images.decode import Decoded, Pixels, decode
from pipeline.images.sniff import kind_of
from schemas.status import Reason

START_TIMEOUT_S = 300.0
"""A process that decodes takes a second or two to import what it needs, and minutes only on an exhausted machine."""

END_TIMEOUT_S = 10.0
"""For a process whose pipe is closed already."""

STDERR = 2
"""The file descriptor: `sys.stderr` may be replaced by something that is no file."""


def decode_or_exit(data: bytes, config: ImagesConfig, size: tuple[int, int], out: Pixels | None = None) -> Decoded:
    """Decode as `decode` does, and end this process where it takes longer than `config.timeout_s`.

    Only for a process whose work is done again after its death, as a Ray worker's is. It costs 33 us an image.
    """
    with _exit_after(config.timeout_s):
        return decode(data, config, size, out)


@contextmanager
def _exit_after(timeout_s: float) -> Generator[None]:
    """End this process with a traceback on its stderr where the block takes longer; one such block at a time."""
    # A thread of C: it needs no GIL, which the decoders of TIFF and JPEG 2000 hold.
    faulthandler.dump_traceback_later(timeout_s, exit=True, file=STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class IsolatedDecoder:
    """Decodes as `decode` does, in a process apart; a context manager that ends the process."""

    def __init__(self) -> None:
        self._child: _Child | None = None

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.end()

    def decode(self, data: bytes, config: ImagesConfig, size: tuple[int, int], out: Pixels | None = None) -> Decoded:
        """Decode, into `out` where it is given.

        Raises:
            BadImage: as `decode`, DECODE_TIMEOUT beyond `config.timeout_s`, and DECODER_KILLED when its process died.
            PipelineError: the process does not start.
        """
        child = self._child = self._child or _Child()
        try:
            answer = child.ask(data, config, size)
        except (EOFError, OSError) as err:
            self._child = None
            raise BadImage(Reason.DECODER_KILLED, _death(data, child.exitcode())) from err
        if answer is None:
            self._child = None
            child.end()
            what = f"{kind_of(data) or 'image'} of {len(data)} bytes"
            raise BadImage(Reason.DECODE_TIMEOUT, f"{what}: not decoded within images.timeout_s={config.timeout_s:g} s")
        if isinstance(answer, BadImage):
            raise answer
        if out is not None:
            out[...] = answer.pixels
        return answer


class _Child:
    """A process that decodes one image after another until its pipe closes: it ends with the process that began it."""

    def __init__(self) -> None:
        # Spawned: a fork of a reader with its many threads may hang before its first line.
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_serve, args=(end,), name="decoder", daemon=True)
        self._process.start()
        end.close()
        try:
            ready = self._pipe.poll(START_TIMEOUT_S) and self._pipe.recv()
        except (EOFError, OSError):
            ready = False
        if not ready:
            raise PipelineError(
                f"the process that decodes did not start within {START_TIMEOUT_S:g} s or died at its start (exit code "
                f"{self.exitcode()}), by lack of memory perhaps; run again"
            )

    def ask(self, data: bytes, config: ImagesConfig, size: tuple[int, int]) -> Decoded | BadImage | None:
        """Return the answer; None when there is none in time."""
        self._pipe.send((data, config, size))
        return self._pipe.recv() if self._pipe.poll(config.timeout_s) else None

    def exitcode(self) -> int | None:
        """End the process, which died or is about to; returns its exit code, minus the signal that ended it."""
        # A traceback closes the pipe before it ends the process.
        self._process.join(END_TIMEOUT_S)
        self.end()
        return self._process.exitcode

    def end(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection) -> None:
    pipe.send(True)
    while True:
        try:
            data, config, size = pipe.recv()
        except EOFError:
            return
        answer: Decoded | BadImage
        try:
            # The process that waits ends this one, earlier; the watchdog is for one whose parent was killed.
            with _exit_after(2 * config.timeout_s):
                answer = decode(data, config, size)
        except BadImage as err:
            answer = err
        pipe.send(answer)


def _death(data: bytes, exitcode: int | None) -> str:
    told = f"the process that decodes died of this image of {len(data)} bytes, alone in it"
    if exitcode is not None and exitcode < 0:
        return told
    return f"{told} (exit code {exitcode}; the worker's log has its traceback)"
