"""An output as the verbs read it: its run, its plan and its source.

An output is data. The source that its `run.json` and its plan name is read only where `pipeline.config.trust` allows
it, or where the caller has named it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from jobs.job_file import read_job
from pipeline.config import ImagesConfig, JobConfig, SlotConfig, SourceConfig, parse_job
from pipeline.config.load import read_stored
from pipeline.config.renamed_keys import with_new_names
from pipeline.config.trust import refuse_foreign_sources, without_powers
from pipeline.errors import ConfigError, StoreError
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.index_files import ABOUT
from pipeline.ledger.layout import PLAN, RUN
from pipeline.ledger.plan_selection import current_selection, with_selection
from pipeline.ledger.run_record import RunRecord, read_run
from pipeline.ledger.shard_plan import Plan, claim_plan, read_plan
from pipeline.readers import list_shards
from pipeline.storage import Store, open_store

source_option = click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="URL",
    help="Read the source from here instead of the URLs that OUTPUT names; may be given several times.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """An output that has a run.json."""

    store: Store
    run: RunIdentity
    plan: Plan
    described_source: SourceConfig
    """As the output names it; to read it, use `source`."""
    sources: Sequence[str]
    """URLs that the caller gave instead of it."""
    images: ImagesConfig
    fields: Mapping[str, Any]
    """The recipe's."""
    job: Mapping[str, Any]
    """The config of the first run, with the keys of today."""
    selection: Mapping[str, Any]
    """Of the first run, as `RunRecord.selection`."""

    @property
    def schemas(self) -> dict[str, str]:
        """JSON Schemas by slot, as JSON text.

        Raises:
            StoreError: run.json is damaged.
        """
        captions: list[Any] = self.job["captions"] if isinstance(self.job.get("captions"), list) else []
        described = [slot for slot in captions if isinstance(slot, dict) and slot.get("schema")]
        slots = [read_stored(SlotConfig, slot, f"{self.store.url}/{RUN}", "captions.") for slot in described]
        return {name: slot.schema for slot in slots if slot.schema for name in slot.names}

    @property
    def source(self) -> SourceConfig:
        """The source, with URLs that may be read.

        Raises:
            ConfigError: the output names a source that needs the caller's consent.
        """
        described = self.described_source
        if self.sources and described.captions is not None:
            if len(self.sources) > 1:
                raise ConfigError(
                    f"--source: {self.store.url} is made from the captions of one output, {described.captions}; give "
                    "the URL where it is now"
                )
            return described.model_copy(update={"captions": self.sources[0]})
        if self.sources:
            return described.model_copy(update={"urls": tuple(self.sources)})
        refuse_foreign_sources(described.read_from, f"{self.store.url}/{RUN}", _SAY_SOURCE)
        return described

    @property
    def parent(self) -> Store | None:
        """The output whose captions are the source; None if the source has images.

        Raises:
            ConfigError: as `source`.
        """
        return None if self.described_source.captions is None else open_store(self.source.captions or "")

    def listed_plan(self, *, images: bool = True) -> Plan:
        """Return the plan with the current URLs of the shards; a shard that changed is refused, as by `claim_plan`.

        Without `images` only the captions of a parent can be read with it.
        """
        return claim_plan(self.store, list_shards(self.source if images else self.source.without_images()))

    def readable_plan(self) -> Plan:
        """Return the plan with URLs that may be read: those of the first run, or of the source that the caller gave.

        A stored plan does not say where the images behind a parent's captions are, so the parent is listed.

        Raises:
            ConfigError: as `source`.
        """
        if self.sources or self.described_source.captions is not None:
            return self.listed_plan()
        urls = [shard.url for shard in self.plan.shards.values()]
        refuse_foreign_sources(urls, f"{self.store.url}: its plan", _SAY_SOURCE)
        return self.plan


_SAY_SOURCE = "To read this source, name it: --source URL"


def open_output(url: str, sources: Sequence[str] = ()) -> Output:
    """Read run.json and plan.parquet.

    Raises:
        ConfigError: there is no output of captions at this URL.
        StoreError: run.json is damaged.
    """
    store = open_store(url)
    record = read_run(store)
    return _output(store, url, record, _job_of(url, record), sources)


def open_index_output(url: str, sources: Sequence[str] = ()) -> Output | None:
    """Read run.json and plan.parquet of an index; None if the output is none. It has no slots.

    Raises:
        ConfigError: there is no output at this URL.
        StoreError: run.json is damaged.
    """
    store = open_store(url)
    record = read_run(store)
    if ABOUT not in record.about:
        return None
    output = _output(store, url, record, record.about[ABOUT], sources)
    optional = record.about[ABOUT].get("optional_fields", ())
    return replace(output, described_source=output.described_source.with_optional_fields(optional))


def _output(store: Store, url: str, record: RunRecord, job: Mapping[str, Any], sources: Sequence[str]) -> Output:
    try:
        source = read_stored(SourceConfig, job["source"], f"{url}/{RUN}", "source.")
        images = read_stored(ImagesConfig, job["images"], f"{url}/{RUN}", "images.")
        run = RunIdentity(
            recipe=record.fingerprint, slots=tuple(record.about.get("slots", ())), versions=record.about["versions"]
        )
    except (KeyError, TypeError) as err:
        raise StoreError(f"{url}/{RUN}: damaged ({err!r}); restore it") from err
    return Output(
        store=store,
        run=run,
        plan=read_plan(store),
        described_source=source,
        sources=sources,
        images=images,
        fields=record.fields,
        job=job,
        selection=record.selection,
    )


def _job_of(url: str, record: RunRecord) -> Mapping[str, Any]:
    if ABOUT in record.about:
        raise ConfigError(
            f"{url}: is an index of images, and this verb takes captions; `joyfleet index` resumes an index, `verify` "
            "checks it, and `report` shows it"
        )
    if "job" not in record.about:
        raise ConfigError(
            f"{url}: is a corpus, and this verb takes captions; `joyfleet corpus` resumes a corpus, "
            "and `joyfleet export-corpus` writes the files of a trainer"
        )
    return with_new_names(record.about["job"])


def job_of_output(url: str, job_file: str | None, overrides: Sequence[str]) -> JobConfig:
    """Return the job that made an output: from the caller's file, or from `run.json`.

    Raises:
        ConfigError: `run.json` has settings that need the caller's consent, see `pipeline.config.trust`.
    """
    store = open_store(url)
    record = read_run(store)
    described = _job_of(url, record)
    if job_file is not None:
        return read_job(job_file, [*overrides, f"output={json.dumps(url)}"])
    origin = f"{url}/{RUN}"
    # In full form first: `without_powers` looks for the keys of the full form.
    job = read_stored(JobConfig, {**described, "output": url}, origin)
    selection = current_selection(record.selection, read_plan(store) if store.exists(PLAN) else None)
    job = job.model_copy(update={"source": with_selection(store, job.source, selection)})
    full = job.model_dump(mode="json")
    return parse_job(without_powers(full, overrides, origin), overrides, origin=origin)
