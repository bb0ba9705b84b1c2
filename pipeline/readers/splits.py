"""Which split of a data set a file belongs to, by the names that Hugging Face data sets give their files."""

import re

# Hugging Face `datasets` knows the same words (docs: "Structure your repository"). `data/pets-00000-of-00005` names a
# split of its own.
WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_NUMBERED = re.compile(r"(?P<split>\w+(?:\.\w+)*)-\d{5}-of-\d{5}\b")
_SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}
_PIECES = re.compile(r"[-._ /0-9]+")


def split_of(path: str, *, by_folder: bool = False) -> str | None:
    """The split that a path below a source's root names, or None.

    Args:
        path: POSIX.
        by_folder: look at the folders alone, since the file is an image and may be called anything.
    """
    folder, _, base = path.rpartition("/")
    if not by_folder:
        numbered = _NUMBERED.match(base)
        if numbered:
            return _SPLIT_OF.get(numbered["split"].lower(), numbered["split"])
        folder = path
    found = [_SPLIT_OF[piece] for piece in _PIECES.split(folder.lower()) if piece in _SPLIT_OF]
    return found[-1] if found else None


def in_split(path: str, split: str | None, *, by_folder: bool = False) -> bool:
    """Whether a file is asked for: any is when no split is."""
    return split is None or split_of(path, by_folder=by_folder) == split
