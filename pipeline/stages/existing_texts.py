"""The texts that a source row has for slots, in place of captions: `captions[].existing`."""

from collections.abc import Mapping

from pipeline.config import ExistingAction, ExistingConfig
from pipeline.quality import canonical_json
from pipeline.selection import JSON, evaluate_test


def existing_texts(
    slots: Mapping[str, ExistingConfig], schemas: Mapping[str, str], fields: Mapping[str, JSON]
) -> dict[str, str | None]:
    """Return the text of each slot that has one; None where the slot's row is skipped because of it.

    A slot with a JSON Schema has one only if it is valid JSON under it: readers of the captions rely on that.

    Args:
        slots: the slots that may take a text.
        schemas: of those of them that have a JSON Schema, as JSON text.
        fields: metadata fields of the row.
    """
    texts: dict[str, str | None] = {}
    for slot, config in slots.items():
        value = fields.get(config.field)
        # A caption is never blank, and a line of dashes is none.
        if not isinstance(value, str) or not any(char.isalnum() for char in value):
            continue
        if not evaluate_test(config.when, value):
            continue
        text = canonical_json(value, schemas[slot]) if slot in schemas else value.strip()
        if text is not None:
            texts[slot] = text if config.action is ExistingAction.USE else None
    return texts
