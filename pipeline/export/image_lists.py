"""Lists of all images of an export, for trainers that read one file: a part for each shard, joined at the end."""

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pipeline.config.export_config import ExportConfig
from pipeline.errors import ConfigError
from pipeline.export.caption_lines import caption_lines
from pipeline.export.file_names import check_names, name_of
from pipeline.export.form import File, Finished, ShardCaptions
from pipeline.export.image import extension, images
from pipeline.storage import Store
from schemas.shard import Shard

PARTS = ".joyfleet/list"


class Listed(NamedTuple):
    """A caption of an image."""

    image: str
    """Path of its file in the export."""
    slot: str
    text: str
    repeats: int


def listed_files(captions: ShardCaptions) -> Iterator[File]:
    """Yield each image's file, then the shard's part of the list."""
    listed: list[Listed] = []
    for chosen, data in images(captions.source, captions.chosen):
        lines = caption_lines(chosen, captions.config)
        if data is None or not lines:
            continue
        path = f"images/{name_of(chosen)}.{extension(chosen)}"
        yield File(path, data)
        listed += [Listed(path, *line) for line in lines]
    yield File(f"{PARTS}/{captions.shard.path}.json", json.dumps(listed).encode())


def read_list(finished: Finished) -> Iterator[Listed]:
    """Yield the captions of all images, in the order of the shards' names."""
    for path in sorted(entry.path for entry in finished.store.list(PARTS)):
        yield from (Listed(*listed) for listed in json.loads(finished.store.get(path)))


def root_of(config: ExportConfig, destination: Store) -> str:
    """Return the folder of the export as the trainer sees it, for files that name it."""
    return (config.image_root or destination.url).rstrip("/")


def check_root(shards: Sequence[Shard], destination: Store, config: ExportConfig) -> None:
    """Refuse a destination that a trainer cannot open, and shards whose images would have the same names.

    Raises:
        ConfigError: the destination is a store, and the options do not say where the trainer finds the folder.
        PipelineError: see `check_names`.
    """
    check_names(shards, destination, config)
    if config.image_root is None and "://" in destination.url:
        raise ConfigError(
            f"export: --to {config.to} writes a file with the path of the folder, and the trainer cannot open "
            f"{destination.url}; export into a local folder, or give the path of its copy with --image-root"
        )
