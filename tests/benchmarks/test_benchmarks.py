"""The suite names every benchmark, and its arithmetic is right. What they measure is not for tests."""

from pathlib import Path

import pytest

from pipeline.config import GpuPreset
from pipeline.engines.cards import CARDS
from pipeline.engines.roofline import roofline
from pipeline.engines.shape import JOYCAPTION
from tests.benchmarks.__main__ import NAMES
from tests.benchmarks.gpu import shares
from tests.benchmarks.growth import bookkeeping
from tests.benchmarks.report import Middle, table


def test_the_page_lists_what_the_suite_runs():
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text().partition("\n## ")[0]
    listed = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert listed
    assert listed <= set(NAMES)


def test_a_rate_counts_neither_start_nor_end():
    middle = Middle(100)
    for done, seconds in ((0, 0.0), (10, 50.0), (20, 60.0), (50, 63.0), (80, 66.0), (100, 90.0)):
        middle.look(done, seconds, seconds / 2)
    assert middle.rate() == {"per_s": 10.0, "cpu_ms": 50.0}


def test_a_table_has_all_columns_of_all_rows():
    assert table([{"a": 1, "b": 0.12345}, {"a": 2345.6, "c": "x"}]).splitlines() == [
        "| a    | b     | c |",
        "| ---- | ----- | - |",
        "| 1    | 0.123 |   |",
        "| 2346 |       | x |",
    ]


def test_bookkeeping_ends_with_every_shard_whole(tmp_path):
    rows = bookkeeping(tmp_path, 100)
    assert [row["shards"] for row in rows] == list(range(0, 101, 10))


@pytest.mark.parametrize("card", [GpuPreset.H100, GpuPreset.A10G])
def test_a_rate_at_the_roofline_is_all_of_it(card):
    at_best = roofline(CARDS[card], 2, 800, 120)
    found = shares(JOYCAPTION, f"NVIDIA {CARDS[card].marks[0]}", 2, 800, 120, at_best)
    assert found["of_roofline"] == pytest.approx(1)
    assert 0.2 < found["of_stated_flops"] <= 0.45
    assert shares(JOYCAPTION, "Tesla T4", 2, 800, 120, at_best) == {}
