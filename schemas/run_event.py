"""What a run tells of itself while it runs: OpenLineage run events, one JSON object a line, in `report/runs/`.

No decision about data rests on them. What is left to do is planned less committed, whatever stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json"
"""The version of OpenLineage whose events these are."""

FACETS = "https://openlineage.io/spec/facets"

RUN_FACET = "joyfleet"
"""Name of the run facet that holds a `RunProgress` and what else is not in OpenLineage's own facets."""


class EventType(StrEnum):
    """OpenLineage's states of a run. Each run has a START and, unless it was killed, one of the last three."""

    START = "START"
    RUNNING = "RUNNING"
    """A heartbeat; the file keeps the last one."""
    COMPLETE = "COMPLETE"
    """Exit code 0 or 3."""
    ABORT = "ABORT"
    """Exit code 4: it was asked to stop."""
    FAIL = "FAIL"


ENDED = frozenset({EventType.COMPLETE, EventType.ABORT, EventType.FAIL})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """How far a run was. Names are those of the JSON in the facet."""

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
    """Caption rows of this run, those that it took over included."""
    statuses: Mapping[str, int]
    """These rows by status."""
    bytes_done: float
    """Of the source, earlier runs included."""
    bytes_total: int
    captions_per_s: float
    """Over the last minute."""
    eta_s: float | None
    """None until there is a rate."""
    replicas: int
    """Engines that are up."""
