"""The suite names every benchmark, and its arithmetic is right. What they measure is not for tests."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import GpuPreset
from pipeline.engines.gpus import GPUS
from pipeline.engines.roofline import roofline
from pipeline.models import FAMILIES
from tests.benchmarks.__main__ import NAMES
from tests.benchmarks.gpu import shares
from tests.benchmarks.growth import bookkeeping
from tests.benchmarks.report import Middle, table
from tests.benchmarks.soak import Series, row_of, slope

JOYCAPTION = FAMILIES["joycaption"].dims


def test_the_page_lists_what_the_suite_runs():
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text().partition("\n## ")[0]
    listed = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert listed
    assert listed <= set(NAMES)


def imported(file: Path) -> Iterator[tuple[str, str]]:
    """Module and name of every import of ours in a file, those inside its functions included."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in {
            "pipeline",
            "schemas",
            "tests",
        }:
            yield from ((node.module or "", alias.name) for alias in node.names)


def named(module: str) -> set[str]:
    """What a module defines or imports at its top, and its submodules; it is not run, so that vLLM is not loaded."""
    spec = importlib.util.find_spec(module)
    assert spec, module
    assert spec.origin, module
    names = {file.stem for place in spec.submodule_search_locations or () for file in Path(place).iterdir()}
    for node in ast.parse(Path(spec.origin).read_text()).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            case ast.Assign() | ast.AnnAssign():
                names |= {leaf.id for leaf in ast.walk(node) if isinstance(leaf, ast.Name)}
    return names


@pytest.mark.parametrize("file", sorted(Path(__file__).parent.glob("*.py")), ids=lambda file: file.stem)
def test_a_benchmark_imports_what_there_is(file):
    # They are run by hand and import inside their functions: without this a renamed name is found months later.
    assert {(module, name) for module, name in imported(file) if name not in named(module)} == set()


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


def test_a_slope_is_not_bent_by_a_few_wild_samples():
    images = np.linspace(0, 10, 101)
    memory = 100 + 3 * images
    memory[::10] += 500
    assert slope(images, memory) == pytest.approx(3, abs=0.1)


def test_a_soak_distinguishes_growth_that_ends_from_growth_that_continues():
    # One sample a second, 10,000 images a second; the warm-up is the first quarter of 400 s.
    def row(*memory: float) -> str:
        points = [(float(second), 10_000 * second, mb, mb, mb) for second, mb in enumerate(memory)]
        result = row_of(Series(points=points), 400)
        assert result
        return result["per_million_by_quarter"]

    assert row(*(100 + 0.02 * second for second in range(401))) == "2.0 2.0 2.0 2.0"
    assert row(*(100 + 0.02 * min(second, 250) for second in range(401))) == "2.0 2.0 0.0 0.0"


@pytest.mark.parametrize("card", [GpuPreset.H100, GpuPreset.A10G])
def test_a_rate_at_the_roofline_is_all_of_it(card):
    at_best = roofline(JOYCAPTION, GPUS[card], 2, 800, 120)
    result = shares(JOYCAPTION, f"NVIDIA {GPUS[card].marks[0]}", 2, 800, 120, at_best)
    assert result["of_roofline"] == pytest.approx(1)
    assert 0.2 < result["of_stated_flops"] <= 0.45
    assert shares(JOYCAPTION, "Tesla T4", 2, 800, 120, at_best) == {}
