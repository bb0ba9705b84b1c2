"""The GPU benchmarks run, on a CPU with small dimensions; their tables are those of the product."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.engines.gpus import GPUS
from pipeline.models import FAMILIES
from tests.benchmarks import gpu_parts

ROOT = Path(__file__).parents[2]
DIMS = FAMILIES["joycaption"].dims


def run(name, *words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", "--tiny", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    return done.stdout


def rows_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_parts_have_joycaptions_shape_and_the_cards_peaks():
    shape = gpu_parts.Shape()
    assert (shape.hidden, shape.layers, shape.heads, shape.kv_heads) == (4096, DIMS.layers, DIMS.heads, DIMS.kv_heads)
    assert (shape.head_dim, shape.mlp, shape.vocab) == (DIMS.head_dim, DIMS.mlp, DIMS.vocab)
    assert (shape.vision_hidden, shape.vision_layers) == (DIMS.vision.hidden, DIMS.vision.layers)
    assert (shape.vision_mlp, shape.vision_tokens) == (DIMS.vision.mlp, DIMS.vision.tokens)
    peaks = [(round(flops / 1e12, 3), round(size / 1e12, 3)) for flops, size in gpu_parts.PEAKS.values()]
    assert sorted(peaks) == sorted((round(c.flops / 1e12, 3), round(c.bytes_per_s / 1e12, 3)) for c in GPUS.values())


@pytest.mark.parametrize("name", ["gpu_parts", "gpu_kernels"])
def test_the_parts_import_nothing_of_ours_but_each_other(name):
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    heads = {(module or "").partition(".")[0] for module in modules} - set(sys.stdlib_module_names)
    assert heads <= {"torch", "transformers", "triton", "tests"}
    assert {module for module in modules if (module or "").startswith("tests")} <= {"tests.benchmarks"}


@pytest.mark.long
def test_the_parts_run_and_write_a_row_each(tmp_path):
    file = tmp_path / "parts.jsonl"
    out = run("gpu_parts", "--reps", 2, "--json", file)
    assert out.startswith("expected: ")
    about, *rows = rows_of(file)
    assert about["device"]
    assert [row["part"] for row in rows] == [
        *["vision tower"] * 2,
        *["qkv", "attention output", "gate and up", "down", "output head", "products of a step"],
        *["top-p, sorting (torch)", "gumbel (torch)", "decode attention (torch)"],
    ]
    assert all(row["ms"] >= 0 for row in rows)


@pytest.mark.long
def test_the_gpu_benchmark_runs_both_ways_and_writes_a_row_each(tmp_path):
    words = ("--images", 4, "--caption-tokens", 8, "--rounds", 1, "--slots", 1, 2, "--peaked")
    out = run("gpu", *words, "--json", tmp_path / "gpu.json")
    assert out.startswith("expected: ")
    rows = rows_of(tmp_path / "gpu.jsonl")
    assert [(row["k"], row["way"]) for row in rows] == [(1, "images"), (1, "batches"), (2, "images"), (2, "batches")]
    assert all(row["images_per_s"] > 0 for row in rows)
    summary = json.loads((tmp_path / "gpu.json").read_text())["summary"]
    assert "attention: CPU_ATTN" in summary["setup"]
