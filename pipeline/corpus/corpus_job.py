"""Prepares a corpus and yields its steps in order. The caller decides where a step runs; no step needs Ray.

    slice      each file of a table                 -> slices of image facts
    keys       each work unit, if tables are joined -> join keys of its images
    join       each joined table, on the driver     -> the table's rows for each work unit
    records    each work unit                       -> records, and the identities by which they are compared
    dedupe     all records, on the driver           -> which records stay, and the split of each
    publish    each work unit                       -> records, texts and counts: the commit of the unit
    shuffle    each split and epoch, on the driver  -> with `shuffle`: files of mixed texts, and their manifest
    report     all work units, on the driver        -> report tables and card; staging is removed

The remaining work of a step is read from the output itself, as for captions: a killed job resumes where it stopped.
An extension of a finished corpus has the steps `draw` (each work unit: published records -> texts of the added epochs),
`shuffle` and `report`.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import fsspec

from pipeline.config import CorpusConfig, RecordTagsConfig, SourceConfig
from pipeline.config.corpus_config import CaptionsConfig
from pipeline.config.recipe_form import recipe_form
from pipeline.config.suggestions import did_you_mean
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import put_json, put_table, read_json
from pipeline.corpus.extensions import Extension, claim_extension, is_finished, read_extensions
from pipeline.corpus.libraries import library_versions
from pipeline.corpus.publish_corpus import Publisher
from pipeline.corpus.records.build_records import RecordBuilder, joins_of
from pipeline.corpus.records.dedupe_and_split import SplitPlan, dedupe_and_split
from pipeline.corpus.records.languages import check_languages
from pipeline.corpus.records.select_records import refuse_absent_fields
from pipeline.corpus.records.tag_relations import (
    NO_RELATIONS,
    Implications,
    group_implications,
    read_relations,
    resolve_aliases,
)
from pipeline.corpus.records.tags import TagCleaner
from pipeline.corpus.report.card_figures import check_figures
from pipeline.corpus.report.corpus_report import write_extended_report, write_report
from pipeline.corpus.shuffle_texts import EpochShuffle, shuffle_epoch, staged_counts
from pipeline.corpus.tables.join import TableJoin, join_table
from pipeline.corpus.tables.source_images import WorkUnit
from pipeline.corpus.tables.source_tables import TableFile, list_tables, parts_of, slices
from pipeline.corpus.tables.tag_scores import with_threshold
from pipeline.corpus.text.tokenizer import TextTokenizer
from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.ledger.layout import CAPTIONS, RUN
from pipeline.ledger.run_record import claim_run, read_run
from pipeline.ledger.shard_plan import claim_plan, read_plan, remaining
from pipeline.prompts.request import CUSTOM
from pipeline.quality.language import known_languages
from pipeline.readers import list_shards
from pipeline.recipe import Recipe
from pipeline.storage import Store, open_store, probe
from schemas.corpus_row import CORPUS_VERSION
from schemas.image_facts import IMAGE_FACTS
from schemas.record import RECORD_VERSION, Split
from schemas.shard import Shard

log = logging.getLogger(__name__)

RULES = 2
"""Version of the rules that turn facts into records and texts: ids, cleaning, sentences. Changes if they give other
results for the same input. The recipe holds it; outputs of the first edition hold none and have the rules 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCorpus:
    """A corpus whose inputs are checked and whose output is claimed."""

    config: CorpusConfig
    store: Store
    recipe: Recipe
    captions: Sequence[WorkUnit]
    """Work units of caption files; those of tables are known after the tables are sliced."""
    tables: Mapping[str, Sequence[TableFile]]
    """By name of the config's entry."""
    cleaner: TagCleaner
    implications: Implications
    """Implied tags that are added to records; empty if none are."""
    rules: int
    """`RULES`, or 1 for an output that the first edition began: its ids stay as they were."""
    tokenizer: str | None
    """Digest of the tokenizer's file, if tokens are counted."""
    remarks: Sequence[str]
    extension: Extension | None = None
    """The epochs that are added to the finished corpus; `config.epochs` is the number after it."""

    @property
    def finished(self) -> bool:
        """Whether this or another run has written the last file of the job."""
        return is_finished(self.store)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next step: call `work` for each of `items` on any machine, or `driver_work` once on the driver."""

    name: str
    items: Sequence[Any] = ()
    work: Callable[[Any], object] | None = None
    driver_work: Callable[[], object] | None = None


def prepare_corpus(config: CorpusConfig, epochs: int | None = None) -> PreparedCorpus:
    """Check a corpus, list its inputs and claim its output.

    Args:
        config: the corpus.
        epochs: adds epochs to the finished corpus until it has so many. The inputs are not read.

    Raises:
        ConfigError: an input does not exist, an output does not have a slot, the tokenizer cannot be used, matplotlib
            is missing, or epochs cannot be added.
        OutputMismatch: the output belongs to another corpus, or an input has changed since it was planned.
        StoreError: the storage of the output has no atomic create.
    """
    remarks: list[str] = []
    check_figures()
    tokenizer = _tokenizer_digest(config)
    extended = _prepare_extension(config, epochs, tokenizer, remarks)
    if extended:
        return extended
    _check_languages(config)
    captions = [unit for entry in config.captions for unit in _caption_units(entry, remarks)]
    tables = {table.name: list_tables(with_threshold(table, config.tags), config.memory_gib) for table in config.tables}
    aliases, implications = _relations(config, remarks)
    cleaner = TagCleaner(config.tags, aliases=aliases, implications=implications)
    store = open_store(config.output)
    probe(store)
    rules = _rules_of(store, remarks)
    recipe = _recipe(config, tokenizer, rules, store, remarks)
    claim_run(store, recipe, {"corpus": config.model_dump(mode="json")})
    inputs = [
        replace(file, path=f"{unit.name}/{number}") for unit in captions for number, file in enumerate(unit.captions)
    ]
    inputs += [
        replace(file, path=f"{name}/{file.path}")
        for name, listed in tables.items()
        for table in listed
        for file in table.files
    ]
    plan = claim_plan(store, inputs)
    if plan.unplanned:
        remarks.append(
            f"inputs: {len(plan.unplanned)} files, such as {plan.unplanned[0].url}, were added after this output was "
            "planned and are left out; to include them, use a new output"
        )
    return PreparedCorpus(
        config=config,
        store=store,
        recipe=recipe,
        captions=[unit for unit in captions if f"{unit.name}/0" in plan.shards],
        tables={
            name: [table for table in listed if f"{name}/{table.files[0].path}" in plan.shards]
            for name, listed in tables.items()
        },
        cleaner=cleaner,
        implications=implications if config.tags.add_implied else {},
        rules=rules,
        tokenizer=tokenizer,
        remarks=remarks,
    )


def _prepare_extension(
    config: CorpusConfig, epochs: int | None, tokenizer: str | None, remarks: list[str]
) -> PreparedCorpus | None:
    """Return the extension that is asked for or not finished; None for a corpus that is made from its inputs."""
    store = open_store(config.output)
    if not store.exists(RUN):
        if epochs is not None:
            raise ConfigError(f"--epochs {epochs}: {config.output} does not exist; set `epochs` in the job instead")
        return None
    extensions, bound = read_extensions(store), read_run(store).fields.get("epochs", config.epochs)
    known = {bound, *(extension.epochs for extension in extensions)}
    if epochs is None and config.epochs > max(known):
        raise OutputMismatch(
            f"{config.output}: has {max(known)} epochs, and the job {config.epochs}; to add epochs to the finished "
            f"corpus, run the same command with --epochs {config.epochs}; else change the job back"
        )
    if not extensions and epochs in (None, bound):
        return None
    probe(store)
    rules = _rules_of(store, remarks)
    # The recipe is that of the first run, whose number of epochs it holds.
    same = config.epochs if epochs is None and config.epochs not in known else bound
    recipe = _recipe(config.model_copy(update={"epochs": same}), tokenizer, rules, store, remarks)
    claim_run(store, recipe, {})
    _refuse_empty_epochs(config, epochs)
    extension = extensions[-1] if epochs is None else claim_extension(store, extensions, epochs, bound)
    if rules < RULES:
        remarks.append(
            f"output: {config.output} was begun by an earlier release; its records are kept, and the added texts are "
            "drawn by the rules of this release"
        )
    return PreparedCorpus(
        config=config.model_copy(update={"epochs": extension.epochs}),
        store=store,
        recipe=recipe,
        captions=(),
        tables={},
        cleaner=TagCleaner(RecordTagsConfig()),
        implications={},
        rules=rules,
        tokenizer=tokenizer,
        remarks=remarks,
        extension=extension,
    )


def _refuse_empty_epochs(config: CorpusConfig, epochs: int | None) -> None:
    """Refuse epochs for which the schedule has no text, as a job with so many epochs is refused."""
    empty = config.empty_epoch(epochs or 0)
    if empty is not None:
        raise ConfigError(
            f"--epochs {epochs}: schedule: no source has a weight above 0 in epoch {empty}; allowed: --epochs {empty} "
            "at most"
        )


def _rules_of(store: Store, remarks: list[str]) -> int:
    """Return the version of the rules for an output: the current one, or 1 if the first edition began it."""
    if not store.exists(RUN) or "rules" in read_run(store).fields.get("versions", {}):
        return RULES
    if not store.exists(corpus_layout.CARD):
        remarks.append(
            f"output: {store.url} was begun by an earlier release; record ids stay as they were, the records that are "
            "left are cleaned by the rules of this release. For the same rules everywhere, use a new output"
        )
    return 1


def _check_languages(config: CorpusConfig) -> None:
    """Open what detects languages, so that a missing library or an unknown language ends the job before any work."""
    library_versions(config)
    if config.languages is not None:
        check_languages(config.languages)
        known = config.languages.candidates or known_languages()
        for number, entry in enumerate(config.filters):
            unknown = sorted(set(entry.language).difference(known))
            if unknown and not config.names_language:
                raise ConfigError(
                    f"filters.{number}.language: found {', '.join(unknown)}; {config.languages.detector} is asked for: "
                    f"{', '.join(known)}"
                )


def _tokenizer_digest(config: CorpusConfig) -> str | None:
    """Open the tokenizer, so that a wrong path or token ends the job before any work is done."""
    if config.tokenizer is None:
        return None
    return TextTokenizer(config.tokenizer.path, bos=config.tokenizer.bos, eos=config.tokenizer.eos).digest


def _recipe(config: CorpusConfig, tokenizer: str | None, rules: int, store: Store, remarks: list[str]) -> Recipe:
    """Return the recipe; for an output of the first edition, with the tokenizer's path in place of its digest."""
    fields = recipe_fields(config, tokenizer, rules)
    bound = (read_run(store).fields.get("tokenizer") or {}) if tokenizer and store.exists(RUN) else {}
    if "path" in bound:
        fields["tokenizer"] = recipe_form(config)["tokenizer"]
        remarks.append(
            f"tokenizer: an earlier version began {config.output} and recorded only the path {bound['path']}; the "
            "counts of the texts are right only if the file is still the same"
        )
    return Recipe(fields=fields)


