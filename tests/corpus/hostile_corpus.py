"""Hostile records through every preset and every export: `python -m tests.corpus.hostile_corpus [--records N]`.

Each text is checked by our own grammar, and texts of the TIPO presets by the public parser (tipo-kgen), which must give
back the same tags and captions. Each export's rows are read again by their schema; with `--loaders FOLDER` (see
`tests.corpus.record_loaders`) the public loaders render them, and a malformed text that is no known defect of a
renderer is a fault. Exit code 1 if there is a fault.
"""

import argparse
import copy
import json
import random
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import pyarrow as pa

from pipeline.config import Preset, RenderConfig
from pipeline.config.corpus_export_config import CorpusExportConfig, TokeniseBy
from pipeline.corpus.export.forms import dantaggen, tipo_v1, tipo_v2, tokens
from pipeline.corpus.text.render_texts import render_table
from pipeline.corpus.text.text_grammar import Profile, check_row, parse_text, profile_of
from pipeline.corpus.text.tokenizer import TextTokenizer
from tests.corpus.public_parser import parse_public, representable
from tests.corpus.record_loaders import checked, load
from tests.corpus.records import draw_records
from tests.corpus.test_hostile import hostile_records
from tests.corpus.tiny_tokenizer import train_tokenizer

CHUNK = 1000
PARSED = (Preset.TIPO_V1, Preset.TIPO_V2, Preset.TIPO_V2_1)
"""Presets that the public parser reads."""


def chunk(seed: int, num: int, loaders: str | None, tokenizer: str) -> Counter[str]:
    """Return what became of `num` records; keys that begin with FAULT are faults."""
    counts: Counter[str] = Counter()
    records = hostile_records(num, seed)
    counts["records"] = records.num_rows
    for preset in Preset:
        _texts(records, preset, seed, counts, tokenizer)
    render = load(Path(loaders))["render"] if loaders else {}
    for module in (tipo_v1, tipo_v2, dantaggen):
        for name, table in module.convert(records, Counter()).items():
            _exported(f"{module.FORM.name}/{name}", table, render, counts)
    return counts


def _texts(records: pa.Table, preset: Preset, seed: int, counts: Counter[str], tokenizer: str) -> None:
    config = RenderConfig(preset=preset)
    profile = profile_of(config)
    rows = render_table(records, config, epoch=0, seed=seed, splits=["train"] * records.num_rows).rows
    for row in rows.to_pylist():
        counts[f"texts of {preset}"] += 1
        fault = check_row(row, profile)
        if fault:
            counts[f"FAULT of {preset}: {fault}"] += 1
        elif preset in PARSED:
            _parse(row["user"] + row["output"], profile, counts)
    for by in TokeniseBy:
        convert = tokens.convert(CorpusExportConfig(to="tokens", tokenise=by), TextTokenizer(tokenizer))
        exported = convert(rows, Counter())[""].to_pylist()
        counts[f"tokenised texts, {by}"] += len(exported)
        if any(len(row["input_ids"]) != len(row["labels"]) for row in exported):
            counts[f"FAULT of tokens, {by}: ids and labels differ in length"] += 1


def _parse(text: str, profile: Profile, counts: Counter[str]) -> None:
    if not representable(text):
        counts["texts that the public parser cannot represent"] += 1
        return
    ours = parse_text(text, profile)
    public = parse_public(text, len(ours.predicted))
    counts["texts parsed by the public parser"] += 1
    if (public.get("tag", []), public.get("extended"), public.get("generated")) != (ours.tags, ours.short, ours.long):
        counts["FAULT: the public parser reads something else"] += 1
        print(repr(text), public, ours, file=sys.stderr)


def _exported(name: str, table: pa.Table, render: dict, counts: Counter[str]) -> None:
    table.validate(full=True)
    for number, row in enumerate(table.to_pylist()):
        counts[f"rows of {name}"] += 1
        json.dumps(row, allow_nan=False)
        if name not in render:
            continue
        random.seed(number)
        fault, known = checked(name, "".join(render[name](copy.deepcopy(row))))
        counts[f"texts of the loader of {name}"] += 1
        if fault:
            counts[f"{'known defect' if known else 'FAULT'} of the loader of {name}: {fault[:60]}"] += 1


def main() -> int:
    """Print the counts."""
    parser = argparse.ArgumentParser("python -m tests.corpus.hostile_corpus")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--loaders", help="folder with the checkouts that tests.corpus.record_loaders needs")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    total: Counter[str] = Counter()
    seeds = range(args.seed, args.seed + -(-args.records // CHUNK))
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2) as pool:
        tokenizer = Path(folder, "tokenizer.json")
        drawn = render_table(draw_records(300), RenderConfig(), epoch=0, seed=1, splits=["train"] * 300).rows
        train_tokenizer(drawn["output"].to_pylist(), tokenizer)
        for counts in pool.map(chunk, seeds, repeat(CHUNK), repeat(args.loaders), repeat(str(tokenizer))):
            total += counts
    for name, number in sorted(total.items()):
        print(f"{number:>9,}  {name}")
    return int(any(name.startswith("FAULT") for name in total))


if __name__ == "__main__":
    sys.exit(main())
