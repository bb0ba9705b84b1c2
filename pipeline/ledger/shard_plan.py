"""The plan of an output, fixed by its first run and extended on request, and the remaining work.

Remaining work = planned shards minus committed shards minus quarantined shards, read from three listings. There is no
"running" state that could go stale.

Every reader of a plan gets it from `read_plan` or `claim_plan`, so all of them see all generations.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import ConfigError, OutputMismatch, PlanExtended
from pipeline.ledger import layout
from pipeline.ledger.plan_generations import (
    Generation,
    SelectionChange,
    create_generation,
    read_generation,
    read_generations,
)
from pipeline.storage import Store
from schemas.shard import Shard

SHOWN = 3
"""Shards in a message."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The shards of an output, by path: generation after generation, each in the order of its listing."""

    shards: Mapping[str, Shard]
    unplanned: tuple[Shard, ...] = ()
    """Shards that the source has gained since then; not part of this output until `extend_plan` adds them."""
    generations: tuple[Generation, ...] = ()
    """As stored."""

    @property
    def last_change(self) -> Generation | None:
        """The last generation that changes the selection; None: that of the first run is in force."""
        return next((generation for generation in reversed(self.generations) if generation.change), None)


@dataclass(frozen=True, slots=True)
class Remaining:
    """The remaining work of a plan."""

    fragments: Mapping[str, tuple[str, ...]]
    """Every remaining shard, in the plan's order, with the paths of its fragments, unchecked, sorted."""
    committed: frozenset[str]
    """Planned shards with a committed file."""
    quarantined: frozenset[str]
    """Planned shards with a quarantine record and no committed file; not read until the record is removed."""


def claim_plan(store: Store, shards: Sequence[Shard], stored: Plan | None = None) -> Plan:
    """Fix the plan, or return the one that an earlier run or another driver fixed: every driver has the same shards.

    The URLs are those of `shards`; sizes and etags are the same in both.

    Args:
        store: the output.
        shards: of its source, as they are now.
        stored: what `stored_plan` has returned, so that it is not read twice; None: read it.

    Raises:
        ConfigError: no shard, or two whose files cannot exist side by side.
        OutputMismatch: a planned shard has changed or is gone.
    """
    if not shards:
        raise ConfigError("source: no shards; give a source with at least one shard")
    layout.check_shard_paths(shard.path for shard in shards)
    if stored is None and not store.exists(layout.PLAN):
        created = create_generation(store, shards, None)
        if created is not None:
            return Plan({shard.path: shard for shard in shards}, (), (created,))
    return compare_with_source(store.url, stored or read_plan(store), shards)


def stored_plan(store: Store) -> Plan | None:
    """Return the stored plan as `read_plan` does; None if there is none."""
    return read_plan(store) if store.exists(layout.PLAN) else None


def has_open_end(store: Store, plan: Plan) -> bool:
    """Whether the last shard of a plan is neither committed nor in quarantine: two requests instead of the listings.

    Shards are read in the order of the plan, so a run that stopped has left its end.
    """
    last = next(part.shards[-1].path for part in reversed(plan.generations) if part.shards)
    return not any(store.exists(path) for path in (layout.committed_path(last), layout.quarantine_path(last)))


def read_plan(store: Store) -> Plan:
    """Return the stored plan, with all of its generations.

    Raises:
        ConfigError: there is none.
        OutputMismatch: of another schema version.
        StoreError: it is not what `claim_plan` and `extend_plan` write.
    """
    generations = read_generations(store)
    shards = {shard.path: shard for generation in generations for shard in generation.shards}
    return Plan(shards, (), generations)


def compare_with_source(url: str, plan: Plan, shards: Sequence[Shard]) -> Plan:
    """Return the plan with the URLs of a listing of its source, and with the shards that it does not have.

    Raises:
        OutputMismatch: a planned shard of the output at `url` has changed or is gone.
    """
    current = {shard.path: shard for shard in shards}
    _refuse_changes(url, plan.shards, current)
    unplanned = tuple(shard for shard in shards if shard.path not in plan.shards)
    # The stored shards are equal but for their URLs: of a million, two sets would take 0.3 GB more.
    generations = tuple(
        replace(generation, shards=tuple(current[shard.path] for shard in generation.shards))
        for generation in plan.generations
    )
    return Plan({path: current[path] for path in plan.shards}, unplanned, generations)


