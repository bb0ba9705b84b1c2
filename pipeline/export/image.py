"""The images of an export, read back from the source and held to what was captioned."""

import hashlib
from collections.abc import Iterator, Sequence

from pipeline.errors import PipelineError
from pipeline.export.choose_captions import Chosen
from pipeline.readers import ShardReader

# Pillow's names of what can be decoded; the file's own name may say anything.
EXTENSIONS = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif",
    "AVIF": "avif", "JPEG2000": "jp2",
}  # fmt: skip


def images(opened: ShardReader, chosen: Sequence[Chosen]) -> Iterator[tuple[Chosen, bytes | None]]:
    """Yield each chosen image with its bytes; None where the source never had any.

    Raises:
        PipelineError: the bytes are not those that were captioned.
    """
    by_row = {one.row: one for one in chosen}
    for row in opened.rows(by_row):
        one = by_row[row.row]
        wanted = one.image["image_sha256"]
        found = None if row.data is None else hashlib.sha256(row.data).hexdigest()
        if wanted is not None and found != wanted:
            raise PipelineError(
                f"shard {one.image['shard']} row {one.row}: the image is not the one that was captioned (sha256 "
                f"{found}, not {wanted}); restore the source"
            )
        yield one, row.data


def extension(one: Chosen) -> str:
    """Of the image's file, without a dot, by its content."""
    return EXTENSIONS.get(str(one.image["image_format"]), "bin")
