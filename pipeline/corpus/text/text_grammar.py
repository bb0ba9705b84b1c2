"""The strict grammar of training text: what a text must be to the last sign, and where it is not.

TIPO's:

    text         = { meta line LF } target line LF body { LF meta line }
    target line  = "target: " [ length ] [ task ] [ gen_meta ], parted by one blank
    body         = section { LF section }, in the order of the task
    section      = "tag: " items | "short: " line | "long: " line { LF line without a colon }
    meta line    = key ": " items, each key at most once; behind the body with gen_meta alone, and then at least one

and DanTagGen's, where a meta line may have the value `<|empty|>`:

    text         = six meta lines in any order LF "target: " length LF "general: " items "<|input_end|>" items

The class of a length token must be that of the tags, a tag must not return, be empty, in capitals, or hold an
underscore where it is longer than three signs; no control character, no blank line, no mark outside the target line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn

from pipeline.config import LengthConfig, Preset, RenderConfig
from pipeline.corpus.records.tags import PERSON_TAGS
from pipeline.corpus.text.text_plan import EMPTY
from pipeline.errors import BadText
from schemas.corpus_row import LengthClass, Task

META_KEYS = ("meta", "rating", "artist", "aspect ratio", "characters", "quality", "copyrights")
GEN_META = "<|gen_meta|>"
INPUT_END = "<|input_end|>"


class Rule(StrEnum):
    """The rules, as faults name them."""

    CONTROL = "control_character"
    BLANK_LINE = "blank_line"
    KEY = "key"
    DOUBLE_KEY = "double_key"
    MISSING_KEY = "missing_key"
    VALUE = "value"
    ASPECT = "aspect_ratio"
    TARGET = "target"
    LENGTH = "length"
    SECTION = "section"
    ITEM = "item"
    CAPITALS = "capitals"
    UNDERSCORE = "underscore"
    DOUBLE_TAG = "double_tag"
    TOO_MANY_TAGS = "too_many_tags"
    BLANKS = "blanks"
    COLON = "colon"
    MARK = "mark"
    GEN_META = "gen_meta"
    INPUT_END = "input_end"
    # Of rows, beyond their text:
    SPLIT = "split"
    FIELD = "field"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a preset allows."""

    lengths: dict[LengthClass, LengthConfig]
    longest: LengthClass
    dantaggen: bool = False
    bare_long: bool = False
    """Whether short_to_long may be written `long:` without the blank."""


def profile_of(config: RenderConfig) -> Profile:
    """Return what texts of a config must be."""
    return Profile(
        lengths=config.lengths,
        longest=config.longest,
        dantaggen=config.preset is Preset.DANTAGGEN,
        bare_long=any(style.bare_long for style in config.styles.values()),
    )


@dataclass(slots=True)
class Parsed:
    """A text, taken apart."""

    meta: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Items of the lines before the target line."""
    predicted: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Items of the lines behind the body."""
    task: Task = Task.TAG
    length: LengthClass | None = None
    gen_meta: bool = False
    tags: list[str] = field(default_factory=list[str])
    short: str | None = None
    long: str | None = None
    halves: dict[int, int] = field(default_factory=dict[int, int])
    """Offsets at which the given half may end, and how many tags are given then."""


_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_ASPECT = re.compile(r"\d{1,4}\.\d")
_MARK = re.compile(r"<\|[^\n]*?\|>|</?s>|<(?:unk|pad|bos|eos)>")
_KEY = re.compile(rf"({'|'.join(META_KEYS)}): ")
_TOKEN = re.compile(r"<\|([a-z_]+)\|>")


def parse_text(text: str, profile: Profile) -> Parsed:
    """Take a text apart.

    Raises:
        BadText: the first fault, with its rule and place.
    """
    return _Parser(text, profile).parse()


