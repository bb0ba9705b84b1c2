"""How many sequences fit into a GPU beside the weights: what is left of its memory, divided by their KV cache."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.engines.model_dims import ModelDims

MEMORY_SHARE = 0.9
"""`engine.gpu_memory_utilization` by default."""

FIXED_BYTES = 1.5 * 2**30
"""CUDA graphs, sampling of 256 sequences over 128,256 words, the vision tower's activations; reckoned, not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormats:
    """How the language model is kept and computed; tower, projector, embeddings and head are always two bytes."""

    fp8: bool = False
    """Its layers' weights take one byte, and their products are fp8."""
    kv_bytes: int = 2
    """Of a number in the KV cache."""

    @property
    def layer_weight_bytes(self) -> int:
        return 1 if self.fp8 else 2


BFLOAT16 = NumberFormats()


def weight_bytes(shape: ModelDims, numbers: NumberFormats) -> float:
    """Bytes of all weights on the device."""
    others = 2 * shape.head_weights + shape.vision_weights
    return float(numbers.layer_weight_bytes * shape.layer_weights + 2 * others)


def activation_bytes(shape: ModelDims, step_tokens: int) -> float:
    """Bytes that one engine step of so many tokens needs: the MLP's three wide arrays and some of hidden width."""
    return 2.0 * step_tokens * (3 * shape.mlp + 6 * shape.hidden)


def kv_tokens(shape: ModelDims, usable_bytes: float, step_tokens: int, numbers: NumberFormats) -> int:
    """Tokens whose keys and values fit; 0 where the weights alone are too large.

    Args:
        shape: the model's.
        usable_bytes: what the engine may take of the device.
        step_tokens: `max_num_batched_tokens`.
        numbers: how it is kept.
    """
    left = usable_bytes - weight_bytes(shape, numbers) - activation_bytes(shape, step_tokens) - FIXED_BYTES
    return max(0, int(left / (shape.kv_values_per_token * numbers.kv_bytes)))
