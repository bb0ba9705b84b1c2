"""A large Parquet file is sliced by several tasks, into the slices of one task."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus.corpus_job import prepare_corpus, steps
from pipeline.corpus.tables import source_tables
from pipeline.errors import ConfigError, PipelineError
from pipeline.storage import open_store
from tests.corpus.test_job import TAGS, corpus, make, rows_of
from tests.s3_server import s3_environment  # noqa: F401 - a fixture

ROWS = 103


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Write a table whose row groups end within slices; slices have 7 rows, a part has 3 slices."""
    rows = [{"id": n, "tags": [*TAGS, f"tag {n}"], "score": "x" if n % 10 == 0 else str(n)} for n in range(ROWS)]
    path = tmp_path / "posts.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    monkeypatch.setattr(source_tables, "SLICE_ROWS", 7)
    monkeypatch.setattr(source_tables, "PART_SLICES", 3)
    monkeypatch.setattr(source_tables, "BATCH_ROWS", 4)
    return path


def entry(path: Path | str) -> dict:
    return {"name": "posts", "urls": str(path)}


def staged(folder: Path) -> dict[str, object]:
    result = {}
    for file in sorted((folder / "corpus/staging/tables").rglob("*.*")):
        if file.suffix == ".json":
            result[file.name] = {name: v for name, v in json.loads(file.read_text()).items() if name != "attempt"}
        else:
            result[file.name] = pq.read_table(file).to_pylist()
    return result


def test_the_slices_of_a_large_file_are_those_of_one_task(tmp_path, table, monkeypatch):
    make(corpus(tmp_path / "one", tables=entry(table)), until="records")
    monkeypatch.setattr(source_tables, "LARGE_BYTES", 1)
    config = corpus(tmp_path / "parts", tables=entry(table))
    first = next(steps(prepare_corpus(config)))
    assert [part.part for part in first.items] == [(0, 3), (3, 6), (6, 9), (9, 12), (12, 15)]
    make(config, until="records")
    assert staged(tmp_path / "parts") == staged(tmp_path / "one")
    marker = staged(tmp_path / "one")["posts.parquet.json"]
    assert marker == {"slices": 15, "rows": ROWS, "fields": ["id", "score", "tags"], "faults": {"bad_score": 11}}
    make(config)
    assert not (tmp_path / "parts/corpus/staging").exists()


def test_a_part_reads_its_own_row_groups(table, monkeypatch):
    read = []
    iter_batches = pq.ParquetFile.iter_batches

    def spying(self, *arguments, row_groups, **options):
        read.append(row_groups)
        return iter_batches(self, *arguments, row_groups=row_groups, **options)

    monkeypatch.setattr(source_tables, "LARGE_BYTES", 1)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spying)
    [file] = source_tables.list_tables(corpus(table.parent, tables=entry(table)).tables[0], 1)
    for part in source_tables.parts_of(file):
        list(source_tables.slices(part, Counter()))
    assert read == [[0, 1, 2], [2, 3, 4], [4, 5, 6], [6, 7, 8], [8, 9, 10]]


def test_parts_that_are_sliced_are_not_sliced_again(tmp_path, table, monkeypatch):
    monkeypatch.setattr(source_tables, "LARGE_BYTES", 1)
    config = corpus(tmp_path, tables=entry(table))
    step = next(steps(prepare_corpus(config)))
    for part in step.items[1:3]:
        step.work(part)
    step = next(steps(prepare_corpus(config)))
    assert [part.part for part in step.items] == [(0, 3), (9, 12), (12, 15)]
    make(config)
    assert sum(pq.read_metadata(file).num_rows for file in (tmp_path / "corpus/records").rglob("*.parquet")) == ROWS


def test_a_file_that_another_release_has_sliced_whole_stays_sliced(tmp_path, table, monkeypatch):
    config = corpus(tmp_path, tables=entry(table))
    make(config, until="records")
    monkeypatch.setattr(source_tables, "LARGE_BYTES", 1)
    assert not next(steps(prepare_corpus(config))).items


def test_a_large_file_that_is_not_parquet_is_refused_by_name(tmp_path, table, monkeypatch):
    monkeypatch.setattr(source_tables, "LARGE_BYTES", 1)
    table.write_bytes(b"PAR1" * 30)
    with pytest.raises(PipelineError, match=r"posts\.parquet: cannot be read as Parquet .*; restore it"):
        make(corpus(tmp_path, tables=entry(table)))


def test_a_filter_may_ask_for_a_field_that_one_part_has(tmp_path, table, monkeypatch):
    rows = [
        {**row, "rating": "general" if 50 <= n < 55 else None} for n, row in enumerate(pq.read_table(table).to_pylist())
    ]
    pq.write_table(pa.Table.from_pylist(rows), table, row_group_size=10)
    monkeypatch.setattr(source_tables, "LARGE_BYTES", 1)
    config = corpus(tmp_path, tables=entry(table), filters={"rating": "general"})
    step = next(steps(prepare_corpus(config)))
    for part in step.items:
        step.work(part)
    parts = [json.loads(file.read_text()) for file in sorted((tmp_path / "corpus/staging/sliced").rglob("*.json"))]
    assert ["rating" in part["fields"] for part in parts] == [False, False, True, False, False]
    make(config)
    assert {row["id"] for row in rows_of(tmp_path, "records")} == {f"posts/{n}" for n in range(50, 55)}
    with pytest.raises(
        ConfigError, match=r"filters\.0\.year: no record of posts has a value .* known there: id, rating, s"
    ):
        make(corpus(tmp_path / "year", tables=entry(table), filters={"year": {"min": 2000}}))


def test_the_parts_of_a_file_keep_tags_by_their_confidence(tmp_path, table, monkeypatch):
    rows = [
        {"id": n, "names": ["1girl", "hat", f"tag {n}"], "scores": [0.9, 0.2, n / ROWS], "tags": ["lake"]}
        for n in range(ROWS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), table, row_group_size=10)
    tagger = {**entry(table), "columns": {"general": "names"}, "confidences": {"general": "scores"}}
    keys = {"tables": tagger, "tags": {"min_confidence": 0.5}}
    make(corpus(tmp_path / "one", **keys), until="records")
    monkeypatch.setattr(source_tables, "LARGE_BYTES", 1)
    make(corpus(tmp_path / "parts", **keys), until="records")
    assert staged(tmp_path / "parts") == staged(tmp_path / "one")
    marker = staged(tmp_path / "parts")["posts.parquet.json"]
    assert marker["faults"] == {"tag_below_confidence": ROWS + sum(n / ROWS < 0.5 for n in range(ROWS))}


@pytest.mark.slow
def test_a_large_file_on_s3_is_read_in_ranges(tmp_path, table, monkeypatch, s3_environment):  # noqa: F811 - a fixture
    open_store("s3://out/tables").put("posts.parquet", table.read_bytes())
    make(corpus(tmp_path / "one", tables=entry(table)), until="records")
    monkeypatch.setattr(source_tables, "LARGE_BYTES", 1)
    config = corpus(tmp_path / "s3", tables=entry("s3://out/tables/posts.parquet"))
    step = next(steps(prepare_corpus(config)))
    assert len(step.items) == 5
    make(config, until="records")
    assert staged(tmp_path / "s3") == staged(tmp_path / "one")
    open_store("s3://out/tables").put("posts.parquet", table.read_bytes()[:-1] + b"2")
    with pytest.raises(PipelineError, match=r"changed since the plan, etag \w+ instead of \w+"):
        step.work(step.items[0])
