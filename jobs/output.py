"""What the verbs that take an output's URL need of it: its run, its plan and the source it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.ledger.footer import RunFacts
from pipeline.ledger.plan import Plan, read_plan
from pipeline.ledger.run_record import read_run
from pipeline.storage import Store, open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """An output that some run has claimed."""

    store: Store
    run: RunFacts
    plan: Plan
    source: SourceConfig
    max_bytes: int
    fields: Mapping[str, Any]
    """The recipe's."""
    about: Mapping[str, Any]
    """What the first run told of itself: its resolved config as `job`, `slots`, `versions`."""


def open_output(url: str) -> Output:
    """Read run.json and plan.parquet.

    Raises:
        ConfigError: there is no output at this URL.
    """
    store = open_store(url)
    record = read_run(store)
    if "job" not in record.about:
        raise ConfigError(f"{url}: a corpus, and this verb is for captions; `joyfleet corpus` goes on with a corpus")
    job = record.about["job"]
    return Output(
        store=store,
        run=RunFacts(recipe=record.fingerprint, slots=tuple(record.about["slots"]), versions=record.about["versions"]),
        plan=read_plan(store),
        source=SourceConfig.model_validate(job["source"]),
        max_bytes=job["images"]["max_bytes"],
        fields=record.fields,
        about=record.about,
    )
