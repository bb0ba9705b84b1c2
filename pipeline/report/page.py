"""The report page: the statistics of an output as text, tables and figures."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import yaml

from pipeline.figures.report_plots import WordCounts, length_plot, throughput_plot, words_plot
from pipeline.ledger.layout import committed_path
from pipeline.ledger.quarantine import Quarantined
from pipeline.report.gallery import Shown
from pipeline.report.html import choices, link_of, number, render, trusted
from pipeline.report.output_stats import OutputStats
from pipeline.report.quality_stats import QualityReport, length_of
from pipeline.report.thumbnails import Thumbnail
from schemas.quality_report import COUNTED
from schemas.shard import Shard
from schemas.status import Status

SHOWN_TAGS = 30
SHOWN_OPENINGS = 15
SHOWN_QUARANTINED = 20
SHOWN_MODES = 12
"""Figures of each sort: of the modes with the most rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The output that a page is about."""

    url: str
    files: str
    """Address of the output relative to the page, such as `../`; ends in a slash."""
    recipe: str
    slots: Sequence[str]
    shards: Mapping[str, Shard]
    """The plan."""
    quarantined: Sequence[Quarantined]
    job: Mapping[str, Any]
    """The resolved config."""
    versions: Mapping[str, str]


def report_page(
    subject: Subject, stats: OutputStats, quality: QualityReport, thumbnails: Mapping[tuple[str, int], Thumbnail]
) -> str:
    """Return the page."""
    groups: list[dict[str, Any]] = quality.groups.to_pylist()
    tolerance: float = subject.job["quality"]["length_tolerance"]
    cards = [_card(index, shown, subject, thumbnails) for index, shown in enumerate(stats.gallery.rows())]
    return render(
        "report.html.jinja",
        {
            "title": subject.url,
            "model": subject.job["model"]["id"],
            "recipe": subject.recipe,
            "slots": subject.slots,
            "made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "left": len(subject.shards) - len(stats.commits) - len(subject.quarantined),
            "quarantined": subject.quarantined[:SHOWN_QUARANTINED],
            "config": yaml.safe_dump(dict(subject.job), sort_keys=False, allow_unicode=True),
            "versions": sorted(subject.versions.items()),
            "groups": groups,
            "tolerance": f"{tolerance:.0%}",
            "exact_rate": min((group["exact_rate"] for group in groups), default=1),
            "copied": stats.copied_images,
            "copied_rate": stats.copies.rate,
            "lengths": _length_plots(groups, tolerance),
            "words": _word_plots(quality),
            "cards": cards,
            "choices": choices((card["labels"] for card in cards), ("why", "Shown as")),
            "counted": list(COUNTED),
            "pictures": sum(card["uri"] is not None for card in cards),
            **_counts(subject, stats),
            **_bars(stats, quality),
            **_throughput(stats),
        },
    )


def _counts(subject: Subject, stats: OutputStats) -> dict[str, Any]:
    statuses = stats.statuses
    rows = statuses.total()
    totals = [
        ("images", number(stats.images)),
        ("caption rows", number(rows)),
        ("ok", number(statuses[Status.OK])),
        ("shards committed", f"{len(stats.commits):,} of {len(subject.shards):,}"),
        ("in quarantine", number(len(subject.quarantined))),
        ("tokens written", number(stats.caption_tokens)),
        ("tokens read", number(stats.prompt_tokens)),
    ]
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for (slot, mode, status), count in stats.rows.items():
        empty = {"slot": slot, "mode": mode, "rows": 0, **{status.value: 0 for status in Status}}
        line = lines.setdefault((slot, mode), empty)
        line["rows"] += count
        line[status] += count
    table = [{**line, "part": _ok_share(line)} for _, line in sorted(lines.items())]
    parts = [(status.value, statuses[status], statuses[status] / rows if rows else None) for status in Status]
    return {"totals": totals, "rows": rows, "statuses": parts, "slots_table": table}


def _ok_share(line: Mapping[str, Any]) -> float | None:
    """The share of the rows that were asked; None without any."""
    asked = line["rows"] - line[Status.SKIPPED]
    return line[Status.OK] / asked if asked else None


def _bars(stats: OutputStats, quality: QualityReport) -> dict[str, Any]:
    counts: dict[str, Counter[str]] = {"earlier": Counter(), "flag": Counter()}
    for row in quality.reasons.to_pylist():
        if row["kind"] in counts:
            counts[row["kind"]][row["name"]] += row["rows"]
    openings: Counter[str] = Counter()
    for row in quality.openings.to_pylist():
        openings[row["opening"]] += row["rows"]
    rows, statuses = stats.statuses.total(), stats.statuses
    reasons = [
        {"name": reason, "more": status, "rows": count, "kind": status}
        for (status, reason), count in stats.reasons.most_common()
    ]
    return {
        "reasons": _scaled(reasons, rows),
        "earlier": _scaled(_lines(counts["earlier"]), rows),
        "flags": _scaled(_lines(counts["flag"]), statuses[Status.OK]),
        "openings": _scaled(_lines(openings, SHOWN_OPENINGS), statuses[Status.OK]),
        "tags": _scaled(_lines(stats.tags, SHOWN_TAGS), stats.tagged),
        "tagged": stats.tagged,
    }


def _lines(counts: Counter[str], most: int | None = None) -> list[dict[str, Any]]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [{"name": name, "more": "", "rows": rows, "kind": ""} for name, rows in ordered]


def _scaled(lines: Sequence[dict[str, Any]], total: int) -> list[dict[str, Any]]:
    """Each line with its share of `total` and the width of its bar, in percent of the longest."""
    longest = max((line["rows"] for line in lines), default=1)
    return [
        {**line, "part": line["rows"] / total if total else None, "width": round(100 * line["rows"] / longest, 2)}
        for line in lines
    ]


def _throughput(stats: OutputStats) -> dict[str, Any]:
    times = [commit.time_s for commit in stats.commits]
    if len(times) < 2:  # one commit is no span of time
        return {"throughput": None, "span": ""}
    seconds = max(times) - min(times)
    first = datetime.fromtimestamp(min(times), UTC)
    rate = f", {stats.statuses.total() / seconds:,.1f} a second on average" if seconds >= 1 else ""
    span = f"{number(len(times))} commits in {_clock(seconds)} from {first:%Y-%m-%d %H:%M}{rate}."
    return {"throughput": trusted(throughput_plot(times, [commit.rows for commit in stats.commits])), "span": span}


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def _length_plots(groups: Iterable[Mapping[str, Any]], tolerance: float) -> list[tuple[str, Any]]:
    by_mode: dict[str, list[WordCounts]] = {}
    for group in groups:
        requested, _, unit = group["length"].partition(" ")
        if unit == "words" and group["words_p50"] is not None:
            lengths = WordCounts(int(requested), group["words_p10"], group["words_p50"], group["words_p90"])
            by_mode.setdefault(group["mode"], []).append(lengths)
    modes = sorted(by_mode)[:SHOWN_MODES]
    return [(mode, trusted(length_plot(mode, sorted(by_mode[mode]), tolerance))) for mode in modes]


def _word_plots(quality: QualityReport) -> list[tuple[str, Any]]:
    by_mode: dict[str, Counter[int]] = {}
    for row in quality.words.to_pylist():
        by_mode.setdefault(row["mode"], Counter())[row["words"]] += row["rows"]
    largest = sorted(by_mode, key=lambda mode: -by_mode[mode].total())[:SHOWN_MODES]
    return [(mode, trusted(words_plot(mode, by_mode[mode]))) for mode in largest]


def _card(
    index: int, shown: Shown, subject: Subject, thumbnails: Mapping[tuple[str, int], Thumbnail]
) -> dict[str, Any]:
    row = shown.row
    missing = "not read" if row["status"] == Status.SKIPPED else "no image: it could not be decoded"
    thumbnail = thumbnails.get((row["shard"], row["row"]), Thumbnail(None, missing))
    shard = subject.shards.get(row["shard"])
    why = [name for name, yes in (("worst", shown.worst), ("drawn", shown.drawn)) if yes]
    labels = {"mode": [row["mode"]], "status": [row["status"]], "reason": [row["reason"] or ""], "why": why}
    return {
        "id": f"r{index}",
        "row": {**row, "length": length_of(row)},
        "labels": labels,
        "data": json.dumps([labels]),
        "uri": thumbnail.uri,
        "missing": thumbnail.missing,
        "link": link_of(shard.url) if shard else None,
        "file": subject.files + quote(committed_path(row["shard"])),
    }
