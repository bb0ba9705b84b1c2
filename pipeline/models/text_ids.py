"""Encodes texts that anyone may have written as plain text: marks of a chat template in them never become markup.

Every family uses it, since nothing would report a second turn or a second image that a field of the source made.
"""

import re
from functools import lru_cache
from itertools import pairwise
from typing import Any

from pipeline.errors import ModelMismatch


def text_ids(tokenizer: Any, text: str) -> list[int]:  # noqa: ANN401 - transformers'
    """Return the ids of a text, in which the tokens of `markup_tokens` are text."""
    # The tokenizer splits special tokens itself, and would still recognise the others: a text with one is encoded in
    # parts, divided behind the first character of each.
    pattern = _others(tokenizer)
    cuts = [match.start() + 1 for match in pattern.finditer(text)] if pattern else []
    ids: list[int] = []
    for start, end in pairwise([0, *cuts, len(text)]):
        ids += tokenizer.encode(text[start:end], add_special_tokens=False, split_special_tokens=True)
    return ids


def markup_tokens(tokenizer: Any) -> tuple[str, ...]:  # noqa: ANN401 - transformers'
    """Return the special tokens, and the other added tokens that the chat template writes, such as `<think>`.

    Some tokenizers add tokens that are text, such as two line ends: these are left out.
    """
    template = str(tokenizer.chat_template or "")
    return tuple(
        str(token)
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or (str(token).strip() and str(token) in template)
    )


@lru_cache(maxsize=8)
def _others(tokenizer: Any) -> re.Pattern[str] | None:  # noqa: ANN401 - transformers'
    """Matches where a token of `markup_tokens` begins that is not special; one of a single character stays whole."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    others = [re.escape(token) for token in markup_tokens(tokenizer) if token not in special and len(token) > 1]
    return re.compile(f"(?={'|'.join(others)})") if others else None


def special_ids(tokenizer: Any, name: str) -> frozenset[int]:  # noqa: ANN401 - transformers'
    """Return the ids that no text may have.

    Args:
        tokenizer: the model's.
        name: the model, for messages.

    Raises:
        ModelMismatch: the tokenizer does not keep special tokens within a text as text.
    """
    special = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    markup = sorted(special.keys() & set(text_ids(tokenizer, "".join(special.values()))))
    if markup:
        raise ModelMismatch(
            f"{name}: its tokenizer makes markup of {special[markup[0]]} within a text; a prompt may hold any text"
        )
    return frozenset(special)
