"""What a model of JoyCaption's architecture costs, counted from its dimensions: weights, FLOPs, bytes of KV cache.

A multiplication and an addition are two FLOPs. Norms, activations and softmax are left out: together
they are under 1 % here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionDims:
    """A SigLIP tower and the projector behind it."""

    hidden: int
    layers: int
    """Those that run: the features are the second last layer's, so the last one does not."""
    mlp: int
    patch_px: int
    side_px: int

    @property
    def tokens(self) -> int:
        """Patches, each of which becomes one token of the prompt."""
        return (self.side_px // self.patch_px) ** 2

    @property
    def weights(self) -> int:
        """Parameters of the tower that are used, biases and norms included."""
        layer = 4 * (self.hidden**2 + self.hidden) + 2 * self.hidden * self.mlp + self.mlp + 5 * self.hidden
        return self.layers * layer + (3 * self.patch_px**2 + 1 + self.tokens) * self.hidden

    def flops(self, text_hidden: int) -> float:
        """FLOPs of one image through tower and projector."""
        attention = 4.0 * self.hidden * self.layers * self.tokens**2
        return 2.0 * (self.weights + self.projector_weights(text_hidden)) * self.tokens + attention

    def projector_weights(self, text_hidden: int) -> int:
        return (self.hidden + 1) * text_hidden + (text_hidden + 1) * text_hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDims:
    """A LLaVA with a Llama as its language model."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    vision: VisionDims

    @property
    def layer_weights(self) -> int:
        """Parameters of the language model's layers: each is read and used for every token."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.mlp + 2 * self.hidden) + self.hidden

    @property
    def head_weights(self) -> int:
        """Parameters of the output head: used once in a prefill and for every token after it.

        The table of input embeddings is as large, and a token reads one row of it.
        """
        return self.hidden * self.vocab

    @property
    def language_weights(self) -> int:
        return self.layer_weights + 2 * self.head_weights

    @property
    def vision_weights(self) -> int:
        """Tower and projector."""
        return self.vision.weights + self.vision.projector_weights(self.hidden)

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that a token leaves in the KV cache; bytes are these times those of its type."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def prefill_flops(self, tokens: float, cached: float = 0.0) -> float:
        """FLOPs of reading `tokens` of a prompt behind `cached` ones whose keys and values are there."""
        return 2.0 * (self.layer_weights * tokens + self.head_weights) + self._attention(tokens, cached + tokens / 2)

    def decode_flops(self, context: float) -> float:
        """FLOPs of one token of a caption with `context` tokens before it."""
        return 2.0 * (self.layer_weights + self.head_weights) + self._attention(1, context)

    def _attention(self, tokens: float, context: float) -> float:
        return 4.0 * self.heads * self.head_dim * self.layers * tokens * context


JOYCAPTION = ModelDims(
    hidden=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    mlp=14336,
    vocab=128256,
    vision=VisionDims(hidden=1152, layers=26, mlp=4304, patch_px=14, side_px=384),
)
"""Llama-3.1-8B and SigLIP so400m at 384 px, of alpha-two and beta-one alike: 8.48 billion parameters."""


def dims_of(stated: Mapping[str, Any]) -> ModelDims:
    """Return the shape that a model's `config.json` states."""
    text, vision = stated["text_config"], stated["vision_config"]
    layers, feature = vision["num_hidden_layers"], stated["vision_feature_layer"]
    return ModelDims(
        hidden=text["hidden_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        head_dim=text["head_dim"],
        mlp=text["intermediate_size"],
        vocab=text["vocab_size"],
        vision=VisionDims(
            hidden=vision["hidden_size"],
            # Hidden state 0 is what enters the first layer: -2 is what leaves the second last.
            layers=layers + 1 + feature if feature < 0 else feature,
            mlp=vision["intermediate_size"],
            patch_px=vision["patch_size"],
            side_px=vision["image_size"],
        ),
    )
