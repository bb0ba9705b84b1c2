"""The epochs that were added to a finished corpus. An extension never changes a file of texts, records or counts.

The record of an extension holds the counts of the report as it was before, since their sources are gone with the
staging files. So the report of the extended corpus follows from stored files, whenever a killed run resumes.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import put_json, read_json, read_table
from pipeline.errors import ConfigError
from pipeline.storage import Store
from schemas.corpus_report import CORPUS_COUNTS

_RECORD = re.compile(rf"{corpus_layout.EXTENSIONS}/(\d+)\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """One extension of a corpus."""

    first: int
    """The first added epoch, from 0: the number of epochs before."""
    epochs: int
    """Number of epochs after it."""
    counts: tuple[tuple[str, str, int], ...]
    """Source, reason and number of each count of the report before it."""


def read_extensions(store: Store) -> list[Extension]:
    """Return the extensions of a corpus, complete or not, in their order."""
    matches = (_RECORD.fullmatch(entry.path) for entry in store.list(corpus_layout.EXTENSIONS))
    return [_read(store, epochs) for epochs in sorted(int(match[1]) for match in matches if match)]


def _read(store: Store, epochs: int) -> Extension:
    record = read_json(store, corpus_layout.extension_path(epochs))
    counts = tuple((source, reason, number) for source, reason, number in record["counts"])
    return Extension(first=record["first"], epochs=epochs, counts=counts)


def is_finished(store: Store) -> bool:
    """Whether the corpus and all of its extensions are complete."""
    return store.exists(corpus_layout.CARD) and all(
        store.exists(corpus_layout.extension_done_path(extension.epochs)) for extension in read_extensions(store)
    )


def claim_extension(store: Store, extensions: Sequence[Extension], epochs: int, bound_epochs: int) -> Extension:
    """Return the extension to so many epochs, which is begun if it does not exist.

    Args:
        store: the corpus.
        extensions: those that it has.
        epochs: wanted; more than `bound_epochs`, or fewer, which is refused.
        bound_epochs: of the recipe with which it was begun.

    Raises:
        ConfigError: it is not finished, or has more epochs.
    """
    last = extensions[-1].epochs if extensions else bound_epochs
    if epochs < last:
        raise ConfigError(f"--epochs {epochs}: {store.url} has {last} epochs already; allowed: {last} or more")
    if store.exists(corpus_layout.extension_path(epochs)):
        return _read(store, epochs)
    if not is_finished(store):
        options = f" --epochs {last}" if extensions else ""
        raise ConfigError(
            f"--epochs {epochs}: {store.url} is not finished; finish its {last} epochs first: "
            f"joyfleet corpus JOB{options}"
        )
    report = read_table(store, f"{corpus_layout.REPORT}/counts.parquet", CORPUS_COUNTS).to_pylist()
    counts = [(row["source"], row["reason"], row["number"]) for row in report]
    put_json(store, corpus_layout.extension_path(epochs), {"first": last, "counts": counts})
    return _read(store, epochs)


def counts_before(extension: Extension) -> Counter[tuple[str, str]]:
    """Return the counts of the report before an extension, by source and reason."""
    return Counter({(source, reason): number for source, reason, number in extension.counts})
