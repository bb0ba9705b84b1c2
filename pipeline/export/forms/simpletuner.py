"""Images, and a text file with several captions beside each, as SimpleTuner reads them (`caption_strategy: textfile`).

Rules of `prepare_instance_prompt_from_textfile` (simpletuner/helpers/prompts.py at bc8e6ab) and of the sampler: each
line of the `.txt` file that is not empty is a caption, and one is drawn uniformly each time the image is used, so a
line that occurs n times is drawn n times as often. Nothing in a line has a meaning.
"""

from collections.abc import Iterator

from pipeline.export.caption_lines import caption_files
from pipeline.export.file_names import check_names
from pipeline.export.form import File, Form, ShardCaptions


def files(captions: ShardCaptions) -> Iterator[File]:
    """Yield each image's file and its captions."""
    return caption_files(captions, lambda text: text)


FORM = Form(
    name="simpletuner",
    summary="images, and a text with several captions beside each, for SimpleTuner",
    files=files,
    needs_images=True,
    honours=frozenset({"template", "weights"}),
    check=check_names,
)
