"""`joyfleet amend`: edits from CSV and Parquet, refused as a whole with their lines, applied once, and exported."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.commands import cli
from jobs.edits_file import read_edits, write_edits
from jobs.output import open_output
from jobs.review_session import Review
from pipeline.config import load_job
from pipeline.engines import EngineResponse, EngineStats
from pipeline.errors import ConfigError
from pipeline.quality.edited_text import edited_text_mistake
from pipeline.report.thumbnails import ImageSource
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


SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "stars": {"type": "integer"}},
    "required": ["title"],
    "additionalProperties": False,
}


class AnsweringJson:
    """Gives the same JSON to every request."""

    async def answer(self, request):
        return EngineResponse(id=request.id, text='{"title": "A cat"}', finish_reason="stop")

    def stats(self):
        return EngineStats()


@pytest.fixture
def json_output(tmp_path, monkeypatch):
    """Two shards of four images with a slot of JSON captions and one of texts."""
    monkeypatch.chdir(tmp_path)
    draw_dataset(tmp_path / "in", num_images=8, seed=1, shard_rows=4)
    slots = [
        {"slot": "product", "prompt": "Describe it.", "schema": SCHEMA},
        {"slot": "text", "prompt": "Describe it."},
    ]
    engine = {"kind": "endpoint", "endpoint": {"urls": ["http://localhost:1/v1"]}}
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", captions=slots, engine=engine)
    run_in_process(load_job(job), AnsweringJson())
    return tmp_path / "out"


def first_shard(output: Path) -> str:
    return min(row["shard"] for row in committed_rows(output))


def edits_of(output: Path, *edits: tuple[int, str, str | None]) -> str:
    shard = first_shard(output)
    table = pa.table(
        {
            "shard": [shard] * len(edits),
            "row": [row for row, _, _ in edits],
            "slot": [slot for _, slot, _ in edits],
            "caption": pa.array([caption for _, _, caption in edits], pa.string()),
            "editor": ["ada"] * len(edits),
            "status": ["rejected" if caption is None else "ok" for _, _, caption in edits],
        }
    )
    pq.write_table(table, output.parent / "edits.parquet")
    return str(output.parent / "edits.parquet")


def test_an_edit_of_a_json_caption_is_stored_in_the_form_of_all(json_output):
    edits = edits_of(
        json_output,
        (0, "product", '{"title": "Ein Käfer",\n "stars": 3}'),
        (1, "product", None),
        (1, "text", "no JSON at all"),
    )
    assert "3 rows changed" in invoke("amend", json_output, edits)
    first = first_shard(json_output)
    rows = {(row["row"], row["slot"]): row for row in committed_rows(json_output) if row["shard"] == first}
    assert rows[0, "product"]["caption"] == '{"stars":3,"title":"Ein Käfer"}'
    assert rows[0, "product"]["model_caption"] == '{"title":"A cat"}'
    assert rows[1, "product"]["status"] == "rejected"
    assert rows[1, "text"]["caption"] == "no JSON at all"
    assert "0 rows changed, 3 were so already" in invoke("amend", json_output, edits)
    words = ("--to", "parquet", "--workers", "1", "--spread", "product")
    invoke("export", json_output, json_output.parent / "e", *words)
    tables = [pq.read_table(file) for file in sorted((json_output.parent / "e").rglob("*.parquet"))]
    assert tables[0]["product_stars"].to_pylist()[0] == 3


def test_an_edit_that_is_not_valid_under_the_schema_is_refused(json_output):
    before = bytes_of(json_output)
    edits = edits_of(
        json_output,
        (0, "product", "A cat."),
        (1, "product", '{"stars": 3}'),
        (2, "product", '{"title": "a", "title": "b"}'),
        (3, "product", '{"title": "a \\u2028 b"}'),
        (0, "text", "a good one"),
    )
    with pytest.raises(ConfigError) as refused:
        invoke("amend", json_output, edits)
    head, *lines = str(refused.value).splitlines()
    assert head.endswith(": 4 edits are wrong, and no row was changed:")
    allowed = "; allowed: JSON that is valid under the schema of its slot"
    for line, words in zip(
        lines,
        (
            f"slot product: caption: invalid_json: Expecting value: line 1 column 1 (char 0){allowed}",
            f"slot product: caption: schema_mismatch: $: 'title' is a required property{allowed}",
            f"slot product: caption: invalid_json: the key 'title' occurs twice{allowed}",
            "slot product: caption: control character '\\u2028' at offset 12; allowed: none but a line feed",
        ),
        strict=True,
    ):
        assert line.partition(": ")[2] == words
    assert bytes_of(json_output) == before


def test_a_review_refuses_at_once_what_amend_would_refuse(json_output):
    edits = json_output.parent / "edits.csv"
    opened = open_output(str(json_output))
    first = first_shard(json_output)
    rows = [row for row in committed_rows(json_output) if (row["shard"], row["row"]) == (first, 0)]
    origin = ImageSource(opened.plan.shards, opened.source, opened.images)
    review = Review(str(json_output), rows, origin, edits, "ada", schemas=opened.schemas)
    place = [row["slot"] for row in rows].index("product")
    assert "invalid_json" in (review.accept(place, "A cat.") or "")
    assert not edits.exists()
    assert review.accept(place, '{"title": "B"}') is None
    assert review.accept(1 - place, "A cat.") is None
    assert "2 rows changed" in invoke("amend", json_output, edits)


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
