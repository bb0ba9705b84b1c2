"""Foreign scripts: captions with more of another writing system than the config allows.

Captions quote writing in a picture, so text between quotation marks does not count. Some models switch to Chinese,
Cyrillic or Thai in the middle of a sentence and do not return.
"""

from collections import Counter
from collections.abc import Sequence

from pipeline.config import Action, Script
from pipeline.quality.quotes import QUOTED
from pipeline.quality.rule import Finding, Rule, WithinJson
from schemas.status import Reason

FOREIGN_SHARE = 0.15
"""Share of the letters. A name in its own script next to its transcription stays below."""
FOREIGN_LETTERS = 8
"""Fewer letters are a name or a word."""

RANGES: dict[Script, tuple[tuple[int, int], ...]] = {
    Script.LATIN: (
        *((0x0000, 0x02AF), (0x1E00, 0x1EFF), (0x2C60, 0x2C7F)),
        *((0xA720, 0xA7FF), (0xFB00, 0xFB06), (0xFF21, 0xFF5A)),
    ),
    Script.GREEK: ((0x0370, 0x03FF), (0x1F00, 0x1FFF)),
    Script.CYRILLIC: ((0x0400, 0x052F),),
    Script.HEBREW: ((0x0590, 0x05FF),),
    Script.ARABIC: ((0x0600, 0x06FF), (0x0750, 0x077F), (0xFB50, 0xFDFF), (0xFE70, 0xFEFF)),
    Script.DEVANAGARI: ((0x0900, 0x097F),),
    Script.THAI: ((0x0E00, 0x0E7F),),
    Script.HANGUL: ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7AF)),
    Script.KANA: ((0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D)),
    Script.HAN: ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
}
"""Code points, both ends inclusive."""


def find_foreign_script(scripts: Sequence[Script], text: str) -> Finding | None:
    """Find text in other writing systems than `scripts`."""
    if text.isascii() and Script.LATIN in scripts:
        return None
    letters = [char for char in QUOTED.sub(" ", text) if char.isalpha()]
    ranges = [pair for script in scripts for pair in RANGES[script]]
    foreign = [char for char in letters if not any(low <= ord(char) <= high for low, high in ranges)]
    if len(foreign) < FOREIGN_LETTERS or len(foreign) <= FOREIGN_SHARE * len(letters):
        return None
    shown = "".join(char for char, _ in Counter(foreign).most_common(5))
    return Finding("foreign_script", f"{len(foreign)} of {len(letters)} letters, such as {shown}")


RULE = Rule(
    name=Reason.FOREIGN_SCRIPT,
    default=Action.REJECT,
    check=lambda checked: find_foreign_script(checked.config.scripts, checked.text),
    within_json=WithinJson.ALL,
)
