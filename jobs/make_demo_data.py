"""`joyfleet make-demo-data FOLDER`: generates the images of the demo."""

from pathlib import Path

import click

from pipeline.standin.demo_data import draw_dataset


@click.command()
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--images", type=click.IntRange(1), default=240, show_default=True, help="Number of images.")
@click.option("--shard-images", type=click.IntRange(1), default=40, show_default=True, help="Images in a shard.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same images.")
@click.option(
    "--special-share",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of images for which the stand-in model gives empty, endless and half-endless answers.",
)
def make_demo_data(folder: str, images: int, shard_images: int, seed: int, special_share: float) -> None:
    """Draw images of shapes into WebDataset and Parquet shards below FOLDER."""
    draw_dataset(Path(folder), num_images=images, seed=seed, shard_rows=shard_images, special_share=special_share)
    click.echo(f"{images} images written to {folder}")
