"""Which captions of a shard leave, and as which text: a pure function of its caption rows."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from pipeline.config.export_config import PLACEHOLDER, SOURCE, ExportConfig
from pipeline.errors import PipelineError


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An image with the captions that were kept, at least one."""

    row: int
    key: str
    captions: Mapping[str, Mapping[str, Any]]
    """Caption rows by slot."""
    text: str | None
    """By the template, else the caption when one slot is asked for."""
    image: Mapping[str, Any]
    """Any caption row of the image, for what is the same in all."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a shard leaves."""

    chosen: list[Chosen]
    num_images: int
    dropped: Mapping[str, int]
    """Caption rows left out by cause, and images for which a text was missing."""


def choose(rows: Sequence[Mapping[str, Any]], slots: Sequence[str], config: ExportConfig) -> Choice:
    """Choose among a shard's caption rows, which stand by row, then by slot.

    Raises:
        PipelineError: the template names a carried field that a row has not.
    """
    chosen: list[Chosen] = []
    dropped: Counter[str] = Counter()
    num_images = 0
    for row, group in groupby(rows, key=itemgetter("row")):
        num_images += 1
        mine = [one for one in group if one["slot"] in slots]
        kept = {one["slot"]: one for one in mine if _kept(one, config, dropped)}
        if not kept or (config.template and len(kept) < len(slots)):
            dropped["images without a text"] += 1
            continue
        in_order = {slot: kept[slot] for slot in slots if slot in kept}
        text = _text(in_order, slots, config)
        chosen.append(Chosen(row=row, key=mine[0]["key"], captions=in_order, text=text, image=mine[0]))
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
    if any(one["caption"] is None for one in kept.values()):
        return None
    fields: dict[str, Any] = json.loads(first["source"])

    def value(name: str) -> str:
        if name in kept:
            return str(kept[name]["caption"])
        if name == "key":
            return str(first["key"])
        found = fields.get(name.removeprefix(SOURCE))
        if found is None:
            raise PipelineError(
                f"shard {first['shard']} row {first['row']}: the template asks for {name}, and its source has "
                f"{', '.join(sorted(fields)) or 'no field'}; keep the field with source.metadata_fields, or change "
                "the template"
            )
        return ", ".join(map(str, found)) if isinstance(found, list) else str(found)

    return PLACEHOLDER.sub(lambda match: value(match[1]), config.template)
