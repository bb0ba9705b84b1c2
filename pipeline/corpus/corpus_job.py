"""A corpus made ready and its steps, one after the other; whoever runs them decides where. Nothing here needs Ray.

    slice      each file of a table                 -> slices of facts
    keys       each part, if tables are joined      -> what its images are joined by
    join       each joined table, at the driver     -> the rows that belong to images of a part
    draft      each part                            -> records, and what they are compared by
    choose     all, at the driver                   -> which records stay, and on which side
    publish    each part                            -> records, texts and counts: the part's commit
    report     all, at the driver                   -> census and card; what was staged goes

What is left of a step is read from the output itself, as for captions: a killed job goes on where it stopped.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import fsspec

from pipeline.config import CorpusConfig, SourceConfig
from pipeline.config.corpus_config import CaptionsConfig
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import put_json, put_table, read_json
from pipeline.corpus.duckdb_session import Limits
from pipeline.corpus.publish_corpus import Publisher
from pipeline.corpus.records.build_records import Drafts, joins_of
from pipeline.corpus.records.dedupe_and_split import SplitPlan, dedupe_and_split
from pipeline.corpus.records.tags import TagCleaner
from pipeline.corpus.report.corpus_report import write_report
from pipeline.corpus.tables.join import Join, join_table
from pipeline.corpus.tables.source_images import WorkUnit
from pipeline.corpus.tables.source_tables import TableFile, list_tables, slices
from pipeline.errors import ConfigError, StoreError
from pipeline.ledger.layout import CAPTIONS
from pipeline.ledger.run_record import claim_run, read_run
from pipeline.ledger.shard_plan import claim_plan, read_plan, remaining
from pipeline.readers import list_shards
from pipeline.recipe import Recipe
from pipeline.storage import Store, open_store, probe
from schemas.corpus_row import CORPUS_VERSION
from schemas.image_facts import IMAGE_FACTS
from schemas.record import RECORD_VERSION
from schemas.shard import Shard

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCorpus:
    """A corpus whose output is claimed."""

    config: CorpusConfig
    store: Store
    recipe: Recipe
    captions: Sequence[WorkUnit]
    """Parts of caption files; those of tables are known when the tables are sliced."""
    tables: Mapping[str, Sequence[TableFile]]
    """By entry."""
    cleaner: TagCleaner
    limits: Limits
    remarks: Sequence[str]

    @property
    def finished(self) -> bool:
        """Whether an earlier run, or another one, has ended the job."""
        return self.store.exists(corpus_layout.CARD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to be done next: `work` for each of `items` anywhere, or `here` once at the driver."""

    name: str
    items: Sequence[Any] = ()
    work: Callable[[Any], object] | None = None
    here: Callable[[], object] | None = None


def prepare_corpus(config: CorpusConfig) -> PreparedCorpus:
    """Check a corpus, list its inputs and claim its output.

    Raises:
        ConfigError: an input is not there, or a slot is not in its output.
        OutputMismatch: the output belongs to another corpus, or an input changed since it was planned.
        StoreError: the output's storage cannot create exclusively.
    """
    remarks: list[str] = []
    captions = [part for entry in config.captions for part in _caption_parts(entry, remarks)]
    limits = Limits(memory_gib=config.memory_gib)
    tables = {table.name: list_tables(table, limits) for table in config.tables}
    cleaner = TagCleaner(
        config.tags,
        aliases=dict(_pairs(config.tag_files.aliases)),
        implications=_grouped(_pairs(config.tag_files.implications)),
    )
    store = open_store(config.output)
    probe(store)
    recipe = Recipe(fields=_recipe_fields(config))
    claim_run(store, recipe, {"corpus": config.model_dump(mode="json")})
    inputs = [
        replace(file, path=f"{part.name}/{number}") for part in captions for number, file in enumerate(part.captions)
    ]
    units = [unit for found in tables.values() for unit in found]
    inputs += [replace(file, path=f"{unit.table}/{file.path}") for unit in units for file in unit.files]
    plan = claim_plan(store, inputs)
    if plan.unplanned:
        remarks.append(
            f"inputs: {len(plan.unplanned)} files are not in this output's plan, such as {plan.unplanned[0].url}: they "
            "came later and are left out; give them an output of their own"
        )
    return PreparedCorpus(
        config=config,
        store=store,
        recipe=recipe,
        captions=[part for part in captions if f"{part.name}/0" in plan.shards],
        tables={
            name: [unit for unit in units if f"{name}/{unit.files[0].path}" in plan.shards]
            for name, units in tables.items()
        },
        cleaner=cleaner,
        limits=limits,
        remarks=remarks,
    )


