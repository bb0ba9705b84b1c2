"""`train.json` and images, as JoyCaption's own fine-tuning script reads them."""

import json
from collections.abc import Iterator
from typing import Any

from pipeline.export.file_names import check_names, name_of
from pipeline.export.form import File, Finished, Form, ShardCaptions
from pipeline.export.image import extension, images

IMAGES = "images"
PARTS = ".joyfleet/train"
"""Examples by shard; `write_examples` joins them."""


def files(captions: ShardCaptions) -> Iterator[File]:
    """Yield each image's file, then the shard's examples: one for each caption, with the prompt of the run."""
    examples: list[object] = []
    for chosen, data in images(captions.source, captions.chosen):
        if data is None:
            continue
        path = f"{IMAGES}/{name_of(chosen)}.{extension(chosen)}"
        yield File(path, data)
        for row in chosen.captions.values():
            question = {"role": "user", "content": row["prompt"]}
            answer = {"role": "assistant", "content": row["caption"]}
            examples.append({"messages": [question, answer], "images": [path]})
    if captions.chosen:
        content = json.dumps(examples, ensure_ascii=False, indent=1).encode()
        yield File(f"{PARTS}/{captions.shard.path}.json", content)


def write_examples(finished: Finished) -> None:
    """Write the examples of all shards as one list."""
    examples: list[Any] = []
    for path in sorted(entry.path for entry in finished.store.list(PARTS)):
        examples += json.loads(finished.store.get(path))
    finished.store.put("train.json", json.dumps(examples, ensure_ascii=False, indent=1).encode())


FORM = Form(
    name="joycaption",
    summary="train.json and images for JoyCaption's fine-tuning script",
    files=files,
    needs_images=True,
    check=check_names,
    finish=write_examples,
)
