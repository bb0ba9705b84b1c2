"""Triton kernels for `gpu_parts`: the work of vLLM's own, in short. Only torch and Triton are imported."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 4096
SEARCH_STEPS = 24
"""Halvings of the interval in which the threshold of top-p lies: enough for float32 probabilities."""


@triton.jit
def _top_p(logits, out, vocab, top_p, steps: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * vocab
    at = tl.arange(0, block)
    highest = tl.full((block,), -float("inf"), tl.float32)
    for start in range(0, vocab, block):
        x = tl.load(logits + row + start + at, mask=start + at < vocab, other=-float("inf"))
        highest = tl.maximum(highest, x)
    top = tl.max(highest, 0)
    sums = tl.zeros((block,), tl.float32)
    for start in range(0, vocab, block):
        x = tl.load(logits + row + start + at, mask=start + at < vocab, other=-float("inf"))
        sums += tl.exp(x - top)
    total = tl.sum(sums, 0)
    # The largest threshold whose tokens still have `top_p` of the probability. exp(-30) is below float32's share.
    low, high = top - 30.0, top
    for _ in range(steps):
        middle = (low + high) / 2
        sums = tl.zeros((block,), tl.float32)
        for start in range(0, vocab, block):
            x = tl.load(logits + row + start + at, mask=start + at < vocab, other=-float("inf"))
            sums += tl.where(x >= middle, tl.exp(x - top), 0.0)
        enough = tl.sum(sums, 0) >= top_p * total
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle)
    for start in range(0, vocab, block):
        x = tl.load(logits + row + start + at, mask=start + at < vocab, other=-float("inf"))
        tl.store(out + row + start + at, tl.where(x >= low, x, -float("inf")), mask=start + at < vocab)


@triton.jit
def _gumbel(logits, out, vocab, seed, block: tl.constexpr):
    number = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    best = tl.full((block,), -float("inf"), tl.float32)
    best_at = tl.zeros((block,), tl.int32)
    for start in range(0, vocab, block):
        x = tl.load(logits + number * vocab + start + at, mask=start + at < vocab, other=-float("inf"))
        uniform = tl.rand(seed + number, start + at)
        noisy = x - tl.log(-tl.log(tl.maximum(uniform, 1e-7)))
        better = noisy > best
        best = tl.where(better, noisy, best)
        best_at = tl.where(better, start + at, best_at)
    winner = tl.argmax(best, 0)
    tl.store(out + number, tl.sum(tl.where(at == winner, best_at, 0), 0))


@triton.jit
def _attention(query, keys, values, out, context, scale, groups: tl.constexpr, padded: tl.constexpr,
               dim: tl.constexpr, block: tl.constexpr):  # fmt: skip
    pair = tl.program_id(0).to(tl.int64)  # sequence and key head
    head, inner, at = tl.arange(0, padded), tl.arange(0, dim), tl.arange(0, block)
    of_group = head[:, None] < groups
    q = tl.load(query + pair * groups * dim + head[:, None] * dim + inner[None, :], mask=of_group, other=0.0)
    highest = tl.full((padded,), -float("inf"), tl.float32)
    total = tl.zeros((padded,), tl.float32)
    sums = tl.zeros((padded, dim), tl.float32)
    for start in range(0, context, block):
        place = pair * context * dim + (start + at)[:, None] * dim + inner[None, :]
        known = (start + at)[:, None] < context
        k = tl.load(keys + place, mask=known, other=0.0)
        v = tl.load(values + place, mask=known, other=0.0)
        scores = tl.where((start + at)[None, :] < context, tl.dot(q, tl.trans(k)) * scale, -float("inf"))
        now = tl.maximum(highest, tl.max(scores, 1))
        share, faded = tl.exp(scores - now[:, None]), tl.exp(highest - now)
        total = total * faded + tl.sum(share, 1)
        sums = sums * faded[:, None] + tl.dot(share.to(v.dtype), v)
        highest = now
    place = pair * groups * dim + head[:, None] * dim + inner[None, :]
    tl.store(out + place, (sums / total[:, None]).to(out.dtype.element_ty), mask=of_group)


def top_p(logits: torch.Tensor, share: float) -> torch.Tensor:
    """Return the logits, shape (rows, vocab), with -inf outside the smallest set that has this share."""
    out = torch.empty_like(logits)
    _top_p[(logits.shape[0],)](logits, out, logits.shape[1], share, steps=SEARCH_STEPS, block=BLOCK)
    return out


def gumbel(logits: torch.Tensor, seed: int) -> torch.Tensor:
    """Return a token drawn for each row."""
    out = torch.empty(logits.shape[0], dtype=torch.int32, device=logits.device)
    _gumbel[(logits.shape[0],)](logits, out, logits.shape[1], seed, block=BLOCK)
    return out


def attention(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return attention of one token a sequence: query (sequences, heads, 1, dim), keys (.., kv heads, context, dim)."""
    sequences, heads, _, dim = query.shape
    kv_heads, context = keys.shape[1:3]
    groups, out = heads // kv_heads, torch.empty_like(query)
    _attention[(sequences * kv_heads,)](
        query, keys, values, out, context, dim**-0.5, groups=groups, padded=max(16, groups), dim=dim, block=64
    )
    return out
