"""An export from its first shard to its card: what is left is what is committed less what has left.

Shards are exported by processes of this machine. Several machines may run the same command into the same
folder: whoever comes second finds the shard done, or the same bytes in place.
"""

import json
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Sequence
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
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.layout import CAPTIONS, committed_path
from pipeline.ledger.run_record import differences
from pipeline.ledger.shard_plan import Plan, remaining
from pipeline.storage import Store, WriteResult, probe, put_if_absent
from schemas.shard import Shard

RECORD = f"{FOLDER}/export.json"
EXPORT_VERSION = "1"
"""Changes with anything that changes the files of the same captions and options."""

_DEFAULTS: dict[str, Any] = ExportConfig(to="").model_dump(mode="json", exclude={"to"})

READERS = 16
SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned:
    """The output that is exported, and its source as it is now."""

    store: Store
    run: RunIdentity
    plan: Plan
    source: SourceConfig
    max_bytes: int


@dataclass(slots=True)
class Exported:
    """What stands in the destination."""

    num_shards: int = 0
    num_images: int = 0
    num_exported: int = 0
    num_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    num_uncommitted: int = 0
    """Planned shards without captions; a later run of the same export adds them."""
    num_quarantined: int = 0
    columns: str = ""

    def add(self, one: ShardExport) -> None:
        self.num_shards += 1
        self.num_images += one.num_images
        self.num_exported += one.num_exported
        self.num_bytes += one.num_bytes
        self.dropped.update(one.dropped)
        self.columns = self.columns or one.columns


def run_export(
    captioned: Captioned,
    destination: Store,
    config: ExportConfig,
    workers: int,
    progress: Callable[[Exported, int], None],
) -> Exported:
    """Export every committed shard that has not left yet, then write what describes them all.

    Args:
        captioned: what to export.
        destination: where to; empty, or holding a part of this very export.
        config: in which form.
        workers: processes; 1 works in this one.
        progress: called with what is done and the number of shards, before the first and after each.

    Raises:
        ConfigError: the options do not fit the output.
        OutputMismatch: the folder holds another export, or captions changed since they left.
        PipelineError: a shard cannot be exported; those before it stay.
    """
    task = _task(captioned, destination, config)
    probe(destination)
    _claim(destination, captioned, task)
    left = remaining(captioned.store, captioned.plan)
    committed = [captioned.plan.shards[path] for path in captioned.plan.shards if path in left.committed]
    exported = Exported(num_uncommitted=len(left.fragments), num_quarantined=len(left.quarantined))
    there = _standing(captioned, destination, committed)
    todo = [shard for shard in committed if shard.path not in there]
    first: ShardExport | None = None
    progress(exported, len(committed))
    # Closed at once when `progress` raises: the shards in work are then finished, and no others begun.
    with closing(_each(task, todo, min(workers, len(todo)))) as fresh:
        for one in chain(there.values(), fresh):
            first = first or one
            check_columns(first, one)
            exported.add(one)
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
        slots = config.slots_of(captioned.run.slots)
    except ValueError as err:
        raise ConfigError(f"export: {err}") from err
    if form.one_text and len(slots) > 1 and not config.template:
        raise ConfigError(
            f"export: {form.name} holds one text an image, and there are the slots {', '.join(slots)}; choose one with "
            "--slot, or combine them with --template"
        )
    if form.check is not None:
        form.check(shards, destination)
    return ExportTask(
        output=captioned.store,
        destination=destination,
        form=form,
        config=config,
        slots=slots,
        source=captioned.source,
        max_bytes=captioned.max_bytes,
        joined=_joined(form, config, shards),
    )


def _joined(form: Form, config: ExportConfig, shards: Sequence[Shard]) -> bool:
    """Whether the source's columns are taken.

    Raises:
        ConfigError: they are asked for, and the source has none.
    """
    others = [shard.path for shard in shards if not shard.path.lower().endswith(".parquet")]
    if config.join and others:
        raise ConfigError(
            f"export: --join takes the columns of a Parquet source, and {len(others)} of {len(shards)} shards have "
            f"none, such as {others[0]}; leave --join out"
        )
    return "join" in form.honours and config.join is not False and not others


