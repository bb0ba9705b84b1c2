"""`joyfleet playground`: one image and every way to ask, in a browser of this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from jobs.caption import set_option
from pipeline.config import JobConfig, load_job, parse_job
from pipeline.engines import start_engine
from pipeline.errors import BadImage, ConfigError
from pipeline.flow.prepared_job import check_job, engine_spec, read_spec
from pipeline.images import IsolatedDecoder
from pipeline.readers import list_shards
from pipeline.stages.source_sample import draw_sample
from pipeline.standin.demo_data import draw_dataset

PICTURES = 12
STANDIN = {"model": "standin", "captions": {"slot": "caption", "mode": "descriptive"}}
"""Without a job file: the model of this package, on pictures drawn on the spot."""


@click.command()
@click.argument("job_file", type=click.Path(), required=False)
@click.option("--port", type=click.IntRange(1, 65535), default=7860, show_default=True)
@set_option
def playground(job_file: str | None, port: int, overrides: Sequence[str]) -> None:
    """Try prompts on single images in a browser, with JOB_FILE's engine and images; by default the stand-in's."""
    # Read when gradio is imported: no version check, no statistics.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        from jobs.playground_page import HOST, PlaygroundSession, build_app, serve  # noqa: PLC0415 - an extra, seconds of imports
    except ImportError as err:
        raise ConfigError(f"playground: needs the package {err.name}; run: pip install 'joyfleet[playground]'") from err
    with tempfile.TemporaryDirectory(prefix="joyfleet-") as folder:
        job, pictures = _pictures(job_file, overrides, Path(folder))
        recipe, weights, _ = check_job(job)
        click.echo("joyfleet: the engine starts", err=True)
        desk = PlaygroundSession(job, start_engine(engine_spec(job, recipe, weights)), read_spec(job, weights).geometry)
        try:
            click.echo(f"http://{HOST}:{port}/")
            serve(build_app(desk, pictures), port, wait=True)
        except OSError as err:  # gradio's for a port that is taken
            raise ConfigError(f"--port {port}: {err}; give another") from err
        finally:
            desk.close()


def _pictures(job_file: str | None, overrides: Sequence[str], folder: Path) -> tuple[JobConfig, list[Path]]:
    """The job, and a few images to begin with, as files below `folder`."""
    if job_file:
        job = load_job(job_file, overrides)
    else:
        draw_dataset(folder / "source", num_images=PICTURES, seed=0, shard_rows=PICTURES)
        job = parse_job({**STANDIN, "source": str(folder / "source"), "output": "memory://playground"}, overrides)
    _, weights, _ = check_job(job)
    read = read_spec(job, weights)
    sample = draw_sample(read, list_shards(job.source), job.seed, PICTURES)
    files: list[Path] = []
    with IsolatedDecoder() as decoder:
        for data in (row.data for one in sample.shards for row in one.rows if row.data is not None):
            try:
                kind = decoder.decode(data, job.images, read.geometry.size_of).format
            except BadImage:  # it would be a failed row of a run; here it is no picture to begin with
                continue
            files.append(folder / f"{len(files):03d}.{kind.lower()}")
            files[-1].write_bytes(data)
    return job, files
