"""Kills a corpus job at each of its writes in turn: `python -m tests.corpus.kill_at_writes JOB.yaml OUTPUT [EPOCHS]`.

JOB's output is copied from the folder OUTPUT before each attempt, as far as that job has come. A child process dies of
SIGKILL at its n-th point: before a file is written, when it is written and has no name yet, or before a file is
removed. A second child then ends the job, and its files are compared with those of a job that nothing killed. Prints
the number of points, and exits with 1 at the first that leaves other files.
"""

import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.config import load_corpus
from pipeline.corpus.corpus_job import prepare_corpus, steps
from pipeline.storage.local import TEMPORARY, LocalStore


def arm(at: int) -> None:
    """Make this process die at its point number `at`."""
    points = itertools.count()
    write, unlink = LocalStore._write_then, LocalStore._unlink

    def die_or_pass() -> None:
        if next(points) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying_write(self, data, target, give_name):
        def dying_name(temporary, path):
            die_or_pass()
            give_name(temporary, path)

        die_or_pass()
        write(self, data, target, dying_name)

    def dying_unlink(self, path):
        die_or_pass()
        unlink(self, path)

    LocalStore._write_then, LocalStore._unlink = dying_write, dying_unlink


def work(job: str, epochs: int | None) -> None:
    prepared = prepare_corpus(load_corpus(job), epochs)
    if prepared.finished:
        return
    for step in steps(prepared):
        if step.driver_work is not None:
            step.driver_work()
        else:
            for item in step.items:
                step.work(item)


def content(folder: Path) -> dict[str, str]:
    """Return what each file says: rows, and JSON without the id of the attempt. Mixed texts count by their bytes."""
    result = {}
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder).as_posix()
        # Staging files may be left where the last point was: the next command removes them.
        if not file.is_file() or path.startswith((TEMPORARY, "staging/")):
            continue
        if re.search(r"-of-\d+\.parquet$", path) or not path.endswith((".parquet", ".json")):
            result[path] = file.read_bytes().hex()
        elif path.endswith(".parquet"):
            result[path] = repr(pq.read_table(file).to_pylist())
        else:
            value = json.loads(file.read_text())
            result[path] = repr({name: item for name, item in value.items() if name != "attempt"})
    return result


def run(job: str, epochs: int | None, at: int | None, report: Path | None, output: Path) -> None:
    if at is not None:
        arm(at)
    work(job, epochs)
    if report:
        report.write_text(json.dumps(content(output)))


def child(*arguments) -> int | None:
    """Call `run` in a fork of this process, which has no threads; return how it ended."""
    process = multiprocessing.get_context("fork").Process(target=run, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def main(job: str, output: str, epochs: str | None = None) -> int:
    started, folder, added = Path(output), Path(load_corpus(job).output), int(epochs) if epochs else None
    reports = [Path(f"{folder}.{name}.json") for name in ("whole", "killed")]
    for at in itertools.count(-1):
        if folder.exists():
            shutil.rmtree(folder)
        if started.exists():
            shutil.copytree(started, folder)
        ended = child(job, added, at, reports[0] if at < 0 else None, folder)
        if at < 0:
            assert ended == 0, "the job that nothing kills failed"
            continue
        if ended == 0:
            print(f"{at} points")
            return 0
        assert ended == -signal.SIGKILL, f"point {at}: ended with {ended}"
        # The second run has the options of the first. An extension that had not begun yet needs them.
        if child(job, added, None, reports[1], folder) or reports[0].read_text() != reports[1].read_text():
            print(f"point {at}: other files: {sorted(differing(*reports))}")
            return 1
    return 1


def differing(*reports: Path) -> set[str]:
    whole, killed = (json.loads(report.read_text()) for report in reports)
    return {path for path in whole | killed if whole.get(path) != killed.get(path)}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
