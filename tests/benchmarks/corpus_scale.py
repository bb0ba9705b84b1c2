"""Time per record and peak memory of a corpus: all steps, in one process, without Ray.

    python -m tests.benchmarks.corpus_scale --records 100000 --records 1000000

Records are synthetic, as tests draw them, in Parquet tables of 100,000 rows. Each size runs in a process of its own,
and the peak of its resident memory is that of the largest step, DuckDB's included.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import CorpusConfig
from pipeline.config.load import parse_config
from pipeline.corpus.corpus_job import prepare_corpus, steps
from tests.corpus.records import draw_records

FILE_ROWS = 100_000
COPIED = ("general", "character", "copyright", "artist", "meta", "width", "height", "short", "long")
FRESH = 5_000
"""Records that are drawn; the others are copies with new ids and captions, since drawing is slower than reading."""


def write_tables(folder: Path, num_records: int) -> None:
    drawn = draw_records(FRESH, 0).to_pylist()
    rng = random.Random(0)
    for first in range(0, num_records, FILE_ROWS):
        rows = []
        for number in range(first, min(first + FILE_ROWS, num_records)):
            row = drawn[number % FRESH]
            rows.append({
                "id": str(number), "url": f"https://x.org/{number}.jpg", "score": rng.randrange(300),
                "fav_count": rng.randrange(300), "rating": rng.choice("gsqe"), "year": rng.randrange(2006, 2025),
                **{name: row[name] for name in COPIED},
                "tags": row["special"],
            })  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{first // FILE_ROWS:04d}.parquet")


def measure(num_records: int, memory_gib: float) -> dict[str, float]:
    """Run all steps; return seconds by step and the peak of memory in MB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        write_tables(folder / "in", num_records)
        written_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        data = {
            "tables": {"name": "synthetic", "urls": str(folder / "in")},
            "output": str(folder / "out"),
            "memory_gib": memory_gib,
        }
        found: dict[str, float] = {"records": num_records, "mb_before": written_mb}
        for step in steps(prepare_corpus(parse_config(CorpusConfig, data, (), origin="benchmark"))):
            since = time.perf_counter()
            if step.driver_work is not None:
                step.driver_work()
            else:
                for item in step.items:
                    step.work(item)
            found[step.name] = round(time.perf_counter() - since, 2)
        found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return found


@click.command()
@click.option("--records", multiple=True, type=int, default=(20_000, 100_000), show_default=True)
@click.option("--memory-gib", type=float, default=1.0, show_default=True)
@click.option("--one", type=int, hidden=True)
def main(records: tuple[int, ...], memory_gib: float, one: int | None) -> None:
    """Measure each size."""
    if one is not None:
        click.echo(json.dumps(measure(one, memory_gib)))
        return
    for number in records:
        words = ["--one", str(number), "--memory-gib", str(memory_gib)]
        out = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.corpus_scale", *words], check=True, capture_output=True, text=True
        ).stdout
        found = json.loads(out.splitlines()[-1])
        seconds = sum(found[name] for name in ("slice", "records", "dedupe", "publish", "report"))
        click.echo(
            f"{number:>10,} records  {number / seconds:,.0f}/s over all  peak {found['peak_mb']:,.0f} MB  {found}"
        )


if __name__ == "__main__":
    main()
