"""The lifecycle events of a run: OpenLineage run events, one JSON object per line, in `report/runs/`.

They are for people. Nothing decides by them which shards are done: the remaining work is planned minus committed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json"
"""The version of OpenLineage whose events these are."""

FACETS = "https://openlineage.io/spec/facets"

RUN_FACET = "joyfleet"
"""Name of the run facet with a `RunProgress` and everything that OpenLineage's own facets do not have."""


class EventType(StrEnum):
    """OpenLineage's states of a run. Each run has a START and, unless it was killed, one of the last three."""

    START = "START"
    RUNNING = "RUNNING"
    """A heartbeat; the file keeps the last one."""
    COMPLETE = "COMPLETE"
    """Exit code 0 or 3."""
    ABORT = "ABORT"
    """Exit code 4: it was stopped by a signal."""
    FAIL = "FAIL"


ENDED = frozenset({EventType.COMPLETE, EventType.ABORT, EventType.FAIL})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """Progress of a run at one moment. Names are those of the JSON in the facet; an added field has a default."""

    seconds: float
    """Since the run began."""
    shards: int
    """Planned."""
    shards_done: int
    """Committed or in quarantine, earlier runs included."""
    shards_quarantined: int
    shards_lost: int
    """Committed by another run while this one worked on them."""
    images: int
    """Captioned and staged by this run."""
    captions: int
    """Caption rows of this run, resumed ones included."""
    statuses: Mapping[str, int]
    """These rows by status."""
    bytes_done: float
    """Of the source, earlier runs included."""
    bytes_total: int
    captions_per_s: float
    """Over the last minute."""
    eta_s: float | None
    """None before the first rate is measured."""
    replicas: int
    """Engines that are running."""
    skipped: Mapping[str, int] = field(default_factory=dict[str, int])
    """Condition to number of caption rows that it skipped, in the shards that this run has committed."""
    engines: Mapping[str, int] = field(default_factory=dict[str, int])
    """Their number by what they chose for their device: model runner, attention backend, KV tokens, sampler."""
