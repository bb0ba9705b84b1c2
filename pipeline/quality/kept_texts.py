"""Which texts of a prompt a caption is compared with: the caption or the alt text that it shortens or merges."""

from collections.abc import Mapping, Sequence

from pipeline.config import KeptConfig

MAX_TAG_WORDS = 4
"""An item with at most so many words is a tag or a name, a longer one a text."""


def compared_texts(config: KeptConfig, given: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the texts of `quality.kept.texts` that a prompt has.

    Args:
        config: `quality.kept`.
        given: by placeholder, the items that the prompt has in its place.
    """
    names = config.texts or [name for name, items in given.items() if any(map(_is_text, items))]
    return tuple(" ".join(given[name]) for name in names if given.get(name))


def _is_text(item: str) -> bool:
    return len(item.split()) > MAX_TAG_WORDS
