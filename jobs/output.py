"""What the verbs that take an output's URL need of it: its run, its plan and the source it came from.

An output is data. What `run.json` and the plan say of the source is read only where `pipeline.config.trust` lets
an output name it, or where the caller has named it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from jobs.job_file import read_job
from pipeline.config import ImagesConfig, JobConfig, SourceConfig, parse_job
from pipeline.config.load import read_stored
from pipeline.config.renamed_keys import with_new_names
from pipeline.config.trust import refuse_foreign_sources, without_powers
from pipeline.errors import ConfigError, StoreError
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.layout import RUN
from pipeline.ledger.run_record import RunRecord, read_run
from pipeline.ledger.shard_plan import Plan, claim_plan, read_plan
from pipeline.readers import list_shards
from pipeline.storage import Store, open_store

source_option = click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="URL",
    help="Read the source from here instead of from where OUTPUT says; may be given often.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """An output that some run has claimed."""

    store: Store
    run: RunIdentity
    plan: Plan
    described_source: SourceConfig
    """As the output has it, to be handed on where it is not read; see `source`."""
    sources: Sequence[str]
    """URLs that the caller gave instead."""
    max_bytes: int
    fields: Mapping[str, Any]
    """The recipe's."""
    job: Mapping[str, Any]
    """The config of the first run, with the keys of today."""

    @property
    def source(self) -> SourceConfig:
        """The source, to be read.

        Raises:
            ConfigError: the output names one that is the caller's to name.
        """
        if self.sources:
            return self.described_source.model_copy(update={"urls": tuple(self.sources)})
        refuse_foreign_sources(self.described_source.urls, f"{self.store.url}/{RUN}", _SAY_SOURCE)
        return self.described_source

    def listed_plan(self) -> Plan:
        """Return the plan with the shards' URLs of today; one that changed since is refused, as by `claim_plan`."""
        return claim_plan(self.store, list_shards(self.source))

    def readable_plan(self) -> Plan:
        """Return the plan with URLs that may be read: those of the first run, or of the source that the caller gave.

        Raises:
            ConfigError: as `source`.
        """
        if self.sources:
            return self.listed_plan()
        urls = [shard.url for shard in self.plan.shards.values()]
        refuse_foreign_sources(urls, f"{self.store.url}: its plan", _SAY_SOURCE)
        return self.plan


_SAY_SOURCE = "If it is the source that you mean, name it: --source URL"


def open_output(url: str, sources: Sequence[str] = ()) -> Output:
    """Read run.json and plan.parquet.

    Raises:
        ConfigError: there is no output of captions at this URL.
        StoreError: run.json is damaged.
    """
    store = open_store(url)
    record = read_run(store)
    job = _job_of(url, record)
    try:
        source = read_stored(SourceConfig, job["source"], f"{url}/{RUN}", "source.")
        images = read_stored(ImagesConfig, job["images"], f"{url}/{RUN}", "images.")
        run = RunIdentity(
            recipe=record.fingerprint, slots=tuple(record.about["slots"]), versions=record.about["versions"]
        )
    except (KeyError, TypeError) as err:
        raise StoreError(f"{url}/{RUN}: damaged ({err!r}); restore it") from err
    return Output(
        store=store,
        run=run,
        plan=read_plan(store),
        described_source=source,
        sources=sources,
        max_bytes=images.max_bytes,
        fields=record.fields,
        job=job,
    )


def _job_of(url: str, record: RunRecord) -> Mapping[str, Any]:
    if "job" not in record.about:
        raise ConfigError(f"{url}: a corpus, and this verb is for captions; `joyfleet corpus` goes on with a corpus")
    return with_new_names(record.about["job"])


def job_of_output(url: str, job_file: str | None, overrides: Sequence[str]) -> JobConfig:
    """Return the job that made an output, to be run on it again: the caller's own file, or what `run.json` says of it.

    Raises:
        ConfigError: `run.json` decides what is the caller's to say, see `pipeline.config.trust`.
    """
    described = _job_of(url, read_run(open_store(url)))
    if job_file is not None:
        return read_job(job_file, [*overrides, f"output={json.dumps(url)}"])
    origin = f"{url}/{RUN}"
    # In full form first: `without_powers` looks for the keys of the full form.
    full = read_stored(JobConfig, {**described, "output": url}, origin).model_dump(mode="json")
    return parse_job(without_powers(full, overrides, origin), overrides, origin=origin)
