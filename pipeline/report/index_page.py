"""The page of an index: formats, sizes, what cannot be read, and clusters of equal and similar images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import yaml

from pipeline.figures.index_plots import LogBin, log_histogram
from pipeline.ledger.layout import index_path
from pipeline.ledger.quarantine import Quarantined
from pipeline.report.html import link_of, number, render, trusted
from pipeline.report.index_copies import Copies, ShownCluster
from pipeline.report.index_stats import IndexStats
from pipeline.report.thumbnails import Thumbnail
from schemas.index import Hash
from schemas.shard import Shard

SHOWN_QUARANTINED = 20

TITLES: Mapping[str, tuple[str, str]] = {
    "long_side": ("Longer side", "px"),
    "short_side": ("Shorter side", "px"),
    "aspect_ratio": ("Aspect ratio", "width / height"),
    "bytes": ("Encoded size", "bytes"),
}
"""Name of a histogram to its caption and its unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSubject:
    """The index that a page is about."""

    url: str
    files: str
    """Address of the index relative to the page, such as `../`; ends in a slash."""
    fingerprint: str
    hashes: Sequence[Hash]
    shards: Mapping[str, Shard]
    """The plan."""
    num_indexed: int
    """Shards with rows."""
    quarantined: Sequence[Quarantined]
    config: Mapping[str, Any]
    """Of the first run."""
    versions: Mapping[str, str]


def index_page(
    subject: IndexSubject,
    stats: IndexStats,
    copies: Sequence[Copies],
    thumbnails: Mapping[tuple[str, int], Thumbnail],
) -> str:
    """Return the page."""
    reasons = stats.reasons.to_pylist()
    unreadable = sum(row["images"] for row in reasons)
    totals = [
        ("images", number(stats.images)),
        ("encoded", _size(stats.bytes)),
        ("cannot be read", number(unreadable)),
        ("shards indexed", f"{subject.num_indexed:,} of {len(subject.shards):,}"),
        ("in quarantine", number(len(subject.quarantined))),
        *((f"copies by {_name(kind)}", number(kind.followers.num_rows)) for kind in copies),
    ]
    return render(
        "index.html.jinja",
        {
            "title": subject.url,
            "fingerprint": subject.fingerprint,
            "hashes": ", ".join(sorted(subject.hashes)) or "none",
            "made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "totals": totals,
            "left": len(subject.shards) - subject.num_indexed - len(subject.quarantined),
            "formats": _bars(stats.formats.to_pylist(), "format", "header not read", stats.images),
            "reasons": _bars(reasons, "reason", "?", stats.images),
            "plots": _plots(stats),
            "copies": [{**kind.summary, "name": _name(kind), "part": _part(kind)} for kind in copies],
            "clusters": [
                {"name": _name(kind), "shown": [_cluster(cluster, subject, thumbnails) for cluster in kind.largest]}
                for kind in copies
                if kind.largest
            ],
            "quarantined": subject.quarantined[:SHOWN_QUARANTINED],
            "config": yaml.safe_dump(dict(subject.config), sort_keys=False, allow_unicode=True),
            "versions": sorted(subject.versions.items()),
        },
    )


def _name(kind: Copies) -> str:
    """The kind of clusters, as `source.duplicates.by` names it."""
    return kind.by.value if kind.by is Hash.SHA256 else f"{kind.by}:{kind.max_distance}"


def _part(kind: Copies) -> float | None:
    return kind.followers.num_rows / kind.images if kind.images else None


def _bars(rows: Sequence[Mapping[str, Any]], name: str, unnamed: str, total: int) -> list[dict[str, Any]]:
    """Lines of `parts.bars`: each with its share of all images, and the width of its bar in percent of the longest."""
    longest = max((row["images"] for row in rows), default=1)
    return [
        {
            "name": row[name] or unnamed,
            "more": _size(row["bytes"]) if "bytes" in row else "",
            "rows": row["images"],
            "part": row["images"] / total if total else None,
            "width": round(100 * row["images"] / longest, 2),
            "kind": "",
        }
        for row in rows
    ]


def _plots(stats: IndexStats) -> list[tuple[str, Any]]:
    bins: dict[str, list[LogBin]] = {}
    for row in stats.histograms.to_pylist():
        bins.setdefault(row["name"], []).append(LogBin(row["start"], row["end"], row["images"]))
    return [
        (title, trusted(log_histogram(name, unit, f"Images by {title.lower()}", bins[name])))
        for name, (title, unit) in TITLES.items()
        if name in bins
    ]


def _cluster(
    cluster: ShownCluster, subject: IndexSubject, thumbnails: Mapping[tuple[str, int], Thumbnail]
) -> dict[str, Any]:
    return {
        "size": cluster.size,
        "left": cluster.size - len(cluster.rows),
        "cards": [_card(place, row, subject, thumbnails) for place, row in enumerate(cluster.rows)],
    }


def _card(
    place: int, row: Mapping[str, Any], subject: IndexSubject, thumbnails: Mapping[tuple[str, int], Thumbnail]
) -> dict[str, Any]:
    thumbnail = thumbnails.get((row["shard"], row["row"]), Thumbnail(None, "not read"))
    return {
        "row": row,
        "role": "leader" if not place else f"distance {row['distance']}" if row["distance"] else "equal",
        "uri": thumbnail.uri,
        "missing": thumbnail.missing,
        "size": _size(row["bytes"] or 0),
        "link": link_of(subject.shards[row["shard"]].url),
        "file": subject.files + quote(index_path(row["shard"])),
    }


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"
