"""Builds the data set card of a corpus: README.md as Hugging Face reads it, with examples, figures and counts."""

import html
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.config import CorpusConfig
from pipeline.config.corpus_config import Format
from pipeline.corpus import corpus_layout
from pipeline.corpus.hub_head import FileSet, SplitFiles, hub_head
from pipeline.corpus.report.card_figures import CardFigure
from pipeline.corpus.report.census import Census
from pipeline.corpus.report.training_result import TrainingResult
from pipeline.corpus.text.draws import ORDER
from schemas.corpus_row import CORPUS_ROW, Task
from schemas.record import Split, published_schema

SHOWN_TAGS = 15
FIGURE_PX = 360
"""Width of a figure in the card: two in a row."""
ENDS = 10
"""Steps over which the first and the last loss of a training are averaged: single ones vary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardContent:
    """Everything that a card shows."""

    config: CorpusConfig
    census: Census
    tags: pa.Table
    """Of `schemas.corpus_report.CORPUS_TAGS`."""
    figures: Sequence[CardFigure]
    training: TrainingResult | None
    training_figure: CardFigure | None


def card(content: CardContent) -> str:
    """Return README.md."""
    census, config = content.census, content.config
    rows = census.rows()
    counts = [(row["source"], row["reason"], f"{row['number']:,}") for row in census.count_rows()]
    sections = [
        hub_head(_keys(config), _file_sets(config, census, rows)),
        f"# TIPO training text, preset {config.preset}",
        *_summary(config, census, rows),
        *_figure_section(content.figures),
        *_example_section(census),
        *_training_section(content.training, content.training_figure),
        "## Texts",
        _pivot(rows, "source", "split"),
        _pivot(rows, "epoch", "split"),
        *_order_section(config),
        *_token_section(rows, config),
        "## Tasks, lengths, predicted metadata, loss",
        *(_pivot(rows, name, "source") for name in ("task", "length", "gen_meta", "loss")),
        "## Tags",
        _tag_table(content.tags),
        f"`{corpus_layout.REPORT}/tags.parquet` lists all tags.",
        "## Dropped records and other counts",
        _folded(f"{len(counts)} counts by source and reason", _table(("source", "reason", "number"), counts)),
    ]
    return "\n\n".join(sections) + "\n"


def _keys(config: CorpusConfig) -> Mapping[str, Any]:
    return {
        **({"license": config.license} if config.license else {}),
        "task_categories": ["text-generation"],
        "tags": ["tipo", str(config.preset)],
    }


def _file_sets(config: CorpusConfig, census: Census, rows: Sequence[Mapping[str, Any]]) -> list[FileSet]:
    form = Format.PARQUET if Format.PARQUET in config.formats else Format.JSONL
    texts: Counter[str] = Counter()
    for row in rows:
        texts[row["split"]] += row["rows"]
    kinds = [(corpus_layout.TEXT, f"**/*{corpus_layout.SUFFIXES[form]}", CORPUS_ROW, texts)]
    # `datasets` reads all configs of a folder with one builder, so records are not listed beside JSON Lines.
    if form is Format.PARQUET:
        kinds.append(
            (
                corpus_layout.RECORDS,
                "**/*.parquet",
                published_schema(knows_language=config.knows_language),
                census.records,
            )
        )
    file_sets: list[FileSet] = []
    for kind, glob, schema, num_rows in kinds:
        splits = {
            str(split): SplitFiles(
                glob=f"{kind}/{split}/{glob}",
                num_rows=num_rows[split],
                num_bytes=census.num_bytes[f"{kind}/{split}"] if census.measured else None,
            )
            for split in Split
            if num_rows[split]
        }
        if splits:
            file_sets.append(FileSet(name=kind, splits=splits, schema=schema))
    return file_sets


def _summary(config: CorpusConfig, census: Census, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    texts: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for row in rows:
        texts[row["split"]] += row["rows"]
        tokens[row["split"]] += row["n_tokens"] or 0
    lines = [("texts", texts), ("records", census.records), *([("tokens", tokens)] if config.tokenizer else [])]
    head = ("", *map(str, Split), "together")
    body = [(name, *(f"{counts[split]:,}" for split in Split), f"{counts.total():,}") for name, counts in lines]
    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs:,} epochs"
    sentences = [
        f"{texts.total():,} training texts in {epochs}, drawn from {census.records.total():,} records by JoyFleet. "
        "A text is `user + output`; if `loss` is `output`, no loss is computed on the user half.",
        _table(head, body),
        "```python\nfrom datasets import load_dataset\n\n"
        'texts = load_dataset("this/repository", split="train")\n'
        + (
            'records = load_dataset("this/repository", "records", split="train")\n'
            if Format.PARQUET in config.formats
            else ""
        )
        + "```",
        "`records/` holds the records from which the texts were drawn. The public trainers do not read it as it is: v2 "
        "never reads `special`, and v1 needs tags, captions and sizes that a record may lack. `joyfleet export-corpus` "
        "writes the files of each trainer.",
    ]
    if census.without_size:
        sentences.append(
            f"Of {census.without_size:,} records the width or the height is unknown, so their texts have no aspect "
            "ratio."
        )
    return sentences


def _figure_section(figures: Sequence[CardFigure]) -> list[str]:
    return ["## Figures", "<p>\n" + "\n".join(map(_image, figures)) + "\n</p>"] if figures else []


def _image(figure: CardFigure) -> str:
    return f'<img src="{figure.path}" width="{FIGURE_PX}" alt="{html.escape(figure.title)}">'


def _example_section(census: Census) -> list[str]:
    texts: Counter[str] = Counter()
    for row in census.rows():
        texts[row["task"]] += row["rows"]
    body: list[tuple[str, str]] = []
    for task in map(str, Task):
        if texts[task]:
            example = census.examples.get(task)
            shown = _example(example["user"], example["output"]) if example else "an earlier release kept no example"
            body.append((f"<code>{task}</code><br>{texts[task]:,} texts", shown))
    if not body:
        return []
    sentence = "The user half is in bold; a model is trained to write the rest."
    return ["## An example of each task", sentence, _html_table(("task", "text"), body)]


def _example(user: str, output: str) -> str:
    return f"<b>{_lines(user)}</b>{_lines(output)}"


def _lines(text: str) -> str:
    """Return a text as HTML of one line: an empty line would end a table, and Markdown would be read behind it."""
    return html.escape(text, quote=False).replace("\n", "<br>")


def _html_table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Return a table whose cells are HTML; long lines wrap, unlike those of a code block."""
    rows = ["".join(f"<td>{cell}</td>" for cell in line) for line in body]
    head_row = "".join(f"<th>{cell}</th>" for cell in head)
    return "<table>\n" + "".join(f"<tr>{row}</tr>\n" for row in (head_row, *rows)) + "</table>"


