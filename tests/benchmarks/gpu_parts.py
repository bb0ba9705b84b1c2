"""The parts of a caption's cost on a GPU, in plain torch and Triton: milliseconds, and shares of the card's peak.

`python -m tests.benchmarks.gpu_parts [--reps N]` in a copy of the repository, on a machine that has only torch,
transformers and Triton: nothing of `pipeline` and nothing of vLLM is imported. It measures what the roofline of
docs/gpus.md assumes: the vision tower at batches of 1, 2, 4 and 22 images, the language model's matrix products at
1,900 tokens, sampling for 256 sequences, and decode attention over 860 tokens of 256 sequences. Each figure is printed
and written as soon as it is known, so a crash loses only those that were to come. Without a CUDA device it says so and
ends with exit code 2; --tiny runs the same code on a CPU, with small shapes, to see that it runs.
"""

import argparse
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

NO_CUDA = 2
WARM_UPS = 3
TOP_P = 0.9

PEAKS = {
    "H200": (989e12, 4.8e12),
    "H100": (989e12, 3.35e12),
    "A100-SXM4-40GB": (312e12, 1.555e12),
    "A100": (312e12, 2.039e12),
    "L40S": (362e12, 0.864e12),
    "4090": (165e12, 1.008e12),
    "A10G": (70e12, 0.6e12),
}
"""FLOPs a second (bfloat16, dense) and bytes a second by a part of the device's name, as in
`pipeline.engines.gpus`."""


