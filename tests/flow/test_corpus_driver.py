"""The corpus driver without the command line: it stops on request, resumes, and reports the progress of each step."""

import json
import subprocess
import sys

import pytest
import yaml

from tests.corpus.outputs import write_output
from tests.corpus.test_job import entry, shards

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys, threading
from pipeline.config import load_corpus
from pipeline.flow.ray_env import prepare_ray_env

config = load_corpus(sys.argv[1])
prepare_ray_env(config.cluster)  # Ray reads its environment when it is imported
from pipeline.corpus.corpus_job import prepare_corpus
from pipeline.errors import Interrupted
from pipeline.flow.corpus_driver import run_corpus

stop, calls, outcome = threading.Event(), [], "completed"

def report(*call):
    calls.append(call)
    if sys.argv[2] == "stop":
        stop.set()

try:
    # The second of a complete corpus runs no step.
    for _ in range(2):
        run_corpus(prepare_corpus(config), report, stop)
except Interrupted:
    outcome = "interrupted"
print(json.dumps([outcome, calls]))
"""


def run_driver(job, how):
    words = [sys.executable, "-c", SCRIPT, str(job), how]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
def test_the_driver_stops_on_request_resumes_and_reports_each_step(tmp_path):
    config = {
        "captions": entry(write_output(tmp_path / "captions", shards(3, 5))),
        "output": str(tmp_path / "corpus"),
        "memory_gib": 0.5,
        "cluster": {"num_cpus": 2, "object_store_gib": 0.2, "stall_timeout_s": 120},
    }
    job = tmp_path / "corpus.yaml"
    job.write_text(yaml.safe_dump(config))
    # A process connects to one Ray of its own, as the command does.
    outcome, first = run_driver(job, "stop")
    assert (outcome, first) == ("interrupted", [["records", 1, 3]])
    outcome, calls = run_driver(job, "complete")
    assert outcome == "completed"
    records = [call for call in calls if call[0] == "records"]
    assert records == [["records", number, len(records)] for number in range(1, len(records) + 1)]
    assert calls[len(records) :] == [["publish", number, 3] for number in (1, 2, 3)]
    assert (tmp_path / "corpus/README.md").exists()
    assert not (tmp_path / "corpus/staging").exists()
