"""The captions of an image for trainers that take several: each on one line, and how often it is used."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from pipeline.config.export_config import ExportConfig
from pipeline.export.choose_captions import Chosen
from pipeline.export.file_names import name_of, one_line
from pipeline.export.form import File, ShardCaptions
from pipeline.export.image import extension, images

TEMPLATE = "text"
"""In place of a slot, the name of the text that a template makes."""


class CaptionLine(NamedTuple):
    """A caption on one line."""

    slot: str
    text: str
    repeats: int
    """By `--weight`; at least 1."""


def caption_lines(chosen: Chosen, config: ExportConfig) -> list[CaptionLine]:
    """Return the captions of an image in the order of their slots; one without a letter is left out."""
    if config.template is not None:
        lines = [CaptionLine(TEMPLATE, one_line(chosen.text or ""), 1)]
    else:
        lines = [
            CaptionLine(slot, one_line(row["caption"] or ""), config.repeats_of(slot, row["mode"]))
            for slot, row in chosen.captions.items()
        ]
    return [line for line in lines if line.text]


def caption_files(captions: ShardCaptions, as_line: Callable[[str], str]) -> Iterator[File]:
    """Yield each image's file, and a text file with a line for each use of a caption."""
    for chosen, data in images(captions.source, captions.chosen):
        lines = [as_line(line.text) for line in caption_lines(chosen, captions.config) for _ in range(line.repeats)]
        if data is None or not lines:
            continue
        yield File(f"{name_of(chosen)}.{extension(chosen)}", data)
        yield File(f"{name_of(chosen)}.{captions.config.suffix}", "\n".join(lines).encode())
