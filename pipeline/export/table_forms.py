"""Tables for export: one row per image, the source's columns, then the captions.

The columns of a Parquet source keep their types, so an export is the data set with captions added. Other sources have
no columns: their rows have the key and the metadata fields.
"""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.config.export_config import ExportConfig
from pipeline.errors import PipelineError
from pipeline.export.choose_captions import Chosen
from pipeline.export.form import ShardCaptions
from pipeline.export.image import extension, images
from pipeline.export.json_columns import IS_JSON, json_columns
from pipeline.readers import ColumnReader, ShardReader
from pipeline.storage.parquet import encode_parquet
from schemas.caption_row import CAPTION_ROW

TABLE_OPTIONS = frozenset({"template", "column", "fields", "spread", "statuses", "join"})
"""Options that every table honours, as fields of `ExportConfig`."""

IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
"""How `datasets` stores its Image feature."""
IMAGE_COLUMN = "image"

# fmt: off
OF_THE_IMAGE = frozenset((
    "shard", "row", "key", "image_sha256", "image_bytes", "image_format", "width", "height", "source", "recipe",
    "parent_recipe", "duplicate_of",
))
# fmt: on
"""Fields of a caption row that are the same in all slots."""

BASE: dict[str, dict[bytes, bytes]] = {"key": {}, "source": IS_JSON}
"""Columns for a source without columns, with their metadata."""

ROW_GROUP_BYTES = 64 << 20
"""Viewers and streaming readers load a whole row group."""

FEATURES = b"huggingface"
"""Key of the schema's metadata in which `datasets` stores its features."""


def build_table(captions: ShardCaptions) -> pa.Table:
    """Return the rows of a shard.

    Raises:
        PipelineError: a column of the captions has the name of a column of the source.
    """
    opened, chosen = captions.opened, captions.chosen
    joined = opened if isinstance(opened, ColumnReader) and captions.joined else None
    table = _base(chosen) if joined is None else joined.table([captioned.row for captioned in chosen])
    if opened is not None and captions.with_images:
        name = joined.image_column if joined is not None and joined.image_column else IMAGE_COLUMN
        table = _with_images(table, name, opened, chosen)
    elif joined is not None and joined.image_column is not None:
        table = table.drop_columns([joined.image_column])
    columns = _captions(chosen, captions.slots, captions.config)
    for slot in captions.config.spread:
        columns += json_columns(slot, captions.schemas[slot], chosen)
    for field, values in columns:
        if joined is None and field.name in BASE:
            continue
        if field.name in table.column_names:
            raise PipelineError(
                f"column {field.name} is in the source already ({', '.join(table.column_names)}); rename the captions' "
                "column with --column, or leave the field out"
            )
        table = table.append_column(field, pa.array(values, field.type))
    return table


def _base(chosen: Sequence[Chosen]) -> pa.Table:
    fields = [pa.field(name, pa.string(), metadata=metadata) for name, metadata in BASE.items()]
    return pa.table([[captioned.image[field.name] for captioned in chosen] for field in fields], pa.schema(fields))


def _with_images(table: pa.Table, name: str, opened: ShardReader, chosen: Sequence[Chosen]) -> pa.Table:
    """Put the images into column `name`: an existing one is replaced in place, else it comes first."""
    place = table.schema.get_field_index(name)
    cells = [
        None if data is None else {"bytes": data, "path": path}
        for (_, data), path in zip(images(opened, chosen), _paths(table, name, chosen), strict=True)
    ]
    column, field = pa.array(cells, IMAGE), pa.field(name, IMAGE)
    table = table.add_column(0, field, column) if place < 0 else table.set_column(place, field, column)
    metadata: dict[bytes, bytes] = dict(table.schema.metadata or {})
    stored: Any = json.loads(metadata.get(FEATURES, b"{}"))
    features: dict[str, Any] = stored.get("info", {}).get("features", {})
    kept = {column: feature for column, feature in features.items() if column in table.column_names}
    info = json.dumps({"info": {"features": {**kept, name: {"_type": "Image"}}}})
    return table.replace_schema_metadata({**metadata, FEATURES: info.encode()})


def _paths(table: pa.Table, name: str, chosen: Sequence[Chosen]) -> list[str]:
    """The names of the images' files: those of the source, else made from the keys."""
    made = [
        f"{image.key.rpartition('/')[2].removesuffix(f'.{extension(image)}')}.{extension(image)}" for image in chosen
    ]
    if name not in table.column_names or table.schema.field(name).type != IMAGE:
        return made
    own: list[Any] = [cell["path"].as_py() if cell.is_valid else None for cell in table[name]]
    return [path or fallback for path, fallback in zip(own, made, strict=True)]


def _captions(chosen: Sequence[Chosen], slots: Sequence[str], config: ExportConfig) -> list[tuple[pa.Field, list[Any]]]:
    alone = len(slots) == 1
    text = pa.field(config.column, pa.string())
    if alone or config.template:
        columns = [(text, [captioned.text for captioned in chosen])]
    else:
        columns = [(text.with_name(f"{config.column}_{slot}"), _values(chosen, slot, "caption")) for slot in slots]
    for name in config.fields:
        field = pa.field(name, CAPTION_ROW.field(name).type)
        if name in OF_THE_IMAGE:
            columns.append((field, [captioned.image[name] for captioned in chosen]))
            continue
        for slot in slots:
            column = field if alone else field.with_name(f"{name}_{slot}")
            columns.append((column, _values(chosen, slot, name)))
    return columns


def _values(chosen: Sequence[Chosen], slot: str, name: str) -> list[Any]:
    """A field of the caption rows of a slot; null where the slot was not chosen."""
    return [captioned.captions.get(slot, {}).get(name) for captioned in chosen]


def columns_of(table: pa.Table) -> str:
    """Return names and types; they must be the same in all shards of an export."""
    return ", ".join(f"{field.name}: {field.type}" for field in table.schema)


def table_file(table: pa.Table) -> bytes:
    """Return the table as Parquet; equal tables give equal bytes."""
    per_row = max(1, table.nbytes // max(1, table.num_rows))
    # Without page checksums, as the first release: an export that it started can be resumed with equal bytes.
    return encode_parquet(table, row_group_rows=max(1, ROW_GROUP_BYTES // per_row), page_checksums=False)


def plain_rows(table: pa.Table) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the names and rows of all columns but those of bytes, which text cannot hold."""
    plain = table.select([field.name for field in table.schema if not _is_bytes(field.type)])
    parsed = [field.name for field in plain.schema if field.metadata == IS_JSON]
    rows = [row | {name: _json_of(row[name]) for name in parsed} for row in plain.to_pylist()]
    return plain.column_names, rows


def _json_of(text: str | None) -> Any:  # noqa: ANN401 - JSON
    return None if text is None else json.loads(text)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
