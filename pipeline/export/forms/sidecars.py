"""Images, and a text of the same name beside each, as kohya's scripts and OneTrainer read them."""

from collections.abc import Iterator

from pipeline.export.file_names import check_names, name_of, one_line
from pipeline.export.form import File, Form, ShardCaptions
from pipeline.export.image import extension, images


def files(captions: ShardCaptions) -> Iterator[File]:
    """Yield each image's file and its text."""
    for chosen, data in images(captions.source, captions.chosen):
        if data is None or chosen.text is None:
            continue
        yield File(f"{name_of(chosen)}.{extension(chosen)}", data)
        yield File(f"{name_of(chosen)}.{captions.config.suffix}", one_line(chosen.text).encode())


FORM = Form(
    name="sidecars",
    summary="images, and a text beside each",
    files=files,
    needs_images=True,
    honours=frozenset({"template", "suffix"}),
    one_text=True,
    check=check_names,
)
