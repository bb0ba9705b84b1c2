"""Reads the images of an export from the source, and checks that they are the captioned ones."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.errors import PipelineError
from pipeline.export.choose_captions import Chosen
from pipeline.images.sniff import kind_of
from pipeline.readers import ShardReader

# Pillow's names of what can be decoded; the file's own name may say anything.
EXTENSIONS = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif",
    "AVIF": "avif", "JPEG2000": "jp2",
}  # fmt: skip


def images(opened: ShardReader, chosen: Sequence[Chosen]) -> Iterator[tuple[Chosen, bytes | None]]:
    """Yield each chosen image with its bytes; None where the source has none.

    Raises:
        PipelineError: the bytes are not those that were captioned.
    """
    by_row = {captioned.row: captioned for captioned in chosen}
    for row in opened.rows(by_row):
        captioned = by_row[row.row]
        expected = captioned.image["image_sha256"]
        actual = None if row.data is None else hashlib.sha256(row.data).hexdigest()
        if expected is not None and actual != expected:
            raise PipelineError(
                f"shard {captioned.image['shard']} row {row.row}: the image is not the one that was captioned (sha256 "
                f"{actual}, expected {expected}); restore the source"
            )
        if captioned.image["image_format"] is None and row.data is not None:
            # A duplicate that is not equal to its leader: its header was never read.
            captioned = replace(captioned, image={**captioned.image, "image_format": kind_of(row.data)})
        yield captioned, row.data


def extension(chosen: Chosen) -> str:
    """Extension of the image's file, without a dot, by its content."""
    return EXTENSIONS.get(str(chosen.image["image_format"]), "bin")
