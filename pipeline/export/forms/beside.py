"""Texts beside the images of a local source folder; the images are not changed."""

from collections.abc import Iterator, Sequence

from pipeline.config.export_config import ExportConfig
from pipeline.errors import ConfigError, PipelineError
from pipeline.export.file_names import one_line
from pipeline.export.form import File, Form, ShardCaptions
from pipeline.storage import Store
from schemas.shard import Shard

SHOWN = 5


def files(captions: ShardCaptions) -> Iterator[File]:
    """Yield the texts, named as the images are, relative to the source's folder.

    Raises:
        PipelineError: two images share a name, so their texts would be one file.
    """
    keys: set[str] = set()
    for image in captions.chosen:
        if image.text is None:
            continue
        if image.key in keys:
            raise PipelineError(
                f"shard {captions.shard.path}: two images have the name {image.key}, so both texts would be one file; "
                "rename one of them, or export --to sidecars"
            )
        keys.add(image.key)
        yield File(f"{image.key}.{captions.config.suffix}", one_line(image.text).encode())


def check_folder(
    shards: Sequence[Shard],
    destination: Store,
    config: ExportConfig,  # noqa: ARG001 - as `Form.check` is called
) -> None:
    """Refuse a destination that is not the local folder of all images."""
    folders = {shard.url.rpartition("#")[0] for shard in shards}
    if folders != {destination.url}:
        sources = ", ".join(sorted(folders)[:SHOWN]) if all(folders) else "shards, not image files"
        raise ConfigError(
            f"export: --to beside writes into one local source folder of loose images; the destination is "
            f"{destination.url}, the source is {sources}. Give the folder, or export --to sidecars"
        )


FORM = Form(
    name="beside",
    summary="texts beside the images of a local source folder",
    files=files,
    needs_images=False,
    honours=frozenset({"template", "suffix"}),
    one_text=True,
    beside_source=True,
    check=check_folder,
)
