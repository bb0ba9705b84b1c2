"""Lost facts: numbers, quotations and names of a text that the caption made from it does not have.

A number is compared by its value (`1,000` is 1000, `3.50` is 3.5); a caption may write it in words up to a hundred. A
quotation or a name is kept if its words follow each other in the caption, in any case.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation

from pipeline.config import Action, KeptConfig, QualityConfig
from pipeline.errors import ConfigError
from pipeline.quality.kept_texts import compared_texts
from pipeline.quality.quotes import QUOTED
from pipeline.quality.repetition import words_of
from pipeline.quality.rule import CheckedText, Finding, Rule, WithinJson
from schemas.status import Reason

MAX_QUOTED_WORDS = 8
"""A longer quotation is a sentence, which a shorter caption need not repeat."""
SHOWN = 5

_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")

# fmt: off
_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
# fmt: on
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def lost_facts(config: KeptConfig, given: Mapping[str, Sequence[str]], text: str) -> tuple[int, list[str]]:
    """Return the number of facts that a prompt gave, and those that a text lacks, in order.

    Args:
        config: `quality.kept`.
        given: by placeholder, the items that the prompt has in its place.
        text: the caption.
    """
    numbers = _numbers(text) | _spoken_numbers(words_of(text))
    spoken = _spoken(text)
    kept: dict[str, bool] = {}
    for source in compared_texts(config, given):
        if config.numbers:
            kept |= {match[0]: _value(match[0]) in numbers for match in _NUMBER.finditer(source)}
        if config.quotes:
            kept |= {quoted: _spoken(quoted) in spoken for quoted in _quotations(source)}
    names = (item for field in config.fields for item in given.get(field, ()))
    kept |= {name: _spoken(name) in spoken for name in names if words_of(name)}
    return len(kept), [fact for fact, is_kept in kept.items() if not is_kept]


def _quotations(text: str) -> Iterator[str]:
    for match in QUOTED.finditer(text):
        if 1 <= len(words_of(match[0])) <= MAX_QUOTED_WORDS:
            yield match[0]


def _spoken(text: str) -> str:
    """The words of a text between blanks, so that a part of it holds whole words."""
    return f" {' '.join(words_of(text.replace('_', ' ')))} "


def _numbers(text: str) -> set[str]:
    return {_value(match[0]) for match in _NUMBER.finditer(text)}


def _value(number: str) -> str:
    plain = _THOUSANDS.sub("", number)
    try:
        return f"{Decimal(plain.replace(',', '.')).normalize():f}"
    except InvalidOperation:  # 1.2.3 is a version, which is compared as it stands
        return plain


def _spoken_numbers(words: Sequence[str]) -> set[str]:
    """The numbers up to a hundred that are written as words; `twenty-one` is two words."""
    values = {"100"} if "hundred" in words else set[str]()
    tens = 0
    for word in words:
        unit = _UNITS.index(word) if word in _UNITS else 0
        if word in _UNITS and not (tens and 0 < unit < 10):
            values.add(str(unit))
        if tens:
            values.add(str(tens + unit if unit < 10 else tens))
        tens = 10 * (_TENS.index(word) + 2) if word in _TENS else 0
    return values | ({str(tens)} if tens else set())


def check_kept(config: QualityConfig) -> None:
    """Refuse the rule where no kind of fact is chosen."""
    kept = config.kept
    if not (kept.numbers or kept.quotes or kept.fields):
        raise ConfigError(
            "quality.actions.lost_fact: is on, and quality.kept has numbers: false, quotes: false and no fields; "
            "allowed: at least one of them"
        )


def _check(checked: CheckedText) -> Finding | None:
    num_facts, lost = lost_facts(checked.config.kept, checked.request.given_texts, checked.text)
    if not lost:
        return None
    shown = ", ".join(lost[:SHOWN]) + (", ..." if len(lost) > SHOWN else "")
    return Finding("lost_fact", f"{len(lost)} of {num_facts}: {shown}")


RULE = Rule(
    name=Reason.LOST_FACT, default=Action.OFF, check=_check, within_json=WithinJson.ALL, check_config=check_kept
)
