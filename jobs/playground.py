"""`joyfleet playground`: tries prompts on one image, in a browser on this machine."""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from jobs.job_file import read_job, set_option
from jobs.signals import SIGNALS
from pipeline.config import JobConfig, parse_job
from pipeline.engines import start_engine
from pipeline.errors import BadImage, ConfigError
from pipeline.flow.prepared_job import check_job, engine_spec, read_spec
from pipeline.images import IsolatedDecoder
from pipeline.models import takes_images
from pipeline.readers import list_shards
from pipeline.stages.source_sample import draw_sample
from pipeline.standin.demo_data import draw_dataset

PICTURES = 12
STANDIN = {"model": "standin", "captions": {"slot": "caption", "mode": "descriptive"}}
"""Without a job file: the stand-in model, on generated pictures."""


@click.command()
@click.argument("job_file", type=click.Path(), required=False)
@click.option("--port", type=click.IntRange(1, 65535), default=7860, show_default=True)
@set_option
def playground(job_file: str | None, port: int, overrides: Sequence[str]) -> None:
    """Try prompts on single images in a browser, with the engine and images of JOB_FILE or of the demo."""
    # Read when gradio is imported: no version check, no statistics.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        from jobs.local_page import HOST, serve  # noqa: PLC0415 - an extra, seconds of imports
        from jobs.playground_page import PlaygroundSession, build_app  # noqa: PLC0415 - as above
    except ImportError as err:
        raise ConfigError(f"playground: needs the package {err.name}; run: pip install 'joyfleet[playground]'") from err
    SIGNALS.end_at_once("the playground was stopped; nothing was stored")
    with SIGNALS.scratch_folder("joyfleet-playground-") as folder:
        job, pictures = _pictures(job_file, overrides, Path(folder))
        recipe, weights, _ = check_job(job)
        if not takes_images(read_spec(job, weights).geometry):
            raise ConfigError(f"playground: {job.model.id} takes no images; try its prompts with joyfleet preview")
        click.echo("joyfleet: starting the engine", err=True)
        session = PlaygroundSession(
            job, start_engine(engine_spec(job, recipe, weights)), read_spec(job, weights).geometry
        )
        try:
            click.echo(f"http://{HOST}:{port}/")
            serve(build_app(session, pictures), port, wait=True)
        except OSError as err:  # gradio's for a port that is taken
            raise ConfigError(f"--port {port}: {err}; give another port") from err
        finally:
            session.close()


def _pictures(job_file: str | None, overrides: Sequence[str], folder: Path) -> tuple[JobConfig, list[Path]]:
    """The job, and a few sample images, as files below `folder`."""
    if job_file:
        job = read_job(job_file, overrides)
    else:
        draw_dataset(folder / "source", num_images=PICTURES, seed=0, shard_rows=PICTURES)
        job = parse_job({**STANDIN, "source": str(folder / "source"), "output": str(folder / "output")}, overrides)
    _, weights, _ = check_job(job)
    read = read_spec(job, weights)
    sample = draw_sample(read, list_shards(read.source), job.seed, PICTURES)
    files: list[Path] = []
    with IsolatedDecoder() as decoder:
        for data in (row.data for shard in sample.shards for row in shard.rows if row.data is not None):
            try:
                kind = decoder.decode(data, job.images, read.geometry.size_of).format
            except BadImage:  # in a run it would be a failed row
                continue
            files.append(folder / f"{len(files):03d}.{kind.lower()}")
            files[-1].write_bytes(data)
    return job, files
