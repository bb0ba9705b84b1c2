"""Files are checked text by text; each fault is reported with its position in the file."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import Preset, RenderConfig
from pipeline.corpus.text.check_texts import check_file
from pipeline.corpus.text.render_texts import render_table
from pipeline.corpus.text.text_grammar import profile_of
from pipeline.errors import ConfigError
from tests.corpus.records import draw_records

CONFIG = RenderConfig(preset=Preset.TIPO_V2_1)
PROFILE = profile_of(CONFIG)
BROKEN = 17


@pytest.fixture(scope="module")
def rows():
    records = draw_records(70)
    whole = render_table(records, CONFIG, epoch=0, seed=1, splits=["train"] * 70).rows
    rows = whole.to_pylist()
    rows[BROKEN]["output"] += "\n"
    return pa.Table.from_pylist(rows, schema=whole.schema)


def texts_of(rows):
    return [row["user"] + row["output"] for row in rows.to_pylist()]


def write(path, rows):
    if path.name.endswith(".parquet"):
        pq.write_table(rows, path)
    elif path.name.endswith(".txt"):
        path.write_text("\n\n".join(texts_of(rows)), "utf-8")
    else:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.to_pylist()).encode()
        with pa.output_stream(str(path), compression="zstd" if path.suffix == ".zst" else None) as sink:
            sink.write(lines)


@pytest.mark.parametrize(
    ("name", "place"), [("a.parquet", "row 17"), ("a.jsonl", "line 18"), ("a.jsonl.zst", "line 18")]
)
def test_a_broken_row_is_found_in_every_kind_of_file(tmp_path, rows, name, place):
    write(tmp_path / name, rows)
    checked = list(check_file(str(tmp_path / name), PROFILE))
    assert len(checked) == 70
    faults = [(text.place, text.fault.rule) for text in checked if text.fault]
    assert faults == [(place, "blank_line")]


def test_empty_lines_separate_texts(tmp_path, rows):
    texts = texts_of(rows.slice(0, 5))
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join([*texts[:4], texts[4].replace("target:", "goal:")]) + "\n", "utf-8")
    checked = list(check_file(str(path), PROFILE))
    assert len(checked) == 5
    assert [bool(text.fault) for text in checked] == [False] * 4 + [True]
    line = sum(text.count("\n") + 2 for text in texts[:4]) + 1
    assert checked[4].place == f"line {line}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x", r"a\.csv: unknown kind of file; allowed: a file that ends in \.parquet"),
        ("a.parquet", "x", r"a\.parquet: cannot be read"),
        ("a.jsonl", "{", r"a\.jsonl: line 1: not JSON"),
        ("a.jsonl", "[]", r"line 1: found list; allowed: an object"),
        ("a.jsonl", '{"caption": "x"}', r"line 1: found caption; allowed: user and output, or text"),
        ("a.jsonl.zst", "x", r"a\.jsonl\.zst: cannot be read"),
    ],
)
def test_a_file_without_training_texts_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        list(check_file(str(tmp_path / name), PROFILE))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.txt: cannot be read"):
        list(check_file(str(tmp_path / "none.txt"), PROFILE))
