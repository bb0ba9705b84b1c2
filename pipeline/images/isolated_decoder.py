"""Decoding under a time limit: an image that is too slow or kills its decoder fails alone, not with its shard.

Decoders are C code that cannot be interrupted; only the end of the process stops them. A reader therefore decodes in
its own process under a watchdog that ends the process (`decode_or_exit`). When a reader has died, its shard is read
again with an `IsolatedDecoder`, in a separate process, which takes three times longer. There the image that was too
slow, or that killed the reader (a bug in a C library, too much memory), becomes a failed row.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from pipeline.config import ImagesConfig
from pipeline.errors import BadImage, PipelineError
from pipeline.images.decoding import Decoded, SizeOf, decode
from pipeline.images.header import Header, read_header
from pipeline.images.sniff import kind_of
from schemas.status import Reason

START_TIMEOUT_S = 300.0
"""A decoder process needs a second or two for its imports, and minutes only on an overloaded machine."""

END_TIMEOUT_S = 10.0
"""For a process whose pipe is already closed."""

STDERR = 2
"""The file descriptor: `sys.stderr` may be replaced by an object that is not a file."""


def decode_or_exit(data: bytes, config: ImagesConfig, size: SizeOf) -> Decoded:
    """Decode as `decode` does, and end this process if it takes longer than `config.timeout_s`.

    Only for a process whose work is retried after its death, such as a Ray worker. The watchdog costs 33 us an image.
    """
    with _exit_after(config.timeout_s):
        return decode(data, config, size)


def header_or_exit(data: bytes, config: ImagesConfig) -> Header:
    """Read a header as `read_header` does, and end this process if it takes longer than `config.timeout_s`."""
    with _exit_after(config.timeout_s):
        return read_header(data, config)


@contextmanager
def _exit_after(timeout_s: float) -> Generator[None]:
    """End this process with a traceback on stderr if the block takes longer. Blocks must not overlap."""
    # A C thread, which needs no GIL: the decoders of TIFF and JPEG 2000 hold it.
    faulthandler.dump_traceback_later(timeout_s, exit=True, file=STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class IsolatedDecoder:
    """Decodes as `decode` does, in a separate process; a context manager that ends the process."""

    def __init__(self) -> None:
        self._child: _Child | None = None

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.end()

    def decode(self, data: bytes, config: ImagesConfig, size: SizeOf) -> Decoded:
        """Decode one image.

        Raises:
            BadImage: as `decode`; DECODE_TIMEOUT after `config.timeout_s`; DECODER_KILLED if the process died.
            PipelineError: the process does not start.
        """
        answer = self._ask(data, config, size)
        assert isinstance(answer, Decoded)
        return answer

    def header(self, data: bytes, config: ImagesConfig) -> Header:
        """Read the header of one image, as `read_header` does; raises as `decode`."""
        answer = self._ask(data, config, None)
        assert isinstance(answer, Header)
        return answer

    def _ask(self, data: bytes, config: ImagesConfig, size: SizeOf | None) -> Decoded | Header:
        child = self._child = self._child or _Child()
        try:
            answer = child.request(data, config, size)
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
        return answer


class _Child:
    """A process that decodes one image after another until its pipe closes, so it ends with its parent."""

    def __init__(self) -> None:
        # Spawned: a fork of a reader with many threads may hang at once.
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
                f"the decoder process did not start within {START_TIMEOUT_S:g} s or died at its start (exit code "
                f"{self.exitcode()}), possibly out of memory; run the same command again"
            )

    def request(self, data: bytes, config: ImagesConfig, size: SizeOf | None) -> Decoded | Header | BadImage | None:
        """Return the result, without a size that of the header; None after the timeout."""
        self._pipe.send((data, config, size))
        return self._pipe.recv() if self._pipe.poll(config.timeout_s) else None

    def exitcode(self) -> int | None:
        """End the process, which is dead or dying; return its exit code (negative: the signal that killed it)."""
        # A Python error closes the pipe before the process ends.
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
        answer: Decoded | Header | BadImage
        try:
            # The parent kills this process earlier. The watchdog is for the case that the parent was killed.
            with _exit_after(2 * config.timeout_s):
                answer = read_header(data, config) if size is None else decode(data, config, size)
        except BadImage as err:
            answer = err
        pipe.send(answer)


def _death(data: bytes, exitcode: int | None) -> str:
    message = f"the decoder process died on this image of {len(data)} bytes, the only one in it"
    if exitcode is not None and exitcode < 0:
        return message
    return f"{message} (exit code {exitcode}; the worker's log has its traceback)"
