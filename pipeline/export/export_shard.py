"""Exports one shard: its files first, then a small record by put-if-absent.

The files depend only on the captions and the options, so a file that a killed export left is written again with the
same bytes, by any process. The record is the commit: a shard without it is exported again, a shard with it never.
"""

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any

from pipeline.config import SourceConfig
from pipeline.config.export_config import ExportConfig
from pipeline.errors import OutputMismatch, PipelineError, StoreError
from pipeline.export.choose_captions import choose
from pipeline.export.form import Form, ShardCaptions
from pipeline.ledger.caption_table import from_parquet
from pipeline.ledger.json_record import from_json
from pipeline.ledger.layout import committed_path
from pipeline.ledger.leader_captions import with_leader_captions
from pipeline.readers import open_shard
from pipeline.storage import Store, WriteResult, put_idempotent, put_if_absent
from schemas.shard import Shard

log = logging.getLogger(__name__)

FOLDER = ".joyfleet"
"""Everything that is not data; readers of data sets skip hidden folders."""
DONE = f"{FOLDER}/done"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardExport:
    """What was exported of one shard."""

    shard: str
    captions_bytes: int
    """Size of the committed file that was exported, or of those of all outputs together."""
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
    """Everything that a worker needs besides the shard; pickles."""

    output: Store
    others: tuple[Store, ...] = ()
    """Outputs of the same images whose slots are exported too."""
    destination: Store
    form: Form
    config: ExportConfig
    slots: tuple[str, ...]
    """Exported slots, in order."""
    schemas: Mapping[str, str]
    """JSON Schemas of slots, as JSON text."""
    source: SourceConfig
    max_bytes: int
    joined: bool
    """Whether the columns of the source are joined."""


def done_path(shard: str) -> str:
    """The record of an exported shard."""
    return f"{DONE}/{shard}.json"


def export_shard(task: ExportTask, shard: Shard) -> ShardExport:
    """Write a committed shard's files, then its record; return the record.

    Raises:
        ShardUnreadable: the source's shard has changed or cannot be read.
        PipelineError: the captions cannot be exported in this form.
        OutputMismatch: another export has written other content.
    """
    rows, captions_bytes = _read_rows(task, shard)
    choice = choose(rows, task.slots, task.config)
    written: dict[str, int] = {}
    columns = ""
    with _opened(task, shard) as opened:
        captions = ShardCaptions(
            shard=shard,
            chosen=choice.chosen,
            slots=task.slots,
            config=task.config,
            schemas=task.schemas,
            opened=opened,
            joined=task.joined,
            with_images=task.form.reads_images(task.config),
        )
        for path, content, file_columns in task.form.files(captions):
            if put_idempotent(task.destination, path, content) is WriteResult.EXISTS:
                raise OutputMismatch(
                    f"{task.destination.url}/{path}: exists with other content; nothing was replaced. Remove it, "
                    "or export into a new folder"
                )
            written[path] = len(content)
            columns = columns or file_columns
    return _commit(
        task,
        ShardExport(
            shard=shard.path,
            captions_bytes=captions_bytes,
            num_images=choice.num_images,
            num_exported=len(choice.chosen),
            dropped=choice.dropped,
            num_files=len(written),
            num_bytes=sum(written.values()),
            columns=columns,
        ),
    )


def _read_rows(task: ExportTask, shard: Shard) -> tuple[list[dict[str, Any]], int]:
    """The caption rows of a shard in all outputs, image after image, and the bytes of their files."""
    duplicates = task.config.duplicates
    rows, num_bytes = _rows_of(task.output, shard, duplicates=duplicates)
    for output in task.others:
        others, more_bytes = _rows_of(output, shard, duplicates=duplicates)
        row = _other_image(_images(rows), _images(others))
        if row is not None:
            raise PipelineError(
                f"shard {shard.path}: row {row} is another image in {output.url} than in {task.output.url}; give "
                "outputs of the same images with --with"
            )
        rows, num_bytes = sorted([*rows, *others], key=itemgetter("row")), num_bytes + more_bytes
    return rows, num_bytes


def _images(rows: Sequence[Mapping[str, Any]]) -> dict[int, str | None]:
    """The hash of each image by row; None where no row has it, since the image was not read."""
    images: dict[int, str | None] = {}
    for row in rows:
        images[row["row"]] = images.get(row["row"]) or row["image_sha256"]
    return images


def _other_image(own: Mapping[int, str | None], other: Mapping[int, str | None]) -> int | None:
    """The first row that is not the same image in both, as far as its hash is known."""
    apart = sorted(own.keys() ^ other.keys())
    apart += [row for row in own if row in other and own[row] and other[row] and own[row] != other[row]]
    return min(apart, default=None)


def _rows_of(output: Store, shard: Shard, *, duplicates: bool) -> tuple[list[dict[str, Any]], int]:
    path = committed_path(shard.path)
    try:
        data = output.get(path)
        rows: list[dict[str, Any]] = from_parquet(data).to_pylist()
    except FileNotFoundError as err:
        raise PipelineError(f"{output.url}: shard {shard.path} is not committed there; caption it first") from err
    except ValueError as err:
        raise StoreError(f"{output.url}/{path}: {err}; restore it") from err
    return with_leader_captions(output, rows) if duplicates else rows, len(data)


def _opened(task: ExportTask, shard: Shard) -> Any:  # noqa: ANN401 - a context manager of ShardReader | None
    if task.form.reads_images(task.config) or task.joined:
        return open_shard(shard, task.source, task.max_bytes)
    return nullcontext()


def _commit(task: ExportTask, made: ShardExport) -> ShardExport:
    attempt = uuid.uuid4().hex
    data = json.dumps({"attempt": attempt, **asdict(made)}, ensure_ascii=False).encode()
    if put_if_absent(task.destination, done_path(made.shard), data, attempt) is WriteResult.EXISTS:
        existing = read_done(task.destination, made.shard)
        if existing != made:
            raise OutputMismatch(
                f"{task.destination.url}: shard {made.shard} was exported from other captions at the same time; "
                "export into a new folder"
            )
    log.info("shard=%s exported images=%d bytes=%d", made.shard, made.num_exported, made.num_bytes)
    return made


def read_done(store: Store, shard: str) -> ShardExport:
    """Return the record of an exported shard.

    Raises:
        StoreError: it is not what `export_shard` writes.
    """
    path = done_path(shard)
    try:
        record: dict[str, Any] = json.loads(store.get(path))
        record.pop("attempt")
        return from_json(ShardExport, record)
    except (ValueError, KeyError, TypeError) as err:
        raise StoreError(f"{store.url}/{path}: damaged ({err!r}); remove it and run again") from err


def check_columns(first: ShardExport, other: ShardExport) -> None:
    """Refuse a table whose columns differ from those of the other shards.

    Raises:
        PipelineError: names what differs.
    """
    if first.columns and other.columns and first.columns != other.columns:
        differing = sorted(set(first.columns.split(", ")) ^ set(other.columns.split(", "))) or ["the order"]
        raise PipelineError(
            f"shards {first.shard} and {other.shard} have different columns: {', '.join(differing)}; one table cannot "
            "hold both. Export with --no-join, or caption them as two sources"
        )
