"""The text of each field of a source row, as prompts use it: cleaned, ordered, cut and joined.

A value is data that anyone may have written. It becomes plain text on one line; a model family encodes it as text, so
that a special token in it stays text (`pipeline.models.family.PromptLayout`).
"""

import bisect
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config import FieldOrder, PromptFieldConfig
from pipeline.config.prompt_fields_config import FAIL, OMIT, no_caption, slot_of
from pipeline.prompts.seeded_draws import draw
from schemas.status import Reason

CountTokens = Callable[[str], int]
"""Number of the model's tokens of a text alone."""

MAX_CHARS = 16_384
"""Characters of a field that are used, before it is ordered and cut: about four prompts of JoyCaption. A value of a
megabyte would take a second to tokenise, for every slot and image."""

_REMOVED = frozenset(("Cc", "Cf", "Cs"))
"""Control characters, invisible marks such as the change of writing direction, and halves of surrogate pairs."""
_JOINERS = "\u200c\u200d"
"""Invisible, but part of the spelling in Persian and Hindi and of composed emoji."""

SHOWN_FIELDS = 8
"""Fields of a row that a message lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldText:
    """The text of one field for one image."""

    text: str | None
    """None if the row has none and the config gives no default."""
    items: tuple[str, ...] = ()
    """What was joined; empty for a default."""


class RowFields:
    """The texts of the fields of one row, each made once for all slots of its image."""

    def __init__(
        self,
        policies: Mapping[str, PromptFieldConfig],
        count_tokens: CountTokens,
        seed: int,
        identity: tuple[str, int],
        metadata: Mapping[str, Any],
    ) -> None:
        """Prepare the fields of a row.

        Args:
            policies: of each field that a prompt may use.
            count_tokens: for `max_tokens`.
            seed: of the job.
            identity: shard and row.
            metadata: the metadata fields of the row, as JSON values.
        """
        self._policies = policies
        self._count = count_tokens
        self._seed = seed
        self._identity = identity
        self._metadata = metadata
        self._texts: dict[str, FieldText] = {}

    def of(self, field: str) -> FieldText:
        """Return the text of a field."""
        if field not in self._texts:
            self._texts[field] = self._made(field)
        return self._texts[field]

    def omits(self, field: str) -> bool:
        """Whether what holds the field is left out if it has no text."""
        return self._policies[field].missing == OMIT

    def fault(self, field: str) -> tuple[Reason, str]:
        """Say why a row has no request without the field."""
        slot = slot_of(field)
        if slot is not None:
            return Reason.NO_PARENT_CAPTION, no_caption(slot)
        names = sorted(self._metadata)
        listed = ", ".join(names[:SHOWN_FIELDS]) + (", ..." if len(names) > SHOWN_FIELDS else "")
        return Reason.MISSING_FIELD, (
            f"source.{field}: the row has no text for it (its fields: {listed or 'none'}); set "
            f"prompt_fields.{field}.missing to omit or to a text, if rows may lack it"
        )

    def _made(self, field: str) -> FieldText:
        policy = self._policies[field]
        items = _items(values_at(self._metadata, field.split(".")), policy.split)
        if policy.order is FieldOrder.SORTED:
            items = sorted(items)
        elif policy.order is FieldOrder.SHUFFLED:
            seed = (self._seed, *self._identity, field)
            places = sorted(range(len(items)), key=lambda place: draw("field", *seed, place))
            items = [items[place] for place in places]
        items = items[: policy.max_items]
        if policy.max_tokens is not None:
            items = _within_tokens(items, policy.separator, policy.max_tokens, self._count)
        if items:
            return FieldText(text=policy.separator.join(items), items=tuple(items))
        return FieldText(text=None if policy.missing in (FAIL, OMIT) else policy.missing)


def metadata_names(fields: Iterable[str]) -> tuple[str, ...]:
    """Return the metadata fields that may hold the fields: of `a.b`, the field `a` and a field with the name `a.b`."""
    paths = [field.split(".") for field in fields]
    names = (".".join(path[:number]) for path in paths for number in range(1, len(path) + 1))
    return tuple(dict.fromkeys(names))


def values_at(value: Any, names: Sequence[str]) -> Iterator[Any]:  # noqa: ANN401 - a JSON value
    """Yield the values at a path of names, in order; a list yields each of its items.

    A name may contain dots itself: the longest name that an object has is taken first.
    """
    for item in _flat(value):
        if not names:
            yield item
        elif isinstance(item, Mapping):
            for number in range(len(names), 0, -1):
                name = ".".join(names[:number])
                if name in item:
                    yield from values_at(item[name], names[number:])
                    break


def _flat(value: Any) -> Iterator[Any]:  # noqa: ANN401 - a JSON value
    """Without recursion: a value may be nested as deep as its parser allows."""
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, list):
            rest.extend(reversed(item))  # pyright: ignore[reportUnknownArgumentType] - a list of JSON values
        else:
            yield item


def _items(values: Iterable[Any], split: str | None) -> list[str]:
    """The texts of values, cleaned, `MAX_CHARS` of them; null and objects have no text."""
    items: list[str] = []
    left = MAX_CHARS
    for value in values:
        if isinstance(value, str):
            text = value[:left]
        elif isinstance(value, bool | int | float):
            text = json.dumps(value)[:left]
        else:
            continue
        left -= len(text)
        items += text.split(split) if split else [text]
        if not left:
            break
    return [item for item in map(clean, items) if item]


def clean(text: str) -> str:
    """Return a text on one line, without control characters and invisible marks."""
    if not text.isprintable():
        text = "".join(char for char in text if char.isspace() or char in _JOINERS or not _is_removed(char))
    return " ".join(text.split())


def _is_removed(char: str) -> bool:
    return unicodedata.category(char) in _REMOVED


def _within_tokens(items: list[str], separator: str, max_tokens: int, count: CountTokens) -> list[str]:
    """The first items that have at most `max_tokens` together; of a first item that has more, its first words."""
    num_items = _num_fitting(items, separator, max_tokens, count)
    if num_items or not items:
        return items[:num_items]
    words = items[0].split(" ")
    num_words = _num_fitting(words, " ", max_tokens, count)
    if num_words:
        return [" ".join(words[:num_words])]
    num_chars = _num_fitting(words[0], "", max_tokens, count)
    return [words[0][:num_chars]] if num_chars else []


def _num_fitting(pieces: Sequence[str], joiner: str, max_tokens: int, count: CountTokens) -> int:
    # The search tests the number that it returns, also where a longer text has fewer tokens.
    return bisect.bisect_right(
        range(1, len(pieces) + 1), max_tokens, key=lambda number: count(joiner.join(pieces[:number]))
    )
