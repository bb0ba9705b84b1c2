"""Uniform random numbers that depend only on (corpus seed, epoch, record id), not on batch, worker or Python version.

If a record has several texts in an epoch, the number of the text is part of the seed of each but the first.

`random.Random(seed)` costs 4.5 us a record before its first number, and Python does not promise that `shuffle` with a
seed is the same in every version. One SHAKE-128 gives all numbers of a draw in 2.5 us. Each decision has its own
position in the stream, so a changed probability changes that decision and no other.
"""

import hashlib
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import TypeVar

_SCALE = 2.0**-32
ORDER = "ascending BLAKE2b (8 bytes, as a signed integer) of `<seed>,<seed of the draw>,<user><output>`, then by id"
"""What `place` gives, for manifest and card. Another order is another version of `corpus_job.RULES`."""
T = TypeVar("T")


class Place(IntEnum):
    """Positions of the single numbers in the stream of a draw; after them comes one number for each tag."""

    TASK = 0
    DROP_ALL = 1
    DROP_SOME = 2
    GEN_META = 3
    TAGS_GIVEN = 4
    LINES_GIVEN = 5
    LOSS = 6
    KEEP_LINES = 8
    """One for each of up to 8 lines."""
    LINE_ORDER = 16
    """One for each of up to 8 lines."""
    TAG_ORDER = 24


def draw_seed(seed: int, epoch: int, record_id: str, number: int = 0) -> int:
    """Return the seed of one draw, in [0, 2**63); `number` counts the texts of a record within an epoch."""
    repeat = f"\x1f{number}" if number else ""
    text = f"{seed}\x1f{epoch}\x1f{record_id}{repeat}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def stream(seed: int, purpose: bytes, num: int) -> tuple[int, ...]:
    """Return `num` integers in [0, 2**32)."""
    return struct.unpack(f"<{num}I", hashlib.shake_128(purpose + seed.to_bytes(8, "big")).digest(4 * num))


def num_texts(weight: float, first_seed: int) -> int:
    """Return how many texts a record has in an epoch: the whole part of the weight, and one more by chance.

    Args:
        weight: texts for each record on average.
        first_seed: `draw_seed` of the first text.
    """
    whole = int(weight)
    if weight == whole:
        return whole
    return whole + (uniform(stream(first_seed, b"weight", 1)[0]) < weight - whole)


def place(seed: int, draw: int, text: str) -> int:
    """Return where a text stands in the shuffled order, as a 64-bit hash; `draw` is the seed of its draw."""
    data = f"{seed},{draw},{text}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


def uniform(word: int) -> float:
    """Return a number in (0, 1)."""
    return (word + 0.5) * _SCALE


def shuffled(items: Sequence[T], words: Sequence[int]) -> list[T]:
    """Return the items in the order of their random words, one for each item."""
    # Items with equal words (probability 2**-32 a pair) keep their order.
    return [items[index] for _, index in sorted(zip(words, range(len(items)), strict=True))]


def first_and_some(items: Sequence[T], num: int, words: Sequence[int]) -> list[T]:
    """Return the first item and `num - 1` random others in their order; all items if there are no more than `num`."""
    if len(items) <= num:
        return list(items)
    chosen = sorted(shuffled(range(1, len(items)), words[1 : len(items)])[: num - 1])
    return [items[0], *(items[index] for index in chosen)]
