"""The selection of a source: sample, limit, duplicates and conditions, and the one condition that skips a row.

A row is decided in two steps, so that no more is read than needed: first by its identity and its metadata, then, where
a condition is about the image, by the header of the image. The result depends on the row alone, never on the order of
work.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from pipeline.config import Condition, SourceConfig
from pipeline.selection.conditions import RowFacts, evaluate_condition
from schemas.status import Reason

OF_THE_HEADER = ("width", "height", "short_side", "long_side", "aspect_ratio", "format")
OF_THE_IMAGE = (*OF_THE_HEADER, "bytes")
"""Keys of a condition about the image."""

MAX_LABEL = 200
"""Characters of a condition in a message."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Why a row is not captioned."""

    reason: Reason
    condition: str
    """As in the config, such as `source.where.short_side: {min: 64}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """The followers of the shard that is read: rows in whose place an equal or similar image is captioned."""

    by: str
    """As `source.duplicates.by`."""
    leaders: Mapping[int, str]
    """Row to its leader, as the caption row's `duplicate_of`."""
    num_images: int
    """Of the shard, by the index."""
    asked: frozenset[int] = frozenset()
    """Followers that are captioned all the same, since their leader failed."""

    def skips(self, row: int) -> bool:
        """Whether the row is skipped as a duplicate."""
        return row in self.leaders and row not in self.asked


@dataclass(frozen=True, slots=True)
class _Part:
    """One key of `where`, as a condition of its own; a row must meet all parts."""

    label: str
    condition: Condition
    of_image: bool
    """Whether it is about the image, at least in a part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Decides whether rows are captioned; pickles."""

    sample: float | None = None
    limit: int | None = None
    parts: tuple[_Part, ...] = ()
    end_row: int | None = None
    """Of the shard that is read: rows from this number on are beyond `limit`."""
    duplicates: Duplicates | None = None
    """Of the shard that is read; None without `source.duplicates`."""

    @property
    def selects_all(self) -> bool:
        """Whether no row is skipped."""
        has_followers = self.duplicates is not None and bool(self.duplicates.leaders)
        return not self.parts and self.sample is None and self.end_row is None and not has_followers

    @property
    def needs_header(self) -> bool:
        """Whether a condition is about the image's size or format."""
        return any(_uses(part.condition, OF_THE_HEADER) for part in self.parts)

    @property
    def needs_image(self) -> bool:
        """Whether a condition is about the image."""
        return any(part.of_image for part in self.parts)

    def up_to(self, end_row: int | None) -> "Selection":
        """Return the selection for a shard in which the limit is reached before `end_row`; None: it is not."""
        return replace(self, end_row=end_row)

    def duplicate_of(self, row: int, reason: str | None) -> str | None:
        """Return the leader in whose place a row is skipped, for this reason, or asked."""
        if self.duplicates is None or not (reason == Reason.DUPLICATE or row in self.duplicates.asked):
            return None
        return self.duplicates.leaders.get(row)

    def skip_by_identity(self, shard: str, row: int) -> Skip | None:
        """Decide by the row's identity alone."""
        if self.sample is not None and not in_sample(self.sample, shard, row):
            return Skip(Reason.NOT_SAMPLED, f"source.sample: {self.sample:g}")
        if self.end_row is not None and row >= self.end_row:
            return Skip(Reason.BEYOND_LIMIT, f"source.limit: {self.limit}")
        if self.duplicates is not None and self.duplicates.skips(row):
            return Skip(Reason.DUPLICATE, f"source.duplicates: {{by: {self.duplicates.by}}}")
        return None

    def selects(self, shard: str, row: int, facts: RowFacts) -> bool:
        """Whether a row is captioned of which all facts are known."""
        return self.skip_by_identity(shard, row) is None and self._skip_by_conditions(facts, final=True) is None

    def skip_before_image(self, shard: str, row: int, facts: RowFacts) -> Skip | None:
        """Decide as far as possible before the image is read; None: it is selected, or its image has to be read.

        Args:
            shard: path of the shard.
            row: number of the row.
            facts: the metadata, and `num_bytes` where it is known.
        """
        skip = self.skip_by_identity(shard, row)
        if skip is not None or not self.parts:
            return skip
        return self._skip_by_conditions(facts, final=not self.needs_image)

    def skip_by_image(self, facts: RowFacts) -> Skip | None:
        """Decide about a row whose image was read; `facts` are complete."""
        return self._skip_by_conditions(facts, final=True)

    def _skip_by_conditions(self, facts: RowFacts, *, final: bool) -> Skip | None:
        """The first part that the row does not meet; without one, the first that stays undecided.

        Without `final` the image is not known yet, so a part about it may still be met.
        """
        undecided: _Part | None = None
        for part in self.parts:
            truth = evaluate_condition(part.condition, facts)
            if truth is False:
                return Skip(Reason.FILTERED, part.label)
            if truth is None and (final or not part.of_image):
                undecided = undecided or part
        if undecided is None:
            return None
        return Skip(Reason.FILTERED, f"{undecided.label} ({_why_undecided(undecided.condition, facts)})")


def selection_of(source: SourceConfig) -> Selection:
    """Return the selection of a source; the end of the limit is not known here, see `Selection.up_to`."""
    parts = tuple(_split(source.where, "source.where")) if source.where else ()
    return Selection(sample=source.sample, limit=source.limit, parts=parts)


def in_sample(share: float, shard: str, row: int) -> bool:
    """Whether a row is in a sample: by its identity alone, so a smaller sample is part of a larger one."""
    text = f"select\x1f{shard}\x1f{row}"
    drawn = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")
    return drawn < share * 2**64


def _split(condition: Condition, path: str) -> Iterator[_Part]:
    """The keys of a condition, each with its place in the config; those below `all_of` are as good as its own."""
    for name in type(condition).model_fields:
        value: Any = getattr(condition, name)
        if not value:
            continue
        if name == "fields":
            for field, test in value.items():
                yield _part(f"{path}.fields.{field}", Condition(fields={field: test}), test.model_dump(**_SET))
        elif name == "all_of":
            for index, part in enumerate(condition.all_of):
                yield from _split(part, f"{path}.all_of.{index}")
        else:
            single = Condition.model_validate({name: value})
            yield _part(f"{path}.{name}", single, single.model_dump(**_SET)[name])


_SET: dict[str, Any] = {"mode": "json", "exclude_defaults": True}


def _part(path: str, condition: Condition, value: Any) -> _Part:  # noqa: ANN401 - JSON
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False).strip()
    label = f"{path}: {text}"
    shown = label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 3]}..."
    return _Part(shown, condition, _uses(condition, OF_THE_IMAGE))


def _uses(condition: Condition, names: tuple[str, ...]) -> bool:
    nested = (*condition.all_of, *condition.any_of, *condition.none_of)
    return any(getattr(condition, name) for name in names) or any(_uses(part, names) for part in nested)


def _why_undecided(condition: Condition, facts: RowFacts) -> str:
    names = condition.field_names()
    missing = [name for name in names if facts.fields.get(name) is None]
    return "missing" if missing else "of another type"
