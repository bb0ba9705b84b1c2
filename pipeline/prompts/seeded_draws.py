"""Pseudo-random draws that are pure functions of their parts: of the job's seed, a shard, a row, a slot."""

import hashlib

_SCALE = 2**53


def draw(*parts: str | int) -> int:
    """Return a uniform integer in [0, 2**64) from the parts; the first part is the purpose of the draw."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


def uniform(*parts: str | int) -> float:
    """Return a float in (0, 1): the middle of one of 2**53 equal bins, so that neither end is drawn."""
    return ((draw(*parts) >> 11) + 0.5) / _SCALE


def draw_seed(seed: int, shard: str, row: int, slot: str, attempt: int) -> int:
    """Return the sampling seed of an attempt, in [0, 2**63)."""
    return draw("sampling", seed, shard, row, slot, attempt) >> 1
