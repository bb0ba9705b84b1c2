"""`joyfleet draw FOLDER`: the sample data set of the demo, drawn on the spot."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.standin.dataset import draw_dataset


@click.command()
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--images", type=click.IntRange(1), default=240, show_default=True)
@click.option("--shard-images", type=click.IntRange(1), default=40, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def draw(folder: str, images: int, shard_images: int, seed: int) -> None:
    """Draw IMAGES pictures of shapes into WebDataset and Parquet shards below FOLDER."""
    draw_dataset(Path(folder), num_images=images, seed=seed, shard_rows=shard_images)
    click.echo(f"{images} images drawn into {folder}")
