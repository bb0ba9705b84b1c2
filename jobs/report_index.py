"""What `joyfleet report` does with an index: tables as Parquet, and a page."""

import click

from jobs.output import Output
from pipeline.errors import ConfigError
from pipeline.ledger.index_files import Index
from pipeline.ledger.quarantine import list_quarantine
from schemas.index import Hash

NEAR_BITS = 4
MEMORY_GIB = 4.0


def report_index(opened: Output, files: str, near_bits: int | None, memory_gib: float | None) -> str:
    """Write the tables of an index and print their paths; return its page.

    Args:
        opened: the index.
        files: address of the index relative to the page.
        near_bits: in which perceptual hashes of similar images may differ; None: `NEAR_BITS`.
        memory_gib: of DuckDB; None: `MEMORY_GIB`.

    Raises:
        ConfigError: DuckDB or matplotlib is not installed, or the index has no perceptual hash for `near_bits`.
    """
    try:
        from pipeline.report.index_copies import copies_table, find_copies  # noqa: PLC0415 - as in `report`
        from pipeline.report.index_page import IndexSubject, index_page  # noqa: PLC0415
        from pipeline.report.index_stats import index_stats, write_tables  # noqa: PLC0415
        from pipeline.report.thumbnails import ImageSource, read_thumbnails  # noqa: PLC0415
    except ImportError as err:
        raise ConfigError(f"report: needs the package {err.name}; run: pip install 'joyfleet[index]'") from err
    plan = opened.readable_plan()
    index = Index(store=opened.store, fingerprint=opened.run.recipe, fields=opened.fields, plan=plan)
    if near_bits is not None and Hash.PHASH not in index.hashes:
        raise ConfigError(
            f"report: --near {near_bits}: the index {opened.store.url} has no perceptual hashes; make one with "
            "`joyfleet index SOURCE OUTPUT --hash sha256,phash`"
        )
    indexed, memory = index.indexed(), memory_gib or MEMORY_GIB
    stats = index_stats(index, memory)
    copies = find_copies(index, NEAR_BITS if near_bits is None else near_bits, memory)
    shown = [row for kind in copies for cluster in kind.largest for row in cluster.rows]
    origin = ImageSource(plan.shards, opened.source, opened.images)
    thumbnails = read_thumbnails(origin, [{**row, "image_sha256": row["sha256"]} for row in shown])
    subject = IndexSubject(
        url=opened.store.url,
        files=files,
        fingerprint=opened.run.recipe,
        hashes=sorted(index.hashes),
        shards=plan.shards,
        num_indexed=len(indexed),
        quarantined=[record for record in list_quarantine(opened.store) if record.shard not in indexed],
        config=opened.job,
        versions=opened.run.versions,
    )
    tables = {
        "formats": stats.formats,
        "reasons": stats.reasons,
        "histograms": stats.histograms,
        "copies": copies_table(copies),
        **{f"followers_{kind.by}": kind.followers for kind in copies},
    }
    for path in write_tables(opened.store, tables):
        click.echo(f"{opened.store.url}/{path}")
    return index_page(subject, stats, copies, thumbnails)
