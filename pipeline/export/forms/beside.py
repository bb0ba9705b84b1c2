"""Texts beside the images of a local source folder, which are left alone."""

from collections.abc import Iterator, Sequence

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
    seen: set[str] = set()
    for one in captions.chosen:
        if one.text is None:
            continue
        if one.key in seen:
            raise PipelineError(
                f"shard {captions.shard.path}: two images are called {one.key}, and one text cannot be of both; "
                "rename one of them, or export --to sidecars"
            )
        seen.add(one.key)
        yield File(f"{one.key}.{captions.config.suffix}", one_line(one.text).encode())


def check_folder(shards: Sequence[Shard], destination: Store) -> None:
    """Refuse a destination that is not the one local folder of all images."""
    folders = {shard.url.rpartition("#")[0] for shard in shards}
    if folders != {destination.url}:
        found = ", ".join(sorted(folders)[:SHOWN]) if all(folders) else "shards, which hold their images inside"
        raise ConfigError(
            f"export: --to beside writes into one local source folder of loose images; the destination is "
            f"{destination.url}, the source {found}. Give the folder, or export --to sidecars"
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
