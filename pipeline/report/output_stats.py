"""Counts everything that the report page shows, in the same pass as the quality tables.

Counts are exact, except those of rare tags beyond `TAGS` different ones. Memory is bounded: the tags, the gallery, one
committed file and a batch of its rows.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.quality import tags_of
from pipeline.report.committed import CommittedFile, committed_files
from pipeline.report.gallery import Gallery
from pipeline.report.key_sample import KeySample, hash64
from pipeline.report.quality_stats import COLUMNS, Measuring, QualityReport
from pipeline.storage import Store
from schemas.status import Status

TAGS = 200_000
"""Different tags counted, some 30 MB; beyond twice as many the rarest are dropped and counted from there."""
IMAGE_HASHES = 300_000
"""Different images compared to find copies, some 50 MB."""

MORE_COLUMNS = ["image_sha256", "prompt_tokens", "caption_tokens", "message"]


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed file."""

    time_s: float
    """Seconds since the epoch."""
    rows: int


@dataclass(slots=True)
class OutputStats:
    """All figures except the quality tables."""

    images: int = 0
    rows: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    """By slot, mode and status."""
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """By status and reason, of the rows that are not ok; of skipped rows by the condition that skipped them."""
    prompt_tokens: int = 0
    caption_tokens: int = 0
    """Of the last attempts."""
    commits: list[Commit] = field(default_factory=list[Commit])
    tags: Counter[str] = field(default_factory=Counter[str])
    tagged: int = 0
    """Captions of tag modes."""
    copies: KeySample[tuple[str, int]] = field(default_factory=lambda: KeySample[tuple[str, int]](IMAGE_HASHES))
    gallery: Gallery = field(default_factory=Gallery)

    @property
    def statuses(self) -> Counter[str]:
        statuses: Counter[str] = Counter()
        for (_, _, status), rows in self.rows.items():
            statuses[status] += rows
        return statuses

    @property
    def copied_images(self) -> float | None:
        """Share of the images whose bytes another image has too."""
        total = sum(map(len, self.copies.kept.values()))
        copied = sum(len(images) for images in self.copies.kept.values() if len(images) > 1)
        return copied / total if total else None


def output_stats(store: Store) -> tuple[OutputStats, QualityReport]:
    """Read all committed files of an output once."""
    stats, measuring = OutputStats(), Measuring()
    for committed in committed_files(store):
        _take_file(stats, measuring, committed)
    stats.gallery.end()
    return stats, measuring.report()


def _take_file(stats: OutputStats, measuring: Measuring, committed: CommittedFile) -> None:
    stats.gallery.begin(committed.shard)
    last, num_rows = -1, 0
    for batch in committed.batches():
        num_rows += batch.num_rows
        rows = batch.select([*COLUMNS, *MORE_COLUMNS]).to_pylist()
        for row in rows:
            measuring.take(row)
            _take_row(stats, row)
            if row["row"] != last:
                last = row["row"]
                _take_image(stats, row)
        stats.gallery.take(batch, rows)
    stats.commits.append(Commit(committed.modified_s, num_rows))


def _take_row(stats: OutputStats, row: Mapping[str, Any]) -> None:
    stats.rows[row["slot"], row["mode"], row["status"]] += 1
    stats.prompt_tokens += row["prompt_tokens"] or 0
    stats.caption_tokens += row["caption_tokens"] or 0
    if row["status"] != Status.OK:
        reason = row["message"] if row["status"] == Status.SKIPPED else row["reason"]
        stats.reasons[row["status"], reason or "?"] += 1
        return
    tags = tags_of(row["mode"], row["caption"])
    if tags:
        stats.tagged += 1
        stats.tags.update(tags)
        if len(stats.tags) > 2 * TAGS:
            stats.tags = Counter(dict(stats.tags.most_common(TAGS)))


def _take_image(stats: OutputStats, row: Mapping[str, Any]) -> None:
    stats.images += 1
    if row["image_sha256"] is not None:
        stats.copies.add(hash64(row["image_sha256"]), (row["shard"], row["row"]))