def _caption_units(entry: CaptionsConfig, remarks: list[str]) -> list[WorkUnit]:
    """Return a work unit for each shard that all outputs of the entry have committed."""
    files: list[dict[str, Shard]] = []
    slots: Counter[str] = Counter()
    modes: dict[str, set[str]] = {}
    for url in entry.outputs:
        store = open_store(url)
        about = read_run(store).about
        slots.update(about.get("slots", ()))
        modes |= _slot_modes(about)
        planned = read_plan(store)
        missing = len(planned.shards) - len(remaining(store, planned).committed)
        if missing:
            remarks.append(
                f"captions {entry.name}: {missing} of {len(planned.shards)} shards of {url} are not committed and are "
                "left out"
            )
        listed = list_shards(SourceConfig(urls=(f"{url.rstrip('/')}/{CAPTIONS}",)), (".parquet",))
        files.append({file.path.removesuffix(".parquet"): file for file in listed})
    _check_slots(entry, slots)
    _check_modes(entry, modes)
    shared = sorted(set(files[0]).intersection(*files[1:]))
    if not shared:
        raise ConfigError(
            f"captions {entry.name}: {', '.join(entry.outputs)} have no committed shard in common; "
            "give outputs of one source"
        )
    return [
        WorkUnit(name=f"{entry.name}/{shard}", source=entry.name, captions=tuple(output[shard] for output in files))
        for shard in shared
    ]


