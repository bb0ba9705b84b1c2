"""The bytes of a file of training texts: equal for equal rows, apart from the id of the attempt that wrote it."""

import json

import pyarrow as pa

from pipeline.config.corpus_config import Format
from pipeline.storage.parquet import encode_parquet
from schemas.corpus_row import CORPUS_ROW, CORPUS_VERSION
from schemas.footer import FooterKey

_SKIPPABLE = (0x184D2A50).to_bytes(4, "little")
"""Begins a zstd frame that readers skip (RFC 8878, 3.1.2); it holds the id of the attempt."""


def encode_texts(table: pa.Table, form: Format, fingerprint: str, attempt: str | None = None) -> bytes:
    """Return a file of `schemas.corpus_row`.

    Args:
        table: the rows.
        form: Parquet, or JSON Lines in one zstd frame.
        fingerprint: of the recipe, for the footer of a Parquet file.
        attempt: id of the write; None for a file whose bytes must follow from its rows alone.
    """
    if form is Format.JSONL:
        return json_lines(table, attempt)
    metadata = {str(FooterKey.SCHEMA_VERSION): CORPUS_VERSION, str(FooterKey.RECIPE): fingerprint}
    if attempt is not None:
        metadata[str(FooterKey.ATTEMPT)] = attempt
    return encode_parquet(table.cast(CORPUS_ROW), metadata)


def json_lines(table: pa.Table, attempt: str | None) -> bytes:
    """Return rows as JSON Lines in one zstd frame, followed by the attempt id in a frame that readers skip."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()).encode()
    packed: bytes = pa.Codec("zstd").compress(lines, asbytes=True)
    return packed if attempt is None else packed + _SKIPPABLE + len(attempt).to_bytes(4, "little") + attempt.encode()
