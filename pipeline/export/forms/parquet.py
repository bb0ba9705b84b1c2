"""Parquet tables: the columns of a Parquet source, then the captions."""

from collections.abc import Iterator

from pipeline.export.form import File, Form, ShardCaptions
from pipeline.export.table_forms import TABLE_OPTIONS, build_table, columns_of, table_file


def files(captions: ShardCaptions) -> Iterator[File]:
    """Yield the shard's table."""
    table = build_table(captions)
    yield File(f"data/{captions.shard.path}.parquet", table_file(table), columns_of(table))


FORM = Form(name="parquet", summary="tables", files=files, needs_images=False, honours=TABLE_OPTIONS | {"images"})
