"""The strict grammar of training text: parses a text to the last character and reports the first fault.

TIPO's format:

    text         = { meta line LF } target line LF body { LF meta line }
    target line  = "target: " [ length ] [ task ] [ gen_meta ], separated by one blank
    body         = section { LF section }, in the order of the task
    section      = "tag: " items | "short: " line | "long: " line { LF line without a colon }
    meta line    = key ": " items, each key at most once; after the body only with gen_meta, and then at least one

DanTagGen's format, where a meta line may have the value `<|empty|>`:

    text         = six meta lines in any order LF "target: " length LF "general: " items "<|input_end|>" items

The length token must match the number of tags. A tag must not be repeated, empty or in capitals, and must not contain
an underscore if it has more than three characters. Control characters, blank lines, and special tokens outside the
target line are faults.
"""

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
    """Names of the rules in fault messages."""

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
    # Rules for rows, beyond their text:
    SPLIT = "split"
    FIELD = "field"


@dataclass(frozen=True, slots=True)
class Profile:
    """The settings of a preset that the grammar depends on."""

    lengths: dict[LengthClass, LengthConfig]
    longest: LengthClass
    dantaggen: bool = False
    bare_long: bool = False
    """Whether short_to_long may be written `long:` without the blank."""


def profile_of(config: RenderConfig) -> Profile:
    """Return the profile of a config's texts."""
    return Profile(
        lengths=config.lengths,
        longest=config.longest,
        dantaggen=config.preset is Preset.DANTAGGEN,
        bare_long=any(style.bare_long for style in config.styles.values()),
    )


@dataclass(slots=True)
class ParsedText:
    """The parts of a text."""

    meta: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Items of the metadata lines before the target line."""
    predicted: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Items of the metadata lines after the body."""
    task: Task = Task.TAG
    length: LengthClass | None = None
    gen_meta: bool = False
    tags: list[str] = field(default_factory=list[str])
    short: str | None = None
    long: str | None = None
    halves: dict[int, int] = field(default_factory=dict[int, int])
    """Offset at which the given half may end, to the number of given tags."""


_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_ASPECT = re.compile(r"\d+\.\d")
_MARK = re.compile(r"<\|[^\n]*?\|>|</?s>|<(?:unk|pad|bos|eos)>")
_KEY = re.compile(rf"({'|'.join(META_KEYS)}): ")
_TOKEN = re.compile(r"<\|([a-z_]+)\|>")


def parse_text(text: str, profile: Profile) -> ParsedText:
    """Parse a text.

    Raises:
        BadText: the first fault, with its rule and position.
    """
    return _Parser(text, profile).parse()


