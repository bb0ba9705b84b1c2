"""Images and `metadata.jsonl`, as DiffSynth-Studio reads them.

Rules of `UnifiedDataset` (diffsynth/core/data/unified_dataset.py at fed7b18): each line is a sample of its own, with
the `image` relative to `--dataset_base_path` and the `prompt`; a line that occurs n times is used n times an epoch. It
opens the file in the encoding of the system, so all characters but ASCII are escaped. It also reads CSV, with pandas,
which takes captions such as `None` and `NA` for missing values and `1` for a number; so this form writes no CSV.
"""

import json
from collections.abc import Iterator

from pipeline.export.file_names import check_names
from pipeline.export.form import File, Finished, Form, ShardCaptions
from pipeline.export.image_lists import listed_files, read_list

METADATA = "metadata.jsonl"


def files(captions: ShardCaptions) -> Iterator[File]:
    """Yield each image's file, then the shard's part of the list."""
    return listed_files(captions)


def write_metadata(finished: Finished) -> None:
    """Write the samples of all images."""
    lines = (
        json.dumps({"image": listed.image, "prompt": listed.text}) + "\n"
        for listed in read_list(finished)
        for _ in range(listed.repeats)
    )
    finished.store.put(METADATA, "".join(lines).encode())


FORM = Form(
    name="diffsynth",
    summary="images and metadata.jsonl with image and prompt, for DiffSynth-Studio",
    files=files,
    needs_images=True,
    honours=frozenset({"template", "weights"}),
    check=check_names,
    finish=write_metadata,
)
