"""Decoding in a process of its own: what kills the decoder costs its image, and not the reader.

Three times slower than in the reader's own process, so it is for shards whose reader has died before: one
of their images may have killed it, by a bug in a C library or by the memory that it took.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from pipeline.config import ImagesConfig
from pipeline.errors import BadImage
from pipeline.images.decode import Decoded, Pixels, decode
from schemas.status import Reason


class Decoder:
    """Decodes as `decode` does; a context manager that ends its process."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def decode(self, data: bytes, config: ImagesConfig, size: tuple[int, int], out: Pixels) -> Decoded:
        """Decode into `out`.

        Raises:
            BadImage: as `decode`, and DECODER_KILLED when its process died.
        """
        # Spawned: a fork of a reader with its many threads may hang before its first line.
        self._pool = self._pool or ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        try:
            decoded = self._pool.submit(_decode, data, config, size).result()
        except BrokenProcessPool as err:
            self._pool = None
            raise BadImage(
                Reason.DECODER_KILLED, f"the process that decodes died of this image of {len(data)} bytes, alone in it"
            ) from err
        out[...] = decoded.pixels
        return decoded


def _decode(data: bytes, config: ImagesConfig, size: tuple[int, int]) -> Decoded:
    return decode(data, config, size)