def _caption_parts(entry: CaptionsConfig, remarks: list[str]) -> list[WorkUnit]:
    """A part for each shard that all outputs of the entry have committed."""
    files: list[dict[str, Shard]] = []
    slots: Counter[str] = Counter()
    for url in entry.outputs:
        store = open_store(url)
        slots.update(read_run(store).about.get("slots", ()))
        planned = read_plan(store)
        left = len(planned.shards) - len(remaining(store, planned).committed)
        if left:
            remarks.append(f"captions {entry.name}: {left} of {len(planned.shards)} shards of {url} are not committed")
        listed = list_shards(SourceConfig(urls=(f"{url.rstrip('/')}/{CAPTIONS}",)), (".parquet",))
        files.append({file.path.removesuffix(".parquet"): file for file in listed})
    _check_slots(entry, slots)
    shared = sorted(set(files[0]).intersection(*files[1:]))
    if not shared:
        raise ConfigError(f"captions {entry.name}: {', '.join(entry.outputs)} have no committed shard in common")
    return [
        WorkUnit(name=f"{entry.name}/{shard}", source=entry.name, captions=tuple(found[shard] for found in files))
        for shard in shared
    ]


def _check_slots(entry: CaptionsConfig, slots: Counter[str]) -> None:
    twice = sorted(slot for slot, number in slots.items() if number > 1)
    if twice:
        raise ConfigError(f"captions {entry.name}: slots {', '.join(twice)} are in several outputs; allowed: each once")
    asked = {feed.slot for feed in (*entry.long, *entry.short, *entry.tags)}
    unknown = sorted(asked.difference(slots))
    if unknown:
        raise ConfigError(
            f"captions {entry.name}: no slot {', '.join(unknown)} in {', '.join(entry.outputs)}; "
            f"found: {', '.join(sorted(slots))}"
        )


def _recipe_fields(config: CorpusConfig) -> dict[str, Any]:
    """All that can change a text. Where inputs lie does not; what they hold stands in the plan."""
    fields = config.model_dump(mode="json", exclude={"output", "cluster", "memory_gib", "license"})
    for entry in fields["captions"]:
        entry["outputs"] = len(entry["outputs"])
    for table in fields["tables"]:
        del table["urls"]
    fields["decontaminate"] = {name: _digest(urls) for name, urls in fields["decontaminate"].items()}
    fields["tag_files"] = {name: _digest([url] if url else []) for name, url in fields["tag_files"].items()}
    return {**fields, "versions": {"record": RECORD_VERSION, "text": CORPUS_VERSION}}


def _digest(urls: Sequence[str]) -> str | None:
    data = b"\0".join(_read(url) for url in urls)
    return hashlib.sha256(data).hexdigest()[:16] if urls else None


def _read(url: str) -> bytes:
    try:
        with fsspec.open(url, "rb", compression="infer") as file:
            return file.read()  # pyright: ignore[reportAttributeAccessIssue] - fsspec has no types
    except (OSError, ValueError) as err:
        raise ConfigError(f"{url}: cannot be read ({type(err).__name__}: {err})") from err


def _lines(urls: Sequence[str]) -> list[str]:
    return [line for url in urls for line in _read(url).decode("utf-8-sig").splitlines()]


def _pairs(url: str | None) -> list[tuple[str, str]]:
    rows = list(csv.reader(io.StringIO(_read(url).decode("utf-8-sig")))) if url else []
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise ConfigError(f"{url}: line {number} has {len(row)} fields; allowed: `from,to`")
    return [(old, new) for old, new in rows]


