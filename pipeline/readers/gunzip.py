"""Unpacks a gzip file as far as it is valid; damage is returned, not raised."""

import gzip
import tempfile
import zlib
from typing import BinaryIO

MAGIC = b"\x1f\x8b"

CHUNK_BYTES = 1 << 20

# Images hardly shrink: a tar.gz of photographs unpacks to 1.0 times its size, of flat drawings to 20.
# Deflate can reach 1,030; a shard beyond both bounds would fill the disk that all readers share.
MAX_RATIO = 100
ALWAYS_ALLOWED_BYTES = 1 << 30


def gunzip(file: BinaryIO, size: int) -> tuple[BinaryIO, str | None]:
    """Unpack into an anonymous temporary file.

    Returns:
        The file, and why it may not be all of the data, if so.
    """
    limit = max(ALWAYS_ALLOWED_BYTES, size * MAX_RATIO)
    unpacked = tempfile.TemporaryFile(prefix="joyfleet-")  # noqa: SIM115 - the caller closes it
    written = 0
    stream = gzip.GzipFile(fileobj=file)
    try:
        # read1 returns each piece before it reads the next, so that an error loses none.
        while chunk := stream.read1(CHUNK_BYTES):
            written += unpacked.write(chunk)
            if written > limit:
                return unpacked, f"gzip: unpacks to more than {limit} bytes; pack the shard again without gzip"
    except (EOFError, gzip.BadGzipFile, zlib.error) as err:
        return unpacked, f"gzip: {err}"
    finally:
        unpacked.flush()
    return unpacked, None
