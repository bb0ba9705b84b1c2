"""A data set of the Hugging Face hub, `datasets.load_dataset(folder)`: Parquet with an Image column, and a card."""

from collections.abc import Iterator

from pipeline.export.dataset_card import write_card
from pipeline.export.form import File, Form, ShardCaptions
from pipeline.export.table_forms import TABLE_OPTIONS, build_table, columns_of, table_file
from pipeline.readers.splits import split_of


def files(captions: ShardCaptions) -> Iterator[File]:
    """Yield the shard's table, in the folder of its split."""
    table = build_table(captions)
    split = split_of(captions.shard.path) or "train"
    yield File(f"data/{split}/{captions.shard.path}.parquet", table_file(table), columns_of(table))


FORM = Form(
    name="hf",
    summary="a data set for datasets.load_dataset",
    files=files,
    needs_images=True,
    honours=TABLE_OPTIONS | {"images"},
    pushable=True,
    finish=write_card,
)
