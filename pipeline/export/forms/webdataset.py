"""A tar of the source's samples, every file byte for byte, with the captions as further files of each sample.

The `webdataset` library merges samples with the same key, and cuts a key at its first dot: such samples are renamed,
all others keep their names.
"""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.config.export_config import ExportConfig
from pipeline.errors import PipelineError
from pipeline.export.choose_captions import Chosen
from pipeline.export.form import File, Form, ShardCaptions
from pipeline.export.image import extension, images
from pipeline.readers import FileReader, ShardReader

FACTS = "joyfleet.json"
"""Extension of the file with details of the captions; the sample's own `json` is not touched."""

# fmt: off
OF_A_CAPTION = (
    "caption", "mode", "tone", "length_words", "length_class", "options", "prompt", "words", "flags", "finish_reason",
)
# fmt: on
OF_THE_IMAGE = ("shard", "row", "key", "width", "height", "recipe")


def files(captions: ShardCaptions) -> Iterator[File]:
    """Yield the shard's tar."""
    path = captions.shard.path
    content = _tar(captions.source, captions.chosen, captions.config)
    yield File(path if path.lower().endswith(".tar") else f"{path}.tar", content)


def _tar(opened: ShardReader, chosen: Sequence[Chosen], config: ExportConfig) -> bytes:
    """Return the tar.

    Raises:
        PipelineError: a sample has a file with the name of a caption, or an image is not the one that was captioned.
    """
    names = _names([sample.key for sample in chosen], [sample.row for sample in chosen])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for (sample, data), name in zip(images(opened, chosen), names, strict=True):
            own = _own_files(opened, sample, data)
            added = dict(_added(sample, config))
            taken = sorted(own.keys() & added.keys())
            if taken:
                raise PipelineError(
                    f"shard {sample.image['shard']} row {sample.row}: sample {sample.key} has a {taken[0]} already; "
                    "export it as Parquet or JSON Lines, or give the slot another name"
                )
            for suffix, content in (own | added).items():
                info = tarfile.TarInfo(f"{name}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _own_files(opened: ShardReader, sample: Chosen, data: bytes | None) -> dict[str, bytes]:
    if isinstance(opened, FileReader):
        return dict(opened.files_of(sample.row))
    image = {} if data is None else {extension(sample): data}
    return {**image, "json": str(sample.image["source"]).encode()}


def _added(sample: Chosen, config: ExportConfig) -> Iterator[tuple[str, bytes]]:
    if config.template is not None and sample.text is not None:
        yield f"{config.column}.txt", sample.text.encode()
    else:
        for slot, row in sample.captions.items():
            yield f"{slot}.txt", str(row["caption"]).encode()
    facts: Mapping[str, Any] = {
        **{name: sample.image[name] for name in OF_THE_IMAGE},
        "captions": {slot: {name: row[name] for name in OF_A_CAPTION} for slot, row in sample.captions.items()},
    }
    yield FACTS, json.dumps(facts, ensure_ascii=False).encode()


def _names(keys: Sequence[str], rows: Sequence[int]) -> list[str]:
    plain: list[str] = []
    for key in keys:
        folder, slash, base = key.lstrip("/").rpartition("/")
        plain.append(folder + slash + base.replace(".", "_"))
    times = Counter(plain)
    return [name if times[name] == 1 else f"{name}-r{row}" for name, row in zip(plain, rows, strict=True)]


FORM = Form(
    name="webdataset",
    summary="tars of the source's samples with their captions",
    files=files,
    needs_images=True,
    honours=frozenset({"template"}),
    honours_with_template=frozenset({"column"}),
)
