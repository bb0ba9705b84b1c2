"""Images, a JSON Lines file for each slot and weight, and `dataset.toml`, as kohya's musubi-tuner reads them.

Rules of `ImageJsonlDatasource` (src/musubi_tuner/dataset/datasources.py at 30c658c): each line has the `image_path`
and one `caption`. Caches are named after the image's file, so within a data set an image may occur once: each slot is
a data set with a cache folder of its own, and a weight is its `num_repeats`.
"""

import json
from collections.abc import Iterator

from pipeline.export.form import File, Finished, Form, ShardCaptions
from pipeline.export.image_lists import Listed, check_root, listed_files, read_list, root_of

CONFIG = "dataset.toml"


def files(captions: ShardCaptions) -> Iterator[File]:
    """Yield each image's file, then the shard's part of the list."""
    return listed_files(captions)


def write_lists(finished: Finished) -> None:
    """Write the files with captions, and the config that names them."""
    root = root_of(finished.config, finished.store)
    groups: dict[tuple[str, int], list[Listed]] = {}
    for listed in read_list(finished):
        groups.setdefault((listed.slot, listed.repeats), []).append(listed)
    sections = ["# A data set for each slot, and for each weight of its captions. Add [general] with the resolution.\n"]
    for (slot, repeats), group in sorted(groups.items()):
        name = f"captions-{slot}-x{repeats}"
        lines = (json.dumps({"image_path": f"{root}/{one.image}", "caption": one.text}) + "\n" for one in group)
        finished.store.put(f"{name}.jsonl", "".join(lines).encode())
        sections.append(f"""
[[datasets]]
image_jsonl_file = {json.dumps(f"{root}/{name}.jsonl")}
cache_directory = {json.dumps(f"{root}/cache/{name}")}
num_repeats = {repeats}
""")
    finished.store.put(CONFIG, "".join(sections).encode())


FORM = Form(
    name="musubi",
    summary="images and JSON Lines with image_path and caption, for musubi-tuner",
    files=files,
    needs_images=True,
    honours=frozenset({"template", "weights", "image_root"}),
    check=check_root,
    finish=write_lists,
)
