"""`joyfleet status OUTPUT`: progress, active runs and the results of earlier runs, read from storage alone."""

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from jobs.output import Output, open_output
from jobs.progress_line import clock, size
from jobs.terminal import echo, printable, to_json
from pipeline.errors import ConfigError
from pipeline.ledger.quarantine import list_quarantine
from pipeline.ledger.run_events import RunStatus, read_runs
from pipeline.ledger.shard_plan import remaining
from pipeline.ledger.stale_rows import count_stale_rows

RUNS = 20
"""Newest runs that are read, one request each."""
SHOWN = 5
"""Runs and quarantined shards that are listed."""
BARS = "▁▂▃▄▅▆▇█"


@click.command()
@click.argument("output")
@click.option("--watch", is_flag=True, help="Update until interrupted.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(1),
    default=10,
    show_default=True,
    help="--watch: seconds between updates.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each update.")
@click.option(
    "--stale",
    is_flag=True,
    help="Of a chained job: count the rows whose captions of the parent have changed. Reads the committed files of "
    "both outputs.",
)
def status(output: str, *, watch: bool, every_s: float, as_json: bool, stale: bool) -> None:
    """Show the progress of OUTPUT: shards committed, staged, in quarantine and left, and the state of its runs.

    It only reads the output: no Ray, no source. One update costs five listings, and a request for each generation
    of the plan, each of the newest runs and each shard in quarantine.
    """
    if stale and watch:
        raise click.UsageError("--stale reads all captions, so it is not repeated; leave --watch out")
    if as_json:
        click.echo(to_json(read_status(output, stale=stale)))
        while watch:
            time.sleep(every_s)
            click.echo(to_json(read_status(output)))
        return
    state = read_status(output, stale=stale)
    if not watch:
        echo(render(state))
        return
    with Live(Text(printable(render(state))), console=Console(soft_wrap=True), auto_refresh=False) as live:
        while True:
            time.sleep(every_s)
            live.update(Text(printable(render(read_status(output)))), refresh=True)


def read_status(output: str, *, stale: bool = False) -> dict[str, Any]:
    """Return the state of an output as JSON.

    Raises:
        ConfigError: it is no output, or `stale` and its source is no output.
    """
    opened = open_output(output)
    left = remaining(opened.store, opened.plan)
    now = datetime.now(UTC)
    runs = read_runs(opened.store, RUNS)
    return {
        "output": opened.store.url,
        "time": now.isoformat(timespec="seconds"),
        "recipe": opened.run.recipe,
        "slots": list(opened.run.slots),
        "shards": {
            "planned": len(opened.plan.shards),
            "committed": len(left.committed),
            "left": len(left.fragments),
            "partly_staged": sum(1 for fragments in left.fragments.values() if fragments),
            "quarantined": len(left.quarantined),
        },
        "generations": [len(generation.shards) for generation in opened.plan.generations],
        "selection_applied": opened.plan.last_change is None or opened.plan.last_change.is_applied,
        **_parent(opened, left.committed, stale=stale),
        "fragments_staged": sum(len(fragments) for fragments in left.fragments.values()),
        "bytes": {
            "planned": sum(shard.size for shard in opened.plan.shards.values()),
            "committed": sum(opened.plan.shards[path].size for path in left.committed),
        },
        "quarantine": {record.shard: record.message for record in list_quarantine(opened.store)},
        "runs": [_run(run, now) for run in runs],
    }


def _parent(opened: Output, committed: Collection[str], *, stale: bool) -> dict[str, Any]:
    """The parent of a chained job, and how many rows are stale where they are counted."""
    url = opened.described_source.captions
    if not stale:
        return {"parent": url, "stale": None}
    parent = opened.parent
    if parent is None:
        raise ConfigError(f"--stale: {opened.store.url} is not made from captions (source.captions); leave it out")
    return {"parent": url, "stale": asdict(count_stale_rows(opened.store, parent, committed))}


def _run(run: RunStatus, now: datetime) -> dict[str, Any]:
    state, progress, silent_s = run.state(now), run.progress, (now - run.last_event_at).total_seconds()
    eta_s = progress.eta_s if progress and state == "running" else None
    return {
        "run_id": run.run_id,
        "part": run.part,
        "state": state,
        "exit_code": run.exit_code,
        "message": run.message,
        "host": run.host,
        "pid": run.pid,
        "started": run.started.isoformat(timespec="seconds"),
        "last_event": run.last_event_at.isoformat(timespec="seconds"),
        "last_event_s_ago": round(silent_s, 1),
        "seconds": progress.seconds if progress else 0.0,
        "images": progress.images if progress else 0,
        "captions": progress.captions if progress else 0,
        "statuses": progress.statuses if progress else {},
        "skipped": progress.skipped if progress else {},
        "replicas": progress.replicas if progress else 0,
        "captions_per_s": progress.captions_per_s if progress else 0.0,
        "eta_s": None if eta_s is None else max(0.0, eta_s - silent_s),
        "rates": rates(run.points),
    }


