"""The split of a data set that a file belongs to, by the file names of Hugging Face data sets."""

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
    """The split that is named in a path below a source's root, or None.

    Args:
        path: POSIX.
        by_folder: use only the folders, since the file is an image and may have any name.
    """
    folder, _, base = path.rpartition("/")
    if not by_folder:
        numbered = _NUMBERED.match(base)
        if numbered:
            return _SPLIT_OF.get(numbered["split"].lower(), numbered["split"])
        folder = path
    splits = [_SPLIT_OF[piece] for piece in _PIECES.split(folder.lower()) if piece in _SPLIT_OF]
    return splits[-1] if splits else None


def in_split(path: str, split: str | None, *, by_folder: bool = False) -> bool:
    """Whether a file is in the configured split; without one every file is."""
    return split is None or split_of(path, by_folder=by_folder) == split
