"""Turns the raw, typed tags of a source into the tag fields of a record.

The type of a tag comes from the source and is never guessed from its name.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.config import RecordTagsConfig
from pipeline.corpus.tables.column_mapping import NO_TAGS
from pipeline.errors import ConfigError


class TagType(StrEnum):
    """The categories of booru tags; the values are names of record fields."""

    GENERAL = "general"
    ARTIST = "artist"
    CHARACTER = "character"
    COPYRIGHT = "copyright"
    META = "meta"


# fmt: off
PERSON_TAGS = frozenset((
    "1girl", "2girls", "3girls", "4girls", "5girls", "6+girls", "multiple girls", "1boy", "2boys", "3boys", "4boys",
    "5boys", "6+boys", "multiple boys", "1other", "2others", "3others", "4others", "5others", "6+others",
    "multiple others", "male focus",
))
# fmt: on
"""The 22 tags that the public renderers and KGen call special."""


class TagDrop(StrEnum):
    """Why a raw tag was dropped."""

    EMPTY = "empty"
    COMMA = "comma"
    """It contains a comma, which separates tags."""
    MARK = "mark"
    """It contains `<|`, `|>` or another special token. Two tags with one half each are a mark together."""
    NOT_A_TAG = "not_a_tag"
    """A word for a missing value in place of a general tag: nan, none, null."""
    DOUBLE = "double"
    YEAR = "year"
    META_BLACKLIST = "meta_blacklist"
    ARTIST_BLACKLIST = "artist_blacklist"
    BLACKLIST = "blacklist"
    IMPLIED = "implied"


@dataclass(frozen=True, slots=True)
class CleanTags:
    """The tag fields of a record, in the order of the source, and the number of dropped raw tags by reason."""

    general: list[str] = field(default_factory=list[str])
    special: list[str] = field(default_factory=list[str])
    character: list[str] = field(default_factory=list[str])
    copyright: list[str] = field(default_factory=list[str])
    artist: list[str] = field(default_factory=list[str])
    meta: list[str] = field(default_factory=list[str])
    drops: Counter[TagDrop] = field(default_factory=Counter[TagDrop])


_ESCAPED = re.compile(r"\\([()\[\]:,\\])")
_MARK = re.compile(r"<\||\|>|</?s>|<(?:unk|pad|bos|eos)>")
_BETWEEN_TERMS = re.compile(r"[,\r\n]")
_NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060\ufeff]+")
_YEAR = re.compile(r"\d{4}")
_GENERAL = TagType.GENERAL
_KNOWN_TAGS = 1 << 17
"""Raw tags that a process remembers with what the rules say about them: nearly all tags of a corpus repeat."""


@functools.lru_cache(maxsize=1 << 16)
def normal_tag(raw: str) -> str:
    r"""Return a tag as it is written in a text: lower case, blanks instead of underscores, `(` instead of `\(`.

    Tags of up to three characters keep their underscores: `^_^`, `o_o`.
    """
    tag = _NOT_PRINTED.sub(" ", raw).strip().lower()
    tag = _ESCAPED.sub(r"\1", tag) if "\\" in tag else tag
    return " ".join((tag.replace("_", " ") if len(tag) > 3 else tag).split())


def clean_terms(raw: Iterable[str], drops: Counter[TagDrop]) -> list[str]:
    """Return the terms of a metadata line in the form of tags, each once; a term with commas is several terms."""
    clean: list[str] = []
    for term in (normal_tag(part) for text in raw for part in _BETWEEN_TERMS.split(text)):
        if not term:
            continue
        rules = ((TagDrop.MARK, _MARK.search(term)), (TagDrop.NOT_A_TAG, term in NO_TAGS))
        reason = next((reason for reason, holds in rules if holds), TagDrop.DOUBLE if term in clean else None)
        if reason:
            drops[reason] += 1
        else:
            clean.append(term)
    return clean


class TagCleaner:
    """The rules, prepared once per process; pickles."""

    def __init__(
        self,
        config: RecordTagsConfig,
        aliases: Mapping[str, str] | None = None,
        implications: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """Prepare the rules.

        Args:
            config: which tags are kept.
            aliases: old tag to current tag, both as the source writes them.
            implications: tag to the tags that it implies directly; used with `prune_implied`.

        Raises:
            ConfigError: `prune_implied` is set and there are no implications.
        """
        if config.prune_implied and not implications:
            raise ConfigError(
                "tags.prune_implied: true needs implications; set tag_files.implications, or prune_implied: false"
            )
        self._config = config
        self._aliases = {normal_tag(old): normal_tag(new) for old, new in (aliases or {}).items()}
        self._implied = {normal_tag(tag): frozenset(map(normal_tag, to)) for tag, to in (implications or {}).items()}
        self._blacklist = [re.compile(pattern) for pattern in config.blacklist]
        self._known: dict[tuple[TagType, str], tuple[str, str, TagDrop | None]] = {}
        """What the rules say about a raw tag: its form in a text, the field of the record, and why it is dropped."""

    def current(self, raw: str) -> str:
        """Return a tag in its normal form, by its current name."""
        tag = normal_tag(raw)
        return self._aliases.get(tag, tag)

    def __call__(self, typed: Iterable[tuple[TagType, str]]) -> CleanTags:
        """Return the tags of one image; `typed` are (type, raw tag) in the order of the source.

        A flat list of tags has the type general, so another type of the same tag applies: a tag that is a character in
        one source and general in another is a character.
        """
        pairs = list(typed)
        ordered = [pair for pair in pairs if pair[0] is not _GENERAL]
        ordered += pairs if not ordered else [pair for pair in pairs if pair[0] is _GENERAL]
        clean, seen, known = CleanTags(), set[str](), self._known
        lists = {name: getattr(clean, name) for name in ("special", *TagType)}
        for pair in ordered:
            tag, name, reason = known.get(pair) or self._learn(*pair)
            if reason is None and tag in seen:
                reason = TagDrop.DOUBLE
            # A dropped tag is remembered too: a blacklisted meta tag does not come back as a general one.
            seen.add(tag)
            if reason:
                clean.drops[reason] += 1
            else:
                lists[name].append(tag)
        if self._config.prune_implied:
            self._prune(clean)
        return clean

    def _learn(self, kind: TagType, raw: str) -> tuple[str, str, TagDrop | None]:
        tag = self.current(raw)
        name = "special" if kind is TagType.GENERAL and tag in PERSON_TAGS else kind.value
        if len(self._known) >= _KNOWN_TAGS:
            self._known.clear()
        learned = self._known[kind, raw] = (tag, name, self._unwanted(kind, tag))
        return learned

    def _unwanted(self, kind: TagType, tag: str) -> TagDrop | None:
        config = self._config
        rules = (
            (TagDrop.EMPTY, not tag),
            (TagDrop.COMMA, "," in tag),
            (TagDrop.MARK, ("<" in tag or "|>" in tag) and bool(_MARK.search(tag))),
            (TagDrop.NOT_A_TAG, kind is TagType.GENERAL and tag in NO_TAGS),
            (TagDrop.YEAR, config.drop_years and kind is TagType.GENERAL and bool(_YEAR.fullmatch(tag))),
            (TagDrop.META_BLACKLIST, kind is TagType.META and any(map(tag.__contains__, config.meta_blacklist))),
            (TagDrop.ARTIST_BLACKLIST, kind is TagType.ARTIST and any(map(tag.__contains__, config.artist_blacklist))),
            (TagDrop.BLACKLIST, any(pattern.fullmatch(tag) for pattern in self._blacklist)),
        )
        return next((reason for reason, holds in rules if holds), None)

    def _prune(self, clean: CleanTags) -> None:
        """Remove the tags that another tag of the image implies, directly or through other tags."""
        lists = (clean.general, clean.special, clean.character, clean.copyright, clean.artist, clean.meta)
        implied, todo = set[str](), [tag for tags in lists for tag in tags if tag in self._implied]
        while todo:
            new = self._implied.get(todo.pop(), frozenset()) - implied
            implied |= new
            todo += new
        for tags in lists:
            kept = [tag for tag in tags if tag not in implied]
            if len(kept) < len(tags):
                clean.drops[TagDrop.IMPLIED] += len(tags) - len(kept)
                tags[:] = kept
