"""Images, and a text file with several captions beside each, as kohya's sd-scripts read them with `enable_wildcard`.

Rules of `DreamBoothDataset` and `process_caption` (library/train_util.py at 48d368f): with `enable_wildcard`, the
lines of a file that are not blank are its captions, and one is drawn uniformly each time the image is used, so a line
that occurs n times is drawn n times as often. In a line, `{a|b}` is a choice, and `{{` is a brace. Without
`enable_wildcard` only the first line is read, and braces are braces.
"""

import json
from collections.abc import Iterator

from pipeline.export.caption_lines import caption_files
from pipeline.export.form import File, Finished, Form, ShardCaptions
from pipeline.export.image_lists import check_root, root_of

CONFIG = "dataset.toml"


def files(captions: ShardCaptions) -> Iterator[File]:
    """Yield each image's file and its captions."""
    return caption_files(captions, lambda text: text.replace("{", "{{").replace("}", "}}"))


def write_config(finished: Finished) -> None:
    """Write the part of a data set's config by which the trainer draws one of the lines."""
    text = f"""# Several captions an image: sd-scripts draws a line of its caption file each time it uses the image.
[general]
caption_extension = {json.dumps("." + finished.config.suffix)}
enable_wildcard = true

[[datasets]]

  [[datasets.subsets]]
  image_dir = {json.dumps(root_of(finished.config, finished.store))}
  num_repeats = 1
"""
    finished.store.put(CONFIG, text.encode())


FORM = Form(
    name="sd-scripts",
    summary="images, and a text with several captions beside each, for kohya's sd-scripts",
    files=files,
    needs_images=True,
    honours=frozenset({"template", "suffix", "weights", "image_root"}),
    check=check_root,
    finish=write_config,
)
