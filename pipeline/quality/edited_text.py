"""What a text that a person wrote must not contain: the rules that hold for every text, whatever the prompt was.

The other rules compare a text with its prompt, its mode or the habits of a model. An editor has seen the image, and
decides.
"""

import re

from pipeline.quality.json_answer import JsonAnswer, read_answer
from pipeline.quality.special_tokens import find_special_tokens

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")


def find_control_character(text: str) -> str | None:
    """Say which control character a text has, or None; a line feed is none."""
    match = _CONTROL.search(text)
    return f"control character {match[0]!r} at offset {match.start()}; allowed: none but a line feed" if match else None


def edited_text_mistake(text: str, schema: str | None = None) -> str | None:
    """Say why a text cannot be a caption, or None.

    Args:
        text: the caption.
        schema: JSON Schema of its slot, as JSON text; None for a slot of texts.
    """
    if not any(char.isalnum() for char in text):
        return f"caption {text!r}: has no letter and no digit; to take a caption away, set the status to rejected"
    control = find_control_character(text)
    if control:
        return f"caption: {control}"
    finding = find_special_tokens(text)
    if finding:
        return f"caption: {finding.message} is a mark of a chat template; remove it"
    return None if schema is None else _json_mistake(text, schema)


def _json_mistake(text: str, schema: str) -> str | None:
    answer = read_answer(text, schema, None)
    if isinstance(answer, JsonAnswer):
        # As it will be stored: without the escapes that may hide a character.
        return edited_text_mistake(answer.canonical)
    return f"caption: {answer[1].message}; allowed: JSON that is valid under the schema of its slot"
