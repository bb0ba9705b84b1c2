"""The terminal keeps to what people need, and nothing is written to the log alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import logging, os, sys
from pathlib import Path
from jobs.logs import redirect_output
terminal = redirect_output(Path("run.log"))
print("noise"); os.write(1, b"noise from C\\n"); logging.getLogger("x").warning("a warning")
terminal.out.write("summary\\n")
raise KeyError("nobody expected this")
"""


def test_noise_goes_to_the_log_and_an_unexpected_error_to_both(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == "summary\n"
    assert done.stderr == "joyfleet: KeyError: 'nobody expected this'; the traceback is in run.log\n"
    log = (tmp_path / "run.log").read_text()
    for expected in ("noise\n", "noise from C\n", "WARNING x a warning", "Traceback"):
        assert expected in log


JSON_SCRIPT = """
import json, logging
from pathlib import Path
from jobs.logs import redirect_output
from pipeline.config import LogFormat
redirect_output(Path("run.log"), LogFormat.JSON)
logging.getLogger("x").info('shard="%s" rows=%d', "ä", 3)
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("x").exception("caught")
"""


def test_logs_of_json_are_one_object_a_line_whatever_is_in_them(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", JSON_SCRIPT], cwd=tmp_path, env=env, check=True)
    first, second = [json.loads(line) for line in (tmp_path / "run.log").read_text().splitlines()]
    assert (first["levelname"], first["name"], first["message"]) == ("INFO", "x", 'shard="ä" rows=3')
    assert "exc_text" not in first
    assert "ZeroDivisionError: division by zero" in second["exc_text"]
