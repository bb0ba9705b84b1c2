"""How the verbs treat rows that were skipped: none of them takes a skipped row for a lost, a failed or an asked one."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from jobs.commands import cli
from pipeline.config import parse_job
from pipeline.config.export_config import ExportConfig
from pipeline.errors import ConfigError
from pipeline.export.choose_captions import choose
from pipeline.flow.prepared_job import prepare_job, prepare_retry
from pipeline.flow.run_result import RunResult
from pipeline.ledger.caption_table import from_parquet, to_parquet, with_contents
from pipeline.ledger.footer import read_footer
from pipeline.ledger.layout import committed_path
from pipeline.readers import list_shards
from pipeline.report.output_stats import output_stats
from pipeline.stages.source_sample import draw_sample, estimate_selection
from pipeline.storage import open_store
from schemas.caption_row import CAPTION_ROW
from schemas.status import Status
from tests.selection.world import SLOTS, job_of, reusing, run_all, spec_of, write_parquet, write_tar

WHERE = {"width": {"min": 25}, "fields": {"rating": {"equals": "odd"}}}
SELECTED = [6, 8, 10]
"""Of the 12 rows of each shard; 3 more have the rating."""
BY_RATING = "source.where.fields.rating: {equals: odd}"
BY_WIDTH = "source.where.width: {min: 25}"


@pytest.fixture
def world(tmp_path):
    """An output with 18 of 48 caption rows asked in its first shards: a tar and a Parquet file, both filtered."""
    write_tar(tmp_path / "in", "a.tar")
    write_parquet(tmp_path / "in", "b.parquet")
    run_all(reusing(tmp_path, "out", where=WHERE))
    return tmp_path


def invoke(*words, code=0):
    done = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


def rewrite(store, change):
    """Change the rows of a.tar and keep its file consistent in itself."""
    path = committed_path("a.tar")
    data = store.get(path)
    footer, _ = read_footer(data)
    rows = from_parquet(data).to_pylist()
    for row in rows:
        change(row)
    table = pa.Table.from_pylist(rows, schema=CAPTION_ROW)
    store.put(path, to_parquet(table, with_contents(footer, table)))


def test_the_footer_counts_rows_by_condition(world):
    footer, _ = read_footer((world / "out" / committed_path("a.tar")).read_bytes())
    assert footer.statuses == {"ok": 6, "rejected": 0, "failed": 0, "skipped": 18}
    assert footer.skipped == {BY_RATING: 12, BY_WIDTH: 6}


def test_verify_proves_the_selection(world):
    assert "24 images x 2 slots = 48 caption rows: each exactly once" in invoke("verify", str(world / "out"))


def skip_one(row):
    if (row["row"], row["slot"]) == (6, "long"):
        row |= {"status": "skipped", "reason": "filtered", "message": BY_WIDTH, "caption": None}


def ask_one(row):
    if (row["row"], row["slot"]) == (0, "long"):
        row |= {"status": "ok", "reason": None, "message": None, "caption": "a text", "words": 2}


def skip_otherwise(row):
    if (row["row"], row["slot"]) == (1, "long"):
        row |= {"message": BY_WIDTH}


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (skip_one, f"selection: a.tar: 1: (6, long) message '{BY_WIDTH}'"),
        (ask_one, "selection: a.tar: 1: (0, long) message None"),
        (skip_otherwise, f"selection: a.tar: 1: (1, long) message '{BY_WIDTH}'"),
    ],
)
def test_verify_finds_a_row_that_is_skipped_or_asked_against_the_selection(world, change, detail):
    rewrite(open_store(str(world / "out")), change)
    out = invoke("verify", str(world / "out"), code=1)
    assert [line for line in out.splitlines() if line.startswith("selection: ")] == [detail]
    assert "1 violations" in out


def test_verify_proves_a_limit_and_a_sample(tmp_path):
    write_tar(tmp_path / "in", "a.tar")
    write_tar(tmp_path / "in", "b.tar")
    run_all(reusing(tmp_path, "out", limit=7, sample=0.9))
    assert "12 images x 2 slots" in invoke("verify", str(tmp_path / "out"))
    record = tmp_path / "out" / "limit.json"
    record.write_text(json.dumps({"end_rows": {"a.tar": 3}}))
    assert "selection: a.tar: " in invoke("verify", str(tmp_path / "out"), code=1)


def test_retry_never_asks_a_skipped_row(world):
    def fail(row):
        if row["row"] == 8:
            row |= {"status": "failed", "reason": "engine_error", "message": "lost", "caption": None}

    store = open_store(str(world / "out"))
    rewrite(store, fail)
    prepared = prepare_retry(reusing(world, "out", where=WHERE), [Status.FAILED, Status.REJECTED])
    assert [(task.shard.path, task.retry_rows.rows) for task in prepared.tasks] == [("a.tar", (8,))]
    done = CliRunner().invoke(cli, ["retry", str(world / "out"), "--rows", "skipped"])
    assert done.exit_code == 2
    assert "'skipped'; allowed: failed, rejected, or both with a comma" in done.output


def test_export_leaves_skipped_rows_out_and_counts_them(world):
    out = invoke("export", str(world / "out"), str(world / "made"), "--to", "jsonl", "--slot", "long", "--no-join")
    assert "6 of 24 images" in out
    assert "left out: 18 images skipped by the selection" in out
    assert "left out: 18 skipped" in out
    assert "without a text" not in out
    invoke(
        *("export", str(world / "out"), str(world / "all"), "--to", "jsonl", "--slot", "long", "--no-join"),
        *("--status", "ok", "--status", "skipped", "--field", "status"),
    )
    lines = [json.loads(line) for path in (world / "all").rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(lines) == 24
    assert {(line["status"], line["caption"] is None) for line in lines} == {("ok", False), ("skipped", True)}


def test_an_image_with_one_skipped_slot_is_exported_with_the_other(world):
    rows = from_parquet((world / "out" / committed_path("a.tar")).read_bytes()).to_pylist()
    for row in rows:
        skip_one(row)
    choice = choose(rows, ("long", "tags"), ExportConfig(to="jsonl"))
    assert [sorted(chosen.captions) for chosen in choice.chosen] == [["tags"], ["long", "tags"], ["long", "tags"]]


def test_quality_and_report_count_skipped_rows_apart(world):
    text = invoke("quality", str(world / "out"))
    groups = pq.read_table(world / "out" / "report" / "quality" / "groups.parquet").to_pylist()
    assert [(group["rows"], group["ok"], group["skipped"]) for group in groups] == [(24, 6, 18)] * 2
    reasons = pq.read_table(world / "out" / "report" / "quality" / "reasons.parquet").to_pylist()
    assert {(reason["kind"], reason["name"], reason["rows"]) for reason in reasons} >= {("skipped", "filtered", 18)}
    assert "skipped filtered" in text
    stats, _ = output_stats(open_store(str(world / "out")))
    assert stats.statuses == {"ok": 12, "skipped": 36}
    assert stats.reasons == {("skipped", BY_RATING): 24, ("skipped", BY_WIDTH): 12}


def test_the_report_shows_the_conditions_and_a_share_of_the_asked_rows(world):
    pytest.importorskip("matplotlib")
    invoke("report", str(world / "out"))
    page = (world / "out" / "report" / "index.html").read_text()
    assert BY_RATING in page
    assert '<span class="status skipped">skipped</span> 36 (75.0 %)' in page
    slots = re.findall(r'<tr><td>(\w+)</td><td>[\w-]+</td>.*<td class="n">([^<]+)</td></tr>', page)
    assert slots[:2] == [("long", "100 %"), ("tags", "100 %")]


def test_show_names_the_condition(world):
    assert f"[skipped: filtered] {BY_RATING}" in " ".join(invoke("show", str(world / "out"), "-n", "24").split())


def write_job(world, output="new", **source):
    job = reusing(world, output, **source).model_dump(mode="json", exclude_defaults=True)
    path = world / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return str(path)


def plan_of(world, *words, **source):
    return json.loads(invoke("plan", write_job(world, **source), "--json", "--rows", "0", *words))


def test_plan_prices_what_is_selected(world):
    whole = plan_of(world)
    assert (whole["left"]["images"], whole["estimate"]["captions"]) == (24, 48)
    assert whole["selection"]["screened"] is None
    chosen = plan_of(world, where=WHERE)
    assert (chosen["left"]["images"], chosen["estimate"]["captions"]) == (6, 12)
    assert chosen["selection"]["screened"]["skipped"] == {BY_RATING: 12, BY_WIDTH: 6}
    assert chosen["estimate"]["times"][0]["hours"] == pytest.approx(whole["estimate"]["times"][0]["hours"] / 4)
    assert plan_of(world, sample=0.25)["estimate"]["captions"] == 12
    limited = plan_of(world, limit=5)
    assert (limited["left"]["images"], limited["left"]["shards"], limited["estimate"]["captions"]) == (5, 1, 10)
    text = invoke("plan", write_job(world, where=WHERE, limit=5), "--rows", "0")
    assert f"screened      25.0% of 24 images are selected; 12 skipped by {BY_RATING}; 6 skipped by {BY_WIDTH}" in text
    assert "selected      about 5 images, limit 5" in text


def test_plan_does_not_price_texts_that_exist_or_are_taken_over(world):
    run_all(reusing(world, "look", limit=6))
    taken = plan_of(world, "--set", f"reuse=[{world / 'look'}]")
    assert taken["selection"]["taken_over"] == 12
    assert taken["estimate"]["captions"] == 48 - 12
    existing = 'captions=[{"slot": "long", "mode": "descriptive", "existing": "caption"}]'
    priced = plan_of(world, "--set", existing)
    assert priced["estimate"]["captions"] == 24 - 4
    assert priced["selection"]["requests_per_image"] == pytest.approx(20 / 24, abs=1e-4)


def test_plan_says_that_another_selection_would_be_refused(world):
    remarks = plan_of(world, output="out", sample=0.5)["remarks"]
    assert any("has another selection of images than this run" in remark for remark in remarks)


def test_a_sample_for_a_preview_is_selected(world):
    job = job_of(world / "in", where=WHERE)
    sample = draw_sample(spec_of(job), list_shards(job.source), 0, 4)
    assert sum(len(drawn.rows) for drawn in sample.shards) == 4
    assert all(row.row in SELECTED for drawn in sample.shards for row in drawn.rows)
    assert set(sample.skipped) <= {BY_RATING, BY_WIDTH}
    again = draw_sample(spec_of(job), list_shards(job.source), 0, 4)
    assert [row.row for drawn in again.shards for row in drawn.rows] == [
        row.row for drawn in sample.shards for row in drawn.rows
    ]


def test_a_preview_of_nothing_names_the_condition(world):
    job = write_job(world, where={"width": {"min": 1000}})
    with pytest.raises(
        ConfigError, match=r"no image could be read .*: 24 images skipped by source\.where\.width: \{min"
    ):
        CliRunner().invoke(cli, ["preview", job], catch_exceptions=False)


def test_an_estimate_leaves_out_shards_that_cannot_be_read(world):
    (world / "in" / "a.tar").write_bytes(b"no tar")
    job = job_of(world / "in", where=WHERE)
    share = estimate_selection(spec_of(job), list_shards(job.source))
    assert (share.screened, share.share) == (12, 0.25)


def test_a_run_that_starts_knows_no_skipped_rows(world):
    prepared = prepare_job(reusing(world, "other", where=WHERE))
    result = RunResult.of(prepared)
    assert (result.skipped, result.statuses["skipped"]) == ({}, 0)
    result.skipped |= {"b": 1, "a": 1, "c": 5}
    assert result.skipped_by_most() == [("c", 5), ("a", 1), ("b", 1)]


def test_run_json_has_the_selection_beside_the_recipe(world):
    record = json.loads((world / "out" / "run.json").read_text())
    assert record["selection"] == {"where": WHERE}
    assert "where" not in json.dumps(record["recipe"])
    job = parse_job({**record["about"]["job"], "output": str(world / "out")})
    assert job.source.selection() == record["selection"]
    assert len(job.captions) == len(SLOTS)
