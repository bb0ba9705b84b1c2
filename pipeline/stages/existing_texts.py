"""The texts that a source row has for slots, in place of captions: `captions[].existing`."""

from collections.abc import Mapping

from pipeline.config import ExistingAction, ExistingConfig
from pipeline.selection import JSON, evaluate_test


def existing_texts(slots: Mapping[str, ExistingConfig], fields: Mapping[str, JSON]) -> dict[str, str | None]:
    """Return the text of each slot that has one; None where the slot's row is skipped because of it.

    Args:
        slots: the slots that may take a text.
        fields: metadata fields of the row.
    """
    texts: dict[str, str | None] = {}
    for slot, config in slots.items():
        value = fields.get(config.field)
        # A caption is never blank, and a line of dashes is none.
        if not isinstance(value, str) or not any(char.isalnum() for char in value):
            continue
        if evaluate_test(config.when, value):
            texts[slot] = value.strip() if config.action is ExistingAction.USE else None
    return texts
