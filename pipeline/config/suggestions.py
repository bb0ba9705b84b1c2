"""What a mistyped word was probably meant to be."""

import difflib
from collections.abc import Iterable


def did_you_mean(words: str | Iterable[str], allowed: Iterable[str]) -> str:
    """Return `; did you mean X?` with the closest allowed name of each word, or nothing if none is close."""
    names = [words] if isinstance(words, str) else words
    choices = list(allowed)
    close = [match for name in names for match in difflib.get_close_matches(name, choices, n=1)]
    return f"; did you mean {', '.join(dict.fromkeys(close))}?" if close else ""
