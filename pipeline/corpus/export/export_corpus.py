"""Writes all files of a corpus export into a local folder; the card, written last, marks it as complete.

A file is written under a temporary name and renamed when it is whole. The files follow from the corpus and the
options alone, so an export that was killed begins again and replaces what it has written.
"""

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.corpus_export_config import CorpusExportConfig
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import read_table
from pipeline.corpus.corpus_identity import corpus_identity
from pipeline.corpus.export.corpus_form import Convert, CorpusForm, Reads
from pipeline.corpus.export.forms import form_of
from pipeline.corpus.extensions import read_extensions
from pipeline.corpus.hub_head import FileSet, SplitFiles, hub_head
from pipeline.corpus.text.tokenizer import TextTokenizer
from pipeline.errors import OutputMismatch, PipelineError
from pipeline.ledger.run_record import differences
from pipeline.storage import Store
from pipeline.storage.parquet import ROW_GROUP_ROWS
from schemas.corpus_row import CORPUS_ROW
from schemas.record import RECORD, Split

CARD = "README.md"
RECORD_FILE = ".joyfleet/export.json"
"""What the folder holds; written first, so that a later command knows a folder that a killed export left."""

LOCK = ".joyfleet/lock"

Written = Counter[tuple[str, str]]
"""Numbers by split and by the name of the file, or `default`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusExported:
    """A complete export."""

    rows: Written = field(default_factory=Counter[tuple[str, str]])
    num_bytes: Written = field(default_factory=Counter[tuple[str, str]])
    """Of the rows in Arrow."""
    counts: Counter[str] = field(default_factory=Counter[str])
    """What was left out or cut, by reason."""


def export_corpus(
    store: Store, folder: Path, config: CorpusExportConfig, report: Callable[[int, int], None]
) -> CorpusExported:
    """Write the files of a form.

    Args:
        store: the corpus.
        folder: of the export; absent, empty, or with the same export.
        config: the form and its options.
        report: called with the number of converted files of the corpus and of all.

    Raises:
        ConfigError: an option cannot be honoured, or the corpus is not finished.
        OutputMismatch: the folder holds something else.
        PipelineError: no row of the corpus can be used.
    """
    form = form_of(config)
    tokenizer = TextTokenizer(config.tokenizer, bos=config.bos, eos=config.eos) if config.tokenizer else None
    identity = {**_corpus(store), **_options(config, tokenizer)}
    with _locked(folder):
        _claim(folder, identity)
        return _write(store, folder, config, form.convert(config, tokenizer), report)


def _write(
    store: Store, folder: Path, config: CorpusExportConfig, convert: Convert, report: Callable[[int, int], None]
) -> CorpusExported:
    form = form_of(config)
    paths = {split: _listed(store, form.reads, split) for split in Split}
    num_done, num_files = 0, sum(map(len, paths.values()))
    exported = CorpusExported()
    schemas: dict[str, pa.Schema] = {}
    for split, files in paths.items():
        with _opened(folder, form, split) as write:
            for path in files:
                report(num_done, num_files)
                for name, table in convert(_read(store, path, form.reads), exported.counts).items():
                    schemas[name] = table.schema
                    if table.num_rows:
                        write(name or _unit_file(path.removeprefix(f"{form.reads}/{split}/")), table)
                        exported.rows[str(split), name or "default"] += table.num_rows
                        exported.num_bytes[str(split), name or "default"] += table.nbytes
                num_done += 1
    report(num_done, num_files)
    if not exported.rows:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(exported.counts.items()) if number)
        raise PipelineError(f"{store.url}: no row of the corpus fits --to {form.name} ({reasons or 'it has none'})")
    _replace(folder / CARD, _card(form, config, exported, schemas).encode())
    return exported


def _unit_file(path: str) -> str:
    suffix = next(suffix for suffix in corpus_layout.SUFFIXES.values() if path.endswith(suffix))
    return f"{path.removesuffix(suffix)}.parquet"


def _corpus(store: Store) -> dict[str, Any]:
    """Return what tells a finished corpus from others, and its epochs if some were added."""
    extensions = read_extensions(store)
    return {**corpus_identity(store), **({"epochs": extensions[-1].epochs} if extensions else {})}


def _options(config: CorpusExportConfig, tokenizer: TextTokenizer | None) -> dict[str, Any]:
    """Return the options; of the tokenizer its content, not its path."""
    return {**config.model_dump(mode="json"), "tokenizer": tokenizer and tokenizer.digest}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder, since the temporary names of two exports are the same; the kernel ends the hold of a process."""
    lock = folder / LOCK
    # An export that was killed before it made the lock leaves the lock's folder.
    if not lock.exists() and folder.exists() and any(entry != lock.parent for entry in folder.iterdir()):
        raise OutputMismatch(f"{folder}: is not empty and holds no corpus export; give an empty folder")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise PipelineError(f"{folder}: another process exports into this folder; wait for it to end") from err
        yield


