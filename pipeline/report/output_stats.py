"""What the report page tells of an output, in the one pass that the quality tables take.

Counts are exact. Bounded are the tags (`TAGS` different ones are counted), the gallery and the memory: one
committed file and a batch of its rows.
"""

from __future__ import annotations

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
"""Different images looked at for copies, some 50 MB."""

MORE_COLUMNS = ["image_sha256", "prompt_tokens", "caption_tokens"]


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed file."""

    time_s: float
    """Seconds since the epoch."""
    rows: int


@dataclass(slots=True)
class OutputStats:
    """All but the quality tables."""

    images: int = 0
    rows: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    """By slot, mode and status."""
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """By status and reason, of the rows that are not ok."""
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
        found: Counter[str] = Counter()
        for (_, _, status), rows in self.rows.items():
            found[status] += rows
        return found

    @property
    def copied_images(self) -> float | None:
        """Share of the images whose bytes another image has too."""
        total = sum(map(len, self.copies.kept.values()))
        copied = sum(len(images) for images in self.copies.kept.values() if len(images) > 1)
        return copied / total if total else None


def output_stats(store: Store) -> tuple[OutputStats, QualityReport]:
    """Read all committed files of an output once."""
    survey, measuring = OutputStats(), Measuring()
    for committed in committed_files(store):
        _take_file(survey, measuring, committed)
    survey.gallery.end()
    return survey, measuring.report()


def _take_file(survey: OutputStats, measuring: Measuring, committed: CommittedFile) -> None:
    survey.gallery.begin(committed.shard)
    last, num_rows = -1, 0
    for batch in committed.batches():
        num_rows += batch.num_rows
        rows = batch.select([*COLUMNS, *MORE_COLUMNS]).to_pylist()
        for row in rows:
            measuring.take(row)
            _take_row(survey, row)
            if row["row"] != last:
                last = row["row"]
                _take_image(survey, row)
        survey.gallery.take(batch, rows)
    survey.commits.append(Commit(committed.modified_s, num_rows))


def _take_row(survey: OutputStats, row: Mapping[str, Any]) -> None:
    survey.rows[row["slot"], row["mode"], row["status"]] += 1
    survey.prompt_tokens += row["prompt_tokens"] or 0
    survey.caption_tokens += row["caption_tokens"] or 0
    if row["status"] != Status.OK:
        survey.reasons[row["status"], row["reason"] or "?"] += 1
        return
    tags = tags_of(row["mode"], row["caption"])
    if tags:
        survey.tagged += 1
        survey.tags.update(tags)
        if len(survey.tags) > 2 * TAGS:
            survey.tags = Counter(dict(survey.tags.most_common(TAGS)))


def _take_image(survey: OutputStats, row: Mapping[str, Any]) -> None:
    survey.images += 1
    if row["image_sha256"] is not None:
        survey.copies.add(hash64(row["image_sha256"]), (row["shard"], row["row"]))
