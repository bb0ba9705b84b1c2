"""A shard format from outside the package: JSON Lines, an object per image with its bytes in base64."""

import base64
import json
from collections.abc import Generator
from contextlib import contextmanager

from pipeline.errors import ShardUnreadable
from pipeline.readers.format import Format
from pipeline.readers.metadata_fields import fields_to_json
from pipeline.readers.source_row import SourceRow
from pipeline.readers.transport import check_unchanged, local_file
from schemas.status import Reason


class Lines:
    """The `ShardReader`: all lines are in memory."""

    def __init__(self, file, shard, max_bytes):
        self._file, self._shard, self._max_bytes = file, shard, max_bytes
        try:
            self._objects = [json.loads(line) for line in file]
        except ValueError as err:
            raise ShardUnreadable(f"{shard.url}: not JSON Lines ({err}); restore the shard and retry") from err
        self.num_images = len(self._objects)
        self.layout = "one JSON object per image"
        self.left_out = ()

    def check(self):
        check_unchanged(self._file, self._shard)

    def rows(self, wanted, screen=None):
        for row, entry in enumerate(self._objects):
            if wanted is None or row in wanted:
                yield self._row(row, entry)
        self.check()

    def _row(self, row, entry):
        fields = fields_to_json({name: value for name, value in entry.items() if name not in ("key", "image")})
        if entry["image"] is None:
            return SourceRow(row, entry["key"], None, fields, Reason.MISSING_IMAGE, "image is null")
        data = base64.b64decode(entry["image"])
        if len(data) > self._max_bytes:
            return SourceRow(row, entry["key"], None, fields, Reason.TOO_MANY_BYTES, f"{len(data)} bytes")
        return SourceRow(row, entry["key"], data, fields)


@contextmanager
def open_lines(shard, source, max_bytes) -> Generator[Lines]:
    with local_file(shard) as file:
        yield Lines(file, shard, max_bytes)


FORMAT = Format(name="jsonl images", suffixes=(".imgl",), open=open_lines)


def encode(rows) -> bytes:
    """A shard of (key, image bytes or None, fields)."""
    lines = (
        {"key": key, "image": None if data is None else base64.b64encode(data).decode(), **fields}
        for key, data, fields in rows
    )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