@dataclass(frozen=True)
class Shape:
    """Dimensions of the model and of the measurements."""

    vision_hidden: int = 1152
    vision_layers: int = 26
    """The features are those of the second last of 27 layers."""
    vision_heads: int = 16
    vision_mlp: int = 4304
    side_px: int = 384
    patch_px: int = 14
    batches: tuple[int, ...] = (1, 2, 4, 22)
    """22 images are vLLM's budget for one step of the encoder (16,384 embeddings)."""
    hidden: int = 4096
    layers: int = 32
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    mlp: int = 14336
    vocab: int = 128256
    step_tokens: int = 1900
    """Of an average engine step: 256 sequences that decode, and prefill of two images."""
    sequences: int = 256
    context: int = 860
    """Of a sequence in the middle of its caption: 800 tokens of prompt and 60 of caption."""

    @property
    def vision_tokens(self) -> int:
        return (self.side_px // self.patch_px) ** 2


TINY = Shape(
    vision_hidden=64, vision_layers=2, vision_heads=4, vision_mlp=128, side_px=56, batches=(1, 2), hidden=128, layers=2,
    heads=4, kv_heads=2, head_dim=32, mlp=256, vocab=1000, step_tokens=32, sequences=8, context=50,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Work:
    """One measurement: what runs, and what it costs by arithmetic."""

    part: str
    shape: str
    run: Callable[[], object]
    flops: float = 0.0
    bytes: float = 0.0


class Bench:
    """Times work on one device, and writes each figure at once."""

    def __init__(self, device: str, file: Path, reps: int) -> None:
        self.device, self._file, self._reps = device, file, reps
        self.name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
        self.peak_flops, self.peak_bytes = next(
            (peak for mark, peak in PEAKS.items() if mark in self.name and device == "cuda"), (None, None)
        )
        self.rows: list[dict[str, Any]] = []
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")

    def measure(self, work: Work) -> float:
        """Return seconds, the median of the repetitions."""
        for _ in range(WARM_UPS):
            work.run()
        seconds = sorted(self._once(work.run) for _ in range(self._reps))[self._reps // 2]
        row: dict[str, Any] = {"part": work.part, "shape": work.shape, "ms": round(1000 * seconds, 4)}
        if work.flops:
            row["tflops_per_s"] = round(work.flops / seconds / 1e12, 3)
            if self.peak_flops:
                row["of_peak_flops"] = round(work.flops / seconds / self.peak_flops, 3)
        if work.bytes:
            row["gb_per_s"] = round(work.bytes / seconds / 1e9, 2)
            if self.peak_bytes:
                row["of_peak_bandwidth"] = round(work.bytes / seconds / self.peak_bytes, 3)
        self.write(row)
        return seconds

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        print("  ".join(f"{name}={value}" for name, value in row.items()), flush=True)
        with self._file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")

    def _once(self, run: Callable[[], object]) -> float:
        if self.device != "cuda":
            began = time.perf_counter()
            run()
            return time.perf_counter() - began
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        # Fills the L2 cache with something else: in an engine, weights and KV cache come from memory, too.
        self._flush()
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000

    def _flush(self) -> None:
        torch.empty(256 << 20, dtype=torch.int8, device=self.device).zero_()

    def tensor(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.randn(*shape, device=self.device, dtype=dtype)


def tower(bench: Bench, shape: Shape) -> Iterator[Work]:
    """SigLIP's vision tower, its features only."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=shape.vision_hidden,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_heads,
        intermediate_size=shape.vision_mlp,
        image_size=shape.side_px,
        patch_size=shape.patch_px,
        vision_use_head=False,
        attn_implementation="sdpa",
    )
    model = SiglipVisionModel(config).to(bench.device, torch.bfloat16).eval()
    hidden, tokens = shape.vision_hidden, shape.vision_tokens
    weights = shape.vision_layers * (4 * hidden**2 + 2 * hidden * shape.vision_mlp) + 3 * shape.patch_px**2 * hidden
    flops = 2.0 * weights * tokens + 4.0 * hidden * shape.vision_layers * tokens**2
    for batch in shape.batches:
        pixels = bench.tensor(batch, 3, shape.side_px, shape.side_px)
        yield Work(
            part="vision tower", shape=f"{batch} images", run=lambda pixels=pixels: model(pixels), flops=batch * flops
        )


def products(bench: Bench, shape: Shape) -> Iterator[Work]:
    """The matrix products of one layer of the language model, and of the output head."""
    heads = shape.head_dim * (shape.heads + 2 * shape.kv_heads)
    for name, rows, inner, outer in (
        ("qkv", shape.step_tokens, shape.hidden, heads),
        ("attention output", shape.step_tokens, shape.head_dim * shape.heads, shape.hidden),
        ("gate and up", shape.step_tokens, shape.hidden, 2 * shape.mlp),
        ("down", shape.step_tokens, shape.mlp, shape.hidden),
        ("output head", shape.sequences, shape.hidden, shape.vocab),
    ):
        left, right = bench.tensor(rows, inner), bench.tensor(outer, inner)
        yield Work(
            part=name,
            shape=f"{rows} x {inner} x {outer}",
            run=lambda left=left, right=right: F.linear(left, right),
            flops=2.0 * rows * inner * outer,
            bytes=2.0 * (rows * inner + inner * outer + rows * outer),
        )


def top_p_torch(logits: torch.Tensor) -> torch.Tensor:
    """Mask what is outside the smallest set of tokens with TOP_P of the probability, by sorting."""
    ordered, order = logits.sort(dim=-1)
    outside = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - TOP_P
    return logits.scatter(1, order, ordered.masked_fill(outside, -torch.inf))


def gumbel_torch(logits: torch.Tensor) -> torch.Tensor:
    return (logits - torch.empty_like(logits).exponential_().log()).argmax(dim=-1)


def sampling(bench: Bench, shape: Shape) -> Iterator[Work]:
    """Top-p and Gumbel sampling; peaked logits, since a captioner is sure of most tokens."""
    logits = 3 * bench.tensor(shape.sequences, shape.vocab, dtype=torch.float32)
    size, text = 4.0 * logits.numel(), f"{shape.sequences} x {shape.vocab}"
    yield Work(part="top-p, sorting (torch)", shape=text, run=lambda: top_p_torch(logits), bytes=2 * size)
    yield Work(part="gumbel (torch)", shape=text, run=lambda: gumbel_torch(logits), bytes=size)
    kernels = triton_kernels()
    if kernels is not None:
        yield Work(part="top-p, search (Triton)", shape=text, run=lambda: kernels.top_p(logits, TOP_P), bytes=2 * size)
        yield Work(part="gumbel (Triton)", shape=text, run=lambda: kernels.gumbel(logits, 7), bytes=size)


def attention(bench: Bench, shape: Shape) -> Iterator[Work]:
    """One token for each sequence, over its keys and values."""
    query = bench.tensor(shape.sequences, shape.heads, 1, shape.head_dim)
    keys, values = (bench.tensor(shape.sequences, shape.kv_heads, shape.context, shape.head_dim) for _ in "kv")
    text = f"{shape.sequences} x {shape.context}"
    size = 2.0 * 2 * keys.numel()
    flops = 4.0 * shape.sequences * shape.heads * shape.context * shape.head_dim
    yield Work(
        part="decode attention (torch)",
        shape=text,
        run=lambda: F.scaled_dot_product_attention(query, keys, values, enable_gqa=True),
        bytes=size,
        flops=flops,
    )
    kernels = triton_kernels()
    if kernels is not None:
        yield Work(
            part="decode attention (Triton)",
            shape=text,
            run=lambda: kernels.attention(query, keys, values),
            bytes=size,
            flops=flops,
        )


def triton_kernels() -> Any:
    """The module with the kernels; None without Triton or a device for it."""
    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        return None
    from tests.benchmarks import gpu_kernels

    return gpu_kernels


def step(bench: Bench, shape: Shape, seconds: dict[str, float]) -> None:
    """Write what the roofline assumes as one number: the share of the peak that a whole engine step attains."""
    weights = shape.layers * (
        shape.hidden * shape.head_dim * 2 * (shape.heads + shape.kv_heads) + 3 * shape.hidden * shape.mlp
    )
    layer = sum(seconds[name] for name in ("qkv", "attention output", "gate and up", "down"))
    total = shape.layers * layer + seconds["output head"]
    flops = 2.0 * weights * shape.step_tokens + 2.0 * shape.sequences * shape.hidden * shape.vocab
    row = {"part": "products of a step", "shape": f"{shape.step_tokens} tokens", "ms": round(1000 * total, 3)}
    row["tflops_per_s"] = round(flops / total / 1e12, 3)
    if bench.peak_flops:
        row["of_peak_flops"] = round(flops / total / bench.peak_flops, 3)
    bench.write(row)


def main() -> None:
    parser = argparse.ArgumentParser("gpu_parts", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--reps", type=int, default=20)
    parser.add_argument("--tiny", action="store_true", help="on a CPU, with small shapes")
    parser.add_argument("--json", type=Path, default=Path("out/bench/gpu_parts.jsonl"), help="a row for each figure")
    args = parser.parse_args()
    if not (args.tiny or torch.cuda.is_available()):
        print("no CUDA device: nothing was measured. --tiny runs the code on a CPU", file=sys.stderr)
        sys.exit(NO_CUDA)
    shape = TINY if args.tiny else Shape()
    bench = Bench("cpu" if args.tiny else "cuda", args.json, args.reps)
    print(f"expected: under two minutes on an H100 or A100 (not measured on a GPU); rows go to {args.json}", flush=True)
    bench.write(
        {
            "device": bench.name,
            "peak_flops": bench.peak_flops,
            "peak_bytes_per_s": bench.peak_bytes,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "shape": asdict(shape),
        }
    )
    seconds: dict[str, float] = {}
    with torch.inference_mode():
        for part in (tower, products, sampling, attention):
            for work in part(bench, shape):
                seconds[work.part] = bench.measure(work)
            if part is products:
                step(bench, shape, seconds)


if __name__ == "__main__":
    main()
