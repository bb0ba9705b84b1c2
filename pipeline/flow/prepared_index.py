"""Prepares an index without Ray: checks it, claims its output, and lists the shards without rows."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from pipeline.config.index_config import IndexConfig
from pipeline.config.recipe_form import recipe_form
from pipeline.flow.prepared_job import Extension, refuse_output_in_source, versions
from pipeline.images.perceptual_hash import check_library
from pipeline.ledger.index_files import ABOUT, OF_A_HEADER, OF_A_ROW, Index
from pipeline.ledger.run_record import claim_run
from pipeline.ledger.shard_plan import Plan, claim_plan, extend_plan
from pipeline.readers import list_source
from pipeline.recipe import Recipe
from pipeline.stages.index_rows import IndexSpec
from pipeline.storage import Store, open_store, probe
from schemas.index import Hash
from schemas.shard import Shard

OF_PIXELS = ("background", "decode")
"""Keys of `images` that can change a perceptual hash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedIndex:
    """Everything that an index run needs, and the remarks to print before it starts."""

    config: IndexConfig
    store: Store
    recipe: Recipe
    spec: IndexSpec
    plan: Plan
    todo: Sequence[Shard]
    """Planned shards that have no rows and are not in quarantine."""
    num_indexed: int
    """Shards that have their rows."""
    num_quarantined: int
    remarks: Sequence[str]


def prepare_index(config: IndexConfig, *, extend: bool = False) -> PreparedIndex:
    """Check an index, list its source, claim its output, extend its plan on request, and find the remaining shards.

    Raises:
        ConfigError: the config has a mistake, or imagehash is missing.
        OutputMismatch: the output is bound to another index, or a planned shard has changed.
        PlanExtended: another run has extended the plan at the same time.
        StoreError: the storage of the output has no atomic put-if-absent.
    """
    if Hash.PHASH in config.hashes:
        check_library()
    store = open_store(config.output)
    refuse_output_in_source(config, store)
    listing = list_source(config.source)
    probe(store)
    recipe = index_recipe(config)
    claim_run(store, recipe, {ABOUT: _about(config), "versions": _versions()})
    remarks = list(listing.remarks)
    plan = _planned(store, listing.shards, remarks, extend=extend)
    index = Index(store=store, fingerprint=recipe.fingerprint, fields=recipe.fields, plan=plan)
    indexed = index.indexed()
    quarantined = index.quarantined() - indexed
    return PreparedIndex(
        config=config,
        store=store,
        recipe=recipe,
        spec=IndexSpec(source=config.source, images=config.images, hashes=frozenset(config.hashes)),
        plan=plan,
        todo=[shard for path, shard in plan.shards.items() if path not in indexed | quarantined],
        num_indexed=len(indexed),
        num_quarantined=len(quarantined),
        remarks=remarks,
    )


def index_recipe(config: IndexConfig) -> Recipe:
    """Return everything that can change a row of an index."""
    source, images = config.source.model_dump(mode="json"), recipe_form(config.images)
    of_pixels = OF_PIXELS if Hash.PHASH in config.hashes else ()
    return Recipe(
        fields={
            "hashes": sorted(config.hashes),
            "images": {name: images[name] for name in (*OF_A_HEADER, *of_pixels) if name in images},
            "rows": {name: source[name] for name in (*OF_A_ROW, "key_column", "metadata_fields")},
        }
    )


def _about(config: IndexConfig) -> dict[str, Any]:
    """The config as JSON; of the cluster nothing, since another run may use another one."""
    # Apart from the others, since a config does not say which fields a shard may lack.
    optional = config.source.optional_fields
    about = config.model_dump(mode="json", exclude={"cluster"})
    kept = [name for name in config.source.metadata_fields if name not in optional]
    return {**about, "source": {**about["source"], "metadata_fields": kept}, "optional_fields": list(optional)}


def _versions() -> dict[str, str]:
    installed = versions()
    with suppress(metadata.PackageNotFoundError):
        installed["imagehash"] = metadata.version("imagehash")
    return installed


def _planned(store: Store, shards: Sequence[Shard], remarks: list[str], *, extend: bool) -> Plan:
    plan = claim_plan(store, shards)
    added = Extension().settled(plan.unplanned) if extend else []
    if added:
        plan = extend_plan(store, plan, added)
        remarks.append(
            f"source: {len(added)} new shards, such as {added[0].path}, are now in the plan of this index: generation "
            f"{plan.generations[-1].number}"
        )
    if plan.unplanned:
        remarks.append(
            f"source: {len(plan.unplanned)} shards, such as {plan.unplanned[0].path}, are not in the plan of this "
            "index: they were added after its last generation and are skipped; `joyfleet index SOURCE OUTPUT --extend` "
            "adds them"
        )
    return plan
