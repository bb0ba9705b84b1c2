"""A form of a corpus export as a record: what it reads of a corpus, and which rows a trainer gets."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from pipeline.config.corpus_export_config import CorpusExportConfig
from pipeline.corpus import corpus_layout
from pipeline.corpus.text.tokenizer import TextTokenizer


class Reads(StrEnum):
    """The folder of a corpus that a form reads."""

    RECORDS = corpus_layout.RECORDS
    TEXTS = corpus_layout.TEXT


Convert = Callable[[pa.Table, Counter[str]], Mapping[str, pa.Table]]
"""Takes the rows of one file of a corpus and returns tables for the files of the export, by name; tables without rows
too. With `by_unit` the only name is empty. It counts what it leaves out or cuts, by reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusForm:
    """A form of an export. Its functions stand at the top of a module."""

    name: str
    """What --to takes."""
    summary: str
    """A line for the help."""
    reads: Reads
    convert: Callable[[CorpusExportConfig, TextTokenizer | None], Convert]
    """Builds the conversion, once an export; the tokenizer is there if the config names one."""
    by_unit: bool = False
    """Whether each file of the corpus becomes one file; else all become the files that the trainer opens by name."""
    json_lines: bool = False
    honours: frozenset[str] = frozenset()
    """Fields of `CorpusExportConfig` besides `to`. Any other option is refused."""
    requires: frozenset[str] = frozenset()
    """Fields without which it cannot write."""
    hint: str = ""
    """For the card: how the trainer gets the files, in Markdown."""
