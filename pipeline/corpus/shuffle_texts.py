"""Mixes the texts of all sources into files of one size, by a permutation that only the texts and a seed decide.

The place of a text is a hash of the seed, of the seed of its draw and of the text itself. So the order depends neither
on work units, workers and attempts nor on how many texts a record gives. The driver divides the staged texts of one
split and epoch by their places among temporary files, and sorts one of these after the other: in memory are one of
them, one work unit and one file of mixed texts. The bytes of the files follow from their rows, so a file that a killed
run left is the file that the next run would write.
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import CorpusConfig
from pipeline.config.corpus_config import ShuffleConfig
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import put_json, read_json, read_table
from pipeline.corpus.text.draws import ORDER, place
from pipeline.corpus.text.pack_texts import pack
from pipeline.corpus.text_files import encode_texts
from pipeline.errors import PipelineError
from pipeline.storage import Store, put_idempotent
from pipeline.storage.parquet import encode_parquet
from schemas.corpus_row import CORPUS_ROW
from schemas.record import Split

log = logging.getLogger(__name__)

BUCKET_ROWS = 20_000
MAX_BUCKETS = 512
"""Files that are open at once: below the usual limit of 1,024."""
COPIES = 3
"""Of a bucket in memory, while it is sorted."""

STAGED_TEXT: pa.Schema = pa.schema([pa.field("place", pa.int64(), nullable=False), *CORPUS_ROW])
"""`staging/texts`: texts in the order of their records, each with its place in the order of the shuffle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochShuffle:
    """The staged texts of one split and epoch, and how they become files."""

    config: CorpusConfig
    shuffle: ShuffleConfig
    fingerprint: str
    split: Split
    epoch: int
    units: Mapping[str, int]
    """Number of texts of each work unit that has any."""


def with_places(rows: pa.Table, seed: int) -> pa.Table:
    """Return STAGED_TEXT: rows of `schemas.corpus_row` with the place of each."""
    parts = (rows[name].to_pylist() for name in ("seed", "user", "output"))
    places = [place(seed, draw, user + output) for draw, user, output in zip(*parts, strict=True)]
    return pa.Table.from_arrays([pa.array(places, pa.int64()), *rows.columns], schema=STAGED_TEXT)


def staged_counts(
    store: Store, units: Sequence[str], commit_path: Callable[[str], str]
) -> dict[tuple[Split, int], dict[str, int]]:
    """Return how many texts each work unit has in each split and epoch, as its commit says."""
    counts: dict[tuple[Split, int], dict[str, int]] = {}
    for unit in units:
        for row in read_json(store, commit_path(unit))["texts"]:
            own = counts.setdefault((Split(row["split"]), row["epoch"]), {})
            own[unit] = own.get(unit, 0) + row["rows"]
    return counts


def shuffle_epoch(store: Store, job: EpochShuffle) -> None:
    """Write the files of a split and epoch, and last their manifest. Does nothing if the manifest exists.

    Raises:
        PipelineError: the staged texts are not those that the work units have counted.
    """
    path = corpus_layout.manifest_path(job.split, job.epoch)
    if store.exists(path):
        return
    read, files, in_no_pack = _Read(), list[dict[str, Any]](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="joyfleet-shuffle-") as folder:
        buckets = _fill_buckets(Path(folder), _staged(store, job, read), sum(job.units.values()))
        existing = frozenset(entry.path for entry in store.list(corpus_layout.TEXT))
        for name, table in _files(_sorted(buckets, job.config.memory_gib), read, job):
            files.append({"file": name, "rows": table.num_rows, "bytes": int(_sizes(table).sum())})
            _put_file(store, job, name, table, existing, in_no_pack)
    manifest = {"order": ORDER, "seed": job.shuffle.seed, "recipe": job.fingerprint, "rows": read.rows}
    put_json(store, path, {**manifest, "files": files, "in_no_pack": dict(in_no_pack)})
    log.info("shuffled split=%s epoch=%d texts=%d files=%d", job.split, job.epoch, read.rows, len(files))


@dataclass(slots=True)
class _Read:
    """What was read of the staged texts."""

    rows: int = 0
    bytes: int = 0


def _staged(store: Store, job: EpochShuffle, read: _Read) -> Iterator[pa.Table]:
    for unit, expected in job.units.items():
        path = corpus_layout.staged_texts_path(unit, job.split, job.epoch)
        table = read_table(store, path, STAGED_TEXT)
        if table.num_rows != expected:
            raise PipelineError(
                f"{store.url}/{path}: has {table.num_rows} texts, its work unit has counted {expected}; restore it, "
                "or make the corpus in a new output"
            )
        read.rows += table.num_rows
        read.bytes += int(_sizes(table).sum())
        yield table


