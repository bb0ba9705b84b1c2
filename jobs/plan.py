"""`joyfleet plan job.yaml`: what a job would do and cost, estimated from a sample of its source; writes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TextIO

import click
from rich.console import Console
from rich.table import Table

from jobs.indexed_work import IndexedSource, count_by_index
from jobs.job_file import read_job, set_option
from jobs.logs import Terminal, new_log, redirect_output
from jobs.progress_line import clock, size
from jobs.selected_work import selected_work
from jobs.signals import DEFAULT, SIGNALS
from jobs.source_summary import show_source
from jobs.terminal import echo, print_table, printable, to_json
from pipeline.config import JobConfig
from pipeline.cost import (
    Rate,
    SampledRow,
    Workload,
    captions_per_image,
    card_rates,
    estimate,
    guess_tokens,
    rows_with_fields,
    staged_tokens,
)
from pipeline.engines.gpus import GPUS
from pipeline.errors import ConfigError, OutputMismatch, PipelineError
from pipeline.flow.extension import unplanned_remark
from pipeline.flow.job_duplicates import duplicates_by_shard
from pipeline.flow.prepared_job import check_job, read_spec, refuse_output_in_source
from pipeline.flow.ray_env import prepare_ray_env
from pipeline.ledger.plan_selection import (
    current_selection,
    refuse_impossible_change,
    refuse_other_selection,
    selection_differences,
)
from pipeline.ledger.run_record import read_run
from pipeline.ledger.shard_plan import read_plan, remaining
from pipeline.models import planned_dims
from pipeline.readers import list_source
from pipeline.readers.count_estimate import estimate_counts
from pipeline.stages.index_facts import checked_index_facts
from pipeline.stages.read_batches import ReadSpec
from pipeline.stages.source_sample import draw_sample
from pipeline.storage import open_store
from schemas.shard import Shard

if TYPE_CHECKING:
    from pipeline.flow.calibrate import Calibration

MACHINE = "machine"
"""Name of this machine among the GPUs."""
SHOWN = 5
"""Unreadable shards that are listed."""
FIELD_ROWS = 64
"""Rows of the source that are read for the fields that prompts use."""
WIDTH = 120


@click.command()
@click.argument("job_file", type=click.Path())
@set_option
@click.option(
    "--calibrate",
    "num_images",
    type=click.IntRange(1),
    help="Caption this number of images on this machine, and use the measured rate.",
)
@click.option(
    "--price", "prices", multiple=True, metavar="CARD=PER_HOUR", help="Price of a GPU, or of `machine`; repeatable."
)
@click.option(
    "--rows",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="Rows of the first shard to show; 0 reads none.",
)
@click.option("--index", "index_url", metavar="URL", help="Count by this index, as with source.index: exactly.")
@click.option("--extend", is_flag=True, help="Count the shards that `caption --extend` would add as left.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(
    job_file: str,
    overrides: Sequence[str],
    num_images: int | None,
    prices: Sequence[str],
    rows: int,
    **options: Any,  # noqa: ANN401 - index_url and flags
) -> None:
    """Check JOB_FILE and estimate what the job would take: images, tokens, hours, money, requests.

    It reads footers and heads of at most 32 shards, with conditions also the first images of 8, and writes nothing.
    With an index (source.index) it reads all of that instead, and counts. With --calibrate it runs the job's engine.
    """
    if options["index_url"] is not None:
        overrides = [*overrides, f"source.index={json.dumps(options['index_url'])}"]
    job = read_job(job_file, overrides)
    priced = _prices(prices)
    terminal = Terminal(out=sys.stdout, err=sys.stderr)
    calibration = None
    if num_images is not None:
        # Before the output is redirected, so that a wrong config is reported on the terminal.
        check_job(job)
        prepare_ray_env(job.cluster)
        terminal = redirect_output(new_log(), job.logs)
        calibration = _calibrate(job, num_images, terminal)
        SIGNALS.end_at_once(DEFAULT)
    summary = make_plan(job, calibration, priced, extend=options["extend"])
    for remark in summary["remarks"]:
        terminal.err.write(f"joyfleet: note: {printable(remark)}\n")
    if options["as_json"]:
        terminal.out.write(to_json(summary, indent=2) + "\n")
    else:
        show_source(job, rows, terminal.out)
        _print(summary, terminal.out)


def _calibrate(job: JobConfig, num_images: int, terminal: Terminal) -> Calibration:
    # Ray reads its environment when it is imported, so not at the top.
    from pipeline.flow.calibrate import calibrate, prepare_trial  # noqa: PLC0415

    try:
        with SIGNALS.scratch_folder("joyfleet-calibrate-") as folder:
            trial = prepare_trial(job, num_images, folder)
            return calibrate(trial, num_images, SIGNALS.drain())
    except PipelineError as err:
        terminal.err.write(f"joyfleet: {printable(err)}\n")
        sys.exit(err.exit_code)


def _prices(options: Sequence[str]) -> dict[str, float]:
    known = {*(card.value for card in GPUS), MACHINE}
    prices: dict[str, float] = {}
    for option in options:
        name, _, amount = option.partition("=")
        if name not in known or not amount.replace(".", "", 1).isdigit():
            raise ConfigError(f"--price {option}: not CARD=PER_HOUR; allowed cards: {', '.join(sorted(known))}")
        prices[name] = float(amount)
    return prices


def make_plan(
    job: JobConfig, calibration: Calibration | None, prices: Mapping[str, float], *, extend: bool = False
) -> dict[str, Any]:
    """Return the plan as JSON; `extend` counts shards that are not in the plan of the output as left."""
    recipe, weights, remarks = check_job(job)
    refuse_output_in_source(job, open_store(job.output))
    spec = read_spec(job, weights)
    # Of a chained job the parent's rows say everything that a plan needs about the images.
    spec = replace(spec, source=spec.source.without_images())
    listed = list_source(spec.source)
    shards = listed.shards
    finished = _finished(job, recipe.fingerprint, shards, remarks, extend=extend)
    left = [shard for shard in shards if shard.path not in finished.done | finished.skipped]
    skipped = [shard for shard in shards if shard.path in finished.skipped]
    by_index = _by_index(job, spec, [shard for shard in shards if shard.path not in finished.skipped], remarks)
    counted = by_index.counted() if by_index else estimate_counts(shards, spec.source)
    total = sum(shard.size for shard in shards)

    def images_in(some: Sequence[Shard]) -> int:
        if by_index:
            return by_index.num_images(some)
        return round(counted.images * sum(shard.size for shard in some) / total) if total else 0

    num_left = images_in(left)
    selected = by_index.work(recipe, left) if by_index else selected_work(job, recipe, spec, left, num_left)
    work = Workload(
        shards=len(selected.shards),
        bytes=sum(shard.size for shard in selected.shards),
        images=selected.images,
        requests_per_image=selected.requests_per_image,
        largest_shard_bytes=max((shard.size for shard in selected.shards), default=0),
        shards_planned=len(shards),
        remote_source=any("://" in shard.url for shard in shards),
    )
    images_done = counted.images - num_left - images_in(skipped)
    sampled = _sampled_rows(spec, selected.shards or shards, job)
    guessed = guess_tokens(job, sampled)
    tokens = (
        replace(calibration.tokens, prompt=guessed.prompt)
        if calibration
        else staged_tokens(open_store(job.output), guessed)
    )
    rates = [*_machine(job, calibration), *card_rates(job, tokens)]
    if not rates:
        remarks.append(_no_rates(job))
    estimated = estimate(job, work, tokens, rates, prices, spec.geometry.max_pixels)
    return {
        "source": {
            "shards": len(shards),
            "bytes": total,
            "images": counted.images,
            "images_error": round(counted.error, 4),
            "counted": counted.exact,
            "shards_looked_at": counted.sampled,
            "unreadable": counted.unreadable,
            "remarks": listed.remarks,
            "left_out": [f"in the shards looked at: {left_out}" for left_out in counted.left_out],
        },
        "left": asdict(work),
        "selection": {**job.source.selection(), **selected.as_json()},
        "resumed": {"shards_done": len(finished.done), "images_done": images_done},
        "slots": captions_per_image(job),
        "tokens": asdict(tokens),
        "prompt_fields": {"rows": len(sampled), "with_text": rows_with_fields(job, sampled)},
        "calibration": None if calibration is None else asdict(calibration),
        "estimate": asdict(estimated),
        "remarks": remarks,
    }


def _by_index(job: JobConfig, spec: ReadSpec, shards: Sequence[Shard], remarks: list[str]) -> IndexedSource | None:
    """Count by the index of the job; None without one, and where it cannot decide about the rows.

    Raises:
        OutputMismatch: it is not an index of these shards, or of other settings.
    """
    index = checked_index_facts(spec.source, spec.images, shards)
    if index is None:
        return None
    counted = count_by_index(job, spec, index, shards, duplicates_by_shard(job, spec.selection, shards))
    if counted is None:
        remarks.append(
            f"the index does not have all of the fields {', '.join(spec.source.tested_fields)}, which decide "
            "about rows, so the plan is an estimate; `joyfleet index JOB_FILE OUTPUT` keeps those that source.where "
            "tests, --field others"
        )
    return counted


def _sampled_rows(spec: ReadSpec, shards: Sequence[Shard], job: JobConfig) -> list[SampledRow]:
    """Rows of the source that are asked, if prompts use its fields."""
    if not job.field_policies:
        return []
    # Without `source.sample`, which would leave few of the rows that are looked at.
    spec = replace(spec, selection=replace(spec.selection, sample=None))
    sample = draw_sample(spec, shards, job.seed, FIELD_ROWS)
    return [(drawn.shard.path, row.row, row.metadata) for drawn in sample.shards for row in drawn.rows]


def _no_rates(job: JobConfig) -> str:
    """Say why no card has a rate."""
    if planned_dims(job.model) is None:
        why = (
            "whose dimensions are not known here; --calibrate measures it, or give a local folder with its config.json"
        )
    else:
        why = "which fits on none of the known GPUs; --calibrate measures it"
    return f"model: no rate for {job.model.id}, {why}"


def _machine(job: JobConfig, calibration: Calibration | None) -> list[Rate]:
    if calibration is None:
        return []
    gpus = (job.engine.num_gpus or 0) * job.engine.replicas.max
    source = f"measured on {calibration.images:,} images, {job.engine.replicas.max} replicas"
    rate = calibration.images_per_s
    return [Rate(name=MACHINE, images_per_s=rate, gpus=gpus, source=source, start_s=calibration.start_s)]


@dataclass(frozen=True, slots=True)
class _Finished:
    """Shards of the source that a run would not read, by path."""

    done: frozenset[str] = frozenset()
    """Committed, or in quarantine."""
    skipped: frozenset[str] = frozenset()
    """Not in the plan of the output."""


def _finished(job: JobConfig, recipe: str, shards: Sequence[Shard], remarks: list[str], *, extend: bool) -> _Finished:
    store = open_store(job.output)
    try:
        existing = read_run(store)
        planned = read_plan(store)
    except ConfigError:
        return _Finished()
    if existing.fingerprint != recipe:
        remarks.append(f"{store.url}: bound to another recipe; a run with this job needs another output")
        return _Finished()
    in_force, selection = current_selection(existing.selection, planned), job.source.selection()
    try:
        (refuse_impossible_change if extend else refuse_other_selection)(store, in_force, selection)
    except (ConfigError, OutputMismatch) as err:
        remarks.append(str(err))
        return _Finished()
    if selection_differences(in_force, selection):
        remarks.append(
            f"{store.url}: has another selection, which --extend changes to that of this job; rows that it newly "
            "selects in committed shards are not in this estimate"
        )
    left = remaining(store, planned)
    unplanned = () if extend else tuple(shard for shard in shards if shard.path not in planned.shards)
    if unplanned:
        remarks.append(unplanned_remark(replace(planned, unplanned=unplanned)))
    return _Finished(left.committed | left.quarantined, frozenset(shard.path for shard in unplanned))


def _print(summary: Mapping[str, Any], out: TextIO) -> None:
    source, left, made, tokens = summary["source"], summary["left"], summary["estimate"], summary["tokens"]
    precision = (
        "counted" if source["counted"] else f"+- {source['images_error']:.1%}, {source['shards_looked_at']} looked at"
    )
    rows = [
        ("source", f"{source['shards']:,} shards, {size(source['bytes'])}, {source['images']:,} images ({precision})"),
        ("done", f"{summary['resumed']['shards_done']:,} shards, about {summary['resumed']['images_done']:,} images"),
        ("left", f"{left['shards']:,} shards, {size(left['bytes'])}, {left['images']:,} images"),
        *_selected(summary["selection"]),
        ("captions", f"{made['captions']:,}, {summary['slots']} of each image"),
        ("tokens", f"{tokens['prompt']:.0f} a prompt, {tokens['caption']:.0f} a caption ({tokens['source']})"),
        *_field_rows(summary["prompt_fields"]),
        ("output", f"{size(made['output_bytes'])}, and at most as much in staging"),
        ("object store", f"{size(made['object_store_bytes'])} of Ray's, for images in flight"),
        ("disk", f"{size(made['disk_bytes_per_reader'])} for each shard that is read at the same time"),
        ("requests", ", ".join(f"{count:,} {kind}" for kind, count in made["requests"].items())),
    ]
    print_table(out, rows)
    for shard, message in list(source["unreadable"].items())[:SHOWN]:
        echo(f"unreadable: {shard}: {message}", file=out)
    for left_out in source["left_out"]:
        echo(f"note: {left_out}", file=out)
    Console(file=out, soft_wrap=True, highlight=False, width=WIDTH).print(_times(made["times"]))


def _selected(selection: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the selection narrows the work; nothing without one."""
    screened = selection["screened"]
    rows: list[tuple[str, str]] = []
    if screened:
        most = sorted(screened["skipped"].items(), key=lambda item: -item[1])[:SHOWN]
        skipped = "".join(f"; {count:,} skipped by {condition}" for condition, count in most)
        rows.append(("screened", f"{screened['share']:.1%} of {screened['screened']:,} images are selected{skipped}"))
    limits = [f"{key} {selection[key]:,}" for key in ("sample", "limit") if key in selection]
    if rows or limits or selection["counted"]:
        images = f"{selection['images']:,} images"
        number = f"{images}, counted by the index" if selection["counted"] else f"about {images}"
        rows.append(("selected", ", ".join([number, *limits])))
    if selection["taken_over"]:
        rows.append(("taken over", f"about {selection['taken_over']:,} captions of the outputs of reuse"))
    return rows


def _field_rows(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    counts = ", ".join(f"{name} {count}" for name, count in fields["with_text"].items())
    return [("prompt fields", f"of {fields['rows']} rows looked at, a text in: {counts}")] if counts else []


def _times(times: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("on", "images/s", "time", "GPU hours", "cost", "rate", box=None, pad_edge=False)
    for row in times:
        cost = "-" if row["cost"] is None else f"{row['cost']:,.2f}"
        rate, hours = f"{row['images_per_s']:.1f}", clock(row["hours"] * 3600)
        table.add_row(row["name"], rate, hours, f"{row['gpu_hours']:,.1f}", cost, row["source"])
    return table
