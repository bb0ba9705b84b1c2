"""CPU time per record and peak memory of a corpus: all steps, in one process, without Ray.

    python -m tests.benchmarks.corpus_scale --records 100000 --records 1000000
    python -m tests.benchmarks.corpus_scale --records 20000 --rounds 5 --against ../checkout-of-another-version

Records are synthetic, as tests draw them, in Parquet tables of 100,000 rows. Each size runs in a process of its own,
and the peak of its resident memory is that of the largest step, DuckDB's included. With --against, processes of this
checkout and the other one take turns, and a line for each step has the medians and the ratio.
"""

import json
import random
import resource
import statistics
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
    """Run all steps; return CPU seconds by step, of all threads, and the peak of memory in MB."""
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
            since = time.process_time()
            if step.driver_work is not None:
                step.driver_work()
            else:
                for item in step.items:
                    step.work(item)
            found[step.name] = round(time.process_time() - since, 2)
        found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return found


STEPS = ("slice", "records", "dedupe", "publish", "report")


def measured(number: int, memory_gib: float, checkout: str | None = None) -> dict[str, float]:
    """Measure in a process of its own, with the code of a checkout."""
    script = f"import runpy, sys; sys.argv[1:] = ['--one', '{number}', '--memory-gib', '{memory_gib}']; "
    words = [sys.executable, "-c", f"{script} runpy.run_path({__file__!r}, run_name='__main__')"]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=checkout)
    return json.loads(done.stdout.splitlines()[-1])


def compare(number: int, memory_gib: float, checkout: str, rounds: int) -> None:
    """Print the medians of both versions for each step."""
    runs = [(measured(number, memory_gib, checkout), measured(number, memory_gib)) for _ in range(rounds)]
    for step in STEPS:
        pairs = [(before[step], after[step]) for before, after in runs]
        rates = [number / statistics.median(values) for values in zip(*pairs, strict=True)]
        ratio = statistics.median(before / after for before, after in pairs)
        click.echo(f"{step:8} {rates[0]:>9,.0f}/s and core there  {rates[1]:>9,.0f}/s here  ratio {ratio:.2f}")


@click.command()
@click.option("--records", multiple=True, type=int, default=(20_000, 100_000), show_default=True)
@click.option("--memory-gib", type=float, default=1.0, show_default=True)
@click.option("--against", type=click.Path(exists=True), help="A checkout of another version.")
@click.option("--rounds", type=int, default=5, show_default=True, help="With --against: processes of each version.")
@click.option("--one", type=int, hidden=True)
def main(records: tuple[int, ...], memory_gib: float, against: str | None, rounds: int, one: int | None) -> None:
    """Measure each size."""
    if one is not None:
        click.echo(json.dumps(measure(one, memory_gib)))
        return
    for number in records:
        if against:
            compare(number, memory_gib, against, rounds)
            continue
        found = measured(number, memory_gib)
        seconds = sum(found[name] for name in STEPS)
        click.echo(
            f"{number:>10,} records  {number / seconds:,.0f}/s and core over all  "
            f"peak {found['peak_mb']:,.0f} MB  {found}"
        )


if __name__ == "__main__":
    main()
