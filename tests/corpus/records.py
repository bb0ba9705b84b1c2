"""Records like those of each kind of source, drawn from a seed: danbooru, coyo, GBC, and unusual ones.

`draw_records(n, seed)` is what tests and benchmarks of the corpus use; the id alone says what kind a record is.
"""

import random
from functools import cache
from pathlib import Path

import pyarrow as pa

from pipeline.corpus.records.tags import PERSON_TAGS
from schemas.record import RECORD

QUALITY = Path(__file__).parent.parent / "quality"
TAGS = [line.replace("_", " ") if len(line) > 3 else line for line in (QUALITY / "tags.txt").read_text().splitlines()]
PERSONS = ("1girl", "2girls", "1boy", "multiple girls", "1other", "male focus")
GENERAL = [tag for tag in dict.fromkeys(TAGS) if tag and tag not in PERSON_TAGS]
SENTENCES = [
    sentence.strip().replace(":", " -")
    for paragraph in (QUALITY / "prose.txt").read_text().splitlines()
    for sentence in paragraph.split(". ")
    if 3 < len(sentence.split()) < 40
]
RATINGS = (["safe"], ["sensitive"], ["nsfw"], ["explicit", "nsfw"])
QUALITIES = (["masterpiece", "newest"], ["best quality", "recent"], ["normal quality", "mid"], ["worst quality", "old"])

KINDS = ("danbooru", "coyo", "gbc", "tags", "short", "long", "captions")
"""Fields of records: `danbooru` all; `coyo` tags and captions, no metadata; `gbc` and `captions` only captions;
`tags`, `short` and `long` tags with no caption, a short one or a long one."""


def prose(rng: random.Random, num_paragraphs: int, num_sentences: int) -> str:
    """Return paragraphs of one line each."""
    return "\n".join(
        " ".join(text if text[-1] in "!?." else f"{text}." for text in rng.sample(SENTENCES, num_sentences))
        for _ in range(num_paragraphs)
    )


def draw_record(rng: random.Random, kind: str, number: int) -> dict:
    """Return one record of a kind, with all fields of `RECORD`."""
    tagged = kind not in ("gbc", "captions")
    metadata = kind not in ("gbc", "captions", "coyo")
    short = kind in ("danbooru", "coyo", "gbc", "short", "captions")
    long = kind in ("danbooru", "coyo", "gbc", "long", "captions")
    known = metadata and rng.random() < 0.95
    return {
        "id": f"{kind}:{number}",
        "source": kind,
        "key": f"{number:09d}",
        "image": f"{number:064x}",
        "url": None,
        "general": rng.sample(GENERAL, min(len(GENERAL), int(rng.triangular(1, 90, 25)))) if tagged else [],
        "special": rng.sample(PERSONS, rng.choice((0, 1, 1, 1, 2))) if tagged and kind != "coyo" else [],
        "character": ["hatsune miku"] if metadata and rng.random() < 0.5 else [],
        "copyright": ["vocaloid"] if metadata and rng.random() < 0.6 else [],
        "artist": [f"artist {number % 97}"] if metadata and rng.random() < 0.8 else [],
        "meta": rng.sample(("highres", "absurdres", "official art"), rng.randrange(3)) if metadata else [],
        "rating": list(rng.choice(RATINGS)) if metadata else [],
        "quality": list(rng.choice(QUALITIES)) if known else [],
        "width": rng.randrange(256, 4096) if known else None,
        "height": rng.randrange(256, 4096) if known else None,
        "short": prose(rng, 1, 1) if short else None,
        "long": prose(rng, rng.choice((1, 1, 2, 4)), rng.randrange(2, 9)) if long else None,
        "title": None,
        "score": rng.randrange(-5, 300),
        "favorites": rng.randrange(0, 500),
        "year": rng.randrange(2005, 2026),
    }


@cache
def draw_records(num: int, seed: int = 0, kinds: tuple[str, ...] = KINDS) -> pa.Table:
    """Return `num` records, the kinds in turn."""
    rng = random.Random(seed)
    return pa.Table.from_pylist([draw_record(rng, kinds[i % len(kinds)], i) for i in range(num)], schema=RECORD)
