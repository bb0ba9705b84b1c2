"""Chooses the captions of a shard to export, and builds their texts: a pure function of its caption rows."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from pipeline.config.export_config import PLACEHOLDER, SOURCE, ExportConfig
from pipeline.errors import PipelineError
from schemas.status import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An image with the captions that were kept, at least one."""

    row: int
    key: str
    captions: Mapping[str, Mapping[str, Any]]
    """Caption rows by slot."""
    text: str | None
    """By the template; else the caption if one slot is exported."""
    image: Mapping[str, Any]
    """Any caption row of the image, for fields that are the same in all of them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen captions of a shard."""

    chosen: list[Chosen]
    num_images: int
    dropped: Mapping[str, int]
    """Number of caption rows left out by cause, and of images without a text."""


def choose(rows: Sequence[Mapping[str, Any]], slots: Sequence[str], config: ExportConfig) -> Choice:
    """Choose among a shard's caption rows, which are sorted by row, then by slot.

    Raises:
        PipelineError: the template names a metadata field that a row does not have.
    """
    chosen: list[Chosen] = []
    dropped: Counter[str] = Counter()
    num_images = 0
    for row, group in groupby(rows, key=itemgetter("row")):
        num_images += 1
        candidates = [caption for caption in group if caption["slot"] in slots]
        kept = {caption["slot"]: caption for caption in candidates if _kept(caption, config, dropped)}
        if not kept or (config.template and len(kept) < len(slots)):
            skipped = bool(candidates) and all(caption["status"] == Status.SKIPPED for caption in candidates)
            dropped["images skipped by the selection" if skipped else "images without a text"] += 1
            continue
        in_order = {slot: kept[slot] for slot in slots if slot in kept}
        text = _text(in_order, slots, config)
        image = candidates[0]
        chosen.append(Chosen(row=row, key=image["key"], captions=in_order, text=text, image=image))
    return Choice(chosen, num_images, dict(dropped))


def _kept(row: Mapping[str, Any], config: ExportConfig, dropped: Counter[str]) -> bool:
    words = row["words"] or 0
    flags = set(row["flags"]) & set(config.without_flags)
    cause = None
    if row["status"] not in config.statuses:
        cause = str(row["status"])
    elif config.modes and row["mode"] not in config.modes:
        cause = f"mode {row['mode']}"
    elif flags:
        cause = f"flag {min(flags)}"
    elif words < (config.min_words or 0) or (config.max_words is not None and words > config.max_words):
        cause = "words"
    if cause is not None:
        dropped[cause] += 1
    return cause is None


def _text(kept: Mapping[str, Mapping[str, Any]], slots: Sequence[str], config: ExportConfig) -> str | None:
    if config.template is None:
        return kept[slots[0]]["caption"] if len(slots) == 1 else None
    first = next(iter(kept.values()))
    if any(caption["caption"] is None for caption in kept.values()):
        return None
    fields: dict[str, Any] = json.loads(first["source"])

    def value(name: str) -> str:
        if name in kept:
            return str(kept[name]["caption"])
        if name == "key":
            return str(first["key"])
        field = fields.get(name.removeprefix(SOURCE))
        if field is None:
            raise PipelineError(
                f"shard {first['shard']} row {first['row']}: the template needs {name}, but its metadata has "
                f"{', '.join(sorted(fields)) or 'no field'}; keep the field with source.metadata_fields, or change "
                "the template"
            )
        return ", ".join(map(str, field)) if isinstance(field, list) else str(field)

    return PLACEHOLDER.sub(lambda match: value(match[1]), config.template)
