"""Reads aliases and implications of tags: danbooru's own dumps as they are, or lines of `from,to`.

A dump has `antecedent_name`, `consequent_name` and `status` in each line, as JSON Lines, a JSON array (danbooru's API)
or CSV with a header. Only active lines count. An alias replaces a tag; a tag implies others directly and through them.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pipeline.corpus.records.tags import TagType, normal_tag
from pipeline.errors import ConfigError

FROM, TO, STATUS = "antecedent_name", "consequent_name", "status"
ACTIVE = "active"

Implications = Mapping[str, tuple[str, ...]]
"""Tag to the tags that it implies directly, in their normal forms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagRelations:
    """The active lines of a file."""

    pairs: Sequence[tuple[str, str]]
    """In normal form; a tag is not related to itself."""
    inactive: Mapping[str, int]
    """Number of other lines, by status."""


NO_RELATIONS = TagRelations(pairs=(), inactive={})


def read_relations(url: str, data: bytes) -> TagRelations:
    """Read a file of aliases or implications.

    Raises:
        ConfigError: a line does not have the form of the file.
    """
    text = data.decode("utf-8-sig", "replace")
    inactive: Counter[str] = Counter()
    pairs: list[tuple[str, str]] = []
    for old, new, status in _lines(url, text):
        if status != ACTIVE:
            inactive[status] += 1
        elif old and new and (pair := (normal_tag(old), normal_tag(new)))[0] != pair[1]:
            pairs.append(pair)
    return TagRelations(pairs=pairs, inactive=inactive)


def _lines(url: str, text: str) -> Iterator[tuple[str, str, str]]:
    """Yield both tags and the status of each line."""
    start = text.lstrip()[:1]
    if start == "[":
        try:
            yield from _named(url, enumerate(json.loads(text), 1), "entry")
        except ValueError as err:
            raise ConfigError(f"{url}: is not JSON ({err}); give a dump of danbooru, or lines of `from,to`") from err
    elif start == "{":
        lines = ((number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())
        yield from _named(url, ((number, _json(url, number, line)) for number, line in lines), "line")
    else:
        yield from _separated(url, text)


def _json(url: str, number: int, line: str) -> object:
    try:
        return json.loads(line)
    except ValueError as err:
        raise ConfigError(f"{url}: line {number} is not JSON ({err}); restore the file") from err


def _named(url: str, rows: Iterable[tuple[int, Any]], kind: str) -> Iterator[tuple[str, str, str]]:
    for number, row in rows:
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in (FROM, TO)):
            raise ConfigError(f"{url}: {kind} {number} does not have {FROM} and {TO}; give a dump of danbooru")
        named = cast("dict[str, Any]", row)
        yield named[FROM], named[TO], str(named.get(STATUS) or ACTIVE)


def _separated(url: str, text: str) -> Iterator[tuple[str, str, str]]:
    rows = csv.reader(io.StringIO(text))
    for number, row in enumerate(rows, 1):
        if number == 1 and {FROM, TO} <= set(row):
            cells = ((at, dict(zip(row, own, strict=False))) for at, own in enumerate(rows, 2) if own)
            yield from _named(url, cells, "line")
            return
        if len(row) != 2:
            raise ConfigError(
                f"{url}: line {number} has {len(row)} fields; allowed: two, `from,to`, or a header with {FROM} and {TO}"
            )
        yield row[0], row[1], ACTIVE


def resolve_aliases(url: str, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return old name to current name, chains followed to their end. Of several current names the last one counts.

    Raises:
        ConfigError: names form a circle.
    """
    direct = dict(pairs)
    current: dict[str, str] = {}
    for name in direct:
        chain = [name]
        while chain[-1] in direct and chain[-1] not in current:
            following = direct[chain[-1]]
            if following in chain:
                raise _circle(url, "aliases", [*chain[chain.index(following) :], following])
            chain.append(following)
        end = current.get(chain[-1], chain[-1])
        current |= dict.fromkeys(chain[:-1], end)
    return current


def group_implications(url: str, pairs: Iterable[tuple[str, str]], aliases: Mapping[str, str]) -> Implications:
    """Return the direct implications of each tag, with the current names of both tags.

    Raises:
        ConfigError: tags form a circle.
    """
    grouped: dict[str, dict[str, None]] = {}
    for tag, implied in ((aliases.get(old, old), aliases.get(new, new)) for old, new in pairs):
        if tag != implied:
            grouped.setdefault(tag, {})[implied] = None
    implications = {tag: tuple(implied) for tag, implied in grouped.items()}
    _refuse_circles(url, implications)
    return implications


def _refuse_circles(url: str, implications: Implications) -> None:
    """Walk the implications depth first; a tag that is met again on the way to itself closes a circle."""
    done: set[str] = set()
    for start in implications:
        path: dict[str, Iterator[str]] = {start: iter(implications[start])}
        while path and start not in done:
            tag = next(reversed(path))
            following = next(path[tag], None)
            if following is None:
                path.popitem()
                done.add(tag)
            elif following in path:
                names = list(path)
                raise _circle(url, "implications", [*names[names.index(following) :], following])
            elif following not in done and following in implications:
                path[following] = iter(implications[following])


def _circle(url: str, kind: str, names: Sequence[str]) -> ConfigError:
    return ConfigError(f"{url}: the {kind} {' -> '.join(names)} form a circle; remove one of these lines")


def implied_tags(
    typed: Sequence[tuple[TagType, str]], current: Callable[[str], str], implications: Implications
) -> Iterator[tuple[TagType, str]]:
    """Yield the tags that the tags of an image imply, directly or through others, and that it does not have.

    An implied tag has the type of the tag that implies it.

    Args:
        typed: type and raw tag.
        current: a raw tag to its normal form and current name.
        implications: of `group_implications`.
    """
    tags = [(kind, current(raw)) for kind, raw in typed]
    present = {tag for _, tag in tags}
    for kind, tag in tags:  # grows while it is walked
        for implied in implications.get(tag, ()):
            if implied not in present:
                present.add(implied)
                tags.append((kind, implied))
                yield kind, implied
