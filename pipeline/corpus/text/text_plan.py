"""Decides everything about one text before it is written: the task, the tags, and which half gets what."""

import bisect
import itertools
from dataclasses import dataclass, replace

from pipeline.config import LengthConfig, Persons, Preset, RenderConfig, StyleConfig
from pipeline.corpus.records.clean_captions import clean_short
from pipeline.corpus.records.corpus_record import Record
from pipeline.corpus.text.draws import Place, shuffled, stream, uniform
from pipeline.corpus.text.trim import trim_long, trim_short
from schemas.corpus_row import Drop, LengthClass, Loss, Task

EMPTY = "<|empty|>"
"""DanTagGen's value for a metadata line without a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPlan:
    """All decisions about one text."""

    task: Task
    length: LengthClass | None
    """None for a text without a length token."""
    tags: list[str]
    """All tags in the text, in their order."""
    tags_given: int
    """Number of leading tags in the given half; 0 for tasks that do not begin with tags."""
    given: list[str]
    """Metadata lines before the target line, in their order."""
    predicted: list[str]
    """Metadata lines after the last section; if there is one, the target line contains gen_meta."""
    short: str | None
    long: str | None
    loss: Loss
    bare_long: bool = False
    input_end: bool = False
    """Whether the text has DanTagGen's format."""


@dataclass(frozen=True, slots=True)
class _Table:
    """Tasks with the running sums of their weights; empty if all weights are 0."""

    tasks: tuple[Task, ...]
    sums: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Style:
    config: StyleConfig
    tables: dict[tuple[bool, bool, bool], _Table]
    """By whether a record has tags, a short caption and a long caption."""


class TextPlanner:
    """Plans texts; prepares the config once per process."""

    def __init__(self, config: RenderConfig) -> None:
        self._config = config
        self._dantaggen = config.preset is Preset.DANTAGGEN
        self._styles = {name: _Style(style, _tables(style)) for name, style in config.styles.items()}
        self._starts = sorted((name for name in self._styles if name != "default"), key=len, reverse=True)
        self._classes = [(name, length) for name, length in config.lengths.items() if _within(name, config.longest)]
        self._mins = [length.min_tags for _, length in self._classes]

    def __call__(self, record: Record, seed: int) -> TextPlan | Drop:
        """Plan the text of a record; `seed` comes from `draw_seed`."""
        style = self._style_of(record.source)
        if style.config.title_as_short:
            record = _with_title(record, seed, style.config.title_as_short)
        tagged = bool(record.general or record.special)
        if self._dantaggen and not tagged:
            return Drop.NO_TAGS
        table = style.tables.get((tagged, bool(record.short), bool(record.long)))
        if table is None:
            return Drop.ONE_CAPTION if record.short or record.long else Drop.NOTHING
        if not table.tasks:
            return Drop.NO_WEIGHT
        words = stream(seed, b"plan", Place.TAG_ORDER + len(record.general) + len(record.special))
        drawn = uniform(words[Place.TASK]) * table.sums[-1]
        task = table.tasks[min(bisect.bisect_right(table.sums, drawn), len(table.tasks) - 1)]
        return self._plan(record, seed, style.config, task, words)

    def _style_of(self, source: str) -> _Style:
        for start in self._starts:
            if source.startswith(start):
                return self._styles[start]
        return self._styles["default"]

    def _plan(self, record: Record, seed: int, style: StyleConfig, task: Task, words: tuple[int, ...]) -> TextPlan:
        config = self._config
        drop_all = style.metadata and uniform(words[Place.DROP_ALL]) < config.drop_all_probability
        drop_some = not drop_all and uniform(words[Place.DROP_SOME]) < config.drop_some_probability
        first = record.special if style.persons is Persons.FIRST else []
        general = record.general if first is record.special else [*record.special, *record.general]
        name, length = self._classes[bisect.bisect_right(self._mins, len(general)) - 1]
        general = shuffled(general, words[Place.TAG_ORDER : Place.TAG_ORDER + len(general)])
        num_given = 0
        if task.value.startswith("tag"):
            general = general[: length.max_tags]
            num_given = self._tags_given(words, len(first), len(general), drop_all=drop_all)
        lines = _lines(record, empty=self._dantaggen) if style.metadata else []
        given, predicted = self._split_lines(lines, words, drop_all=drop_all, drop_some=drop_some)
        short, long = self._captions(record, seed, style, task, length)
        return TextPlan(
            task=task,
            length=None if task is Task.SHORT_TO_LONG else name,
            tags=[*first, *general],
            tags_given=num_given,
            given=given,
            predicted=predicted,
            short=short,
            long=long,
            loss=Loss.ALL if uniform(words[Place.LOSS]) < config.loss_on_all_probability else Loss.OUTPUT,
            bare_long=style.bare_long and task is Task.SHORT_TO_LONG,
            input_end=self._dantaggen,
        )

    def _tags_given(self, words: tuple[int, ...], num_first: int, num_general: int, *, drop_all: bool) -> int:
        """Return how many tags are given: at least one general tag is left to predict; without any, 0."""
        if not num_general:
            return 0
        if drop_all:
            return num_first
        # 1e-9 corrects rounding: 0.58 x 50 is 28.999999999999996 as a float.
        share_of = min(num_general, self._config.given_share_of or num_general)
        choices = max(int(share_of * self._config.given_share + 1e-9), 1) + 1
        drawn = 1 + int(uniform(words[Place.TAGS_GIVEN]) * choices)
        return num_first + min(drawn, num_general - 1)

    def _split_lines(
        self, lines: list[str], words: tuple[int, ...], *, drop_all: bool, drop_some: bool
    ) -> tuple[list[str], list[str]]:
        """Return the given lines and the lines to be predicted, both in the drawn order."""
        config = self._config
        if self._dantaggen:
            if drop_some:
                keep = [
                    uniform(word) < config.keep_line_probability for word in words[Place.KEEP_LINES :][: len(lines)]
                ]
                blank = [f"{line.partition(':')[0]}: {EMPTY}" for line in lines]
                lines = [line if kept else empty for line, empty, kept in zip(lines, blank, keep, strict=True)]
            return shuffled(lines, words[Place.LINE_ORDER : Place.LINE_ORDER + len(lines)]), []
        if drop_all or not lines:
            return [], []
        ordered = shuffled(lines, words[Place.LINE_ORDER : Place.LINE_ORDER + len(lines)])
        if drop_some:
            keep = words[Place.KEEP_LINES : Place.KEEP_LINES + len(lines)]
            return [
                line for line, word in zip(ordered, keep, strict=True) if uniform(word) < config.keep_line_probability
            ], []
        if uniform(words[Place.GEN_META]) >= config.gen_meta:
            return ordered, []
        num_given = min(max(1, int(uniform(words[Place.LINES_GIVEN]) * len(lines))), len(lines) - 1)
        return ordered[:num_given], ordered[num_given:]

    def _captions(
        self, record: Record, seed: int, style: StyleConfig, task: Task, length: LengthConfig
    ) -> tuple[str | None, str | None]:
        """Return the captions of the task, trimmed if the style trims and the text has a length class."""
        short = record.short if "short" in task else None
        long = record.long if "long" in task else None
        if style.trim and task is not Task.SHORT_TO_LONG:
            sentences = self._config.sentences
            language = (record.language or sentences.language) if sentences.package else None
            short = short and trim_short(short, length.sentences, seed, language)
            long = long and trim_long(long, length.paragraphs, length.sentences, seed, language)
        return short, long


