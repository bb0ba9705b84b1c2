"""`joyfleet amend`: edits from CSV and Parquet, refused as a whole with their lines, applied once, and exported."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.commands import cli
from jobs.edits_file import read_edits, write_edits
from pipeline.config import load_job
from pipeline.errors import ConfigError
from pipeline.quality.edited_text import edited_text_mistake
from pipeline.standin.demo_data import draw_dataset
from tests.cli import write_job
from tests.outputs import committed_rows
from tests.run_in_process import run_in_process

HEADER = "shard,row,slot,caption,editor"


@pytest.fixture
def output(tmp_path, monkeypatch):
    """Two shards of four images with one slot."""
    monkeypatch.chdir(tmp_path)
    draw_dataset(tmp_path / "in", num_images=8, seed=1, shard_rows=4)
    run_in_process(load_job(write_job(tmp_path, tmp_path / "in", tmp_path / "out")))
    return tmp_path / "out"


@pytest.fixture
def shards(output):
    return sorted({row["shard"] for row in committed_rows(output)})


def invoke(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


def amend(output: Path, text: str, name: str = "edits.csv") -> str:
    file = output.parent / name
    file.write_text(text)
    return invoke("amend", output, file)


def bytes_of(output: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def row_of(output: Path, shard: str, row: int) -> dict:
    [found] = [one for one in committed_rows(output) if (one["shard"], one["row"]) == (shard, row)]
    return found


def test_edits_of_a_csv_are_applied_verified_exported_and_counted(output, shards):
    first, second = shards
    before = row_of(output, first, 1)["caption"]
    text = f'{HEADER},status\n{first},1,long,"A cat, asleep.\nIt dreams.",ada,\n{second},0,long,,bob,rejected\n'
    assert amend(output, text) == "2 edits in 2 shards: 2 rows changed, 0 were so already\n"
    edited, rejected = row_of(output, first, 1), row_of(output, second, 0)
    assert (edited["caption"], edited["model_caption"]) == ("A cat, asleep.\nIt dreams.", before)
    assert (rejected["status"], rejected["reason"], rejected["edited_by"]) == ("rejected", "editor", "bob")
    assert edited["edited_at"] == rejected["edited_at"]
    verified = invoke("verify", output)
    assert "note: 2 caption rows were edited by people" in verified
    assert "8 images x 1 slots = 8 caption rows: each exactly once" in verified
    assert "7 of 8 images of 2 shards" in invoke(
        "export", output, output.parent / "e", "--to", "jsonl", "--workers", "1"
    )
    files = (output.parent / "e").rglob("*.jsonl")
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert "A cat, asleep.\nIt dreams." in [text for line in lines for text in line.values()]


def test_the_same_edits_twice_change_nothing(output, shards):
    text = f"{HEADER}\n{shards[0]},1,long,A cat.,ada\n{shards[1]},2,long,A dog.,ada\n"
    amend(output, text)
    before = bytes_of(output)
    assert amend(output, text) == "2 edits in 2 shards: 0 rows changed, 2 were so already\n"
    assert bytes_of(output) == before


def test_parquet_is_read_like_csv(output, shards):
    table = pa.table(
        {
            "shard": pa.array([shards[0]] * 2, pa.large_string()),
            "row": pa.array([0, 3], pa.int32()),
            "slot": ["long", "long"],
            "caption": ["A bird.", None],
            "editor": ["ada", "ada"],
            "status": [None, "rejected"],
        }
    )
    pq.write_table(table, output.parent / "edits.parquet")
    assert "2 rows changed" in invoke("amend", output, output.parent / "edits.parquet")
    assert row_of(output, shards[0], 0)["caption"] == "A bird."


def test_an_export_that_was_made_before_is_refused_by_name(output, shards):
    words = ("export", output, output.parent / "e", "--to", "jsonl", "--workers", "1")
    invoke(*words)
    amend(output, f"{HEADER}\n{shards[0]},1,long,A cat.,ada\n")
    with pytest.raises(Exception, match=rf"captions of 1 shards changed .* {shards[0]} .`retry --rows` or `amend`"):
        invoke(*words)


def test_every_wrong_edit_is_named_with_its_line_and_none_is_applied(output, shards):
    first = shards[0]
    before = bytes_of(output)
    lines = [
        f"{first},0,long,A good one.,ada,",
        "nowhere.tar,0,long,text,ada,",
        f"{first},4,long,text,ada,",
        f"{first},-1,long,text,ada,",
        f"{first},1,short,text,ada,",
        f"{first},1,long,  ,ada,",
        f"{first},0,long,again,bob,",
        f"{first},2,long,text,,",
        f"{first},2,long,text<|eot_id|>,ada,",
        f"{first},2,long,te\x07xt,ada,",
        f"{first},2,long,text,ada,fine",
        f"{first},2,long,text,ada,rejected",
        f"{first},2,long,text,ada,,more",
        f"{first},x,long,text,ada,",
    ]
    with pytest.raises(ConfigError) as refused:
        amend(output, "\n".join([f"{HEADER},status", *lines]))
    head, *listed = str(refused.value).splitlines()
    assert head.endswith("edits.csv: 13 edits are wrong, and no row was changed:")
    lines_of_message = [line.strip() for line in listed]
    for number, words in (
        (3, f"shard 'nowhere.tar': not in the plan of {output}, whose shards are such as "),
        (4, f"row 4: shard {first} has 4 images; allowed: 0..3"),
        (5, "row: found '-1'; allowed: a number from 0 on"),
        (6, "slot 'short': not in this output; allowed: long"),
        (7, "caption '  ': has no letter and no digit"),
        (8, f"shard {first}, row 0, slot long: line 2 edits it too; leave one of them out"),
        (9, "editor: empty; give a value"),
        (10, "caption: special_tokens: '<|eot_id|>' is a mark of a chat template"),
        (11, r"caption: control character '\x07' at offset 2; allowed: none but a line feed"),
        (12, "status: found 'fine'; allowed: ok, rejected, or empty for ok"),
        (13, "caption: not empty beside status rejected"),
        (14, "has 7 values, more than columns; quote texts that have commas"),
        (15, "row: found 'x'"),
    ):
        assert lines_of_message[number - 3].startswith(f"line {number}: {words}"), lines_of_message
    assert bytes_of(output) == before


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("edits.txt", b"", "not an edits file; allowed: .csv and .parquet, with shard, row, slot, caption, editor"),
        ("edits.csv", None, "cannot be read .No such file"),
        ("edits.csv", b"", "columns none; missing shard, row, slot, caption, editor, unknown none"),
        ("edits.csv", b"shard,row,slot,captoin,editor\n", "missing caption, unknown captoin.*; did you mean caption?"),
        ("edits.csv", b"shard,row,slot,caption,editor,row\n", "allowed: each of shard, row, .* once, and status"),
        ("edits.csv", HEADER.encode() + b"\n\xff\xfe", "not CSV in UTF-8"),
        ("edits.csv", HEADER.encode() + b'\na,1,long,"no end', "not CSV in UTF-8"),
        ("edits.parquet", b"no", "not a Parquet file of edits"),
    ],
)
def test_a_file_that_is_none_of_edits_is_refused(output, name, data, message):
    if data is not None:
        (output.parent / name).write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        invoke("amend", output, output.parent / name)


def test_a_file_of_a_spreadsheet_with_a_byte_order_mark_is_read(output, shards):
    (output.parent / "edits.csv").write_bytes(f"\ufeff{HEADER}\r\n{shards[0]},1,long,Eine Öffnung.,ada\r\n".encode())
    assert "1 rows changed" in invoke("amend", output, output.parent / "edits.csv")
    assert row_of(output, shards[0], 1)["caption"] == "Eine Öffnung."


def test_edits_are_written_as_they_are_read(tmp_path):
    file = tmp_path / "edits.csv"
    file.write_text(f'{HEADER},status\na b.tar,3,long,"Two lines,\nand ""quotes"".",ada,ok\na,0,tags,,bob,rejected\n')
    edits, mistakes = read_edits(str(file))
    assert (len(edits), mistakes) == (2, [])
    before = file.read_text()
    write_edits(file, edits)
    assert file.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["edits.csv"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A cat.\nIt sleeps.", None),
        ("1girl, solo", None),
        ("猫", None),
        ("", "has no letter and no digit"),
        ("...", "has no letter and no digit"),
        ("a\tb", r"control character '\\t' at offset 1"),
        ("a\u2028b", r"control character '\\u2028'"),
        ("a [/INST] b", r"'\[/INST\]' is a mark of a chat template"),
        ("assistant\n\nA cat.", "is a mark of a chat template"),
    ],
)
def test_the_text_of_an_edit_is_checked_by_the_rules_that_hold_for_every_text(text, message):
    mistake = edited_text_mistake(text)
    if message is None:
        assert mistake is None
    else:
        import re

        assert mistake is not None
        assert re.search(message, mistake)
