"""Special tokens: marks of a chat template in the text, of any model family."""

import re

from pipeline.config import Action
from pipeline.quality.rule import Finding, Rule, WithinJson
from schemas.status import Reason

_MARKS = re.compile(
    r"<\|[a-zA-Z0-9_]{2,40}\|>|</?s>|<(?:image|unk|pad|bos|eos)>|\[/?INST\]|<</?SYS>>|\breserved_special_token_\d+"
    r"|\A\s*(?:assistant|user|system)\s*(?:\n|:\s*\n)|\n(?:assistant|user)\s*\n|\A(?:ASSISTANT|USER):",
)
_MARKERS = ("<", "[", "reserved_special_token", "\nassistant", "\nuser")
"""Every match of `_MARKS` has one of these, or begins with one of `_ROLES`."""
_ROLES = ("assistant", "user", "system")


def find_special_tokens(text: str) -> Finding | None:
    """Find marks of a chat template, complete or in the tokenizer's spelling."""
    start = text.lstrip()[:10].lower()
    if not (any(map(text.__contains__, _MARKERS)) or start.startswith(_ROLES)):
        return None
    match = _MARKS.search(text)
    return Finding("special_tokens", repr(match[0])) if match else None


RULE = Rule(
    name=Reason.SPECIAL_TOKENS,
    default=Action.REJECT,
    check=lambda checked: find_special_tokens(checked.text),
    within_json=WithinJson.ALL,
)