class _Parser:
    """One text and how far it is read."""

    def __init__(self, text: str, profile: Profile) -> None:
        self._text = text
        self._profile = profile
        self._parsed = Parsed()
        self._lines = list(_lines(text))
        self._at = 0
        """The next line's index."""

    def parse(self) -> Parsed:
        self._check_signs()
        while self._at < len(self._lines) and not self._line.startswith("target:"):
            self._meta_line(self._parsed.meta)
        if self._at == len(self._lines):
            self._fail(Rule.TARGET, len(self._text), "no target line; allowed: one, before the sections")
        if self._profile.dantaggen:
            self._dantaggen()
        else:
            self._tipo()
        return self._parsed

    @property
    def _line(self) -> str:
        return self._lines[self._at][1]

    @property
    def _offset(self) -> int:
        return self._lines[self._at][0]

    def _fail(self, rule: Rule, offset: int, message: str) -> NoReturn:
        raise BadText(rule, message, offset, self._text)

    def _check_signs(self) -> None:
        control = _CONTROL.search(self._text)
        if control:
            self._fail(Rule.CONTROL, control.start(), f"found {control[0]!r}; allowed: none but line ends")
        for offset, line in self._lines:
            if not line.strip():
                self._fail(Rule.BLANK_LINE, offset, "a line without text; allowed: none, not even the last")

    def _check_marks(self, offset: int, text: str) -> None:
        mark = _MARK.search(text) if "<" in text else None
        if mark:
            self._fail(Rule.MARK, offset + mark.start(), f"found {mark[0]!r}; allowed: in the target line alone")

    def _meta_line(self, into: dict[str, list[str]]) -> None:
        offset, line = self._offset, self._line
        match = _KEY.match(line)
        if not match:
            self._fail(Rule.KEY, offset, f"found {line[:40]!r}; allowed: {', '.join(META_KEYS)}, each with ': '")
        key, value = match[1], line[match.end() :]
        if key in self._parsed.meta or key in self._parsed.predicted:
            self._fail(Rule.DOUBLE_KEY, offset, f"{key} stands there twice; allowed: once")
        if self._profile.dantaggen and value == EMPTY:
            into[key] = []
        elif key == "aspect ratio":
            if not _ASPECT.fullmatch(value):
                self._fail(Rule.ASPECT, offset + match.end(), f"found {value!r}; allowed: a number such as 0.7")
            into[key] = [value]
        else:
            into[key] = [item for _, item in self._items(offset + match.end(), value, Rule.VALUE)]
        self._at += 1

    def _items(self, offset: int, value: str, rule: Rule) -> list[tuple[int, str]]:
        """Return (offset, item) of a list between commas."""
        self._check_marks(offset, value)
        items: list[tuple[int, str]] = []
        for item in value.split(", "):
            # `a,, b` and a last comma leave a comma in an item, `a,  b` a blank at its side.
            if not item.strip():
                self._fail(rule, offset, "an empty item; allowed: items parted by one ', '")
            if item != item.strip() or "," in item:
                self._fail(rule, offset, f"found {item!r}; allowed: items parted by one ', '")
            items.append((offset, item))
            offset += len(item) + 2
        return items

    def _tipo(self) -> None:
        self._target(self._tipo_target())
        self._parsed.halves[self._next_offset()] = 0
        sections = self._parsed.task.sections
        for index, name in enumerate(sections):
            following = sections[index + 1] if index + 1 < len(sections) else None
            self._section(name, following, opens=index == 0)
        first = self._at
        while self._at < len(self._lines):
            if not self._parsed.gen_meta:
                self._fail(Rule.SECTION, self._offset, f"found {self._line[:40]!r} behind the last section")
            self._meta_line(self._parsed.predicted)
        if self._parsed.gen_meta and first == self._at:
            self._fail(
                Rule.GEN_META, len(self._text), "gen_meta, and no metadata behind the body; allowed: a line or more"
            )
        if "tag" in sections:
            self._check_tags(opens=sections[0] == "tag")

    def _next_offset(self) -> int:
        return self._lines[self._at][0] if self._at < len(self._lines) else len(self._text)

    def _tipo_target(self) -> list[str]:
        return [*LengthClass, *(task.value for task in Task if task is not Task.TAG), "gen_meta"]

    def _target(self, allowed: list[str]) -> None:
        """Read the target line: a length but for short_to_long, a task but for plain tags, gen_meta or not."""
        offset, line = self._offset, self._line
        parsed, names = self._parsed, list[str]()
        at = offset + len("target: ")
        for token in line.removeprefix("target: ").split(" "):
            match = _TOKEN.fullmatch(token)
            if not match or match[1] not in allowed or not line.startswith("target: "):
                self._fail(Rule.TARGET, at, f"found {token!r}; allowed: {', '.join(f'<|{name}|>' for name in allowed)}")
            names.append(match[1])
            at += len(token) + 1
        rest = list(names)
        if rest and rest[0] in set(LengthClass):
            parsed.length = LengthClass(rest.pop(0))
        if rest and rest[0] in set(Task):
            parsed.task = Task(rest.pop(0))
        if rest and rest[0] == "gen_meta":
            parsed.gen_meta = bool(rest.pop(0))
        if rest or (parsed.length is None) != (parsed.task is Task.SHORT_TO_LONG):
            expected = "a length (none for short_to_long), then a task or none, then gen_meta or not"
            self._fail(Rule.TARGET, offset, f"found {' '.join(names)}; allowed: {expected}")
        self._at += 1

    def _section(self, name: str, following: str | None, *, opens: bool) -> None:
        if self._at == len(self._lines):
            self._fail(Rule.SECTION, len(self._text), f"no section {name}")
        offset, line = self._offset, self._line
        bare = name == "long" and self._profile.bare_long and self._parsed.task is Task.SHORT_TO_LONG
        start = f"{name}:" if bare and not line.startswith(f"{name}: ") else f"{name}: "
        if not line.startswith(start):
            self._fail(Rule.SECTION, offset, f"found {line[:40]!r}; allowed here: {start!r}")
        self._at += 1
        offset, value = offset + len(start), line[len(start) :]
        if name == "tag":
            self._tag_section(offset, value, opens=opens)
            return
        if bare:
            self._parsed.halves[offset if start.endswith(":") else offset - 1] = 0
        text = self._caption(name, offset, value, following)
        if opens:
            self._parsed.halves = {self._next_offset(): 0}
        if name == "short":
            self._parsed.short = text
        else:
            self._parsed.long = text

    def _tag_section(self, offset: int, value: str, *, opens: bool) -> None:
        seen: set[str] = set()
        for at, tag in self._items(offset, value, Rule.ITEM):
            self._check_tag(at, tag)
            if tag in seen:
                self._fail(Rule.DOUBLE_TAG, at, f"{tag!r} stands there twice; allowed: each tag once")
            seen.add(tag)
            self._parsed.tags.append(tag)
            if opens:
                self._parsed.halves[at + len(tag)] = len(seen)

    def _check_tag(self, offset: int, tag: str) -> None:
        if tag != tag.lower():
            self._fail(Rule.CAPITALS, offset, f"found {tag!r}; allowed: {tag.lower()!r}")
        if "_" in tag and len(tag) > 3:
            self._fail(Rule.UNDERSCORE, offset + tag.index("_"), f"found {tag!r}; allowed: blanks")
        if "  " in tag:
            self._fail(Rule.BLANKS, offset + tag.index("  "), "found two blanks; allowed: one")

    def _caption(self, name: str, offset: int, value: str, following: str | None) -> str:
        """Read a caption: one line, or of `long` all up to what follows."""
        lines = [value]
        self._caption_line(offset, value)
        while name == "long" and self._at < len(self._lines):
            line = self._line
            if following and line.startswith(f"{following}: "):
                break
            if self._parsed.gen_meta and not following and _KEY.match(line):
                break
            if ":" in line:
                self._fail(Rule.COLON, self._offset + line.index(":"), "a colon in a later line; allowed: in the first")
            self._caption_line(self._offset, line)
            lines.append(line)
            self._at += 1
        return "\n".join(lines)

    def _caption_line(self, offset: int, line: str) -> None:
        self._check_marks(offset, line)
        if not line or line != line.strip():
            self._fail(Rule.BLANKS, offset, "a caption that is empty or has blanks at its sides; allowed: text")

    def _check_tags(self, *, opens: bool) -> None:
        """The length token must be the class of the tags, whether persons count or not."""
        length, tags = self._parsed.length, self._parsed.tags
        assert length is not None
        counts = {len(tags), len(tags) - sum(map(PERSON_TAGS.__contains__, tags))}
        if length not in {self._class_of(count) for count in counts}:
            expected = " or ".join(dict.fromkeys(self._class_of(count) for count in sorted(counts)))
            at = self._text.index("<|", self._text.index("target:"))
            self._fail(Rule.LENGTH, at, f"found {length} for {len(tags)} tags; allowed: {expected}")
        most = self._profile.lengths[length].max_tags
        if opens and most is not None and min(counts) > most:
            self._fail(Rule.TOO_MANY_TAGS, self._text.index("tag: "), f"found {len(tags)} tags; allowed: {most}")

    def _class_of(self, num_tags: int) -> LengthClass:
        names = list(LengthClass)
        names = names[: names.index(self._profile.longest) + 1]
        return [name for name in names if self._profile.lengths[name].min_tags <= num_tags][-1]

    def _dantaggen(self) -> None:
        missing = [key for key in META_KEYS if key != "meta" and key not in self._parsed.meta]
        if missing or "meta" in self._parsed.meta:
            found = f"no {', '.join(missing)}" if missing else "meta"
            self._fail(Rule.MISSING_KEY, self._offset, f"found {found}; allowed: the other six lines, each once")
        self._target(list(LengthClass))
        if self._at == len(self._lines) or not self._line.startswith("general: "):
            self._fail(Rule.SECTION, self._next_offset(), "allowed here: 'general: '")
        offset, line = self._offset, self._line
        given, mark, rest = line.removeprefix("general: ").partition(INPUT_END)
        if not mark:
            self._fail(Rule.INPUT_END, offset + len(line), f"no {INPUT_END}; allowed: one")
        start = offset + len("general: ")
        after = start + len(given) + len(INPUT_END)
        if given:
            self._tag_section(start, given, opens=False)
        self._parsed.halves = {after: len(self._parsed.tags)}
        known = set(self._parsed.tags)
        for at, tag in self._items(after, rest, Rule.ITEM):
            self._check_tag(at, tag)
            if tag in known:
                self._fail(Rule.DOUBLE_TAG, at, f"{tag!r} stands there twice; allowed: each tag once")
            known.add(tag)
            self._parsed.tags.append(tag)
        self._at += 1
        if self._at < len(self._lines):
            self._fail(Rule.SECTION, self._offset, "a line behind the tags; allowed: none")
        self._check_tags(opens=False)