class _Parser:
    """One text, and the position up to which it is parsed."""

    def __init__(self, text: str, profile: Profile) -> None:
        self._text = text
        self._profile = profile
        self._parsed = ParsedText()
        self._lines = list(_lines(text))
        self._at = 0
        """Index of the next line."""

    def parse(self) -> ParsedText:
        self._check_characters()
        while self._at < len(self._lines) and not self._line.startswith("target:"):
            self._meta_line(self._parsed.meta)
        if self._at == len(self._lines):
            self._fail(Rule.TARGET, len(self._text), "no target line; allowed: one target line, before the sections")
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

    def _check_characters(self) -> None:
        control = _CONTROL.search(self._text)
        if control:
            self._fail(Rule.CONTROL, control.start(), f"found {control[0]!r}; allowed: no control character but LF")
        for offset, line in self._lines:
            if not line.strip():
                self._fail(Rule.BLANK_LINE, offset, "found a blank line; allowed: no blank line, also not at the end")

    def _check_marks(self, offset: int, text: str) -> None:
        mark = _MARK.search(text) if "<" in text else None
        if mark:
            self._fail(Rule.MARK, offset + mark.start(), f"found {mark[0]!r}; allowed: only in the target line")

    def _meta_line(self, lines: dict[str, list[str]]) -> None:
        offset, line = self._offset, self._line
        match = _KEY.match(line)
        if not match:
            self._fail(Rule.KEY, offset, f"found {line[:40]!r}; allowed: {', '.join(META_KEYS)}, each with ': '")
        key, value = match[1], line[match.end() :]
        if key in self._parsed.meta or key in self._parsed.predicted:
            self._fail(Rule.DOUBLE_KEY, offset, f"{key} occurs twice; allowed: once")
        if self._profile.dantaggen and value == EMPTY:
            lines[key] = []
        elif key == "aspect ratio":
            if not _ASPECT.fullmatch(value):
                self._fail(Rule.ASPECT, offset + match.end(), f"found {value!r}; allowed: a number such as 0.7")
            lines[key] = [value]
        else:
            lines[key] = [item for _, item in self._items(offset + match.end(), value, Rule.VALUE)]
        self._at += 1

    def _items(self, offset: int, value: str, rule: Rule) -> list[tuple[int, str]]:
        """Return (offset, item) of a comma-separated list."""
        self._check_marks(offset, value)
        items: list[tuple[int, str]] = []
        for item in value.split(", "):
            # `a,, b` and a trailing comma leave a comma in an item, `a,  b` a blank at its edge.
            if not item.strip():
                self._fail(rule, offset, "found an empty item; allowed: items separated by ', '")
            if item != item.strip() or "," in item:
                self._fail(rule, offset, f"found {item!r}; allowed: items separated by ', '")
            items.append((offset, item))
            offset += len(item) + 2
        return items

    def _tipo(self) -> None:
        self._target([*LengthClass, *(task.value for task in Task if task is not Task.TAG), "gen_meta"])
        self._parsed.halves[self._next_offset()] = 0
        sections = self._parsed.task.sections
        for index, name in enumerate(sections):
            following = sections[index + 1] if index + 1 < len(sections) else None
            self._section(name, following, opens=index == 0)
        first = self._at
        while self._at < len(self._lines):
            if not self._parsed.gen_meta:
                self._fail(
                    Rule.SECTION,
                    self._offset,
                    f"found {self._line[:40]!r} after the last section; allowed: nothing without gen_meta",
                )
            self._meta_line(self._parsed.predicted)
        if self._parsed.gen_meta and first == self._at:
            self._fail(
                Rule.GEN_META, len(self._text), "gen_meta without metadata after the body; allowed: at least one line"
            )
        if "tag" in sections:
            self._check_tags(opens=sections[0] == "tag")

    def _next_offset(self) -> int:
        return self._lines[self._at][0] if self._at < len(self._lines) else len(self._text)

    def _target(self, allowed: list[str]) -> None:
        """Parse the target line: a length unless short_to_long, a task unless plain tags, optionally gen_meta."""
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
            expected = "a length (none for short_to_long), then an optional task, then optionally gen_meta"
            self._fail(Rule.TARGET, offset, f"found {' '.join(names)}; allowed: {expected}")
        self._at += 1

    def _section(self, name: str, following: str | None, *, opens: bool) -> None:
        if self._at == len(self._lines):
            self._fail(Rule.SECTION, len(self._text), f"no section {name}; the task requires it")
        offset, line = self._offset, self._line
        bare = name == "long" and self._profile.bare_long and self._parsed.task is Task.SHORT_TO_LONG
        start = f"{name}:" if bare and not line.startswith(f"{name}: ") else f"{name}: "
        if not line.startswith(start):
            self._fail(Rule.SECTION, offset, f"found {line[:40]!r}; allowed: a line that begins with {start!r}")
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
        seen = set(self._parsed.tags)
        for at, tag in self._items(offset, value, Rule.ITEM):
            self._check_tag(at, tag)
            if tag in seen:
                self._fail(Rule.DOUBLE_TAG, at, f"{tag!r} occurs twice; allowed: each tag once")
            seen.add(tag)
            self._parsed.tags.append(tag)
            if opens:
                self._parsed.halves[at + len(tag)] = len(seen)

    def _check_tag(self, offset: int, tag: str) -> None:
        if tag != tag.lower():
            self._fail(Rule.CAPITALS, offset, f"found {tag!r}; allowed: {tag.lower()!r}")
        if "_" in tag and len(tag) > 3:
            self._fail(Rule.UNDERSCORE, offset + tag.index("_"), f"found {tag!r}; allowed: blanks for underscores")
        if "  " in tag:
            self._fail(Rule.BLANKS, offset + tag.index("  "), "found two blanks; allowed: one blank")

    def _caption(self, name: str, offset: int, value: str, following: str | None) -> str:
        """Parse a caption: one line, or for `long` all lines up to the next section."""
        lines = [value]
        self._caption_line(offset, value)
        while name == "long" and self._at < len(self._lines):
            line = self._line
            if following and line.startswith(f"{following}: "):
                break
            if self._parsed.gen_meta and not following and _KEY.match(line):
                break
            if ":" in line:
                self._fail(Rule.COLON, self._offset + line.index(":"), "found a colon; allowed: only in the first line")
            self._caption_line(self._offset, line)
            lines.append(line)
            self._at += 1
        return "\n".join(lines)

    def _caption_line(self, offset: int, line: str) -> None:
        self._check_marks(offset, line)
        if not line or line != line.strip():
            self._fail(Rule.BLANKS, offset, "found an empty caption line, or blanks at its ends; allowed: text")

    def _check_tags(self, *, opens: bool) -> None:
        """Check that the length token matches the number of tags, with or without the tags that count persons."""
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
            fault = f"no {', '.join(missing)}" if missing else "found meta"
            self._fail(Rule.MISSING_KEY, self._offset, f"{fault}; allowed: all keys except meta, each once")
        self._target(list(LengthClass))
        if self._at == len(self._lines) or not self._line.startswith("general: "):
            self._fail(Rule.SECTION, self._next_offset(), "no tags; allowed: a line that begins with 'general: '")
        offset, line = self._offset, self._line
        given, mark, rest = line.removeprefix("general: ").partition(INPUT_END)
        if not mark:
            self._fail(Rule.INPUT_END, offset + len(line), f"no {INPUT_END}; allowed: one {INPUT_END}")
        start = offset + len("general: ")
        after = start + len(given) + len(INPUT_END)
        if given:
            self._tag_section(start, given, opens=False)
        self._parsed.halves = {after: len(self._parsed.tags)}
        self._tag_section(after, rest, opens=False)
        self._at += 1
        if self._at < len(self._lines):
            self._fail(Rule.SECTION, self._offset, "found a line after the tags; allowed: no line")
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
    """Return the first fault in the text, the halves or the fields of a row of `schemas.corpus_row.CORPUS_ROW`."""
    text = f"{row['user']}{row['output']}"
    try:
        parsed = parse_text(text, profile)
    except BadText as fault:
        return fault
    at = len(str(row["user"]))
    if at not in parsed.halves or at == len(text):
        allowed = ", ".join(map(str, list(parsed.halves)[:5]))
        return BadText(Rule.SPLIT, f"the user half ends at character {at}; allowed: {allowed}, ...", at, text)
    return next((BadText(Rule.FIELD, message, at, text) for message in _wrong_fields(row, parsed, at)), None)


def _wrong_fields(row: dict[str, object], parsed: ParsedText, at: int) -> Iterator[str]:
    expected = {
        "task": parsed.task.value,
        "length": parsed.length.value if parsed.length else None,
        "gen_meta": parsed.gen_meta,
        "tags_given": parsed.halves[at],
    }
    for name, value in expected.items():
        if name in row and row[name] != value:
            yield f"{name} is {row[name]!r}; the text requires {value!r}"
    if row.get("loss", "all") not in ("all", "output"):
        yield f"loss is {row['loss']!r}; allowed: all, output"