def _training_section(result: TrainingResult | None, figure: CardFigure | None) -> list[str]:
    if result is None or figure is None:
        return []
    first, last = (statistics.fmean(part) for part in (result.losses[:ENDS], result.losses[-ENDS:]))
    known = [
        ("model", f"{result.model}, {result.num_parameters:,} parameters"),
        ("trained by", result.trainer),
        ("steps", f"{result.num_steps:,}, {result.batch_texts:,} texts each"),
        ("loss, first and last steps", f"{first:.3f}, {last:.3f}"),
    ]
    if result.validation_losses:
        begin, end = result.validation_losses[0][1], result.validation_losses[-1][1]
        known.append(("loss on held-out texts, first and last", f"{begin:.3f}, {end:.3f}"))
    if result.num_tokens is not None:
        known.append(("tokens with loss", f"{result.num_tokens:,}"))
    if result.seconds is not None:
        known.append(("time", f"{result.seconds:,.0f} s"))
    sections = ["## A model trained on it", f"<p>{_image(figure)}</p>", _table(known[0], known[1:])]
    if result.continuations:
        made = [(_example(text.prompt, text.output),) for text in result.continuations]
        sections += ["The trained model continued these prompts, in bold:", _html_table(("text",), made)]
    return sections


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


def _folded(title: str, content: str) -> str:
    """Return a part that a reader of the card opens. Markdown inside HTML needs empty lines around it."""
    return f"<details>\n<summary>{title}</summary>\n\n{content}\n\n</details>"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Return a table whose columns of numbers are aligned right."""
    lines = list(body)
    numeric = [bool(lines) and all(_is_number(line[place]) for line in lines) for place in range(len(head))]
    rule = ["---:" if right else "---" for right in numeric]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in (head, rule, *lines))


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "", 1).isdigit()


def _cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")
