"""Counts captions that several images share, exactly or nearly: the only module that imports datasketch.

Nearly means that `NEAR` of the runs of three words that either text has are in both (Jaccard). Beyond `NEAR_TEXTS`
different texts only a sample is compared: the texts whose smallest hashed run is below a limit. Two texts of
similarity s have the same smallest run with probability s, so near duplicates stay together in the sample, and the
share is too low by at most 1 - s.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from datasketch import MinHash, MinHashLSH

from pipeline.report.key_sample import KeySample, hash64

NEAR = 0.8
PERMUTATIONS = 64
"""Standard error of an estimated similarity of 0.8: 0.05."""
EXACT_TEXTS = 300_000
"""Different texts counted at once; some 200 bytes each, 60 MB in all."""
NEAR_TEXTS = 10_000
"""Different texts compared; some 5 kB each with its signature and tables, 50 MB in all."""


@dataclass(slots=True)
class SharedText:
    """One text of a group."""

    group: int
    image: int
    """The last image that had it."""
    images: int = 1


@dataclass(slots=True)
class NearText(SharedText):
    """With the text itself."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class Shared:
    """Of one group: the number of captions, and of those that another image has too."""

    captions: int
    shared: int

    @property
    def share(self) -> float | None:
        return self.shared / self.captions if self.captions else None


class Duplicates:
    """Takes captions one by one, those of an image consecutively, and returns the figures at the end."""

    def __init__(self, exact_texts: int = EXACT_TEXTS, near_texts: int = NEAR_TEXTS) -> None:
        self._exact = KeySample[SharedText](exact_texts)
        self._near = KeySample[NearText](near_texts)

    @property
    def exact_rate(self) -> float:
        """Share of the different texts that the exact figures are computed from."""
        return self._exact.rate

    def add(self, group: int, image: int, text: str) -> None:
        """Count the caption of an image; `image` identifies the image."""
        plain = " ".join(text.lower().split())
        exact_key = hash64(f"{group}\x1f{plain}")
        known = self._exact.values(exact_key)
        if known:
            _count(known[0], image)
        else:
            self._exact.add(exact_key, SharedText(group, image))
        near_key = min(hash64(f"{group}\x1f{run}") for run in runs(plain))
        if not self._near.wants(near_key):
            return
        for known_text in self._near.values(near_key):
            if known_text.text == plain and known_text.group == group:
                _count(known_text, image)
                return
        self._near.add(near_key, NearText(group, image, text=plain))

    def exact(self) -> dict[int, Shared]:
        """Return the figures of each group."""
        return _shared((text, text.images > 1) for texts in self._exact.kept.values() for text in texts)

    def near(self) -> dict[int, Shared]:
        """Return the figures of each group; takes about a millisecond a text."""
        by_group: dict[int, list[NearText]] = {}
        for texts in self._near.kept.values():
            for text in texts:
                by_group.setdefault(text.group, []).append(text)
        return _shared(pair for texts in by_group.values() for pair in _near_pairs(texts))


def _count(text: SharedText, image: int) -> None:
    if text.image != image:
        text.image = image
        text.images += 1


def runs(plain: str) -> set[str]:
    """Return the runs of three words of a text; of a shorter one, the text."""
    words = plain.split()
    return {" ".join(words[at : at + 3]) for at in range(len(words) - 2)} or {plain}


def _near_pairs(texts: list[NearText]) -> Iterator[tuple[NearText, bool]]:
    """Yield each text with whether another image has the same or nearly the same text."""
    lsh = MinHashLSH(threshold=NEAR, num_perm=PERMUTATIONS)
    signatures: list[MinHash] = []
    for index, text in enumerate(texts):
        signature = MinHash(num_perm=PERMUTATIONS)
        signature.update_batch([run.encode("utf-8", "surrogateescape") for run in runs(text.text)])
        signatures.append(signature)
        lsh.insert(index, signature)
    for index, text in enumerate(texts):
        yield text, text.images > 1 or _has_near_duplicate(index, texts, signatures, lsh)


def _has_near_duplicate(index: int, texts: list[NearText], signatures: list[MinHash], lsh: MinHashLSH) -> bool:
    candidates = cast("list[int]", lsh.query(signatures[index]))
    return any(
        texts[other].image != texts[index].image and signatures[index].jaccard(signatures[other]) >= NEAR
        for other in candidates
        if other != index
    )


def _shared(pairs: Iterator[tuple[SharedText, bool]]) -> dict[int, Shared]:
    captions: Counter[int] = Counter()
    shared: Counter[int] = Counter()
    for text, is_shared in pairs:
        captions[text.group] += text.images
        shared[text.group] += text.images if is_shared else 0
    return {group: Shared(captions[group], shared[group]) for group in captions}