def _grouped(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for tag, implied in pairs:
        grouped.setdefault(tag, []).append(implied)
    return grouped


@dataclass(frozen=True, slots=True)
class TableChunker:
    """Slices tables; pickles."""

    store: Store

    def __call__(self, table: TableFile) -> str:
        """Slice one file; return its path."""
        faults: Counter[str] = Counter()
        number = rows = 0
        for facts in slices(table, faults):
            put_table(self.store, corpus_layout.slice_path(table.table, table.path, number), facts, IMAGE_FACTS)
            number, rows = number + 1, rows + facts.num_rows
        counts = {"slices": number, "rows": rows, "faults": dict(faults)}
        put_json(self.store, corpus_layout.sliced_path(table.table, table.path), counts)
        return table.path


def steps(prepared: PreparedCorpus) -> Iterator[Step]:
    """Yield the steps that are left, each when the one before it is done."""
    store, config = prepared.store, prepared.config
    files = [unit for units in prepared.tables.values() for unit in units]
    there = _listed(store, f"{corpus_layout.STAGING}/tables")
    yield Step(
        name="slice",
        items=[unit for unit in files if corpus_layout.sliced_path(unit.table, unit.path) not in there],
        work=TableChunker(store),
    )
    parts = parts_of(prepared)
    drafts = Drafts(store=store, config=config, cleaner=prepared.cleaner)
    if config.joins:
        joined = [part for part in parts if joins_of(config, part.source)]
        yield Step(name="keys", items=_left(store, joined, corpus_layout.keys_path), work=drafts.keys)
        for join in _joins(prepared, parts):
            yield Step(name=f"join {join.table}", here=_bound(join_table, store, join, prepared.limits))
    yield Step(name="draft", items=_left(store, parts, corpus_layout.drafts_path), work=drafts.records)
    yield Step(name="choose", here=_bound(dedupe_and_split, store, _choosing(config, parts), prepared.limits))
    publisher = Publisher(store=store, config=config, fingerprint=prepared.recipe.fingerprint)
    yield Step(name="publish", items=_left(store, parts, corpus_layout.part_path), work=publisher)
    yield Step(name="report", here=lambda: _end(prepared, parts))


def _end(prepared: PreparedCorpus, parts: Sequence[WorkUnit]) -> None:
    write_report(prepared.store, prepared.config, [part.name for part in parts], prepared.limits)
    remove_staged(prepared)


def remove_staged(prepared: PreparedCorpus) -> None:
    """Remove what the steps of a finished corpus handed on."""
    try:
        prepared.store.delete([entry.path for entry in prepared.store.list(corpus_layout.STAGING)])
    except StoreError as err:  # nothing reads it any more, and the next call of the same command removes it
        log.warning("the corpus is done, and what its steps staged stays: %s", err)


def _bound(function: Callable[..., object], *arguments: object) -> Callable[[], object]:
    return lambda: function(*arguments)


def _left(store: Store, parts: Sequence[WorkUnit], path: Callable[[str], str]) -> list[WorkUnit]:
    there = _listed(store, path("").rpartition("/")[0])
    return [part for part in parts if path(part.name) not in there]


def _listed(store: Store, folder: str) -> frozenset[str]:
    return frozenset(entry.path for entry in store.list(folder))


def parts_of(prepared: PreparedCorpus) -> list[WorkUnit]:
    """Return all parts of a corpus whose tables are sliced, in the order of their sources."""
    parts = list(prepared.captions)
    for table in prepared.config.tables:
        if table.join is None:
            parts += [
                WorkUnit(name=corpus_layout.part_of_slice(path), source=table.name, slice=path)
                for path in _slices(prepared, table.name)
            ]
    return parts


def _slices(prepared: PreparedCorpus, table: str) -> list[str]:
    return [
        corpus_layout.slice_path(table, unit.path, number)
        for unit in prepared.tables[table]
        for number in range(read_json(prepared.store, corpus_layout.sliced_path(table, unit.path))["slices"])
    ]


def _joins(prepared: PreparedCorpus, parts: Sequence[WorkUnit]) -> Iterator[Join]:
    for table in prepared.config.joins:
        if table.join is not None:
            wanted = [
                (number, part.name)
                for number, part in enumerate(parts)
                if table in joins_of(prepared.config, part.source)
            ]
            yield Join(table=table.name, config=table.join, slices=_slices(prepared, table.name), parts=wanted)


def _choosing(config: CorpusConfig, parts: Sequence[WorkUnit]) -> SplitPlan:
    ranks = {name: rank for rank, name in enumerate(config.sources)}
    return SplitPlan(
        parts=[(number, part.name, ranks[part.source]) for number, part in enumerate(parts)],
        dedupe=config.dedupe,
        split=config.split,
        forbidden_names=_lines(config.decontaminate.identities),
        forbidden_texts=_lines(config.decontaminate.texts),
    )
