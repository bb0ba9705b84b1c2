"""What a model costs, computed from its dimensions: weights, FLOPs, bytes of KV cache.

A multiplication and an addition are two FLOPs. Norms, activations and softmax are left out: together
they are under 1 %.
"""

from dataclasses import dataclass

MEMORY_SHARE = 0.9
"""Default of `engine.gpu_memory_utilization`."""

TURN_TOKENS = 12
"""Tokens that the chat template of a model without images writes around the texts; an assumption for plans."""

FIXED_BYTES = 1.5 * 2**30
"""CUDA graphs, sampling of 256 sequences over 128,256 words, activations of the vision tower. Estimated, not
measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormats:
    """Number formats of the language model; tower, projector, embeddings and head always take two bytes a number."""

    fp8: bool = False
    """Weights of the layers take one byte, and their products are fp8."""
    kv_bytes: int = 2
    """Bytes of a number in the KV cache."""

    @property
    def layer_weight_bytes(self) -> int:
        return 1 if self.fp8 else 2


BFLOAT16 = NumberFormats()


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionDims:
    """A vision transformer with square input, and the projector of two layers behind it."""

    hidden: int
    layers: int
    """Layers that run; layers above the one that gives the features do not."""
    mlp: int
    patch_px: int
    side_px: int

    @property
    def tokens(self) -> int:
        """Number of patches. Each patch becomes one token of the prompt."""
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
    """A language model with grouped-query attention and a gated MLP, and a vision tower if it takes images."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    vision: VisionDims | None
    """None for a model without images."""
    system_tokens: int
    """Prompt tokens in front of the image, or of the user's text."""

    @property
    def shared_tokens(self) -> int:
        """Prompt tokens that all requests of an image share: system turn and image. They are computed once."""
        return self.system_tokens + self.image_tokens

    @property
    def image_tokens(self) -> int:
        """Prompt tokens of an image."""
        return self.vision.tokens if self.vision else 0

    @property
    def image_flops(self) -> float:
        """FLOPs of one image through tower and projector."""
        return self.vision.flops(self.hidden) if self.vision else 0.0

    @property
    def layer_weights(self) -> int:
        """Parameters of the language model's layers: every token reads and uses each of them."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.mlp + 2 * self.hidden) + self.hidden

    @property
    def head_weights(self) -> int:
        """Parameters of the output head, which runs once in a prefill and once for each token after it.

        The table of input embeddings has the same size, but a token reads only one row of it.
        """
        return self.hidden * self.vocab

    @property
    def language_weights(self) -> int:
        return self.layer_weights + 2 * self.head_weights

    @property
    def vision_weights(self) -> int:
        """Tower and projector."""
        return self.vision.weights + self.vision.projector_weights(self.hidden) if self.vision else 0

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that a token stores in the KV cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def prefill_flops(self, tokens: float, cached: float = 0.0) -> float:
        """FLOPs of a prefill of `tokens` tokens that follow `cached` tokens of the prefix cache."""
        return 2.0 * (self.layer_weights * tokens + self.head_weights) + self._attention(tokens, cached + tokens / 2)

    def decode_flops(self, context: float) -> float:
        """FLOPs of one token of a caption with `context` tokens before it."""
        return 2.0 * (self.layer_weights + self.head_weights) + self._attention(1, context)

    def _attention(self, tokens: float, context: float) -> float:
        return 4.0 * self.heads * self.head_dim * self.layers * tokens * context

    def weight_bytes(self, numbers: NumberFormats) -> float:
        """Bytes of all weights on the device."""
        others = 2 * self.head_weights + self.vision_weights
        return float(numbers.layer_weight_bytes * self.layer_weights + 2 * others)

    def kv_tokens(self, usable_bytes: float, step_tokens: int, numbers: NumberFormats) -> int:
        """Tokens whose keys and values fit beside the weights; 0 where the weights alone are too large.

        Args:
            usable_bytes: the memory that the engine may use on the device.
            step_tokens: `max_num_batched_tokens`.
            numbers: number formats of weights and KV cache.
        """
        # Of an engine step: the MLP's three wide arrays and some of hidden width.
        activations = 2.0 * step_tokens * (3 * self.mlp + 6 * self.hidden)
        free = usable_bytes - self.weight_bytes(numbers) - activations - FIXED_BYTES
        return max(0, int(free / (self.kv_values_per_token * numbers.kv_bytes)))
