"""Which records stay, and on which side of the split: decided once for all, by what they are and not where they lie.

Reasons are looked for one after the other, each among what the ones before left: contaminated, then the kinds of
`dedupe` in their order. Of equal records the first source's stays, and within a source the one whose id has the
smallest hash. Sides go by image: records that share a digest or a URL, also by way of a third, are one image, and
the image's hash draws its side.

Run by the driver, in DuckDB, over 64 bits of each identity: 30 million records are some 1.5 GB, on disk if need be.
Two of 30 million different identities share their 64 bits with a probability of 2 in 100,000.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.corpus_config import Duplicate, SplitConfig
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import put_json, put_table, read_table
from pipeline.corpus.duckdb_session import DuckSession, Limits, by_part, opened
from pipeline.corpus.tables.identity import fingerprint, listed_identities
from pipeline.storage import Store
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
    ]
)
"""`staging/identities`: for each record of a part 64 bits of the image, of what it may be equal by, null where nothing
is known, and of all that a list may name it by; beside them what popularity is measured by."""

POPULARITY: pa.Schema = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),
        *(IDENTITIES.field(name) for name in ("rating", "score", "favorites", "year")),
    ]
)
"""`staging/popularity`: of each source the records that percentiles are of."""

SAMPLE = 200_000
"""Records of a source that percentiles are of: a percentile of so many is right to a quarter of one in 95 % of cases
where they fall into few groups, and reading them takes a worker a second."""

CHOICES: pa.Schema = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("dropped", pa.string()),
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""`staging/choices`: for each record of a part why it is dropped, or null, and its side."""

