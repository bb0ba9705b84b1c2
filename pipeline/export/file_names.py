"""The file name of an exported image and its texts, unique in the export."""

import re
from collections.abc import Sequence

from pipeline.config.export_config import ExportConfig
from pipeline.errors import PipelineError
from pipeline.export.choose_captions import Chosen
from pipeline.storage import Store
from schemas.shard import Shard

UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
MAX_NAME = 120
"""Characters of a part of a name; file systems allow 255 bytes."""


def safe(text: str) -> str:
    """Return a text as a part of a file name that every system accepts."""
    return UNSAFE.sub("_", text).strip("._")[:MAX_NAME]


def name_of(chosen: Chosen) -> str:
    """Return the stem of an image's files: its shard, its row, and its key for people."""
    return f"{safe(str(chosen.image['shard']))}-{chosen.row:06d}-{safe(chosen.key)}"


def check_names(
    shards: Sequence[Shard],
    destination: Store,  # noqa: ARG001 - as `Form.check` is called
    config: ExportConfig,  # noqa: ARG001 - as above
) -> None:
    """Refuse shards whose images would have the same names.

    Raises:
        PipelineError: names both.
    """
    paths: dict[str, str] = {}
    for shard in shards:
        other = paths.setdefault(safe(shard.path).lower(), shard.path)
        if other != shard.path:
            raise PipelineError(
                f"shards {other} and {shard.path}: their images would have the same names; rename one, or export as "
                "webdataset"
            )


def one_line(text: str) -> str:
    """Return a caption on one line: kohya's scripts read only the first line of a file (sd-scripts, read_caption)."""
    return " ".join(text.split())
