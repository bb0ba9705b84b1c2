"""`joyfleet doctor [job.yaml]`: checks this machine, or every node of a cluster, before a run costs money."""

import platform
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TextIO

import click
import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.job_file import read_job, set_option
from jobs.logs import new_log, redirect_output
from jobs.terminal import echo, printable, to_json
from pipeline.config import ClusterConfig, GpuPreset, JobConfig, LogFormat
from pipeline.doctor import CHECKS, Context, Level, Place, Result, checks_at, examine
from pipeline.doctor.examine import not_run
from pipeline.engines.orphan_reaper import RunGuard
from pipeline.flow.ray_env import ADDRESS_VARIABLE, address_of, prepare_ray_env

WIDTH = 120
SHOWN = 3
"""Nodes that a line names."""

STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILED: "bold red"}


@click.command()
@click.argument("job_file", type=click.Path(), required=False)
@set_option
@click.option(
    "--address",
    envvar=ADDRESS_VARIABLE,
    help="Check every node of the Ray cluster at this address, such as auto; by default the job's cluster.address.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(job_file: str | None, overrides: Sequence[str], address: str | None, *, as_json: bool) -> None:
    """Check this machine, or with --address every node of a cluster: drivers, GPUs, memory, limits, disks.

    With JOB_FILE it also lists the source, reads an image, probes the output, checks the model's files and captions
    one image with the job's engine. Exit code 1 if a check failed, else 0; a warning fails nothing.
    """
    job = read_job(job_file, overrides) if job_file else None
    cluster = job.cluster if job else ClusterConfig()
    cluster = cluster.model_copy(update={"address": address} if address else {})
    err: TextIO = sys.stderr
    out: TextIO = sys.stdout
    if address_of(cluster) is None:
        guard = RunGuard()
        try:
            results = list(_examine_here(job, err))
        finally:
            guard.end()
    else:
        prepare_ray_env(cluster)
        terminal = redirect_output(new_log())
        out, err = terminal.out, terminal.err
        results = list(_examine_cluster(job, cluster, err))
    out.write(to_json(_as_json(results), indent=2) + "\n") if as_json else _print(results, out)
    sys.exit(int(any(result.finding.level is Level.FAILED for result in results)))


def _examine_here(job: JobConfig | None, err: TextIO) -> Iterator[Result]:
    """Check this machine as the only node, without Ray."""
    node = platform.node()
    engine = job.engine if job else None
    needs_gpu = engine is not None and bool(engine.num_gpus or engine.preset is not GpuPreset.AUTO)
    readers = (job and job.cluster.max_concurrent_reads) or psutil.cpu_count() or 1
    context = Context(job=job, needs_gpu=needs_gpu, num_readers=readers)
    driver = examine(checks_at(Place.DRIVER, context), context, node)
    context = _with_survey(context, driver)
    results = [*driver, *examine(checks_at(Place.NODE, context), context, node)]
    yield from results
    engines = checks_at(Place.ENGINE, context)
    if any(result.finding.level is Level.FAILED for result in results):
        yield from not_run(engines, node)
    elif engines:
        err.write("joyfleet: starting the engine for one image; it takes a minute, on a first start more\n")
        yield from examine(engines, context, node)


def _examine_cluster(job: JobConfig | None, cluster: ClusterConfig, err: TextIO) -> Iterator[Result]:
    # Ray reads its environment when it is imported, so not at the top.
    from pipeline.flow.cluster import connected  # noqa: PLC0415
    from pipeline.flow.doctor_nodes import examine_nodes  # noqa: PLC0415

    context = Context(job=job)
    driver = examine(checks_at(Place.DRIVER, context), context, "driver")
    yield from driver
    with connected(cluster, job.logs if job else LogFormat.TEXT, threading.Event()) as connection:
        yield from examine_nodes(
            _with_survey(context, driver), connection, lambda line: echo(f"joyfleet: {line}", file=err)
        )


def _with_survey(context: Context, results: Sequence[Result]) -> Context:
    return replace(context, survey=next((found.finding.survey for found in results if found.finding.survey), None))


def _as_json(results: Sequence[Result]) -> dict[str, object]:
    checks = [
        {
            "node": result.node,
            "check": result.check,
            "level": result.finding.level.value,
            "message": result.finding.message,
            "remedy": result.finding.remedy,
        }
        for result in results
    ]
    return {"failed": any(entry["level"] == Level.FAILED for entry in checks), "checks": checks}


def _print(results: Sequence[Result], out: TextIO) -> None:
    """Print a table in the order of the checks; nodes with the same result share a line."""
    table = Table("check", "result", "found, and what to do", "on", box=None, pad_edge=False, width=WIDTH)
    for name in CHECKS:
        for nodes, result in _grouped([result for result in results if result.check == name]):
            finding = result.finding
            text = Text(printable(finding.message, one_line=True))
            if finding.remedy:
                text.append(f"\n-> {printable(finding.remedy, one_line=True)}", style="bold")
            table.add_row(name, Text(finding.level, style=STYLES[finding.level]), text, Text(printable(_named(nodes))))
    console = Console(file=out, highlight=False, width=WIDTH)
    console.print(table)
    counts = [sum(result.finding.level is level for result in results) for level in Level]
    console.print(", ".join(f"{count} {level}" for level, count in zip(Level, counts, strict=True)))


def _grouped(results: Sequence[Result]) -> list[tuple[list[str], Result]]:
    """Nodes with the same finding, with one result that stands for them; of good ones the figures may differ."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        finding = result.finding
        same = (finding.level,) if finding.level is Level.OK else (finding.level, finding.message)
        groups.setdefault(same, []).append(result)
    return [([result.node for result in group], group[0]) for group in groups.values()]


def _named(nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - SHOWN} more" if len(nodes) > SHOWN else ""
    return ", ".join(nodes[:SHOWN]) + more
