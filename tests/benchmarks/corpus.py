"""Speed and correctness of the renderer on 100,000 rows a preset: `python -m tests.benchmarks.corpus [--rows N]`.

Every row passes the strict check; the public parser gets tags and captions back from every text that it can read;
tasks, gen_meta and loss have the shares that the preset states (chi-square). Rows per second are CPU time of one
core, from a table of records to a table of rows, without tokens; and with those of a small byte-level BPE.
"""

import argparse
import json
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa

from pipeline.config import Preset, RenderConfig
from pipeline.corpus.records.corpus_record import records_of
from pipeline.corpus.text.count_tokens import count_tokens
from pipeline.corpus.text.render_texts import render_table
from pipeline.corpus.text.text_grammar import check_row, parse_text, profile_of
from pipeline.corpus.text.tokenizer import TextTokenizer
from tests.corpus.expected_shares import accept, accept_share, expected_gen_meta, expected_tasks, kind_of, style_name
from tests.corpus.public_parser import parse_public, representable
from tests.corpus.records import draw_records
from tests.corpus.tiny_tokenizer import train_tokenizer

BATCH = 1000
DRAWN = 7000
"""Number of records; more rows come from more epochs."""


def render(preset: Preset, num_rows: int) -> tuple[list[pa.Table], float]:
    """Return the rows, and the rows per CPU second."""
    config, records = RenderConfig(preset=preset), draw_records(DRAWN)
    tables: list[pa.Table] = []
    done, epoch, started = 0, 0, time.process_time()
    while done < num_rows:
        for at in range(0, DRAWN, BATCH):
            part = records.slice(at, BATCH)
            tables.append(render_table(part, config, epoch=epoch, seed=1, splits=["train"] * len(part)).rows)
            done += tables[-1].num_rows
        epoch += 1
    return tables, done / (time.process_time() - started)


def examine(preset: Preset, tables: list[pa.Table]) -> dict[str, float]:
    """Return the shares of rows that pass, and the smallest p of the chi-square tests."""
    config = RenderConfig(preset=preset)
    profile, kinds = profile_of(config), {item.id: item for item in records_of(draw_records(DRAWN))}
    tasks: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    counts: Counter[str] = Counter()
    for row in (row for table in tables for row in table.to_pylist()):
        counts["rows"] += 1
        counts["passed"] += check_row(row, profile) is None
        counts["all"] += row["loss"] == "all"
        record = kinds[row["id"]]
        kind = kind_of(record)
        assert kind is not None
        tasks[style_name(config, row["source"]), kind][row["task"]] += 1
        if record.rating:
            counts["metadata"] += 1
            counts["gen_meta"] += row["gen_meta"]
        text = row["user"] + row["output"]
        if preset is not Preset.DANTAGGEN and representable(text):
            ours = parse_text(text, profile)
            theirs = parse_public(text, len(ours.predicted))
            counts["parsed"] += 1
            captions = (theirs.get("extended"), theirs.get("generated")) == (ours.short, ours.long)
            counts["recovered"] += captions and theirs.get("tag", []) == ours.tags
    tests = [accept(seen, expected_tasks(config, *key)).p for key, seen in tasks.items()]
    tests.append(accept_share(counts["gen_meta"], counts["metadata"], expected_gen_meta(config, "default")).p)
    tests.append(accept_share(counts["all"], counts["rows"], config.loss_on_all_probability).p)
    return {
        "rows": counts["rows"],
        "strict_pass": counts["passed"] / counts["rows"],
        "public_parser_read": counts["parsed"],
        "public_parser_recovered": counts["recovered"] / counts["parsed"] if counts["parsed"] else float("nan"),
        "chi_square_tests": len(tests),
        "worst_p": min(tests),
        "gen_meta_share": counts["gen_meta"] / max(1, counts["metadata"]),
    }


def tokens_per_second(tables: list[pa.Table]) -> float:
    """Return rows per CPU second of counting alone."""
    rows = pa.concat_tables(tables[:10])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        texts = [row["user"] + row["output"] for row in tables[0].to_pylist()]
        train_tokenizer(texts, path, vocab=4000)
        tokenizer = TextTokenizer(str(path))
        started = time.process_time()
        count_tokens(rows, tokenizer)
        return rows.num_rows / (time.process_time() - started)


def main() -> None:
    """Print a line of JSON for each preset."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--presets", nargs="+", type=Preset, default=list(Preset))
    parser.add_argument("--speed-only", action="store_true")
    args = parser.parse_args()
    draw_records(DRAWN)
    for preset in args.presets:
        tables, per_second = render(preset, args.rows)
        figures = {} if args.speed_only else examine(preset, tables)
        counted = tokens_per_second(tables)
        speed = {"rows_per_cpu_s": round(per_second), "token_counts_per_cpu_s": round(counted)}
        print(json.dumps({"preset": preset, **speed, **figures}), flush=True)


if __name__ == "__main__":
    main()