def _lines(text: str) -> Iterable[tuple[int, str]]:
    """Yield (offset, line)."""
    offset = 0
    for line in text.split("\n"):
        yield offset, line
        offset += len(line) + 1


def check_text(text: str, profile: Profile) -> BadText | None:
    """Return the first fault of a text, or None."""
    try:
        parse_text(text, profile)
    except BadText as fault:
        return fault
    return None


def check_row(row: dict[str, object], profile: Profile) -> BadText | None:
    """Return the first fault of a row of `schemas.corpus_row.CORPUS_ROW`: of its text, its halves or its fields."""
    text = f"{row['user']}{row['output']}"
    try:
        parsed = parse_text(text, profile)
    except BadText as fault:
        return fault
    at = len(str(row["user"]))
    if at not in parsed.halves or at == len(text):
        allowed = ", ".join(map(str, list(parsed.halves)[:5]))
        return BadText(Rule.SPLIT, f"the given half ends at {at}; allowed: {allowed}, ...", at, text)
    return next((BadText(Rule.FIELD, message, at, text) for message in _wrong_fields(row, parsed, at)), None)


def _wrong_fields(row: dict[str, object], parsed: Parsed, at: int) -> Iterator[str]:
    says = {
        "task": parsed.task.value,
        "length": parsed.length.value if parsed.length else None,
        "gen_meta": parsed.gen_meta,
        "tags_given": parsed.halves[at],
    }
    for name, value in says.items():
        if name in row and row[name] != value:
            yield f"{name} is {row[name]!r}; the text says {value!r}"
    if row.get("loss", "all") not in ("all", "output"):
        yield f"loss is {row['loss']!r}; allowed: all, output"
