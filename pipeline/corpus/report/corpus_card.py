"""Builds the data set card of a corpus: README.md as Hugging Face reads it, with the census as tables."""

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.config import CorpusConfig
from pipeline.config.corpus_config import Format
from pipeline.corpus import corpus_layout
from pipeline.corpus.hub_head import hub_head
from pipeline.corpus.report.census import Census
from pipeline.corpus.text.draws import ORDER
from schemas.corpus_row import CORPUS_ROW
from schemas.record import Split, published_schema

SHOWN_TAGS = 15


def card(config: CorpusConfig, census: Census, tags: pa.Table) -> str:
    """Return README.md."""
    rows = census.rows()
    total = sum(row["rows"] for row in rows)
    counts = [(row["source"], row["reason"], f"{row['number']:,}") for row in census.count_rows()]
    sections = [
        _head(config, census, total),
        f"# TIPO training text, preset {config.preset}",
        f"{total:,} training texts in {config.epochs} epochs, drawn from {census.records.total():,} records by "
        "JoyFleet. A text is `user + output`; if `loss` is `output`, no loss is computed on the user half. `records/` "
        "holds the records from which the texts were drawn. The public trainers do not read it as it is: v2 never "
        "reads `special`, and v1 needs tags, captions and sizes that a record may lack. "
        "`joyfleet export-corpus` writes the files of each trainer. Of "
        f"{census.without_size:,} records the width or the height is unknown, so their texts have no aspect ratio.",
        "## Texts",
        _pivot(rows, "split", "epoch"),
        _pivot(rows, "source", "split"),
        *_order_section(config),
        *_token_section(rows, config),
        "## Tasks, lengths, predicted metadata, loss",
        *(_pivot(rows, name, "source") for name in ("task", "length", "gen_meta", "loss")),
        "## Dropped records and other counts",
        _table(("source", "reason", "number"), counts),
        "## Tags",
        _tag_table(tags),
        f"`{corpus_layout.REPORT}/tags.parquet` lists all tags.",
        "## Samples",
        *map(_sample, census.samples),
    ]
    return "\n\n".join(sections) + "\n"


def _head(config: CorpusConfig, census: Census, total: int) -> str:
    form = Format.PARQUET if Format.PARQUET in config.formats else Format.JSONL
    kinds = {corpus_layout.TEXT: (f"**/*{corpus_layout.SUFFIXES[form]}", CORPUS_ROW)}
    # `datasets` reads all configs of a folder with one builder, so records are not listed beside JSON Lines.
    if form is Format.PARQUET:
        kinds[corpus_layout.RECORDS] = ("**/*.parquet", published_schema(knows_language=config.knows_language))
    keys = {
        **({"license": config.license} if config.license else {}),
        "task_categories": ["text-generation"],
        "tags": ["tipo", str(config.preset)],
    }
    splits = [split for split in Split if census.records[split]]
    configs = {
        kind: ({str(split): f"{kind}/{split}/{glob}" for split in splits}, schema)
        for kind, (glob, schema) in kinds.items()
    }
    return hub_head(keys, configs, total)


def _pivot(rows: Sequence[Mapping[str, Any]], down: str, across: str) -> str:
    """Return the numbers of texts: a row for each value of `down`, a column for each value of `across`."""
    counted: Counter[tuple[str, str]] = Counter()
    for row in rows:
        counted[str(row[down]), str(row[across])] += row["rows"]
    columns = sorted({column for _, column in counted})
    values = sorted({value for value, _ in counted})
    body = [(value, *(f"{counted[value, column]:,}" for column in columns)) for value in values]
    return _table((down, *(f"{across} {column}" for column in columns)), body)


def _order_section(config: CorpusConfig) -> list[str]:
    if config.shuffle is None:
        return []
    shuffle = config.shuffle
    size = f"at most {shuffle.rows:,} texts" if shuffle.rows else f"about {shuffle.mb:g} MB of text"
    return [
        "## Order",
        f"The texts of all sources are mixed: a file of `{corpus_layout.TEXT}/` holds {size} of one split and epoch. "
        f"Order: {ORDER}. Seed: {shuffle.seed}. `{corpus_layout.MANIFEST}/` lists the files of each split and epoch.",
    ]


def _token_section(rows: Sequence[Mapping[str, Any]], config: CorpusConfig) -> list[str]:
    if config.tokenizer is None:
        return []
    body: list[tuple[str, ...]] = []
    for source in sorted({row["source"] for row in rows}):
        own = [row for row in rows if row["source"] == source]
        sums = [sum(row[name] or 0 for row in own) for name in ("rows", "n_tokens", "n_trained", "too_long")]
        body.append((source, *(f"{number:,}" for number in sums), f"{sums[1] / max(1, sums[0]):.1f}"))
    head = (
        "source",
        "texts",
        "tokens",
        "trained tokens",
        f"texts over {config.tokenizer.context} tokens",
        "mean tokens",
    )
    return ["## Tokens", _table(head, body)]


def _tag_table(tags: pa.Table) -> str:
    shown: dict[str, list[str]] = {}
    kinds: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    for batch in tags.to_batches():
        for row in batch.to_pylist():
            kinds[row["category"]] += 1
            uses[row["category"]] += row["records"]
            first = shown.setdefault(row["category"], [])
            if len(first) < SHOWN_TAGS:
                first.append(f"{row['tag']} ({row['records']:,})")
    body = [(name, f"{kinds[name]:,}", f"{uses[name]:,}", ", ".join(first)) for name, first in shown.items()]
    return _table(("category", "tags", "uses", "most frequent"), body)


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _sample(row: Mapping[str, Any]) -> str:
    """Return a text with its user half in bold; as HTML, so that no part of it is read as Markdown."""
    user, output = (html.escape(row[half], quote=False).replace("\n", "&#10;") for half in ("user", "output"))
    return f"`{row['task']}`\n\n<pre><b>{user}</b>{output}</pre>"
