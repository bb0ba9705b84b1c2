"""Rows made to break a text become texts that follow the grammar, in every preset."""

import random
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from pipeline.config import Preset, RecordTagsConfig, RenderConfig
from pipeline.corpus.records.clean_captions import clean_long, clean_short
from pipeline.corpus.records.tags import TagCleaner, TagDrop, TagType, clean_terms
from pipeline.corpus.tables.column_mapping import facts_of
from pipeline.corpus.text.render_texts import render_table
from pipeline.corpus.text.text_grammar import check_row, profile_of
from schemas.image_facts import IMAGE_FACTS
from schemas.record import RECORD

# fmt: off
PIECES = (
    "<|", "|>", "<s>", "</s>", "<|long|>", "<", "s", ">", "`", "**", "__", "*", "#", "- ", "1. ", "target: ", "tag: ",
    "long:", ": ", ", ", ",", "\n", "\r\n", "\n\n", "\t", "\x00", "\u200b", "\u2028", "\x85", "\ufeff", "\u3000", "_",
    "\\(", "\\,", "\\\\", " ", " ", " ", ". ", ". ", "! ", "... ", "。", "। ", "Cat", "a dog sits", "1girl",
    "long_hair", "İ", "ẞ", "iPhone", "It is red", "<unk>", "[/INST]", "nan", "2019", "^_^", "{'hat': 0.9}", "['hat'",
    "😀", "\ud800",
)
# fmt: on


def text(rng: random.Random, longest: int) -> str:
    return "".join(rng.choices(PIECES, k=rng.randrange(longest)))


def row(rng: random.Random) -> dict[str, Any]:
    def tags() -> Any:
        listed = [text(rng, 4) for _ in range(rng.randrange(60))]
        return rng.choice((listed, ", ".join(listed), " ".join(listed), str(listed), dict.fromkeys(listed, 0.5), None))

    size = (0, 1, -3, 40_000, 2**31, float("nan"), float("inf"), "wide")
    return {
        "general": tags(), "character": tags(), "artist": tags(), "meta": tags(), "copyright": tags(), "tags": tags(),
        "quality": tags(), "short": text(rng, 30), "long": text(rng, 60), "width": rng.choice(size),
        "height": rng.choice(size), "rating": text(rng, 2),
    }  # fmt: skip


def hostile_records(num: int, seed: int) -> pa.Table:
    """Return clean records of `num` rows; rows without a text stay out."""
    rng, cleaner = random.Random(seed), TagCleaner(RecordTagsConfig())
    rows = [facts_of(row(rng), {}, Counter()) for _ in range(num)]
    records = []
    for number, facts in enumerate(pa.Table.from_pylist(rows, schema=IMAGE_FACTS).to_pylist()):
        typed = [(kind, tag) for kind in TagType for tag in facts[kind.value] or ()]
        tags = cleaner([*typed, *((TagType.GENERAL, tag) for tag in facts["tags"] or ())])
        names = ("general", "special", "character", "copyright", "artist", "meta")
        records.append({
            "id": str(number), "source": "s", "key": "k", "image": "i", **{name: getattr(tags, name) for name in names},
            "rating": [], "quality": clean_terms(facts["quality"] or (), Counter[TagDrop]()),
            **{name: facts[name] if facts[name] and facts[name] > 0 else None for name in ("width", "height")},
            "short": clean_short(facts["short"]).text, "long": clean_long(facts["long"]).text,
        })  # fmt: skip
    return pa.Table.from_pylist(records, schema=RECORD)


@pytest.mark.parametrize("preset", list(Preset))
def test_hostile_rows_become_texts_without_faults(preset):
    config = RenderConfig(preset=preset)
    records = hostile_records(400, 5)
    rendered = render_table(records, config, epoch=0, seed=1, splits=["train"] * records.num_rows)
    assert rendered.rows.num_rows > 300
    profile = profile_of(config)
    assert [str(fault) for row in rendered.rows.to_pylist() if (fault := check_row(row, profile))] == []