def _fill_buckets(folder: Path, tables: Iterable[pa.Table], num_rows: int) -> list[Path]:
    """Divide texts by their places among files, whose order is that of the places."""
    num = min(MAX_BUCKETS, max(1, num_rows // BUCKET_ROWS))
    paths = [folder / f"{number:03d}.arrow" for number in range(num)]
    with ExitStack() as opened:
        sinks = [opened.enter_context(pa.OSFile(str(path), "wb")) for path in paths]
        writers = [opened.enter_context(pa.ipc.new_stream(sink, STAGED_TEXT)) for sink in sinks]
        for table in tables:
            ordered = table.sort_by("place").combine_chunks()
            # The upper half of a place, as a number without sign, times the number of buckets.
            places = ordered["place"].to_numpy().view(np.uint64) ^ np.uint64(1 << 63)
            buckets = (places >> np.uint64(32)) * np.uint64(num) >> np.uint64(32)
            starts = np.searchsorted(buckets, np.arange(num + 1))
            for writer, start, end in zip(writers, starts, starts[1:], strict=False):
                if start < end:
                    writer.write_table(ordered.slice(start, end - start))
    return paths


def _sorted(buckets: Iterable[Path], memory_gib: float) -> Iterator[pa.RecordBatch]:
    """Yield the texts of all buckets in their order; each bucket is removed when it is read."""
    for path in buckets:
        size_gib = path.stat().st_size / 2**30
        if COPIES * size_gib > memory_gib:
            raise PipelineError(
                f"shuffle: memory_gib is {memory_gib:g}, and a {MAX_BUCKETS}th of the texts of a split and epoch has "
                f"{size_gib:.2g} GiB; set memory_gib to {COPIES * size_gib:.2g} or more"
            )
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_stream(file).read_all()
        path.unlink()
        if table.num_rows:
            order = table.sort_by([("place", "ascending"), ("id", "ascending")])
            yield from order.drop_columns(["place"]).combine_chunks().to_batches()


def _sizes(table: pa.Table) -> npt.NDArray[np.int64]:
    """Return the bytes of each text, in UTF-8."""
    sizes = [pc.call_function("binary_length", [table[half]]).to_numpy() for half in ("user", "output")]
    return cast("npt.NDArray[np.int64]", sizes[0].astype(np.int64) + sizes[1])


def _files(batches: Iterable[pa.RecordBatch], read: _Read, job: EpochShuffle) -> Iterator[tuple[str, pa.Table]]:
    """Divide sorted texts into files of equal size: yield the name and the rows of each."""
    pending, number, num_files, before = [CORPUS_ROW.empty_table()], 0, 0, 0
    by_rows = job.shuffle.rows is not None
    for batch in batches:
        table = pa.Table.from_batches([batch]).cast(CORPUS_ROW)
        if not num_files:
            limit = job.shuffle.rows or round((job.shuffle.mb or 0) * 1_000_000)
            num_files = -(-(read.rows if by_rows else read.bytes) // limit)
        sizes = np.ones(len(table), np.int64) if by_rows else _sizes(table)
        ends = before + np.cumsum(sizes)
        # The file of a text follows from what stands before it. At most 10^12 bytes x 10^6 files: fits into 63 bits.
        numbers = (ends - sizes) * num_files // (read.rows if by_rows else read.bytes)
        before, at = int(ends[-1]), 0
        while number < numbers[-1]:
            stop = int(np.searchsorted(numbers, number, side="right"))
            yield (
                corpus_layout.shuffled_name(number, num_files),
                pa.concat_tables([*pending, table.slice(at, stop - at)]),
            )
            pending, number, at = [CORPUS_ROW.empty_table()], number + 1, stop
        pending.append(table.slice(at))
    for last in range(number, num_files):  # more than one only if a text is longer than a file
        yield corpus_layout.shuffled_name(last, num_files), pa.concat_tables(pending)
        pending = [CORPUS_ROW.empty_table()]


def _put_file(
    store: Store, job: EpochShuffle, name: str, table: pa.Table, existing: frozenset[str], in_no_pack: Counter[str]
) -> None:
    for form in job.config.formats:
        path = corpus_layout.text_path(name, job.split, job.epoch, form)
        if path not in existing:
            put_idempotent(store, path, encode_texts(table, form, job.fingerprint))
    tokenizer = job.config.tokenizer
    if tokenizer and tokenizer.pack:
        too_long = pc.call_function("greater", [table["n_tokens"], pa.scalar(tokenizer.pack, pa.int32())])
        in_no_pack.update(table["source"].filter(too_long).to_pylist())
        plan = pack(table["n_tokens"].to_pylist(), tokenizer.pack)
        put_idempotent(store, corpus_layout.packing_path(name, job.split, job.epoch), encode_parquet(plan))
