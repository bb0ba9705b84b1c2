"""Reads the danbooru2023 metadata database: posts, tags with their types, and which post has which tag.

Reads the SQLite file or the Parquet files, in one pass over posts and relations in the order of the post id: memory
holds only the names of the tags, about a million. `tag.popularity` is 0 in every row of the published file and is
not read.
"""

import sqlite3
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from pipeline.errors import ConfigError
from pipeline.storage.duckdb_session import open_duckdb

TYPES: Mapping[int, str] = {0: "general", 1: "artist", 2: "character", 3: "copyright", 4: "meta"}
"""Of the published database. Danbooru's API has other numbers: 3 copyright, 4 character, 5 meta."""

TABLES = ("post", "tag", "posttagrelation")
PARQUET = tuple(f"{table}.parquet" for table in TABLES)
POST: tuple[str, ...] = (
    *("id", "md5", "created_at", "rating", "score", "fav_count"),
    *("image_width", "image_height", "file_url"),
)

_OLD = (
    "this is the old layout of danbooru2023-sqlite, which stores tags as `$<base36 id>#`; "
    "use danbooru2023-metadata-database, which has a table posttagrelation"
)

Tags = Mapping[int, tuple[str, str]]
"""Id to name and type."""


def sqlite_posts(path: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each post of a SQLite database, by id.

    Raises:
        ConfigError: the file is not such a database, or has the old layout.
    """
    uri = f"file:{urllib.parse.quote(path)}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            _check(path, database)
            tags = tags_by_id(path, database.execute("SELECT id, name, type FROM tag"))
            posts = database.execute(f"SELECT {', '.join(POST)} FROM post ORDER BY id")
            relations = database.execute("SELECT post_id, tag_id FROM posttagrelation ORDER BY post_id, id")
            yield from posts_with_tags((dict(zip(POST, post, strict=True)) for post in posts), relations, tags)
    except sqlite3.Error as err:
        raise ConfigError(f"{path}: cannot be read as SQLite ({err}); restore it") from err


def _check(path: str, database: sqlite3.Connection) -> None:
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    columns = {row[1] for row in database.execute("PRAGMA table_info(post)")}
    refuse_old(path, columns)
    missing = sorted(set(TABLES) - tables)
    if missing:
        raise ConfigError(f"{path}: no table {', '.join(missing)}; found {', '.join(sorted(tables)) or 'none'}; {_OLD}")


def refuse_old(where: str, columns: set[str]) -> None:
    """Raise ConfigError if a post has the columns of the old layout."""
    old = sorted(name for name in columns if name == "tag_list" or name.startswith("tag_list_"))
    if old:
        raise ConfigError(f"{where}: post has the column {', '.join(old)}: {_OLD}")


def parquet_posts(where: str, files: Mapping[str, BinaryIO], memory_gib: float) -> Iterator[dict[str, Any]]:
    """Yield a row for each post of `PARQUET`, by id."""
    parquet = {name: pq.ParquetFile(file) for name, file in files.items()}
    refuse_old(where, set(parquet["post.parquet"].schema_arrow.names))
    wanted = {"post": POST, "tag": ("id", "name", "type"), "posttagrelation": ("id", "post_id", "tag_id")}
    with open_duckdb(memory_gib) as duck:
        for table, columns in wanted.items():
            file = parquet[f"{table}.parquet"]
            absent = sorted(set(columns).difference(file.schema_arrow.names))
            if absent:
                raise ConfigError(f"{where}/{table}.parquet: no column {', '.join(absent)}; {_OLD}")
            schema = file.read_row_groups([], columns=list(columns)).schema
            duck.load(table, file.iter_batches(columns=list(columns)), schema)
        tags = tags_by_id(where, iter(duck.rows("SELECT id, name, type FROM tag")))
        posts = duck.connection.cursor().execute(f"SELECT {', '.join(POST)} FROM post ORDER BY id")
        relations = duck.connection.cursor().execute("SELECT post_id, tag_id FROM posttagrelation ORDER BY post_id, id")
        rows = (dict(zip(POST, post, strict=True)) for post in _fetched(posts))
        yield from posts_with_tags(rows, _fetched(relations), tags)


def _fetched(cursor: Any) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - DuckDB's cursor
    while rows := cursor.fetchmany(10_000):
        yield from rows


def tags_by_id(where: str, rows: Iterator[tuple[int, str, int]]) -> Tags:
    """Return name and type of each tag.

    Raises:
        ConfigError: a tag has a type that the published database does not have.
    """
    tags: dict[int, tuple[str, str]] = {}
    for number, name, kind in rows:
        if kind not in TYPES:
            raise ConfigError(
                f"{where}: tag {name!r} has type {kind}; allowed: {TYPES}. The types of danbooru's API have other "
                "numbers: convert them to these"
            )
        tags[number] = (name, TYPES[kind])
    return tags


def posts_with_tags(
    posts: Iterator[dict[str, Any]], relations: Iterator[tuple[int, int]], tags: Tags
) -> Iterator[dict[str, Any]]:
    """Yield each post with its tags by type; `posts` and `relations` are in the order of the post id."""
    relation = next(relations, None)
    for post in posts:
        by_type: dict[str, list[str]] = {kind: [] for kind in TYPES.values()}
        while relation is not None and relation[0] <= post["id"]:
            if relation[0] == post["id"] and relation[1] in tags:
                name, kind = tags[relation[1]]
                by_type[kind].append(name)
            relation = next(relations, None)
        yield {**post, **by_type}
