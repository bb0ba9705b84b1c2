"""Selections on a real Ray: the same rows for every pool and after kills, and each row once, asked or skipped."""

import io
import json
import re
import shutil
import signal
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from pipeline.config import SourceConfig
from pipeline.ledger.caption_table import from_parquet, to_parquet, with_contents
from pipeline.ledger.footer import read_footer
from pipeline.readers import list_shards, open_shard
from pipeline.standin.demo_data import draw_dataset
from schemas.caption_row import CAPTION_ROW
from tests.cli import finish, run, start, wait_until, write_job
from tests.gate import HOOKS, Gate
from tests.outputs import committed_rows, expected, fragments_of, identities, mark

pytestmark = pytest.mark.slow

WHERE = {"long_side": {"min": 200}, "format": ["JPEG", "PNG"], "fields": {"tags": {"matches": "[ae]"}}}
"""Tags are a column of the demo's Parquet shards; its tars have the same text as `txt`."""
SOURCE = {"where": {"any_of": [WHERE, {**WHERE, "fields": {"txt": {"matches": "[ae]"}}}]}, "limit": 45}
NUM_IMAGES, SHARD_ROWS = 120, 20


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "in"
    draw_dataset(folder, num_images=NUM_IMAGES, seed=3, shard_rows=SHARD_ROWS)
    return folder


def job_for(folder: Path, source: Path, output: str, **keys) -> tuple[str, Path]:
    job = write_job(folder, {"urls": [str(source)], **keys}, folder / output, engine={"batch_images": 4})
    return job, folder / output


def asked_rows(output: Path) -> set[tuple[str, int]]:
    rows = committed_rows(output)
    assert set(identities(rows).values()) == {1}
    assert Counter(row["status"] for row in rows).keys() <= {"ok", "skipped"}
    return {(row["shard"], row["row"]) for row in rows if row["status"] == "ok"}


def verified(folder: Path, output: Path) -> None:
    done = run(folder, "verify", str(output))
    assert done.code == 0, done
    assert "each exactly once" in done.out


@pytest.fixture(scope="module")
def chosen(source):
    """The rows that `SOURCE` selects, found with Pillow and `re` alone."""
    config = SourceConfig(urls=(str(source),), metadata_fields=("*",))
    rows = []
    for shard in list_shards(config):
        with open_shard(shard, config, 1 << 30) as opened:
            for row in opened.rows(None):
                image = Image.open(io.BytesIO(row.data))
                tags = row.metadata.get("tags") or row.metadata["txt"]
                if max(image.size) >= 200 and image.format in ("JPEG", "PNG") and re.search("[ae]", tags):
                    rows.append((shard.path, row.row))
    assert len(rows) > 45
    return set(rows[:45])


@pytest.mark.long
@pytest.mark.parametrize("replicas", [1, 2, 7])
def test_the_same_rows_are_selected_with_any_pool(tmp_path, source, chosen, replicas):
    job, output = job_for(tmp_path, source, "out", **SOURCE)
    done = run(tmp_path, "caption", job, "--set", f"engine.replicas={replicas}")
    assert done.code == 0, done
    assert asked_rows(output) == chosen
    assert "rows by source.limit: 45" in done.out
    planned = set(json.loads((output / "limit.json").read_text())["end_rows"])
    assert planned == {row["shard"] for row in committed_rows(output)}
    assert len(planned) < 6  # of the source's shards, only those that hold the rows
    verified(tmp_path, output)


@pytest.mark.long
def test_the_same_rows_are_selected_after_kills(tmp_path, source, chosen):
    job, output = job_for(tmp_path, source, "out", **SOURCE)
    gate = Gate(tmp_path / "gate")
    for permits in (1, 2):
        process = start(tmp_path, "caption", job, **gate.environment)
        gate.let(permits)
        wait_until(lambda: gate.permits == 0 and gate.held() > 0, process, "staged and held batches")
        process.send_signal(signal.SIGKILL)
        finish(process)
    survived = mark(fragments_of(output))
    done = run(tmp_path, "caption", job)
    assert done.code == 0, done
    assert asked_rows(output) == chosen
    captions = {(row["shard"], row["row"]): row["caption"] or "" for row in committed_rows(output)}
    assert survived
    assert {image for image, caption in captions.items() if caption.startswith("MARKED ")} == survived
    verified(tmp_path, output)


