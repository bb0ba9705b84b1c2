"""An image file and what belongs to it, under one name that no other image of the export has."""

import json
import re
from collections.abc import Iterator, Sequence

from pipeline.config.export import ExportConfig
from pipeline.errors import PipelineError
from pipeline.export.choose import Chosen
from pipeline.export.image import extension, images
from pipeline.readers import OpenShard
from schemas.shard import Shard

UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
MAX_NAME = 120
"""Characters of a part of a name; file systems allow 255 bytes."""


def safe(text: str) -> str:
    """Return a text as part of a file name that any system takes."""
    return UNSAFE.sub("_", text).strip("._")[:MAX_NAME]


def name_of(one: Chosen) -> str:
    """Return the stem of an image's files: its shard, its row, and its key for people."""
    return f"{safe(str(one.image['shard']))}-{one.row:06d}-{safe(one.key)}"


def check_names(shards: Sequence[Shard]) -> None:
    """Refuse shards whose images would share names.

    Raises:
        PipelineError: names both.
    """
    seen: dict[str, str] = {}
    for shard in shards:
        other = seen.setdefault(safe(shard.path).lower(), shard.path)
        if other != shard.path:
            raise PipelineError(
                f"shards {other} and {shard.path}: their images would have the same names; rename one, or export as "
                "webdataset"
            )


def one_line(text: str) -> str:
    """Return a caption as kohya's scripts want it, which take a file's first line alone (sd-scripts, read_caption)."""
    return " ".join(text.split())


def sidecar_files(opened: OpenShard, chosen: Sequence[Chosen], config: ExportConfig) -> Iterator[tuple[str, bytes]]:
    """Yield each image's file and its text."""
    for one, data in images(opened, chosen):
        if data is None or one.text is None:
            continue
        yield f"{name_of(one)}.{extension(one)}", data
        yield f"{name_of(one)}.{config.suffix}", one_line(one.text).encode()


def texts_beside(chosen: Sequence[Chosen], config: ExportConfig) -> Iterator[tuple[str, bytes]]:
    """Yield the texts alone, named as the images are, relative to the source's folder.

    Raises:
        PipelineError: two images share a name, so their texts would be one file.
    """
    seen: set[str] = set()
    for one in chosen:
        if one.text is None:
            continue
        if one.key in seen:
            raise PipelineError(
                f"shard {one.image['shard']}: two images are called {one.key}, and one text cannot be of both; "
                "rename one of them, or export --to sidecars"
            )
        seen.add(one.key)
        yield f"{one.key}.{config.suffix}", one_line(one.text).encode()


IMAGES = "images"
PARTS = ".joyfleet/train"
"""Examples by shard, which the end of an export puts together."""


def tuning_files(opened: OpenShard, chosen: Sequence[Chosen]) -> Iterator[tuple[str, bytes]]:
    """Yield each image's file, then the shard's examples: one for each caption, asked as the run asked."""
    examples: list[object] = []
    for one, data in images(opened, chosen):
        if data is None:
            continue
        path = f"{IMAGES}/{name_of(one)}.{extension(one)}"
        yield path, data
        for row in one.captions.values():
            asked = {"role": "user", "content": row["prompt"]}
            answer = {"role": "assistant", "content": row["caption"]}
            examples.append({"messages": [asked, answer], "images": [path]})
    if chosen:
        yield f"{PARTS}/{chosen[0].image['shard']}.json", json.dumps(examples, ensure_ascii=False, indent=1).encode()
