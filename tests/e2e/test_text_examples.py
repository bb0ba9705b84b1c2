"""The commands of docs/text-models.md do what the page says: each is run as it stands there, with local settings.

The first job runs the stand-in in process. The three that follow are requests to one server with a small language
model, whose answer is the text behind the colon of its prompt up to the first full stop.
"""

import csv
import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from pipeline.config import load_job
from tests.cli import run
from tests.copy_model import answer_to, build
from tests.outputs import committed_rows
from tests.quality.clip_vocabulary import write_clip_folder
from tests.vllm_server import VllmServer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/text-models.md").read_text(encoding="utf-8")
EXAMPLES = ("tags-in-prompt", "merge-alt-text", "caption-to-json", "clip-length")
NUM_IMAGES = 24


def commands(name: str) -> list[list[str]]:
    """The lines of the page's block that captions with this job file."""
    [block] = [block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if f"{name}.yaml" in block]
    return [shlex.split(line)[1:] for line in block.splitlines()]


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_job_file_is_on_the_page_and_is_a_job(name):
    assert f"`jobs/runs/{name}.yaml`" in PAGE
    assert load_job(str(ROOT / f"jobs/runs/{name}.yaml")).captions
    assert any(words[:2] == ["caption", f"jobs/runs/{name}.yaml"] for words in commands(name))


def settings(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


LOCAL = settings("cluster.num_cpus=2", "cluster.object_store_gib=0.3", "cluster.stall_timeout_s=400")


def execute(folder: Path, name: str, *local: str) -> list[str]:
    """Run the commands of an example; return what each printed."""
    outputs = []
    for words in commands(name):
        words = [*words, *LOCAL, *local] if words[0] == "caption" else words
        words = [*words, "--images", str(NUM_IMAGES), "--shard-images", "6"] if words[0] == "make-demo-data" else words
        done = run(folder, *words)
        assert done.code == 0, (words, done.out, done.err)
        outputs.append(done.out)
    return outputs


def csv_rows(folder: Path) -> list[dict[str, str]]:
    return [row for file in folder.rglob("*.csv") for row in csv.DictReader(file.read_text().splitlines())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    (folder / "jobs").symlink_to(ROOT / "jobs")
    return folder


@pytest.fixture(scope="module")
def tagged(folder):
    printed = execute(folder, "tags-in-prompt", "--set", "engine={max_model_len: 768}")
    return printed, committed_rows(folder / "out/tagged")


@pytest.fixture(scope="module")
def local(tmp_path_factory, tagged):
    """Settings that send the requests of a job to the server."""
    place = tmp_path_factory.mktemp("server")
    model = build(place / "copy")
    grammar = ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    server = VllmServer(place / "server.log", template=False, model=str(model), words=grammar)
    server.start()
    server.wait()
    endpoint = {"urls": [server.url], "model": server.name, "reconnect_timeout_s": 300}
    engine = json.dumps({"kind": "endpoint", "max_num_seqs": 8, "batch_images": 4, "endpoint": endpoint})
    yield settings(f"model={model}", f"engine={engine}", "sampling.max_tokens=150")
    server.kill()


@pytest.mark.long
def test_the_tags_are_in_the_prompts_and_are_counted(tagged):
    printed, rows = tagged
    assert len(rows) == NUM_IMAGES
    assert {row["given"] for row in rows if row["slot"] == "long"} == {None}
    for row in (row for row in rows if row["slot"] == "tagged"):
        tags = [tag.strip() for tag in json.loads(row["source"])["txt"].split(",")]
        assert row["prompt"].endswith(f"The image has the tags {', '.join(tags)}.")
        assert row["given"] in (None, len(set(tags)))
    assert re.search(r"mentioned: [\d.]+% of \d+ given tags and names", printed[-1])


@pytest.mark.long
def test_caption_and_alt_text_become_one_text(folder, tagged, local):
    execute(folder, "merge-alt-text", *local)
    rows = committed_rows(folder / "out/merged")
    assert len(rows) == len(tagged[1]) / 2
    statuses = Counter((row["status"], row["reason"]) for row in rows)
    assert statuses.keys() <= {("ok", None), ("rejected", "lost_fact"), ("skipped", "no_parent_caption")}, statuses
    merged = [row for row in rows if row["status"] == "ok"]
    assert len(merged) >= 0.8 * len(rows)
    for row in merged:
        assert row["caption"] == answer_to(row["prompt"])
        assert row["caption"].startswith(json.loads(row["source"])["txt"])
    exported = [
        json.loads(line) for file in (folder / "merged").rglob("*.jsonl") for line in file.read_text().splitlines()
    ]
    assert {row["caption_merged"] for row in exported if row["caption_merged"]} == {row["caption"] for row in merged}
    assert sum(bool(row["caption_long"]) for row in exported) >= len(merged)


@pytest.mark.long
def test_a_caption_becomes_json_with_columns(folder, tagged, local):
    execute(folder, "caption-to-json", *local)
    rows = committed_rows(folder / "out/facts")
    assert {row["status"] for row in rows} <= {"ok", "rejected", "skipped"}
    facts = [json.loads(row["caption"]) for row in rows if row["caption"]]
    assert len(facts) >= 0.5 * len(rows)
    assert all(set(fact) == {"shape", "colour", "background", "watermark"} for fact in facts)
    exported = csv_rows(folder / "facts")
    assert Counter(row["facts_shape"] for row in exported) == Counter(fact["shape"] for fact in facts)


@pytest.mark.long
def test_captions_are_shortened_to_what_clip_reads(folder, tagged, local, tmp_path):
    clip = write_clip_folder(tmp_path / "clip")
    execute(folder, "clip-length", *local, "--set", f"quality.clip.tokenizer={clip}")
    rows = committed_rows(folder / "out/clip")
    short = [row for row in rows if row["status"] == "ok"]
    assert len(short) >= 0.8 * len(rows)
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(str(clip))
    assert all(len(tokenizer(row["caption"]).input_ids) <= 77 for row in short)
    assert all(row["caption"] == answer_to(row["prompt"]) for row in short)
    rejected = [row for row in rows if row["status"] == "rejected"]
    assert {row["reason"] for row in rejected} <= {"max_clip_tokens"}
    versions = json.loads((folder / "out/clip/run.json").read_text())["about"]["versions"]
    assert re.fullmatch("[0-9a-f]{16}", versions["clip_tokens"])
    exported = csv_rows(folder / "prompts")
    assert len(exported) == len(short)
    done = run(folder, "verify", "out/clip")
    assert done.code == 0, done