def _with_title(record: Record, seed: int, probability: float) -> Record:
    """Return the record with its title as the short caption, if that is drawn and the title is a caption."""
    [word] = stream(seed, b"title", 1)
    title = clean_short(record.title).text if uniform(word) < probability else None
    return replace(record, short=title) if title else record


def _within(name: LengthClass, longest: LengthClass) -> bool:
    order = list(LengthClass)
    return order.index(name) <= order.index(longest)


def _tables(style: StyleConfig) -> dict[tuple[bool, bool, bool], _Table]:
    tasks = style.tasks
    weights = {
        (True, True, True): tasks.all,
        (True, False, True): tasks.tags_long,
        (True, True, False): tasks.tags_short,
        (True, False, False): tasks.tags,
        (False, True, True): tasks.captions,
    }
    return {has: _table(table) for has, table in weights.items()}


def _table(weights: dict[Task, float]) -> _Table:
    drawn = {task: weights[task] for task in Task if weights.get(task)}
    return _Table(tuple(drawn), tuple(itertools.accumulate(drawn.values())))


def _lines(record: Record, *, empty: bool) -> list[str]:
    """Return the metadata lines; with `empty`, DanTagGen's six lines, `EMPTY` for missing values."""
    values = {
        "meta": ", ".join(record.meta),
        "rating": ", ".join(record.rating),
        "artist": ", ".join(record.artist),
        "aspect ratio": f"{record.width / record.height:.1f}" if record.width and record.height else "",
        "characters": ", ".join(record.character),
        "quality": ", ".join(record.quality),
        "copyrights": ", ".join(record.copyright),
    }
    if empty:
        return [f"{key}: {value or EMPTY}" for key, value in values.items() if key != "meta"]
    return [f"{key}: {value}" for key, value in values.items() if value]
