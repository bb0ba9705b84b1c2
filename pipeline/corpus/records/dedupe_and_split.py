"""Decides which records stay and to which split each belongs: by their content, independent of files and order.

Records are dropped in passes, each over the records that the passes before kept: those that a filter refuses, then
contaminated records, then the kinds of `dedupe` in their order. Of equal records the one of the first source stays,
and within a source the one whose id has the smallest hash. The split is drawn per image, from the image's hash:
records that share a digest or a URL, also through a third record, are one image.

Run by the driver, in DuckDB, on a 64-bit hash of each identity: 30 million records take about 1.5 GB, on disk if they
exceed the memory limit. Two of 30 million identities share a hash with a probability of 2 in 100,000.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.corpus_config import Duplicate, SplitConfig
from pipeline.config.corpus_filters import FilterConfig
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import put_json, put_table, read_table
from pipeline.corpus.records.select_by_percentile import percentile_queries
from pipeline.corpus.records.select_records import PREFIX, refuse_unknown_fields
from pipeline.corpus.tables.identity import fingerprint, listed_identities
from pipeline.errors import NothingDone
from pipeline.storage import Store
from pipeline.storage.duckdb_session import DuckSession, open_duckdb, split_by_unit
from schemas.record import Split

log = logging.getLogger(__name__)

KINDS = ("id", "sha256", "md5", "url", "caption", "short")
IDENTITIES: pa.Schema = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("root", pa.int64(), nullable=False),
        *((kind, pa.int64()) for kind in KINDS),
        pa.field("names", pa.list_(pa.int64()), nullable=False),
        pa.field("rating", pa.string()),
        pa.field("score", pa.int64()),
        pa.field("favorites", pa.int64()),
        pa.field("year", pa.int32()),
        pa.field("filtered", pa.string()),
        pa.field("known", pa.int64()),
    ]
)
"""`staging/identities`: for each record of a work unit the 64-bit hashes of its image, of each identity (null if
unknown) and of all names that a decontamination list may use; its popularity figures; the filter that drops it, and
the fields of filters that it has (`Selection.known`)."""

POPULARITY: pa.Schema = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),
        *(IDENTITIES.field(name) for name in ("rating", "score", "favorites", "year")),
    ]
)
"""`staging/popularity`: the sample of each source from which percentiles are computed."""

SAMPLE = 200_000
"""Records of a source in the sample: with few groups, a percentile is then correct to 0.25 in 95 % of cases. A worker
reads the sample in a second."""

CHOICES: pa.Schema = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("dropped", pa.string()),
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""`staging/choices`: for each record of a work unit the reason why it is dropped, or null, and its split."""