def rates(points: tuple[tuple[float, int, float], ...]) -> list[tuple[float, float]]:
    """Return (seconds since the start, captions per second since the previous point) for the points of a run."""
    return [
        (end, round((captions - before) / (end - start), 2))
        for (start, before, _), (end, captions, _) in pairwise(((0.0, 0, 0.0), *points))
        if end > start
    ]


def render(state: Mapping[str, Any]) -> str:
    """Return the state as text."""
    shards, planned_bytes = state["shards"], state["bytes"]["planned"]
    share = state["bytes"]["committed"] / planned_bytes if planned_bytes else 1.0
    lines = [
        f"output      {state['output']}",
        f"recipe      {state['recipe']}, slots {', '.join(state['slots'])}",
        f"planned     {shards['planned']:,} shards{_in_generations(state['generations'])}, {size(planned_bytes)}",
        f"committed   {shards['committed']:,}, {share:.1%} of the bytes",
        f"left        {shards['left']:,}, of which {shards['partly_staged']:,} are partly staged "
        f"({state['fragments_staged']:,} fragments)",
        f"quarantine  {shards['quarantined']:,}",
        *([] if state["selection_applied"] else [_UNAPPLIED]),
    ]
    lines += _parent_lines(state)
    held = list(state["quarantine"].items())
    lines += [f"  {shard}: {message}" for shard, message in held[:SHOWN]]
    lines += [f"  ... and {len(held) - SHOWN} more"] if len(held) > SHOWN else []
    for run in state["runs"][-SHOWN:]:
        lines += _run_lines(run)
    ended = Counter(run["state"] for run in state["runs"][:-SHOWN])
    lines += [f"earlier     {', '.join(f'{count} {state}' for state, count in ended.items())}"] if ended else []
    return "\n".join(lines)


_UNAPPLIED = (
    "selection   changed by `caption --extend`; not all rows that it newly selects are captioned yet, run the job again"
)


def _parent_lines(state: Mapping[str, Any]) -> list[str]:
    if state["parent"] is None:
        return []
    lines, stale = [f"parent      {state['parent']}"], state["stale"]
    if stale is not None:
        edited = f"; people edited {stale['edited']:,} of them" if stale["edited"] else ""
        remedy = ": `joyfleet retry OUTPUT --rows stale` requests them again" if stale["rows"] > stale["edited"] else ""
        lines.append(f"stale       {stale['rows']:,} rows in {stale['shards']:,} shards{edited}{remedy}")
    return lines


def _in_generations(added: Sequence[int]) -> str:
    return f" in {len(added)} generations (the last added {added[-1]:,})" if len(added) > 1 else ""


def _run_lines(run: Mapping[str, Any]) -> list[str]:
    statuses = "  ".join(f"{status} {rows:,}" for status, rows in run["statuses"].items())
    lines = [
        f"run         {run['started']} on {run['host']}, process {run['pid']}{_part(run)}: {_state(run)}",
        f"            images {run['images']:,}  captions {run['captions']:,}  {statuses}  {clock(run['seconds'])}",
    ]
    most = sorted(run["skipped"].items(), key=lambda item: -item[1])
    lines += [f"            skipped {num_rows:,} rows by {condition}" for condition, num_rows in most[:SHOWN]]
    if run["state"] == "running":
        eta = "-" if run["eta_s"] is None else clock(run["eta_s"])
        lines[1] += f"  replicas {run['replicas']}  {run['captions_per_s']:.1f}/s  ETA {eta}"
    if len(run["rates"]) > 1:
        lines.append(f"            captions/s {_spark([rate for _, rate in run['rates']])}")
    return lines


def _part(run: Mapping[str, Any]) -> str:
    return f", part {run['part']}" if run["part"] else ""


def _state(run: Mapping[str, Any]) -> str:
    ago = clock(run["last_event_s_ago"])
    match run["state"]:
        case "running":
            return f"running, last heartbeat {ago} ago"
        case "silent":
            return f"no heartbeat for {ago}: killed, or cut off from this storage; `caption` resumes it"
        case "complete":
            return f"complete {ago} ago, exit code {run['exit_code']}"
        case state:
            word = {"abort": "stopped", "fail": "failed"}[state]
            return f"{word} {ago} ago, exit code {run['exit_code']}: {run['message']}"


def _spark(values: list[float]) -> str:
    top = max(values) or 1.0
    bars = "".join(BARS[min(len(BARS) - 1, int(value / top * len(BARS)))] for value in values)
    return f"{bars} (highest {top:.1f})"
