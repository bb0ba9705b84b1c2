"""Runs an export, from its first shard to its card. Remaining work = committed shards minus exported shards.

Shards are exported by processes of this machine. Several machines may run the same command into the same folder: the
slower one finds the shard done, or the same bytes in place.
"""

import json
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from pipeline.config import SourceConfig
from pipeline.config.export_config import ExportConfig
from pipeline.errors import ConfigError, OutputMismatch, PipelineError, StoreError
from pipeline.export.export_shard import DONE, FOLDER, ExportTask, ShardExport, check_columns, export_shard, read_done
from pipeline.export.form import Finished, Form
from pipeline.export.forms import form_of
from pipeline.export.json_columns import check_spread
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.layout import CAPTIONS, committed_path
from pipeline.ledger.leader_captions import start_reading
from pipeline.ledger.run_record import differences
from pipeline.ledger.shard_plan import Plan, remaining
from pipeline.readers import format_of
from pipeline.storage import Store, WriteResult, probe, put_if_absent
from schemas.shard import Shard

RECORD = f"{FOLDER}/export.json"
EXPORT_VERSION = "1"
"""Changes with any change of the files that the same captions and options give."""

_DEFAULTS: dict[str, Any] = ExportConfig(to="").model_dump(mode="json", exclude={"to"})

READERS = 16
SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned:
    """The exported output, and its source as it is now."""

    store: Store
    run: RunIdentity
    plan: Plan
    source: SourceConfig
    max_bytes: int
    schemas: Mapping[str, str] = field(default_factory=dict)
    """JSON Schemas of slots, as JSON text."""
    others: Sequence[tuple[Store, RunIdentity, Plan]] = ()
    """Outputs of the same images whose slots are exported too."""

    def slots(self) -> tuple[str, ...]:
        """Return the slots of all outputs, in order.

        Raises:
            ConfigError: a slot is in several of them.
        """
        slots = [slot for run in (self.run, *(run for _, run, _ in self.others)) for slot in run.slots]
        twice = sorted({slot for slot in slots if slots.count(slot) > 1})
        if twice:
            urls = ", ".join([self.store.url, *(store.url for store, *_ in self.others)])
            raise ConfigError(
                f"export: slot {twice[0]} is in several of the outputs {urls}; allowed: each slot in one of them, "
                "since columns are named by slot"
            )
        return tuple(slots)


@dataclass(slots=True)
class Exported:
    """The content of the destination."""

    num_shards: int = 0
    num_images: int = 0
    num_exported: int = 0
    num_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    num_uncommitted: int = 0
    """Planned shards without captions; a later run of the same export adds them."""
    num_quarantined: int = 0
    columns: str = ""

    def add(self, shard: ShardExport) -> None:
        self.num_shards += 1
        self.num_images += shard.num_images
        self.num_exported += shard.num_exported
        self.num_bytes += shard.num_bytes
        self.dropped.update(shard.dropped)
        self.columns = self.columns or shard.columns


def run_export(
    captioned: Captioned,
    destination: Store,
    config: ExportConfig,
    workers: int,
    progress: Callable[[Exported, int], None],
) -> Exported:
    """Export every committed shard that is not exported yet, then write the files that describe all of them.

    Args:
        captioned: what to export.
        destination: where to; empty, or with a part of the same export.
        config: the form and its options.
        workers: processes; 1 works in this one.
        progress: called with the result so far and the number of shards, before the first shard and after each.

    Raises:
        ConfigError: the options do not fit the output.
        OutputMismatch: the folder has another export, or captions changed after they were exported.
        PipelineError: a shard cannot be exported; those before it are kept.
    """
    task = _task(captioned, destination, config)
    start_reading()
    probe(destination)
    _claim(destination, captioned, task)
    left = remaining(captioned.store, captioned.plan)
    committed = [captioned.plan.shards[path] for path in captioned.plan.shards if path in left.committed]
    exported = Exported(num_uncommitted=len(left.fragments), num_quarantined=len(left.quarantined))
    done = _exported_before(captioned, destination, committed)
    todo = [shard for shard in committed if shard.path not in done]
    first: ShardExport | None = None
    progress(exported, len(committed))
    # Closed when `progress` raises: shards in flight are then finished, and no others start.
    with closing(_export_each(task, todo, min(workers, len(todo)))) as fresh:
        for shard_export in chain(done.values(), fresh):
            first = first or shard_export
            check_columns(first, shard_export)
            exported.add(shard_export)
            progress(exported, len(committed))
    if task.form.finish is not None:
        finished = Finished(
            store=destination,
            config=config,
            recipe=captioned.run.recipe,
            columns=exported.columns,
            num_images=exported.num_exported,
        )
        task.form.finish(finished)
    return exported


def _task(captioned: Captioned, destination: Store, config: ExportConfig) -> ExportTask:
    form = form_of(config)
    shards = list(captioned.plan.shards.values())
    try:
        slots = config.slots_of(captioned.slots())
    except ValueError as err:
        raise ConfigError(f"export: {err}") from err
    if form.one_text and len(slots) > 1 and not config.template:
        raise ConfigError(
            f"export: {form.name} has one text per image, and there are the slots {', '.join(slots)}; choose one with "
            "--slot, or combine them with --template"
        )
    if captioned.source.texts and form.reads_images(config):
        raise ConfigError(
            f"export: {form.name} writes the images of the source, and this output has texts (source.texts); choose "
            "another form, or leave the images out"
        )
    check_spread(config.spread, slots, captioned.schemas)
    if form.check is not None:
        form.check(shards, destination, config)
    return ExportTask(
        output=captioned.store,
        others=tuple(store for store, *_ in captioned.others),
        destination=destination,
        form=form,
        config=config,
        slots=slots,
        schemas=captioned.schemas,
        source=captioned.source,
        max_bytes=captioned.max_bytes,
        joined=_joined(form, config, shards),
    )


