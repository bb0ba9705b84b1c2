"""Writes and reads the lifecycle events of a run (START, RUNNING, COMPLETE, ABORT, FAIL) in the output.

A run has one file, `report/runs/<start>-<run id>.jsonl`, of at most three OpenLineage run events: START, the last
RUNNING, and the end. The file is overwritten whole, since object stores do not append; one write per minute is 1,440
PUTs per day. If a write fails the run continues: no decision depends on the file.
"""

import json
import logging
import math
import os
import platform
import posixpath
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.errors import StoreError
from pipeline.ledger.json_record import from_json
from pipeline.ledger.layout import CAPTIONS, RUNS, is_run_events
from pipeline.storage import Store
from schemas.run_event import ENDED, FACETS, RUN_FACET, SPEC, EventType, RunProgress

log = logging.getLogger(__name__)

EVERY_S = 60.0
"""Heartbeat interval."""

SILENT_AFTER = 3
"""Missed heartbeats before a run counts as silent: a store may be unreachable for a minute."""

POINTS = 120
"""Points of the rate over time; beyond this number every second one is dropped: the file stays below 10 kB."""

WAIT_S = 30.0
"""How long the last event waits for a heartbeat that is being written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """Facts about a run that do not change while it runs."""

    sources: Sequence[str]
    """All URLs of `source`."""
    source_bytes: int
    shards: int
    """Planned."""
    recipe: str
    versions: Mapping[str, str]
    part: str | None = None
    """Such as 3/8, of a run on a part of the plan; `shards` and `source_bytes` are those of the part."""


class RunLog:
    """Writes a run's file. A thread writes the heartbeats, so that a slow store does not delay commits."""

    def __init__(self, store: Store, info: RunInfo, *, every_s: float = EVERY_S) -> None:
        now = datetime.now(UTC)
        self.run_id = str(uuid.uuid4())
        self.path = f"{RUNS}/{now:%Y%m%dT%H%M%SZ}-{self.run_id}.jsonl"
        self._producer = f"pkg:pypi/joyfleet@{info.versions.get('joyfleet', 'unknown')}"
        self._store = store
        self._info = info
        self._every_s = every_s
        self._points: list[tuple[float, int, float]] = []
        self._events: dict[str, dict[str, Any]] = {}
        self._last: RunProgress | None = None
        self._heartbeat_at = -math.inf
        self._writer: threading.Thread | None = None

    def start(self) -> None:
        self._set_event(EventType.START, {})
        self._write()

    def heartbeat(self, progress: RunProgress) -> None:
        """Record the progress; the first is written, then one per `every_s`."""
        self._last = progress
        if time.monotonic() - self._heartbeat_at < self._every_s or (self._writer and self._writer.is_alive()):
            return
        self._heartbeat_at = time.monotonic()
        self._add_point(progress)
        self._set_event(EventType.RUNNING, {})
        self._writer = threading.Thread(target=self._write, name="heartbeat", daemon=True)
        self._writer.start()

    def end(self, how: EventType, exit_code: int, message: str | None) -> None:
        """Write the last event, after a heartbeat that is being written."""
        if self._writer:
            self._writer.join(WAIT_S)
        if self._last:
            self._add_point(self._last)
        self._set_event(how, {"exit_code": exit_code}, message)
        self._write()

    def _add_point(self, progress: RunProgress) -> None:
        if self._points and self._points[-1][0] == round(progress.seconds, 1):
            return
        self._points.append((round(progress.seconds, 1), progress.captions, progress.bytes_done))
        if len(self._points) > POINTS:
            self._points = self._points[::2]  # of an odd number of points, so the last one is kept

    def _set_event(self, kind: EventType, more: Mapping[str, Any], message: str | None = None) -> None:
        info = self._info
        facets = {
            "processing_engine": self._facet(
                "1-1-1/ProcessingEngineRunFacet",
                name="ray",
                version=info.versions.get("ray", "unknown"),
                openlineageAdapterVersion=info.versions.get("joyfleet", "unknown"),
            ),
            RUN_FACET: {
                "_producer": self._producer,
                "_schemaURL": f"{self._producer}#schemas/run_event.py",
                "recipe": info.recipe,
                "part": info.part,
                "host": platform.node(),
                "pid": os.getpid(),
                "every_s": self._every_s,
                "moment": asdict(self._last) if self._last else None,
                "points": list(self._points),
                **more,
            },
        }
        if message:
            facets["errorMessage"] = self._facet(
                "1-0-1/ErrorMessageRunFacet", message=message, programmingLanguage="PYTHON"
            )
        self._events[kind] = self._event(kind, facets)

    def _event(self, kind: EventType, facets: Mapping[str, Any]) -> dict[str, Any]:
        info = self._info
        first, *others = [_dataset(url) for url in info.sources]
        # The figures are those of all sources together, so only the first has them.
        read = self._facet("1-0-0/InputStatisticsInputDatasetFacet", size=info.source_bytes, fileCount=info.shards)
        output = _dataset(f"{self._store.url}/{CAPTIONS}")
        if self._last:
            rows = self._facet("1-0-2/OutputStatisticsOutputDatasetFacet", rowCount=self._last.captions)
            output["outputFacets"] = {"outputStatistics": rows}
        return {
            "eventType": kind.value,
            "eventTime": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "producer": self._producer,
            "schemaURL": f"{SPEC}#/$defs/RunEvent",
            "run": {"runId": self.run_id, "facets": facets},
            "job": {"namespace": "joyfleet", "name": self._store.url},
            "inputs": [{**first, "inputFacets": {"inputStatistics": read}}, *others],
            "outputs": [output],
        }

    def _facet(self, schema: str, /, **fields: str | int) -> dict[str, Any]:
        """One of OpenLineage's own facets, such as `1-0-1/ErrorMessageRunFacet`."""
        kind = schema.rpartition("/")[2]
        return {"_producer": self._producer, "_schemaURL": f"{FACETS}/{schema}.json#/$defs/{kind}", **fields}

    def _write(self) -> None:
        order = [kind for kind in EventType if kind in self._events]
        data = "".join(json.dumps(self._events[kind], ensure_ascii=False) + "\n" for kind in order)
        try:
            self._store.put(self.path, data.encode())
        except (StoreError, OSError) as err:
            log.warning("path=%s: the run events cannot be written; the run continues: %s", self.path, err)


