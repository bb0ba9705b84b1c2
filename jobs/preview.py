"""`joyfleet preview job.yaml`: captions a few images, to judge a recipe before a large run."""

from __future__ import annotations

import asyncio
import os
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.job_file import read_job, set_option
from jobs.logs import new_log, redirect_output
from jobs.terminal import echo
from pipeline.config import JobConfig
from pipeline.engines import Engine, EngineSpec, start_engine
from pipeline.errors import ConfigError
from pipeline.flow.prepared_job import caption_spec, check_job, engine_spec, read_spec, run_identity_of
from pipeline.models import takes_images
from pipeline.readers import list_shards
from pipeline.stages.captioning import CaptionSpec
from pipeline.stages.read_batches import ReadSpec
from pipeline.stages.source_sample import Sample, draw_sample

if TYPE_CHECKING:
    from pipeline.report.preview_page import Previewed


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A checked job file."""

    name: str
    read: ReadSpec
    caption: CaptionSpec
    engine: EngineSpec


@click.command()
@click.argument("job_file", type=click.Path())
@click.option("-n", "num_images", type=click.IntRange(1, 500), default=24, show_default=True, help="Images to caption.")
@click.option("--compare", type=click.Path(), metavar="OTHER_FILE", help="A second job, on the same images.")
@click.option(
    "--page", type=click.Path(dir_okay=False), help="File to write; by default JOB_FILE's name with .preview.html."
)
@set_option
def preview(job_file: str, num_images: int, compare: str | None, page: str | None, overrides: Sequence[str]) -> None:
    """Caption a few images of JOB_FILE's source and show them on one page, without writing an output.

    The images are sampled with the job's seed, so they are the same at each call. --set applies to both jobs. Only
    images that the first job's source.where and source.sample select are taken; source.limit is not applied.
    """
    files = [job_file, *([compare] if compare else [])]
    jobs = [read_job(file, overrides) for file in files]
    recipes = [_checked(file, job) for file, job in zip(files, jobs, strict=True)]
    if len({takes_images(recipe.read.geometry) for recipe in recipes}) > 1:
        raise ConfigError(f"--compare {compare}: one of the jobs has a model without images; compare jobs of one kind")
    target = Path(page) if page else Path(Path(job_file).stem + ".preview.html")
    if not target.parent.is_dir():
        raise ConfigError(f"--page {page}: there is no folder {target.parent}; create it or name another")
    sample = sample_for(recipes, jobs[0], num_images)
    if not sample.shards:
        skipped = [f"{num_rows:,} images skipped by {condition}" for condition, num_rows in sample.skipped.items()]
        why = "; ".join([*sample.unreadable, *skipped]) or "it is empty"
        raise ConfigError(f"{job_file}: no image could be read from the source: {why}")
    _show(recipes, sample, target)


def sample_for(recipes: Sequence[Recipe], job: JobConfig, num_images: int) -> Sample:
    """Sample the source of the first job, with the fields that the slots of any recipe use."""
    read = recipes[0].read
    fields = [name for recipe in recipes for name in recipe.read.source.optional_fields]
    tested = [name for recipe in recipes for name in recipe.read.source.tested_fields]
    read = replace(read, source=read.source.with_optional_fields(fields).with_tested_fields(tested))
    return draw_sample(read, list_shards(read.source), job.seed, num_images)


def _show(recipes: Sequence[Recipe], sample: Sample, target: Path) -> None:
    from pipeline.report.preview_page import preview_page  # noqa: PLC0415 - datasketch and scipy come with its package

    log_path = new_log()
    terminal = redirect_output(log_path)
    num_images = sum(len(sampled.rows) for sampled in sample.shards)
    terminal.err.write(
        f"joyfleet: {num_images} images of {len(sample.shards)} shards; the engine starts (log: {log_path})\n"
    )
    done = list(_captioned(recipes, sample))
    target.write_text(preview_page(" against ".join(recipe.name for recipe in recipes), done, sample), encoding="utf-8")
    terminal.out.write(f"{target}\n")
    if _has_display():
        webbrowser.open(target.resolve().as_uri())


def _checked(file: str, job: JobConfig) -> Recipe:
    recipe, weights, remarks = check_job(job)
    for remark in remarks:
        echo(f"joyfleet: note: {remark}", err=True)
    return Recipe(
        name=Path(file).name,
        read=read_spec(job, weights),
        caption=caption_spec(job, run_identity_of(job, recipe)),
        engine=engine_spec(job, recipe, weights),
    )


def _captioned(recipes: Sequence[Recipe], sample: Sample) -> Iterator[Previewed]:
    """Caption the sample with each recipe; equal engines are started once, different ones in turn."""
    from pipeline.report.preview_page import caption_sample  # noqa: PLC0415 - as above

    rest = list(recipes)
    while rest:
        spec = rest[0].engine
        # An engine's tasks belong to one event loop, so all of its recipes run on it.
        with _running(spec) as engine, asyncio.Runner() as runner:
            while rest and rest[0].engine == spec:
                recipe = rest.pop(0)
                yield runner.run(caption_sample(recipe.name, engine, recipe.caption, recipe.read, sample))


@contextmanager
def _running(spec: EngineSpec) -> Iterator[Engine]:
    engine = start_engine(spec)
    try:
        yield engine
    finally:
        engine.close()


def _has_display() -> bool:
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