def _joined(form: Form, config: ExportConfig, shards: Sequence[Shard]) -> bool:
    """Whether the source's columns are joined.

    Raises:
        ConfigError: the options join them, and the source has none.
    """
    others = [shard.path for shard in shards if not format_of(shard).has_columns]
    if config.join and others:
        raise ConfigError(
            f"export: --join needs a source with columns, such as Parquet, and {len(others)} of {len(shards)} shards "
            f"have none, such as {others[0]}; leave --join out"
        )
    return "join" in form.honours and config.join is not False and not others


def _claim(destination: Store, captioned: Captioned, task: ExportTask) -> None:
    """Bind the folder to this export, or check that it is bound to the same one.

    Raises:
        OutputMismatch: it is bound to another export, or has other files.
    """
    current: dict[str, Any] = {
        "version": EXPORT_VERSION,
        "recipe": captioned.run.recipe,
        "slots": list(task.slots),
        "options": {**task.config.model_dump(mode="json"), "join": task.joined},
        "shards": {path: [shard.size, shard.etag] for path, shard in captioned.plan.shards.items()},
        **({"other_recipes": [run.recipe for _, run, _ in captioned.others]} if captioned.others else {}),
    }
    attempt = uuid.uuid4().hex
    data = json.dumps({"attempt": attempt, **current}, ensure_ascii=False, indent=1).encode()
    if not destination.exists(RECORD):
        foreign = [] if task.form.beside_source else _files_of(destination)
        if foreign:
            raise OutputMismatch(
                f"{destination.url}: has {foreign[0]} and is not an export of JoyFleet; give the export its own folder"
            )
        if put_if_absent(destination, RECORD, data, attempt) is not WriteResult.EXISTS:
            return
    try:
        stored: dict[str, Any] = json.loads(destination.get(RECORD))
        stored.pop("attempt")
        # The record of an older release lacks options that were added since: they had their defaults.
        stored["options"] = {**_DEFAULTS, **stored["options"]}
        known: Mapping[str, Any] = dict(stored["shards"])
    except (ValueError, KeyError, TypeError) as err:
        raise StoreError(f"{destination.url}/{RECORD}: damaged ({err!r}); export into a new folder") from err
    # A plan that was extended since has more shards, and this export adds them.
    current["shards"] = {path: facts for path, facts in current["shards"].items() if path in known}
    lines = list(differences(stored, current))
    if lines:
        more = f"\n  ... and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        listed = "\n  ".join(lines[:SHOWN])
        raise OutputMismatch(
            f"{destination.url}: has another export. They differ in\n  {listed}{more}\n"
            "Give the same options, or export into a new folder"
        )


def _files_of(destination: Store) -> list[str]:
    return [entry.path for entry in destination.list("") if not entry.path.startswith((".tmp/", "staging/.probe-"))]


def _exported_before(captioned: Captioned, destination: Store, committed: Sequence[Shard]) -> dict[str, ShardExport]:
    """Return the shards that are exported already.

    Raises:
        OutputMismatch: captions were changed since, by `retry --rows` or `amend`.
    """
    names = {entry.path.removeprefix(f"{DONE}/").removesuffix(".json") for entry in destination.list(DONE)}
    wanted = [shard.path for shard in committed if shard.path in names]
    sizes = sum((_sizes(store) for store in (captioned.store, *(store for store, *_ in captioned.others))), Counter())
    with ThreadPoolExecutor(READERS) as pool:
        records = list(pool.map(lambda path: read_done(destination, path), wanted))
    changed = [done.shard for done in records if done.captions_bytes != sizes[committed_path(done.shard)]]
    if changed:
        raise OutputMismatch(
            f"{destination.url}: the captions of {len(changed)} shards changed since they were exported, such as "
            f"{changed[0]} (`retry --rows` or `amend`?); export into a new folder"
        )
    return {done.shard: done for done in records}


def _sizes(output: Store) -> Counter[str]:
    """Bytes of the committed files, by path."""
    return Counter({entry.path: entry.size for entry in output.list(CAPTIONS)})


def _export_each(task: ExportTask, shards: Sequence[Shard], workers: int) -> Generator[ShardExport, None, None]:
    """Export shards, in any order, with twice as many in flight as there are workers."""
    if workers <= 1:
        yield from (export_shard(task, shard) for shard in shards)
        return
    waiting = iter(shards)
    in_flight: dict[Future[ShardExport], Shard] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _end_with_parent, (os.getpid(),)) as pool:
        try:
            while True:
                for shard in waiting:
                    in_flight[pool.submit(export_shard, task, shard)] = shard
                    if len(in_flight) >= 2 * workers:
                        break
                if not in_flight:
                    return
                for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                    result = future.result()  # before its removal: the message below lists the shards in flight
                    del in_flight[future]
                    yield result
        except BrokenProcessPool as err:
            raise PipelineError(
                f"an export process died, perhaps out of memory (a worker holds a shard and its export); "
                f"in flight were {', '.join(shard.path for shard in in_flight.values())}. Run again with "
                "fewer --workers"
            ) from err
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent(parent: int) -> None:
    """End this process when its parent was killed: the workers of a pool would wait forever. Ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the whole group, and the parent drains

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
