"""`joyfleet report OUTPUT`: one self-contained HTML page about its committed captions, or about an index."""

from collections.abc import Sequence
from pathlib import Path

import click

from jobs.output import Output, open_index_output, open_output, source_option
from jobs.report_index import MEMORY_GIB, NEAR_BITS, report_index
from pipeline.config import ImagesConfig
from pipeline.config.source_config import MAX_DISTANCE
from pipeline.errors import ConfigError
from pipeline.ledger.quarantine import list_quarantine

PAGE = "report/index.html"


@click.command()
@click.argument("output")
@click.option("--page", type=click.Path(dir_okay=False), help=f"A local file to write instead of OUTPUT/{PAGE}.")
@click.option(
    "--near",
    "near_bits",
    type=click.IntRange(0, MAX_DISTANCE),
    help=f"Of an index: bits in which perceptual hashes of similar images may differ; by default {NEAR_BITS}.",
)
@click.option(
    "--memory-gib",
    type=click.FloatRange(min=0, min_open=True),
    help=f"Of an index: memory of DuckDB, which spills to disk beyond it; by default {MEMORY_GIB:g}.",
)
@source_option
def report(
    output: str, page: str | None, near_bits: int | None, memory_gib: float | None, sources: Sequence[str]
) -> None:
    """Write one self-contained HTML page about OUTPUT's committed captions: OUTPUT/report/index.html.

    Of an index it shows formats, sizes and clusters of equal and similar images, which OUTPUT/report/index/*.parquet
    hold too.
    """
    index = open_index_output(output, sources)
    opened = index or open_output(output, sources)
    files = "../" if page is None else f"{opened.store.url}/"
    if index is None:
        _refuse_index_options(near_bits, memory_gib)
        text = _page(opened, files).encode()
    else:
        text = report_index(index, files, near_bits, memory_gib).encode()
    if page is None:
        opened.store.put(PAGE, text)
        click.echo(f"{opened.store.url}/{PAGE}")
        return
    try:
        Path(page).write_bytes(text)
    except OSError as err:
        raise ConfigError(
            f"--page {page}: cannot be written ({err.strerror}); give a file in a folder that exists"
        ) from err
    click.echo(page)


def _refuse_index_options(near_bits: int | None, memory_gib: float | None) -> None:
    given = {"--near": near_bits, "--memory-gib": memory_gib}
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"report: {name} {value:g}: only for an index of images, and OUTPUT holds captions")


def _page(opened: Output, files: str) -> str:
    # matplotlib, datasketch and scipy take 1.5 s to import: only this verb needs them.
    try:
        from pipeline.report.output_stats import output_stats  # noqa: PLC0415
        from pipeline.report.page import Subject, report_page  # noqa: PLC0415
        from pipeline.report.thumbnails import ImageSource, read_thumbnails  # noqa: PLC0415
    except ImportError as err:
        raise ConfigError(f"report: needs the package {err.name}; run: pip install 'joyfleet[report]'") from err
    plan = opened.readable_plan()
    survey, quality = output_stats(opened.store)
    job = opened.job
    subject = Subject(
        url=opened.store.url,
        files=files,
        recipe=opened.run.recipe,
        slots=opened.run.slots,
        shards=plan.shards,
        quarantined=list_quarantine(opened.store),
        job=job,
        versions=opened.run.versions,
    )
    origin = ImageSource(plan.shards, opened.source, ImagesConfig.model_validate(job["images"]))
    thumbnails = read_thumbnails(origin, [shown.row for shown in survey.gallery.rows()])
    return report_page(subject, survey, quality, thumbnails)
