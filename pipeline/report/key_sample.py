"""Samples with bounded size that do not depend on the order of their input."""

import bisect
import hashlib
from operator import itemgetter
from typing import Generic, TypeVar

K = TypeVar("K", int, tuple[float, int, int])
V = TypeVar("V")

SPAN = 2**64


def hash64(text: str) -> int:
    """Return a uniform integer in [0, SPAN), the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


class KeySample(Generic[V]):
    """Keeps all values of the keys that it keeps: all keys, until there are too many, then half, a quarter, ...

    Equal keys are kept or dropped together, so repetition in the sample is that of the whole.
    """

    def __init__(self, capacity: int) -> None:
        self.kept: dict[int, list[V]] = {}
        self._capacity = capacity
        self._limit = SPAN
        self._size = 0

    @property
    def rate(self) -> float:
        """Share of all keys that is kept, in (0, 1]."""
        return self._limit / SPAN

    def wants(self, key: int) -> bool:
        """Return whether a uniform key in [0, SPAN) is kept."""
        return key < self._limit

    def values(self, key: int) -> list[V]:
        """Return the values of a key; the list may be changed in place."""
        return self.kept.get(key, [])

    def add(self, key: int, value: V) -> None:
        """Keep a value if its key is kept."""
        if not self.wants(key):
            return
        self.kept.setdefault(key, []).append(value)
        self._size += 1
        while self._size > self._capacity:
            self._limit //= 2
            self.kept = {key: values for key, values in self.kept.items() if key < self._limit}
            self._size = sum(map(len, self.kept.values()))


class Smallest(Generic[K, V]):
    """The `size` values with the smallest keys, which are unique."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.items: list[tuple[K, V]] = []
        """Ascending by key."""

    def wants(self, key: K) -> bool:
        return len(self.items) < self._size or key < self.items[-1][0]

    def add(self, key: K, value: V) -> None:
        if self.wants(key):
            bisect.insort(self.items, (key, value), key=itemgetter(0))
            del self.items[self._size :]
