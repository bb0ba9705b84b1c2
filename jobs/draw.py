"""`joyfleet draw FOLDER`: the sample data set of the demo, drawn on the spot."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.standin.demo_data import draw_dataset


@click.command()
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--images", type=click.IntRange(1), default=240, show_default=True)
@click.option("--shard-images", type=click.IntRange(1), default=40, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--special-share",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of pictures that make the stand-in misbehave: empty, endless and half-endless answers.",
)
def draw(folder: str, images: int, shard_images: int, seed: int, special_share: float) -> None:
    """Draw IMAGES pictures of shapes into WebDataset and Parquet shards below FOLDER."""
    draw_dataset(Path(folder), num_images=images, seed=seed, shard_rows=shard_images, special_share=special_share)
    click.echo(f"{images} images drawn into {folder}")
