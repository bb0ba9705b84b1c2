"""What a test sees of an output: its rows, its fragments, and which rows of which attempt they are."""

import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MARK = "MARKED "


def committed_rows(output: Path) -> list[dict]:
    files = sorted((output / "captions").rglob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def identities(rows) -> Counter:
    return Counter((row["shard"], row["row"], row["slot"]) for row in rows)


def fragments_of(output: Path) -> list[Path]:
    # Not `rglob`, which fails if a run removes a folder meanwhile.
    walked = os.walk(output / "staging")
    return sorted(Path(folder, name) for folder, _, names in walked for name in names if name.endswith(".parquet"))


def mark(fragments: list[Path]) -> set[tuple[str, int]]:
    """Mark the captions of staged rows, so that they can be told from those that are made again."""
    rows: set[tuple[str, int]] = set()
    for file in fragments:
        data, result = marked(file.read_bytes())
        file.write_bytes(data)
        rows |= {(shard, row) for shard, row, _ in result}
    return rows


def marked(data: bytes) -> tuple[bytes, set[tuple[str, int, str]]]:
    """The fragment with its captions marked, and the identities of the rows that have one."""
    file = pq.ParquetFile(pa.BufferReader(data))
    table, metadata = file.read(), file.metadata.metadata
    captions = [None if caption is None else f"{MARK}{caption}" for caption in table["caption"].to_pylist()]
    index = table.schema.get_field_index("caption")
    table = table.set_column(index, table.schema.field("caption"), pa.array(captions, pa.string()))
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.add_key_value_metadata({key: value for key, value in metadata.items() if key != b"ARROW:schema"})
        writer.write_table(table)
    result = {(row["shard"], row["row"], row["slot"]) for row in table.to_pylist() if row["caption"] is not None}
    return sink.getvalue().to_pybytes(), result


def expected(source: Path, num_images: int) -> list[tuple[str, int, str]]:
    files = sorted(path for path in source.rglob("*") if path.is_file())
    each = num_images // len(files)
    return [(file.relative_to(source).as_posix(), row, "long") for file in files for row in range(each)]