_NUMBERED: pa.Schema = pa.schema(
    [("unit", pa.int32()), ("rank", pa.int32()), *((field.name, field.type) for field in IDENTITIES)]
)
_COLUMNS: Mapping[Duplicate, tuple[str, ...]] = {
    Duplicate.ID: ("id",),
    Duplicate.IMAGE: ("sha256", "md5"),
    Duplicate.URL: ("url",),
    Duplicate.CAPTION: ("caption",),
}
CONTAMINATED = "contaminated"
ROUNDS = 20
"""Of joining images to images: each round doubles the length of the chains, and chains of three are already rare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPlan:
    """The work units to decide on, and the rules."""

    units: Sequence[tuple[int, str, int]]
    """Number, name and source rank of each work unit."""
    dedupe: Sequence[Duplicate]
    split: SplitConfig
    forbidden_names: Sequence[str]
    """Lines of the `decontaminate.identities` files."""
    forbidden_texts: Sequence[str]
    filters: Sequence[FilterConfig] = ()
    sources: Sequence[str] = ()
    """Names of the sources by their rank."""


def hash64(identity: str | None) -> int | None:
    """Return the 64-bit hash of an identity, signed."""
    if identity is None:
        return None
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "big", signed=True)


def dedupe_and_split(store: Store, plan: SplitPlan, memory_gib: float) -> None:
    """Write the choices of every work unit. Does nothing if all are written.

    Raises:
        ConfigError: a filter is on a field that no record has.
        NothingDone: the filters leave no record.
    """
    if store.exists(corpus_layout.CHOSEN):
        return
    names = {number: name for number, name, _ in plan.units}
    with open_duckdb(memory_gib) as duck:
        duck.load("records", _identities(store, plan), _NUMBERED)
        _join_images(duck)
        duck.run("CREATE TABLE drops (unit INT, row INT, dropped VARCHAR)")
        duck.run("CREATE TABLE kept AS SELECT * EXCLUDE (root) FROM records")
        _drop_filtered(duck, plan)
        _drop_forbidden(duck, plan)
        for kind in plan.dedupe:
            for column in _COLUMNS[kind]:
                _drop_equal(duck, column, f"duplicate_{kind}")
        _refuse_none_left(duck, plan)
        choices = duck.batches(
            "SELECT unit, row, root, dropped FROM roots LEFT JOIN drops USING (unit, row) ORDER BY unit, row"
        )
        for number, table in split_by_unit(choices):
            put_table(store, corpus_layout.choice_path(names.pop(number)), _choices(table, plan.split), CHOICES)
        for name in names.values():  # work units without a single record
            put_table(store, corpus_layout.choice_path(name), CHOICES.empty_table(), CHOICES)
        put_table(store, corpus_layout.POPULARITY, _popularity(duck), POPULARITY)
        dropped = dict(duck.rows("SELECT dropped, count(*) FROM drops GROUP BY dropped ORDER BY dropped"))
    put_json(store, corpus_layout.CHOSEN, {"dropped": dropped})
    log.info("records dropped: %s", dropped)


def _identities(store: Store, plan: SplitPlan) -> Iterator[pa.RecordBatch]:
    for number, name, rank in plan.units:
        table = read_table(store, corpus_layout.identities_path(name), IDENTITIES)
        constant = [pa.repeat(pa.scalar(value, pa.int32()), table.num_rows) for value in (number, rank)]
        yield from pa.Table.from_arrays([*constant, *table.columns], schema=_NUMBERED).to_batches()


def _join_images(duck: DuckSession) -> None:
    """Give all records of one image the smallest root among them: by each key in turn, until no root changes."""
    duck.run("CREATE TABLE roots AS SELECT unit, row, root, sha256, md5, url FROM records")
    before = None
    for _ in range(ROUNDS):
        for key in ("sha256", "md5", "url"):
            duck.run(
                f"CREATE OR REPLACE TABLE roots AS SELECT unit, row, CASE WHEN {key} IS NULL THEN root "
                f"ELSE min(root) OVER (PARTITION BY {key}) END AS root, sha256, md5, url FROM roots"
            )
        [(now,)] = duck.rows("SELECT sum(root::HUGEINT) FROM roots")
        if now == before:
            return
        before = now
    log.warning("images were still being joined after %d rounds; some may be in both splits", ROUNDS)


def _drop_filtered(duck: DuckSession, plan: SplitPlan) -> None:
    if not plan.filters:
        return
    known: dict[str, int] = {}
    for rank, bits in duck.rows("SELECT rank, bit_or(known) FROM records GROUP BY rank"):
        known[plan.sources[int(rank)]] = bits
    refuse_unknown_fields(plan.filters, plan.sources, known)
    duck.run("INSERT INTO drops SELECT unit, row, filtered FROM records WHERE filtered IS NOT NULL")
    duck.run("DELETE FROM kept WHERE filtered IS NOT NULL")
    for query, reason in percentile_queries(plan.filters, plan.sources):
        duck.run(f"CREATE OR REPLACE TABLE lost AS SELECT unit, row FROM ({query}) SEMI JOIN kept USING (unit, row)")
        _drop_lost(duck, reason)


def _refuse_none_left(duck: DuckSession, plan: SplitPlan) -> None:
    """Raise NothingDone if there were records and filters left none of them."""
    [(num_kept, num_records)] = duck.rows("SELECT (SELECT count(*) FROM kept), (SELECT count(*) FROM records)")
    if not plan.filters or num_kept or not num_records:
        return
    reasons = duck.rows("SELECT dropped, count(*) AS number FROM drops GROUP BY dropped ORDER BY number DESC, dropped")
    listed = ", ".join(f"{number:,} {reason}" for reason, number in reasons)
    raise NothingDone(
        f"filters: none of {num_records:,} records is left ({listed}); loosen the filters and use a new output"
    )


def _drop_forbidden(duck: DuckSession, plan: SplitPlan) -> None:
    for column, table, hashes in (
        ("unnest(names)", "forbidden_names", map(hash64, listed_identities(plan.forbidden_names))),
        ("unnest([caption, short])", "forbidden_texts", map(hash64, map(fingerprint, plan.forbidden_texts))),
    ):
        listed = pa.table({"forbidden": pa.array([value for value in hashes if value is not None], pa.int64())})
        duck.load(table, iter(listed.to_batches()), listed.schema)
        duck.run(
            f"CREATE OR REPLACE TABLE lost AS SELECT DISTINCT unit, row FROM (SELECT unit, row, {column} AS forbidden "
            f"FROM kept) JOIN {table} USING (forbidden)"
        )
        _drop_lost(duck, CONTAMINATED)


def _drop_equal(duck: DuckSession, column: str, reason: str) -> None:
    duck.run(
        f"CREATE OR REPLACE TABLE lost AS SELECT unit, row FROM (SELECT unit, row, row_number() OVER (PARTITION BY "
        f"{column} ORDER BY rank, id, unit, row) AS place FROM kept WHERE {column} IS NOT NULL) WHERE place > 1"
    )
    _drop_lost(duck, reason)


def _drop_lost(duck: DuckSession, reason: str) -> None:
    duck.run(f"INSERT INTO drops SELECT unit, row, '{reason}' FROM lost")
    duck.run("DELETE FROM kept USING lost WHERE kept.unit = lost.unit AND kept.row = lost.row")


def _popularity(duck: DuckSession) -> pa.Table:
    """Return a sample of the records: those with the smallest hashes of their ids.

    Records that only a filter drops are in it, so that a filter does not change the quality terms of the others.
    """
    columns = ", ".join(POPULARITY.names)
    return duck.table(
        f"SELECT {columns} FROM (SELECT * FROM kept UNION ALL BY NAME SELECT * EXCLUDE (root) FROM records SEMI JOIN "
        f"(SELECT unit, row FROM drops WHERE starts_with(dropped, '{PREFIX}')) USING (unit, row)) "
        "WHERE score IS NOT NULL OR favorites IS NOT NULL QUALIFY row_number() OVER "
        f"(PARTITION BY rank ORDER BY id, unit, row) <= {SAMPLE} ORDER BY rank, id, unit, row",
        POPULARITY,
    )


def _choices(table: pa.Table, split: SplitConfig) -> pa.Table:
    held_out = is_held_out(cast("npt.NDArray[np.int64]", table["root"].to_numpy()), split)
    splits = np.where(held_out, str(Split.VALIDATION), str(Split.TRAIN))
    return pa.table({"row": table["row"], "dropped": table["dropped"], "split": pa.array(splits, pa.string())})


def is_held_out(roots: npt.NDArray[np.int64], split: SplitConfig) -> npt.NDArray[np.bool_]:
    """Return which images are held out: those whose splitmix64 of image hash and seed is below the share."""
    with np.errstate(over="ignore"):
        mixed = roots.view(np.uint64) + np.uint64(split.seed) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    # 53 bits: the precision of a float.
    return (mixed >> np.uint64(11)).astype(np.float64) / 2**53 < split.validation


def identity_rows(rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """Return IDENTITIES of rows: texts of `root`, KINDS and `names` are hashed, other values are copied."""
    return pa.Table.from_pylist([_hashed(row) for row in rows], schema=IDENTITIES)


def _hashed(row: Mapping[str, object]) -> dict[str, object]:
    kinds = {kind: cast("str | None", row[kind]) for kind in KINDS}
    # Most names are also one of the kinds.
    hashes = {text: hash64(text) for text in {*kinds.values(), *cast("list[str]", row["names"])}}
    return {
        "row": row["row"],
        "root": hash64(cast("str", row["root"])),
        **{kind: hashes[text] for kind, text in kinds.items()},
        "names": [hashes[name] for name in cast("list[str]", row["names"])],
        **{name: row[name] for name in ("rating", "score", "favorites", "year", "filtered", "known")},
    }
