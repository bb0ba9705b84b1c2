"""What the verbs print and which exit code they end with, where no cluster is needed."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs import verbs
from jobs.__main__ import main
from jobs.commands import cli
from jobs.progress_line import ProgressLine, clock, render, size
from jobs.verbs import GROUPS
from pipeline.config import load_job
from pipeline.flow.prepared_job import prepare_job
from pipeline.flow.progress import Snapshot
from pipeline.ledger.layout import committed_path
from pipeline.standin.demo_data import draw_dataset


def test_prompts_prints_the_exact_prompt():
    words = ["prompts", "--generation", "alpha-two", "--mode", "descriptive", "--tone", "casual", "--length", "40"]
    result = CliRunner().invoke(cli, [*words, "--option", "lighting"])
    assert result.stdout == (
        "Write a descriptive caption for this image in a casual tone within 40 words. "
        "Include information about lighting.\n"
    )
    assert result.stderr == "system: You are a helpful image captioner.\n"


@pytest.mark.parametrize("generation", ["alpha-one", "alpha-two", "beta-one"])
def test_prompts_lists_a_generation(generation):
    result = CliRunner().invoke(cli, ["prompts", "--generation", generation])
    assert result.exit_code == 0
    assert "  descriptive [formal]: " in result.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["caption", "nowhere.yaml"], 2, "joyfleet: nowhere.yaml: cannot be read"),
        (["status", "nowhere"], 2, "no run.json, so not an output"),
        (["prompts", "--mode", "nope"], 2, "prompts.mode: found 'nope'; beta-one has: descriptive, straightforward"),
        (["prompts", "--tone", "formal"], 2, "--tone, --length, --option and --name need --mode"),
        (["dance"], 2, "there is no verb 'dance'; allowed: caption, preview, plan"),
        (["captoin"], 2, "make-demo-data; did you mean caption?"),
        (["draw", "data"], 2, "draw was renamed; use `joyfleet make-demo-data`"),
        (
            ["retry", "out"],
            2,
            "--rows is missing; give --rows failed, rejected, failed,rejected, stale or duplicates-of-failed. To",
        ),
        (["retry", "out", "--rows", "ok"], 2, "'ok'; allowed: failed, rejected, or both with a comma"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_one_line(monkeypatch, capsys, words, code, message):
    monkeypatch.setattr("sys.argv", ["joyfleet", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert message in capsys.readouterr().err


def test_a_wrong_job_file_is_refused_with_all_of_its_mistakes_before_anything_starts(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text("sourc: in\nmodel: standin\ncaptions: {slot: s, mode: descriptve}\nengine: {grace_s: 1}\n")
    for verb in ("caption", "plan", "preview", "submit"):
        words = ["--address", "http://nowhere:8265"] if verb == "submit" else []
        message = str(CliRunner().invoke(cli, [verb, str(job), *words]).exception)
        assert [line.partition(": ")[2].partition(";")[0] for line in message.splitlines()] == [
            "source: missing",
            "output: missing",
            "engine.grace_s: unknown key",
            "sourc: unknown key",
            "captions.0.mode: found 'descriptve'",
        ], verb


def test_help_lists_every_verb_once_in_its_group_with_whole_sentences():
    text = CliRunner().invoke(cli, ["--help"], terminal_width=120).stdout
    groups = dict(re.findall(r"^(\w+):\n((?:  .*\n)+)", text, re.MULTILINE))
    del groups["Options"]
    assert {group: tuple(re.findall(r"^  ([a-z-]+)", lines, re.MULTILINE)) for group, lines in groups.items()} == GROUPS
    modules = {path.stem for path in Path(verbs.__file__).parent.glob("*.py")}
    for verb in cli.list_commands(None):
        assert verb.replace("-", "_") in modules
        sentence = " ".join(cli.get_command(None, verb).help.split()).partition(". ")[0].rstrip(".")
        assert f"{sentence}.".replace(" ", "") in "".join(text.split()), verb


def test_a_verb_imports_only_what_it_needs():
    code = "import sys, jobs.commands; print(sorted(name for name in sys.modules if name.startswith('jobs.')))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "['jobs.commands', 'jobs.terminal', 'jobs.verbs']"


def plan_of(folder, *words):
    job = folder / "job.yaml"
    job.write_text(
        f"source: {folder}/in\noutput: {folder}/out\nmodel: standin\ncaptions: {{slot: s, mode: descriptive}}\n"
    )
    return CliRunner().invoke(cli, ["plan", str(job), *words])


def test_plan_prints_an_estimate_and_writes_nothing(tmp_path):
    draw_dataset(tmp_path / "in", num_images=12, seed=0, shard_rows=4)
    result = plan_of(tmp_path, "--json", "--price", "h100=3.6")
    assert result.exit_code == 0, result
    planned = json.loads(result.stdout)
    assert (planned["source"]["images"], planned["source"]["counted"], planned["left"]["images"]) == (12, True, 12)
    assert planned["estimate"]["captions"] == 12
    times = {item["name"]: item for item in planned["estimate"]["times"]}
    assert times["h100"]["cost"] == pytest.approx(12 / times["h100"]["images_per_s"] / 3600 * 3.6)
    assert times["a100"]["cost"] is None
    assert "roofline" in times["h100"]["source"]
    text = plan_of(tmp_path).stdout
    assert "12 images (counted)" in text
    assert not (tmp_path / "out").exists()


def test_plan_takes_off_what_the_output_holds_and_learns_from_it(tmp_path):
    draw_dataset(tmp_path / "in", num_images=12, seed=0, shard_rows=4)
    plan_of(tmp_path)
    prepared = prepare_job(load_job(str(tmp_path / "job.yaml")))
    done = next(iter(prepared.plan.shards))
    data = io.BytesIO()
    pq.write_table(pa.table({"caption_tokens": [30, 50, None, 40]}), data)
    prepared.store.put(committed_path(done), data.getvalue())
    planned = json.loads(plan_of(tmp_path, "--json").stdout)
    assert planned["resumed"] == {"shards_done": 1, "images_done": 12 - planned["left"]["images"]}
    assert planned["left"]["images"] == pytest.approx(8, abs=1)
    assert (planned["tokens"]["caption"], planned["tokens"]["source"]) == (30.0, "measured: 4 rows")
    other = json.loads(plan_of(tmp_path, "--json", "--set", "seed=9").stdout)
    assert other["left"]["shards"] == other["source"]["shards"]
    assert "bound to another recipe" in other["remarks"][0]


def test_plan_names_what_cannot_be_read(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(b"not a tar" * 2000)
    assert "unreadable: a.tar: " in plan_of(tmp_path).stdout


def test_plan_refuses_a_price_of_no_card(tmp_path):
    (tmp_path / "in").mkdir()
    assert "--price h1000=3: not CARD=PER_HOUR; allowed cards: a100" in str(
        plan_of(tmp_path, "--price", "h1000=3").exception
    )


RUNNING = Snapshot(
    shards_done=2,
    shards=30,
    images_done=3072,
    captions=6144,
    captions_per_s=58.12,
    replicas=4,
    replicas_starting=0,
    statuses={"ok": 6100, "rejected": 40, "failed": 4},
    bytes_done=41.2e9,
    bytes_total=100_000_000_000,
    eta_s=45240.0,
    seconds=3725.0,
)
NO_REPLICA = replace(RUNNING, shards_done=0, captions=0, replicas=0, seconds=9.0)


def test_the_progress_line_shows_every_figure():
    assert render(RUNNING) == (
        "shards 2/30  41.2% of 100.0 GB  images 3,072  captions 6,144 (58.1/s)  "
        "ok 6,100  rejected 40  failed 4  replicas 4  1:02:05  ETA 12:34:00"
    )


def test_the_progress_line_says_what_a_run_without_a_replica_waits_for():
    assert render(NO_REPLICA) == "shards 0/30  waiting for Ray to place a replica and for its process to start  0:00:09"
    loading = replace(NO_REPLICA, replicas_starting=2)
    assert render(loading) == "shards 0/30  loading the model (replicas: 2)  0:00:09"
    assert "captions 0 (58.1/s)" in render(replace(loading, replicas=1))
    assert "captions 6,144" in render(replace(RUNNING, replicas=0)), "replicas that die later hide no counts"


def test_a_log_has_a_line_for_each_phase_of_the_start_and_then_one_every_30_s():
    log = io.StringIO()
    with ProgressLine(log) as line:
        for snapshot in (NO_REPLICA, NO_REPLICA, replace(NO_REPLICA, replicas_starting=1), RUNNING, RUNNING):
            line.show(snapshot)
    starts = ["starting Ray", "shards 0/30  waiting", "shards 0/30  loading", "shards 2/30  41.2%"]
    lines = log.getvalue().splitlines()
    assert [text.startswith(start) for text, start in zip(lines, starts, strict=True)] == [True] * 4


def test_units():
    assert [size(n) for n in (0, 999, 1000, 2_500_000, 3e12, 5e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "2.5 MB",
        "3.0 TB",
        "5000.0 TB",
    ]
    assert clock(59.9) == "0:00:59"