def _claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Bind the folder to an export, or check that it is bound to the same one."""
    record = folder / RECORD_FILE
    if record.exists():
        lines = list(differences(json.loads(record.read_bytes()), identity))
        if lines:
            raise OutputMismatch(f"{folder}: holds another export: {'; '.join(lines)}; give this one its own folder")
    else:
        _replace(record, json.dumps(identity, indent=2).encode())
    (folder / CARD).unlink(missing_ok=True)


def _listed(store: Store, reads: Reads, split: Split) -> list[str]:
    """Return the files of a split in the order of their names; of a corpus with both formats, the Parquet files."""
    paths = sorted(entry.path for entry in store.list(f"{reads}/{split}"))
    return [path for path in paths if path.endswith(".parquet")] or paths


def _read(store: Store, path: str, reads: Reads) -> pa.Table:
    if reads is Reads.RECORDS:
        return read_table(store, path, RECORD)
    if path.endswith(".parquet"):
        return read_table(store, path, CORPUS_ROW)
    lines = pa.CompressedInputStream(pa.BufferReader(store.get(path)), "zstd").read().splitlines()
    return pa.Table.from_pylist([json.loads(line) for line in lines], schema=CORPUS_ROW)


@contextmanager
def _opened(folder: Path, form: CorpusForm, split: Split) -> Iterator[Callable[[str, pa.Table], None]]:
    """Yield a function that appends a table to a file of the split. The files get their names when the context ends."""
    files: dict[str, _ParquetFile | _LinesFile] = {}
    with ExitStack() as opened:

        def write(name: str, table: pa.Table) -> None:
            if form.by_unit:
                with _ParquetFile(folder, f"{split}/{name}", table.schema) as file:
                    file.append(table)
                return
            if name not in files:
                kind = _LinesFile if form.json_lines else _ParquetFile
                files[name] = opened.enter_context(kind(folder, f"{split}/{name}", table.schema))
            files[name].append(table)

        yield write


class _ParquetFile:
    """A Parquet file that gets its name when it is whole. Its row groups are large, also of many small tables."""

    def __init__(self, folder: Path, path: str, schema: pa.Schema) -> None:
        self._target = folder / path
        self._pending: list[pa.Table] = []
        self._temporary = _temporary(folder, path)
        self._writer = pq.ParquetWriter(self._temporary, schema, compression="zstd", write_page_checksum=True)

    def __enter__(self) -> "_ParquetFile":
        return self

    def append(self, table: pa.Table) -> None:
        self._pending.append(table)
        if sum(part.num_rows for part in self._pending) >= ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(pa.concat_tables(self._pending), row_group_size=ROW_GROUP_ROWS)
            self._pending = []

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        _publish(self._temporary, self._target, whole=kind is None)


class _LinesFile:
    """A JSON Lines file whose first rows have a value in each list, if any row of the file has one.

    `datasets` infers the types of the columns from the first 10 MB: a list that is empty in all of these rows could
    hold no text in a later one.
    """

    def __init__(self, folder: Path, path: str, schema: pa.Schema) -> None:
        self._target = folder / path
        self._temporary = _temporary(folder, path)
        self._rest = self._temporary.with_suffix(".rest")
        self._lines = self._rest.open("wb")
        self._missing = {field.name for field in schema if pa.types.is_list(field.type)}
        self._first: list[bytes] = []

    def __enter__(self) -> "_LinesFile":
        return self

    def append(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
            new = {name for name in self._missing if row[name]}
            self._missing -= new
            if new:
                self._first.append(line)
            else:
                self._lines.write(line)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._lines.close()
        with self._temporary.open("wb") as file, self._rest.open("rb") as rest:
            file.writelines(self._first)
            while block := rest.read(1 << 20):
                file.write(block)
        self._rest.unlink()
        _publish(self._temporary, self._target, whole=kind is None)


def _temporary(folder: Path, path: str) -> Path:
    # A hash, since a path may be longer than a name can be.
    temporary = folder / ".joyfleet" / f"{hashlib.sha256(path.encode()).hexdigest()[:16]}.part"
    temporary.parent.mkdir(parents=True, exist_ok=True)
    return temporary


def _publish(temporary: Path, target: Path, *, whole: bool) -> None:
    """Give a file its name; one that is not whole is removed."""
    if not whole:
        temporary.unlink()
        return
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(target)


def _replace(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    temporary.write_bytes(data)
    _publish(temporary, target, whole=True)


def _card(
    form: CorpusForm, config: CorpusExportConfig, exported: CorpusExported, schemas: Mapping[str, pa.Schema]
) -> str:
    """Return README.md: the head for `datasets`, then what the files hold and lack."""
    file_sets = [
        FileSet(name=Path(name).stem or "default", splits=splits, schema=schema)
        for name, schema in schemas.items()
        if (splits := _splits(name, exported))
    ]
    head = hub_head({"tags": ["tipo", form.name]}, file_sets)
    rows = "\n".join(f"| {split} | {name} | {number:,} |" for (split, name), number in sorted(exported.rows.items()))
    counts = "\n".join(f"| {reason} | {number:,} |" for reason, number in sorted(exported.counts.items()) if number)
    options = json.dumps(config.model_dump(mode="json", exclude_unset=True, exclude={"tokenizer"}))
    return (
        f"{head}\n\n# A corpus as {form.summary}\n\n{form.hint}\n\nWritten by `joyfleet export-corpus`, options "
        f"`{options}`.\n\n| split | file | rows |\n| --- | --- | --- |\n{rows}\n\n| reason | number |\n| --- | --- |\n"
        f"{counts}\n"
    )


def _splits(name: str, exported: CorpusExported) -> dict[str, SplitFiles]:
    """Return the files of a name in the splits that have some."""
    keys = {str(split): (str(split), name or "default") for split in Split}
    return {
        split: SplitFiles(
            glob=f"{split}/{name or '**/*.parquet'}", num_rows=exported.rows[key], num_bytes=exported.num_bytes[key]
        )
        for split, key in keys.items()
        if exported.rows[key]
    }
