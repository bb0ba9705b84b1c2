"""`joyfleet corpus` as users run it, on Ray: killed, stopped, and two runs at the same time."""

import hashlib
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.cli import finish, run, start, wait_until
from tests.corpus.outputs import write_output
from tests.corpus.test_job import TAGS, entry, lines, shards
from tests.gate import Gate
from tests.hub_server import serve_hub
from tests.trees import send, tree

pytestmark = pytest.mark.slow

SHARDS, ROWS, EPOCHS = 24, 60, 3


def job(folder: Path, name: str = "corpus", num_cpus: int = 2, **keys) -> str:
    source = folder / "captions"
    url = str(source) if source.exists() else write_output(source, shards(SHARDS, ROWS))
    config = {
        "captions": entry(url),
        "output": str(folder / name),
        "epochs": EPOCHS,
        "memory_gib": 0.5,
        "split": {"validation": 0.1},
        "cluster": {"num_cpus": num_cpus, "object_store_gib": 0.2, "stall_timeout_s": 120},
        **keys,
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    return str(file)


def texts(output: Path) -> dict[tuple[str, int], str]:
    """Return the digest of each text by its identity; a text must not occur twice."""
    rows = [row for file in sorted((output / "text").rglob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    result = {(row["id"], row["epoch"]): hashlib.sha256(str(row).encode()).hexdigest() for row in rows}
    assert len(result) == len(rows)
    return result


def committed(output: Path) -> set[str]:
    return {str(file) for file in (output / "parts").rglob("*.json")}


@pytest.mark.long
def test_a_killed_and_stopped_corpus_resumes_with_the_same_texts_each_once(tmp_path):
    whole = run(tmp_path, "corpus", job(tmp_path, "whole"))
    assert whole.code == 0, whole
    assert f"{SHARDS * ROWS * EPOCHS:,}: " in whole.out
    path, output = job(tmp_path), tmp_path / "corpus"
    gate = Gate(tmp_path / "gate")
    process = start(tmp_path, "corpus", path, **gate.environment)
    gate.let(2)
    wait_until(lambda: len(committed(output)) == 2 and gate.held() > 0, process, "2 parts, and one in work")
    send(tree(process.pid), signal.SIGKILL)
    finish(process)
    process = start(tmp_path, "corpus", path, **gate.environment)
    gate.let(1)
    wait_until(lambda: len(committed(output)) == 3 and gate.held() > 0, process, "another part, and one in work")
    process.send_signal(signal.SIGTERM)
    stopped = finish(process)
    assert stopped.code == 4, stopped
    assert "run" in stopped.err
    last = run(tmp_path, "corpus", path)
    assert last.code == 0, last
    assert texts(output) == texts(tmp_path / "whole")
    assert len(texts(output)) == SHARDS * ROWS * EPOCHS


def mixed(output: Path) -> dict[str, bytes]:
    return {file.relative_to(output).as_posix(): file.read_bytes() for file in (output / "text").rglob("*.parquet")}


@pytest.mark.long
def test_a_killed_shuffled_corpus_has_the_bytes_of_one_with_other_workers(tmp_path):
    shuffle, gate = {"rows": 500}, Gate(tmp_path / "gate")
    paths = [job(tmp_path, "whole", num_cpus=3, shuffle=shuffle), job(tmp_path, shuffle=shuffle)]
    assert run(tmp_path, "corpus", paths[0]).code == 0
    process = start(tmp_path, "corpus", paths[1], **gate.environment)
    gate.let(2)
    wait_until(
        lambda: len(committed(tmp_path / "corpus")) == 2 and gate.held() > 0, process, "2 parts, and one in work"
    )
    send(tree(process.pid), signal.SIGKILL)
    finish(process)
    before: dict[str, bytes] = {}
    for more in ((), ("--epochs", str(EPOCHS + 1))):
        for path in paths:
            done = run(tmp_path, "corpus", path, *more)
            assert done.code == 0, done
        after = mixed(tmp_path / "corpus")
        assert after == mixed(tmp_path / "whole")
        assert {path: after[path] for path in before} == before
        assert len(after) > len(before)
        before = after
    assert len(texts(tmp_path / "corpus")) == SHARDS * ROWS * (EPOCHS + 1)


@pytest.mark.long
def test_two_concurrent_runs_make_one_corpus(tmp_path):
    path = job(tmp_path)
    gate = Gate(tmp_path / "gate")
    runs = [start(tmp_path, "corpus", path, **gate.environment) for _ in range(2)]
    wait_until(lambda: len(gate.holders()) == 2, runs[0], "2 runs that publish")
    gate.open()
    both = [finish(process) for process in runs]
    assert [item.code for item in both] == [0, 0], both
    assert len(texts(tmp_path / "corpus")) == SHARDS * ROWS * EPOCHS


@pytest.mark.long
def test_a_corpus_is_pushed_when_it_is_finished_and_again_by_the_same_command(tmp_path):
    write_output(tmp_path / "captions", shards(2, 10))
    path = job(tmp_path)
    with serve_hub() as hub:
        hub.fails = "commit"
        environment = {**hub.environment, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        failed = run(tmp_path, "corpus", path, "--push", "me/tipo", **environment)
        hub.fails = ""
        done = run(tmp_path, "corpus", path, "--push", "me/tipo", **environment)
    assert failed.code == 1, failed
    assert "corpus: me/tipo cannot be pushed" in failed.err
    assert "so run the same command again" in failed.err
    assert done.code == 0, done
    assert done.out.splitlines()[-1] == f"{hub.endpoint}/datasets/me/tipo"
    assert hub.repositories["me/tipo"].commits == ["Corpus by JoyFleet"]
    assert hub.repositories["me/tipo"].files["README.md"] == (tmp_path / "corpus/README.md").read_bytes()


def test_check_prints_position_and_rule_of_a_fault(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("rating: safe\ntarget: <|short|>\ntag: a, a\n")
    done = run(tmp_path, "corpus", "--check", str(file))
    assert done.code == 1, done
    assert f"{file}: line 1: " in done.out
    assert "1 texts, 1 broken" in done.out


@pytest.mark.long
def test_a_run_prints_what_its_filters_dropped_and_ends_with_an_error_if_nothing_is_left(tmp_path):
    rows = [{"id": number, "tags": TAGS, "score": number % 10} for number in range(100)]
    keys = {
        "tables": {"name": "posts", "urls": lines(tmp_path / "posts.jsonl", rows)},
        "epochs": 2,
        "schedule": {"first_epoch": 1, "weight": 2},
        "memory_gib": 0.5,
        "cluster": {"num_cpus": 1, "object_store_gib": 0.2, "stall_timeout_s": 120},
    }
    results = {}
    for score in (5, 50):
        file = tmp_path / f"{score}.yaml"
        config = {**keys, "output": str(tmp_path / f"out{score}"), "filters": {"score": {"min": score}}}
        file.write_text(yaml.safe_dump(config))
        results[score] = run(tmp_path, "corpus", str(file))
    some, none = results.values()
    assert some.code == 0, some
    words = " ".join(some.out.split())
    assert "texts 150: " in words
    assert "dropped 50 of 100 images: 50 filter_score" in words
    assert none.code == 1, none
    assert "filters: none of 100 records is left (100 filter_score); loosen the filters" in none.err
    assert not (tmp_path / "out50/README.md").exists()
