"""What data may do to a terminal: nothing."""

import io
import json
import re
import tarfile

import pytest
from click.testing import CliRunner

from jobs.commands import cli
from jobs.source_summary import show_source
from jobs.terminal import printable, to_json
from pipeline.config import parse_job
from tests.readers.shards import tar_of

STEERING = "\x1b[2J\x07\x9b31m\x7f\r\b\u202e\u2028"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def test_control_characters_stand_as_escapes():
    assert printable(STEERING) == r"\x1b[2J\x07\x9b31m\x7f\x0d\x08\u202e\u2028"
    assert printable("schön 猫 \n\t\\") == "schön 猫 \n\t\\"
    assert printable("a\nb\tc", one_line=True) == r"a\x0ab\x09c"
    assert printable("caf\udce9") == r"caf\udce9"
    assert printable(ValueError("\x1bc")) == r"\x1bc"


def test_json_without_control_characters_is_the_same_json():
    text = to_json({"key": STEERING, "n": [1, "é"]}, indent=2)

    assert json.loads(text) == {"key": STEERING, "n": [1, "é"]}
    assert not CONTROL.search(text)


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_key_cannot_steer_the_terminal_of_plan(tmp_path, words):
    files = [(f"{STEERING}.jpg", b"x"), (f"{STEERING}.txt", STEERING.encode()), (f"a{STEERING}.mask.png", b"x")]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tar").write_bytes(tar_of([*files, (f"a{STEERING}.jpg", b"x")], tarfile.PAX_FORMAT))
    (tmp_path / f"in/b{STEERING}.tar").write_bytes(b"no tar" * 100)
    job = {"source": f"{tmp_path}/in", "output": f"{tmp_path}/out", "model": "standin"}
    job["captions"] = {"slot": "s", "mode": "descriptive"}
    (tmp_path / "job.yaml").write_text(json.dumps(job))

    result = CliRunner().invoke(cli, ["plan", str(tmp_path / "job.yaml"), *words])

    assert result.exit_code == 0, result
    assert not CONTROL.search(result.output)
    assert r"b\x1b[2J" in result.output or "b\\u001b[2J" in result.output
    assert "1 file with the name of an image is not read (masks and the like" in result.output


def test_a_newline_in_a_key_begins_no_line(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of([("a\njoyfleet: all is well.jpg", b"x")]))
    job = {"source": str(tmp_path), "output": "o", "model": "standin", "captions": {"slot": "a", "mode": "descriptive"}}
    out = io.StringIO()

    show_source(parse_job(job), 3, out)

    assert r"a\x0ajoyfleet: all is well" in out.getvalue()
