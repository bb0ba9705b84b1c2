"""One shard leaves: its files first, then one small record that says so, by put-if-absent.

What a file holds follows from the captions and the options alone, so one that a killed export left is
written again with the same bytes, by whoever comes first. The record is the commit: without it a
shard is exported again, with it never.
"""

import json
import logging
import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import SourceConfig
from pipeline.config.export_config import ExportConfig
from pipeline.errors import OutputMismatch, PipelineError, StoreError
from pipeline.export.choose_captions import choose
from pipeline.export.form import Form, ShardCaptions
from pipeline.ledger.caption_table import from_parquet
from pipeline.ledger.layout import committed_path
from pipeline.readers import open_shard
from pipeline.storage import Store, WriteResult, put_idempotent, put_if_absent
from schemas.shard import Shard

log = logging.getLogger(__name__)

FOLDER = ".joyfleet"
"""What is not data; readers of data sets skip hidden folders."""
DONE = f"{FOLDER}/done"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardExport:
    """What of one shard left."""

    shard: str
    captions_bytes: int
    """Of the committed file that it was made from."""
    num_images: int
    num_exported: int
    """Images."""
    dropped: Mapping[str, int]
    num_files: int
    num_bytes: int
    columns: str
    """Of a table, as Arrow writes them; equal in all shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTask:
    """All that a worker needs beside the shard; pickles."""

    output: Store
    destination: Store
    form: Form
    config: ExportConfig
    slots: tuple[str, ...]
    """Taken, in order."""
    source: SourceConfig
    max_bytes: int
    joined: bool
    """Whether tables have the columns of a Parquet source."""


def done_path(shard: str) -> str:
    """The record of a shard that left."""
    return f"{DONE}/{shard}.json"


def export_shard(task: ExportTask, shard: Shard) -> ShardExport:
    """Write a committed shard's files, then its record; returns what the record says.

    Raises:
        ShardUnreadable: the source's shard changed or cannot be read.
        PipelineError: the captions cannot be given this form.
        OutputMismatch: another export wrote other content here.
    """
    data = task.output.get(committed_path(shard.path))
    try:
        rows: list[dict[str, Any]] = from_parquet(data).to_pylist()
    except ValueError as err:
        raise StoreError(f"{task.output.url}/{committed_path(shard.path)}: {err}; restore it") from err
    choice = choose(rows, task.slots, task.config)
    written: dict[str, int] = {}
    columns = ""
    with _opened(task, shard) as opened:
        captions = ShardCaptions(
            shard=shard,
            chosen=choice.chosen,
            slots=task.slots,
            config=task.config,
            opened=opened,
            joined=task.joined,
            with_images=task.form.reads_images(task.config),
        )
        for path, content, told in task.form.files(captions):
            if put_idempotent(task.destination, path, content) is WriteResult.EXISTS:
                raise OutputMismatch(
                    f"{task.destination.url}/{path}: stands there with other content; nothing was replaced. Remove it, "
                    "or export into a new folder"
                )
            written[path] = len(content)
            columns = columns or told
    return _commit(
        task,
        ShardExport(
            shard=shard.path,
            captions_bytes=len(data),
            num_images=choice.num_images,
            num_exported=len(choice.chosen),
            dropped=choice.dropped,
            num_files=len(written),
            num_bytes=sum(written.values()),
            columns=columns,
        ),
    )


def _opened(task: ExportTask, shard: Shard) -> Any:  # noqa: ANN401 - a context manager of OpenShard | None
    if task.form.reads_images(task.config) or task.joined:
        return open_shard(shard, task.source, task.max_bytes)
    return nullcontext()


def _commit(task: ExportTask, made: ShardExport) -> ShardExport:
    attempt = uuid.uuid4().hex
    data = json.dumps({"attempt": attempt, **asdict(made)}, ensure_ascii=False).encode()
    if put_if_absent(task.destination, done_path(made.shard), data, attempt) is WriteResult.EXISTS:
        there = read_done(task.destination, made.shard)
        if there != made:
            raise OutputMismatch(
                f"{task.destination.url}: shard {made.shard} was exported from other captions meanwhile; export into "
                "a new folder"
            )
    log.info("shard=%s exported images=%d bytes=%d", made.shard, made.num_exported, made.num_bytes)
    return made


def read_done(store: Store, shard: str) -> ShardExport:
    """Return the record of a shard that left.

    Raises:
        StoreError: it is not what `export_shard` writes.
    """
    path = done_path(shard)
    try:
        record: dict[str, Any] = json.loads(store.get(path))
        record.pop("attempt")
        return ShardExport(**record)
    except (ValueError, KeyError, TypeError) as err:
        raise StoreError(f"{store.url}/{path}: damaged ({err!r}); remove it and run again") from err


def check_columns(first: ShardExport, other: ShardExport) -> None:
    """Refuse a table whose columns are not those of the others.

    Raises:
        PipelineError: names what differs.
    """
    if first.columns and other.columns and first.columns != other.columns:
        differing = sorted(set(first.columns.split(", ")) ^ set(other.columns.split(", "))) or ["the order"]
        raise PipelineError(
            f"shards {first.shard} and {other.shard} have different columns: {', '.join(differing)}; one table cannot "
            "hold both. Export with --no-join, or caption them as two sources"
        )
