"""Too long for CLIP: a text encoder of an image model reads 77 tokens, its start and end tokens included.

With `quality.clip.tokenizer` the tokens are counted by that tokenizer. Without it the words and marks are counted, each
of which is at least one token: a text that the rule finds then has too many tokens, but not all such texts are found.
"""

import functools
import hashlib
import re
from collections.abc import Callable

from tokenizers import Tokenizer

from pipeline.config import Action, QualityConfig
from pipeline.quality.rule import CheckedText, Finding, Rule
from schemas.status import Reason

_PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)
"""As CLIP's tokenizer divides a text before it looks for tokens: letters, single digits, runs of other marks."""
_ENDS = 2
"""The start and the end token."""

CountClipTokens = Callable[[str], int]
"""Number of CLIP's tokens of a text, the start and the end token included."""


@functools.lru_cache(maxsize=2)
def clip_counter(tokenizer: str) -> CountClipTokens:
    """Return a function that counts with a tokenizer, given as the JSON text of the tokenizers library."""
    loaded = Tokenizer.from_str(tokenizer)
    loaded.no_truncation()
    loaded.no_padding()
    return lambda text: len(loaded.encode(text).ids)


def num_pieces(text: str) -> int:
    """Return the words and marks of a text, and the start and the end token: at most CLIP's number of tokens."""
    return _ENDS + len(_PIECES.findall(text))


def clip_digest(tokenizer: str | None) -> str:
    """Return what identifies the way of counting: 16 hex digits of the tokenizer's SHA-256, or `words`."""
    return "words" if tokenizer is None else hashlib.sha256(tokenizer.encode()).hexdigest()[:16]


def find_too_many(config: QualityConfig, count: CountClipTokens | None, text: str) -> Finding | None:
    """Find a text with more than `quality.clip.max_tokens`."""
    limit = config.clip.max_tokens
    number = count(text) if count else num_pieces(text)
    if number <= limit:
        return None
    what = "CLIP tokens" if count else "CLIP tokens at least, counted as words and marks"
    return Finding("max_clip_tokens", f"{number} {what}; allowed: {limit}")


def _check(checked: CheckedText) -> Finding | None:
    return find_too_many(checked.config, checked.count_clip_tokens, checked.text)


RULE = Rule(name=Reason.MAX_CLIP_TOKENS, default=Action.OFF, check=_check)