_HELD: pa.Schema = pa.schema(
    [("part", pa.int32()), ("rank", pa.int32()), *((field.name, field.type) for field in IDENTITIES)]
)
_COLUMNS: Mapping[Duplicate, tuple[str, ...]] = {
    Duplicate.ID: ("id",),
    Duplicate.IMAGE: ("sha256", "md5"),
    Duplicate.URL: ("url",),
    Duplicate.CAPTION: ("caption",),
}
CONTAMINATED = "contaminated"
ROUNDS = 20
"""Of joining images to images: each doubles the reach, and chains of three are rare already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPlan:
    """What is chosen from, and how."""

    parts: Sequence[tuple[int, str, int]]
    """Number, name and source rank of each part."""
    dedupe: Sequence[Duplicate]
    split: SplitConfig
    forbidden_names: Sequence[str]
    """Lines of the lists of identities."""
    forbidden_texts: Sequence[str]


def bits(identity: str | None) -> int | None:
    """Return 64 bits of an identity, signed."""
    if identity is None:
        return None
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "big", signed=True)


def dedupe_and_split(store: Store, choosing: SplitPlan, limits: Limits) -> None:
    """Write the choice of every part; does nothing when it was done before."""
    if store.exists(corpus_layout.CHOSEN):
        return
    names = {number: name for number, name, _ in choosing.parts}
    with opened(limits) as duck:
        duck.take("held", _identities(store, choosing), _HELD)
        _join_images(duck)
        duck.run("CREATE TABLE drops (part INT, row INT, dropped VARCHAR)")
        duck.run("CREATE TABLE alive AS SELECT * EXCLUDE (root) FROM held")
        _drop_forbidden(duck, choosing)
        for kind in choosing.dedupe:
            for column in _COLUMNS[kind]:
                _drop_equal(duck, column, f"duplicate_{kind}")
        answer = duck.batches(
            "SELECT part, row, root, dropped FROM roots LEFT JOIN drops USING (part, row) ORDER BY part, row"
        )
        for number, table in by_part(answer):
            put_table(store, corpus_layout.choice_path(names.pop(number)), _choices(table, choosing.split), CHOICES)
        for name in names.values():  # of their images none became a record
            put_table(store, corpus_layout.choice_path(name), CHOICES.empty_table(), CHOICES)
        put_table(store, corpus_layout.POPULARITY, _popularity(duck), POPULARITY)
        dropped = dict(duck.rows("SELECT dropped, count(*) FROM drops GROUP BY dropped ORDER BY dropped"))
    put_json(store, corpus_layout.CHOSEN, {"dropped": dropped})
    log.info("chosen, dropped %s", dropped)


def _identities(store: Store, choosing: SplitPlan) -> Iterator[pa.RecordBatch]:
    for number, name, rank in choosing.parts:
        table = read_table(store, corpus_layout.identities_path(name), IDENTITIES)
        constant = [pa.repeat(pa.scalar(value, pa.int32()), table.num_rows) for value in (number, rank)]
        yield from pa.Table.from_arrays([*constant, *table.columns], schema=_HELD).to_batches()


def _join_images(duck: DuckSession) -> None:
    """Give all records of one image the smallest root among them: by each key in turn, until nothing changes."""
    duck.run("CREATE TABLE roots AS SELECT part, row, root, sha256, md5, url FROM held")
    before = None
    for _ in range(ROUNDS):
        for key in ("sha256", "md5", "url"):
            duck.run(
                f"CREATE OR REPLACE TABLE roots AS SELECT part, row, CASE WHEN {key} IS NULL THEN root "
                f"ELSE min(root) OVER (PARTITION BY {key}) END AS root, sha256, md5, url FROM roots"
            )
        [(now,)] = duck.rows("SELECT sum(root::HUGEINT) FROM roots")
        if now == before:
            return
        before = now
    log.warning("images were not all joined after %d rounds; some may stand on both sides of the split", ROUNDS)


def _drop_forbidden(duck: DuckSession, choosing: SplitPlan) -> None:
    for column, table, found in (
        ("unnest(names)", "forbidden_names", map(bits, listed_identities(choosing.forbidden_names))),
        ("unnest([caption, short])", "forbidden_texts", map(bits, map(fingerprint, choosing.forbidden_texts))),
    ):
        listed = pa.table({"forbidden": pa.array([one for one in found if one is not None], pa.int64())})
        duck.take(table, iter(listed.to_batches()), listed.schema)
        duck.run(
            f"CREATE OR REPLACE TABLE lost AS SELECT DISTINCT part, row FROM (SELECT part, row, {column} AS forbidden "
            f"FROM alive) JOIN {table} USING (forbidden)"
        )
        _drop_lost(duck, CONTAMINATED)


def _drop_equal(duck: DuckSession, column: str, reason: str) -> None:
    duck.run(
        f"CREATE OR REPLACE TABLE lost AS SELECT part, row FROM (SELECT part, row, row_number() OVER (PARTITION BY "
        f"{column} ORDER BY rank, id, part, row) AS place FROM alive WHERE {column} IS NOT NULL) WHERE place > 1"
    )
    _drop_lost(duck, reason)


def _drop_lost(duck: DuckSession, reason: str) -> None:
    duck.run(f"INSERT INTO drops SELECT part, row, '{reason}' FROM lost")
    duck.run("DELETE FROM alive USING lost WHERE alive.part = lost.part AND alive.row = lost.row")


def _popularity(duck: DuckSession) -> pa.Table:
    """A sample of what stays, by the hash of the id."""
    columns = ", ".join(POPULARITY.names)
    answer = duck.batches(
        f"SELECT {columns} FROM alive WHERE score IS NOT NULL OR favorites IS NOT NULL "
        f"QUALIFY row_number() OVER (PARTITION BY rank ORDER BY id, part, row) <= {SAMPLE} ORDER BY rank, id, part, row"
    )
    found = [pa.Table.from_batches([batch]).cast(POPULARITY) for batch in answer]
    return pa.concat_tables([POPULARITY.empty_table(), *found])


def _choices(table: pa.Table, split: SplitConfig) -> pa.Table:
    held_out = is_held_out(cast("npt.NDArray[np.int64]", table["root"].to_numpy()), split)
    sides = np.where(held_out, str(Split.VALIDATION), str(Split.TRAIN))
    return pa.table({"row": table["row"], "dropped": table["dropped"], "split": pa.array(sides, pa.string())})


def is_held_out(roots: npt.NDArray[np.int64], split: SplitConfig) -> npt.NDArray[np.bool_]:
    """Return which images are held out: splitmix64 of the image's bits and the seed, below the share."""
    with np.errstate(over="ignore"):
        mixed = roots.view(np.uint64) + np.uint64(split.seed) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    # 53 bits: as many as a float tells apart.
    return (mixed >> np.uint64(11)).astype(np.float64) / 2**53 < split.validation


def identity_rows(rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """Return IDENTITIES of rows that map `root` and KINDS to texts, `names` to a list of texts, the rest as it is."""
    found = [
        {
            "row": row["row"],
            **{kind: bits(cast("str | None", row[kind])) for kind in ("root", *KINDS)},
            "names": [bits(name) for name in cast("list[str]", row["names"])],
            **{name: row[name] for name in ("rating", "score", "favorites", "year")},
        }
        for row in rows
    ]
    return pa.Table.from_pylist(found, schema=IDENTITIES)
