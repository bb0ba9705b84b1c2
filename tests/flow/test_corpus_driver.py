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
from pipeline.corpus.corpus_job import prepare_corpus
from pipeline.errors import Interrupted
from pipeline.flow.corpus_driver import run_corpus
from pipeline.flow.ray_env import prepare_ray_env

config = load_corpus(sys.argv[1])
prepare_ray_env(config.cluster)
stop, calls = threading.Event(), []

def stop_at_once(*call):
    calls.append(call)
    stop.set()

try:
    run_corpus(prepare_corpus(config), stop_at_once, stop)
    outcome = "completed"
except Interrupted:
    outcome = "interrupted"
stopped_calls = len(calls)
stop.clear()
for _ in range(2):
    run_corpus(prepare_corpus(config), lambda *call: calls.append(call), stop)
print(json.dumps({"outcome": outcome, "stopped_calls": stopped_calls, "calls": calls}))
"""


def test_the_driver_stops_on_request_resumes_and_reports_each_step(tmp_path):
    config = {
        "captions": entry(write_output(tmp_path / "captions", shards(3, 5))),
        "output": str(tmp_path / "corpus"),
        "memory_gib": 0.5,
        "cluster": {"num_cpus": 2, "object_store_gib": 0.2, "stall_timeout_s": 120},
    }
    job = tmp_path / "corpus.yaml"
    job.write_text(yaml.safe_dump(config))
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(job)], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["outcome"], result["stopped_calls"]) == ("interrupted", 1)
    # The second run completes what is left of the step and the job, the third finds it complete and runs no step.
    first, *records = [call for call in result["calls"] if call[0] == "records"]
    assert first == ["records", 1, 3]
    assert records == [["records", number, len(records)] for number in range(1, len(records) + 1)]
    assert result["calls"][1 + len(records) :] == [["publish", number, 3] for number in (1, 2, 3)]
    assert (tmp_path / "corpus/README.md").exists()
    assert not (tmp_path / "corpus/staging").exists()