def extend_plan(store: Store, plan: Plan, added: Sequence[Shard], change: SelectionChange | None = None) -> Plan:
    """Add some of the unplanned shards, or a selection, to the plan, as its next generation; no older file is touched.

    Raises:
        ConfigError: two shards whose files cannot exist side by side.
        PlanExtended: another run has added a generation since `plan` was read; nothing was written.
    """
    layout.check_shard_paths((*plan.shards, *(shard.path for shard in added)))
    created = create_generation(store, added, plan.generations[-1], change)
    if created is None:
        raise _overtaken(store, len(plan.generations), len(added))
    fresh = {shard.path: shard for shard in added}
    unplanned = tuple(shard for shard in plan.unplanned if shard.path not in fresh)
    return Plan({**plan.shards, **fresh}, unplanned, (*plan.generations, created))


def _overtaken(store: Store, number: int, num_added: int) -> PlanExtended:
    theirs = read_generation(store, number)
    what = f"{len(theirs.shards)} shards such as {theirs.shards[0].path}" if theirs.shards else "another selection"
    return PlanExtended(
        f"{store.url}: another run has just added generation {number} ({layout.generation_path(number)}) to the plan, "
        f"{what}; this run added none of its {num_added}. Run the same command again: it adds the shards that are "
        "still missing"
    )


def _refuse_changes(url: str, planned: Mapping[str, Shard], current: Mapping[str, Shard]) -> None:
    changes: list[str] = []
    for path, old in planned.items():
        new = current.get(path)
        if new is None:
            changes.append(f"{path} is gone (was {old.size} bytes, etag {old.etag})")
        elif (new.size, new.etag) != (old.size, old.etag):
            changes.append(f"{path} was {old.size} bytes, etag {old.etag}, is {new.size}, etag {new.etag}")
    if changes:
        more = f"; and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
        raise OutputMismatch(
            f"{url}: {len(changes)} of {len(planned)} planned shards have changed: "
            f"{'; '.join(changes[:SHOWN])}{more}. Restore them, or caption the source as it is now into a new output"
        )


@dataclass(frozen=True, slots=True)
class ListedOutput:
    """What the folders of an output hold, whether planned or not."""

    committed: frozenset[str]
    """Shards with a committed file."""
    quarantined: frozenset[str]
    """Shards with a quarantine record."""
    fragments: Mapping[str, Sequence[str]]
    """Shards to the paths of their fragments."""


def list_output(store: Store) -> ListedOutput:
    """List captions/, quarantine/ and staging/."""
    fragments: dict[str, list[str]] = {}
    for entry in store.list(layout.STAGING):
        shard = layout.shard_of_fragment(entry.path)
        if shard:
            fragments.setdefault(shard, []).append(entry.path)
    return ListedOutput(
        _named(store, layout.CAPTIONS, layout.shard_of_committed),
        _named(store, layout.QUARANTINE, layout.shard_of_quarantined),
        fragments,
    )


def remaining(store: Store, plan: Plan) -> Remaining:
    """Compare the plan with the output: one listing each of captions/, quarantine/ and staging/."""
    return remaining_of(plan, list_output(store))


def remaining_of(plan: Plan, listed: ListedOutput) -> Remaining:
    """Compare the plan with a listing of the output."""
    committed = frozenset(shard for shard in plan.shards if shard in listed.committed)
    quarantined = frozenset(shard for shard in plan.shards if shard in listed.quarantined) - committed
    todo = {
        shard: tuple(sorted(listed.fragments.get(shard, ())))
        for shard in plan.shards
        if shard not in committed and shard not in quarantined
    }
    return Remaining(todo, committed, quarantined)


def _named(store: Store, folder: str, shard_of: Callable[[str], str | None]) -> frozenset[str]:
    shards = (shard_of(entry.path) for entry in store.list(folder))
    return frozenset(shard for shard in shards if shard)