def _check_slots(entry: CaptionsConfig, slots: Counter[str]) -> None:
    twice = sorted(slot for slot, number in slots.items() if number > 1)
    if twice:
        raise ConfigError(
            f"captions {entry.name}: slots {', '.join(twice)} are in several outputs; allowed: each slot in one"
        )
    used = {feed.slot for feed in (*entry.long, *entry.short, *entry.tags)}
    unknown = sorted(used.difference(slots))
    if unknown:
        raise ConfigError(
            f"captions {entry.name}: no slot {', '.join(unknown)} in {', '.join(entry.outputs)}; "
            f"found: {', '.join(sorted(slots))}"
        )


def _slot_modes(about: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the modes of each slot of the job that made an output."""
    modes: dict[str, set[str]] = {}
    for slot in about.get("job", {}).get("captions", ()):
        own = {request.get("mode") or CUSTOM for request in slot.get("mix") or [slot]}
        names = [slot["slot"], *(f"{slot['slot']}.{number}" for number in range(2, slot.get("samples", 1) + 1))]
        modes |= dict.fromkeys(names, own)
    return modes


def _check_modes(entry: CaptionsConfig, modes: Mapping[str, Collection[str]]) -> None:
    for feed in (*entry.long, *entry.short, *entry.tags):
        unknown = sorted(set(feed.modes).difference(modes.get(feed.slot, feed.modes)))
        if unknown:
            allowed = sorted(modes[feed.slot])
            raise ConfigError(
                f"captions {entry.name}: slot {feed.slot} has no mode {', '.join(unknown)}; "
                f"found: {', '.join(allowed)}{did_you_mean(unknown, allowed)}"
            )


def recipe_fields(config: CorpusConfig, tokenizer: str | None, rules: int = RULES) -> dict[str, Any]:
    """Return everything that can change a text or a count.

    Locations of inputs cannot: the plan holds the inputs' contents, and `tokenizer` is the digest of its file.
    """
    fields = recipe_form(config)
    if fields["tokenizer"] is not None:
        del fields["tokenizer"]["path"]
        fields["tokenizer"]["digest"] = tokenizer
    for name in ("output", "cluster", "memory_gib", "license"):
        del fields[name]
    for entry in fields["captions"]:
        entry["outputs"] = len(entry["outputs"])
    for table in fields["tables"]:
        del table["urls"]
    fields["decontaminate"] = {name: _digest(urls) for name, urls in fields["decontaminate"].items()}
    fields["tag_files"] = {name: _digest([url] if url else []) for name, url in fields["tag_files"].items()}
    versions = {"record": RECORD_VERSION, "text": CORPUS_VERSION, **({"rules": str(rules)} if rules > 1 else {})}
    return {**fields, "versions": {**versions, **library_versions(config)}}


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


def _relations(config: CorpusConfig, remarks: list[str]) -> tuple[dict[str, str], Implications]:
    """Return the aliases and implications of the files, with remarks about lines and files that are not used."""
    files, pairs = config.tag_files, dict[str, Sequence[tuple[str, str]]]()
    for name, url in (("aliases", files.aliases), ("implications", files.implications)):
        relations = read_relations(url, _read(url)) if url else NO_RELATIONS
        pairs[name] = relations.pairs
        if relations.inactive:
            listed = ", ".join(f"{number:,} {status}" for status, number in sorted(relations.inactive.items()))
            remarks.append(f"tag_files.{name}: {len(relations.pairs):,} active lines are used, {listed} are left out")
    aliases = resolve_aliases(files.aliases or "", pairs["aliases"])
    implications = group_implications(files.implications or "", pairs["implications"], aliases)
    if config.tags.add_implied and not implications:
        raise ConfigError(
            "tags.add_implied: true needs implications; set tag_files.implications, or add_implied: false"
        )
    if files.implications and not (config.tags.add_implied or config.tags.prune_implied):
        remarks.append("tag_files.implications: has no effect without tags.add_implied or tags.prune_implied")
    return aliases, implications


@dataclass(frozen=True, slots=True)
class TableChunker:
    """Cuts tables into slices; pickles."""

    store: Store

    def __call__(self, table: TableFile) -> str:
        """Write the slices of one file, or of a part of it; return the file's path."""
        faults: Counter[str] = Counter()
        first = number = table.part[0] if table.part else 0
        rows = 0
        fields: set[str] = set()
        for facts in slices(table, faults):
            put_table(self.store, corpus_layout.slice_path(table.table, table.path, number), facts, IMAGE_FACTS)
            number, rows = number + 1, rows + facts.num_rows
            fields.update(name for name in facts.column_names if facts[name].null_count < facts.num_rows)
        counts = {"slices": number - first, "rows": rows, "fields": sorted(fields), "faults": dict(faults)}
        put_json(self.store, _sliced_path(table), counts)
        return table.path


def _sliced_path(table: TableFile) -> str:
    if table.part:
        return corpus_layout.part_path(table.table, table.path, table.part[0])
    return corpus_layout.sliced_path(table.table, table.path)


def _add_up_parts(store: Store, parts: Sequence[TableFile]) -> None:
    """Mark a file as sliced whose parts are: with the sums of their counts, and the fields that any of them has."""
    counts = [read_json(store, _sliced_path(part)) for part in parts]
    faults: Counter[str] = Counter()
    for part in counts:
        faults.update(part["faults"])
    whole = {
        "slices": sum(part["slices"] for part in counts),
        "rows": sum(part["rows"] for part in counts),
        "fields": sorted({name for part in counts for name in part["fields"]}),
        "faults": dict(faults),
    }
    put_json(store, corpus_layout.sliced_path(parts[0].table, parts[0].path), whole)


def steps(prepared: PreparedCorpus) -> Iterator[Step]:
    """Yield the steps in order. The caller completes a step before it takes the next one."""
    if prepared.extension:
        yield from _extension_steps(prepared, prepared.extension)
        return
    store, config = prepared.store, prepared.config
    files = [file for listed in prepared.tables.values() for file in listed]
    existing = _listed(store, f"{corpus_layout.STAGING}/tables") | _listed(store, f"{corpus_layout.STAGING}/sliced")
    unsliced = [parts_of(file) for file in files if _sliced_path(file) not in existing]
    yield Step(
        name="slice",
        items=[part for parts in unsliced for part in parts if _sliced_path(part) not in existing],
        work=TableChunker(store),
    )
    for parts in unsliced:
        if parts[0].part:
            _add_up_parts(store, parts)
    _refuse_absent_fields(prepared)
    units = work_units(prepared)
    builder = RecordBuilder(
        store=store,
        config=config,
        cleaner=prepared.cleaner,
        implications=prepared.implications,
        rules=prepared.rules,
        libraries=library_versions(config),
    )
    if config.joins:
        joined = [unit for unit in units if joins_of(config, unit.source)]
        yield Step(name="keys", items=_remaining(store, joined, corpus_layout.keys_path), work=builder.keys)
        for join in _joins(prepared, units):
            yield Step(name=f"join {join.table}", driver_work=partial(join_table, store, join, config.memory_gib))
    yield Step(name="records", items=_remaining(store, units, corpus_layout.built_records_path), work=builder.records)
    plan = _split_plan(config, units)
    yield Step(name="dedupe", driver_work=partial(dedupe_and_split, store, plan, config.memory_gib))
    yield Step(name="publish", items=_remaining(store, units, corpus_layout.commit_path), work=_publisher(prepared))
    yield from _shuffles(prepared, 0, [unit.name for unit in units], corpus_layout.commit_path)
    yield Step(name="report", driver_work=partial(_finish, prepared, units))


def _refuse_absent_fields(prepared: PreparedCorpus) -> None:
    if prepared.config.filters:
        known = {
            name: {
                fact
                for file in files
                for fact in read_json(prepared.store, corpus_layout.sliced_path(name, file.path))["fields"]
            }
            for name, files in prepared.tables.items()
        }
        refuse_absent_fields(prepared.config, known)


def _publisher(prepared: PreparedCorpus) -> Publisher:
    return Publisher(
        store=prepared.store,
        config=prepared.config,
        fingerprint=prepared.recipe.fingerprint,
        tokenizer=prepared.tokenizer,
        libraries=library_versions(prepared.config),
    )


def _extension_steps(prepared: PreparedCorpus, extension: Extension) -> Iterator[Step]:
    store = prepared.store
    units = sorted(corpus_layout.unit_of_commit(path) for path in _listed(store, corpus_layout.PARTS))
    added = partial(corpus_layout.added_path, extension.epochs)
    existing = _listed(store, added("").rpartition("/")[0])
    earlier = [before.epochs for before in read_extensions(store) if before.epochs < extension.epochs]
    yield Step(
        name="draw",
        items=[unit for unit in units if added(unit) not in existing],
        work=partial(_publisher(prepared).add_epochs, first=extension.first, earlier=earlier),
    )
    yield from _shuffles(prepared, extension.first, units, added)
    yield Step(name="report", driver_work=partial(_finish_extension, prepared, extension, units))


def _shuffles(
    prepared: PreparedCorpus, first: int, units: Sequence[str], commit_path: Callable[[str], str]
) -> Iterator[Step]:
    """Yield a step for each split and epoch from `first`, if the texts are shuffled."""
    shuffle = prepared.config.shuffle
    if shuffle is None:
        return
    counts = staged_counts(prepared.store, units, commit_path)
    for epoch in range(first, prepared.config.epochs):
        for split in Split:
            job = EpochShuffle(
                config=prepared.config,
                shuffle=shuffle,
                fingerprint=prepared.recipe.fingerprint,
                split=split,
                epoch=epoch,
                units=counts.get((split, epoch), {}),
            )
            yield Step(name=f"shuffle {split} {epoch}", driver_work=partial(shuffle_epoch, prepared.store, job))


def _finish_extension(prepared: PreparedCorpus, extension: Extension, units: Sequence[str]) -> None:
    write_extended_report(prepared.store, prepared.config, units, extension)
    put_json(prepared.store, corpus_layout.extension_done_path(extension.epochs), {})
    remove_staged(prepared)


def _finish(prepared: PreparedCorpus, units: Sequence[WorkUnit]) -> None:
    write_report(prepared.store, prepared.config, [unit.name for unit in units])
    remove_staged(prepared)


def remove_staged(prepared: PreparedCorpus) -> None:
    """Remove the staging files of a finished corpus."""
    try:
        prepared.store.delete([entry.path for entry in prepared.store.list(corpus_layout.STAGING)])
    except StoreError as err:  # no step reads them again, and the next run of the same command removes them
        log.warning("the corpus is complete, but its staging files were not removed: %s", err)


def _remaining(store: Store, units: Sequence[WorkUnit], path: Callable[[str], str]) -> list[WorkUnit]:
    existing = _listed(store, path("").rpartition("/")[0])
    return [unit for unit in units if path(unit.name) not in existing]


def _listed(store: Store, folder: str) -> frozenset[str]:
    return frozenset(entry.path for entry in store.list(folder))


def work_units(prepared: PreparedCorpus) -> list[WorkUnit]:
    """Return all work units of a corpus whose tables are sliced, in the order of their sources."""
    units = list(prepared.captions)
    for table in prepared.config.tables:
        if table.join is None:
            units += [
                WorkUnit(name=corpus_layout.unit_of_slice(path), source=table.name, slice=path)
                for path in _slices(prepared, table.name)
            ]
    return units


def _slices(prepared: PreparedCorpus, table: str) -> list[str]:
    return [
        corpus_layout.slice_path(table, file.path, number)
        for file in prepared.tables[table]
        for number in range(read_json(prepared.store, corpus_layout.sliced_path(table, file.path))["slices"])
    ]


def _joins(prepared: PreparedCorpus, units: Sequence[WorkUnit]) -> Iterator[TableJoin]:
    for table in prepared.config.joins:
        if table.join is not None:
            wanted = [
                (number, unit.name)
                for number, unit in enumerate(units)
                if table in joins_of(prepared.config, unit.source)
            ]
            yield TableJoin(table=table.name, config=table.join, slices=_slices(prepared, table.name), units=wanted)


def _split_plan(config: CorpusConfig, units: Sequence[WorkUnit]) -> SplitPlan:
    ranks = {name: rank for rank, name in enumerate(config.sources)}
    return SplitPlan(
        units=[(number, unit.name, ranks[unit.source]) for number, unit in enumerate(units)],
        dedupe=config.dedupe,
        split=config.split,
        forbidden_names=_lines(config.decontaminate.identities),
        forbidden_texts=_lines(config.decontaminate.texts),
        filters=config.filters,
        sources=config.sources,
    )