def _dataset(url: str) -> dict[str, Any]:
    """Name a folder or glob as OpenLineage names datasets: a bucket's key, or a file's absolute path."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        return {"namespace": "file", "name": os.path.abspath(rest if separator else url)}  # noqa: PTH100 - no links
    bucket, _, key = rest.partition("/")
    return {"namespace": f"{scheme}://{bucket}", "name": posixpath.normpath(key) if key else "/"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """The content of a run's file."""

    run_id: str
    host: str
    pid: int
    started: datetime
    last_event_at: datetime
    """By the clock of the run's machine, as all times here."""
    last_event: EventType
    every_s: float
    exit_code: int | None
    message: str | None
    progress: RunProgress | None
    points: tuple[tuple[float, int, float], ...]
    """Seconds since the start, caption rows and source bytes done by then."""
    part: str | None = None
    """As `RunInfo.part`."""

    def state(self, now: datetime) -> str:
        """Return running, silent, complete, abort or fail."""
        if self.last_event in ENDED:
            return self.last_event.lower()
        return "silent" if now - self.last_event_at > timedelta(seconds=SILENT_AFTER * self.every_s) else "running"


def read_runs(store: Store, newest: int) -> list[RunStatus]:
    """Return the newest runs on an output, oldest first: one listing and a request for each.

    Raises:
        StoreError: a file is not what `RunLog` writes.
    """
    paths = sorted(entry.path for entry in store.list(RUNS) if is_run_events(entry.path))
    return [_read(store, path) for path in paths[-newest:]]


def _read(store: Store, path: str) -> RunStatus:
    data = store.get(path)
    try:
        events: list[dict[str, Any]] = [json.loads(line) for line in data.splitlines()]
        first, last = events[0], events[-1]
        facets = last["run"]["facets"]
        own = facets[RUN_FACET]
        return RunStatus(
            run_id=last["run"]["runId"],
            host=own["host"],
            pid=own["pid"],
            started=datetime.fromisoformat(first["eventTime"]),
            last_event_at=datetime.fromisoformat(last["eventTime"]),
            last_event=EventType(last["eventType"]),
            every_s=own["every_s"],
            exit_code=own.get("exit_code"),
            message=facets.get("errorMessage", {}).get("message"),
            progress=from_json(RunProgress, own["moment"]) if own["moment"] else None,
            points=tuple((seconds, captions, size) for seconds, captions, size in own["points"]),
            part=own.get("part"),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as err:
        raise StoreError(f"{store.url}/{path}: not a file of run events ({err!r}); remove it") from err