def test_a_first_look_is_taken_over_and_nothing_is_asked_twice(tmp_path, source):
    asked = tmp_path / "asked"
    environment = {**HOOKS, "JFTEST_ASKED": str(asked)}
    job, _ = job_for(tmp_path, source, "real")
    done = run(tmp_path, "caption", job, "--set", "source.limit=30", "--set", f"output={tmp_path}/look", **environment)
    assert done.code == 0, done
    assert len(asked.read_bytes()) == 30
    look = tmp_path / "look"
    assert len(asked_rows(look)) == 30
    mark_captions(look)
    asked.unlink()

    done = run(tmp_path, "caption", job, "--set", f"reuse=[{look}]", **environment)

    assert done.code == 0, done
    assert len(asked.read_bytes()) == NUM_IMAGES - 30
    assert f"taken over  30 captions of {look}" in done.out
    rows = committed_rows(tmp_path / "real")
    assert identities(rows) == Counter(dict.fromkeys(expected(source, NUM_IMAGES), 1))
    assert {row["status"] for row in rows} == {"ok"}
    taken = {(row["shard"], row["row"]) for row in rows if row["caption"].startswith("MARKED ")}
    assert taken == asked_rows(look)
    verified(tmp_path, tmp_path / "real")


def mark_captions(output: Path) -> None:
    """Mark the captions of committed rows; the files stay valid."""
    for path in (output / "captions").rglob("*.parquet"):
        data = path.read_bytes()
        footer, _ = read_footer(data)
        rows = from_parquet(data).to_pylist()
        for row in rows:
            row["caption"] = None if row["caption"] is None else f"MARKED {row['caption']}"
        table = pa.Table.from_pylist(rows, schema=CAPTION_ROW)
        path.write_bytes(to_parquet(table, with_contents(footer, table)))


@pytest.mark.long
def test_a_run_whose_rows_are_all_skipped_is_no_success_and_names_the_conditions(tmp_path, source):
    shutil.copytree(source / "tar", tmp_path / "in")
    where = {"long_side": {"min": 10_000}, "fields": {"txt": {"matches": "circle"}}}
    job, output = job_for(tmp_path, tmp_path / "in", "out", where=where)
    done = run(tmp_path, "caption", job)
    assert done.code == 1, done
    rows = committed_rows(output)
    counts = Counter(row["message"] for row in rows)
    by_side, by_text = "source.where.long_side: {min: 10000}", "source.where.fields.txt: {matches: circle}"
    assert set(counts) == {by_side, by_text}
    assert counts.total() == 60
    most, least = sorted(counts, key=lambda name: -counts[name])
    assert (
        f"no caption is ok: 60 images committed with rows 0 ok, 0 rejected, 0 failed, 60 skipped; {counts[most]} rows "
        f"skipped by {most}; {counts[least]} rows skipped by {least}; 0 shards in quarantine" in done.err
    )
    assert f"skipped: {counts[most]} rows by {most}" in done.out
    status = json.loads(run(tmp_path, "status", str(output), "--json").out)
    assert status["runs"][-1]["skipped"] == dict(counts)
    assert status["runs"][-1]["statuses"]["skipped"] == 60
    shown = run(tmp_path, "status", str(output)).out
    assert f"skipped {counts[most]} rows by {most}" in shown


@pytest.mark.long
def test_captions_that_exist_are_taken_from_the_source(tmp_path, source):
    asked = tmp_path / "asked"
    slots = [{"slot": "long", "mode": "descriptive"}, {"slot": "tags", "mode": "booru-tags", "existing": "tags"}]
    job, output = job_for(tmp_path, source, "out")
    done = run(tmp_path, "caption", job, "--set", f"captions={json.dumps(slots)}", **HOOKS, JFTEST_ASKED=str(asked))
    assert done.code == 0, done
    rows = committed_rows(output)
    modes = Counter((row["shard"].partition("/")[0], row["mode"]) for row in rows)
    half = NUM_IMAGES // 2
    assert modes == {
        ("tar", "descriptive"): half, ("tar", "booru-tags"): half,
        ("parquet", "descriptive"): half, ("parquet", "existing"): half,
    }  # fmt: skip
    assert len(asked.read_bytes()) == 3 * half
    verified(tmp_path, output)