def _claim(destination: Store, captioned: Captioned, task: ExportTask) -> None:
    """Bind the folder to this export, or find it bound to the same.

    Raises:
        OutputMismatch: it is bound to another, or holds files of something else.
    """
    here: dict[str, Any] = {
        "version": EXPORT_VERSION,
        "recipe": captioned.run.recipe,
        "slots": list(task.slots),
        "options": {**task.config.model_dump(mode="json"), "join": task.joined},
        "shards": {path: [shard.size, shard.etag] for path, shard in captioned.plan.shards.items()},
    }
    attempt = uuid.uuid4().hex
    data = json.dumps({"attempt": attempt, **here}, ensure_ascii=False, indent=1).encode()
    if not destination.exists(RECORD):
        strangers = [] if task.form.beside_source else _files_of(destination)
        if strangers:
            raise OutputMismatch(
                f"{destination.url}: holds {strangers[0]} and no export of JoyFleet; give the export its own folder"
            )
        if put_if_absent(destination, RECORD, data, attempt) is not WriteResult.EXISTS:
            return
    try:
        there: dict[str, Any] = json.loads(destination.get(RECORD))
        there.pop("attempt")
        # An option that came with a later release was not given.
        there["options"] = {**_DEFAULTS, **there["options"]}
    except (ValueError, KeyError, TypeError) as err:
        raise StoreError(f"{destination.url}/{RECORD}: damaged ({err!r}); export into a new folder") from err
    found = list(differences(there, here))
    if found:
        more = f"\n  ... and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        listed = "\n  ".join(found[:SHOWN])
        raise OutputMismatch(
            f"{destination.url}: holds another export. They differ in\n  {listed}{more}\n"
            "Give the same options, or export into a new folder"
        )


def _files_of(destination: Store) -> list[str]:
    return [entry.path for entry in destination.list("") if not entry.path.startswith((".tmp/", "staging/.probe-"))]


def _standing(captioned: Captioned, destination: Store, committed: Sequence[Shard]) -> dict[str, ShardExport]:
    """What has left already.

    Raises:
        OutputMismatch: captions changed since, by `retry --rows`.
    """
    names = {entry.path.removeprefix(f"{DONE}/").removesuffix(".json") for entry in destination.list(DONE)}
    wanted = [shard.path for shard in committed if shard.path in names]
    sizes = {entry.path: entry.size for entry in captioned.store.list(CAPTIONS)}
    with ThreadPoolExecutor(READERS) as pool:
        records = list(pool.map(lambda path: read_done(destination, path), wanted))
    changed = [one.shard for one in records if one.captions_bytes != sizes[committed_path(one.shard)]]
    if changed:
        raise OutputMismatch(
            f"{destination.url}: the captions of {len(changed)} shards changed since they were exported, such as "
            f"{changed[0]} (`retry --rows`?); export into a new folder"
        )
    return {one.shard: one for one in records}


def _each(task: ExportTask, shards: Sequence[Shard], workers: int) -> Generator[ShardExport, None, None]:
    """Export shards, in any order, with twice as many under way as there are workers."""
    if workers <= 1:
        yield from (export_shard(task, shard) for shard in shards)
        return
    waiting = iter(shards)
    under_way: dict[Future[ShardExport], Shard] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _end_with_parent, (os.getpid(),)) as pool:
        try:
            while True:
                for shard in waiting:
                    under_way[pool.submit(export_shard, task, shard)] = shard
                    if len(under_way) >= 2 * workers:
                        break
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    result = future.result()  # before it is taken off the list, which names what died
                    del under_way[future]
                    yield result
        except BrokenProcessPool as err:
            raise PipelineError(
                f"a process that exports died, by lack of memory perhaps (a worker holds a shard and its export); "
                f"in work were {', '.join(shard.path for shard in under_way.values())}. Run again with "
                "fewer --workers"
            ) from err
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent(parent: int) -> None:
    """End this process when its parent was killed, since a pool's workers would wait for ever; not at Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the whole group, and the parent drains

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
