# pyright: basic
"""The vision tower learns first, from attribute heads that are thrown away afterwards.

A captioner trained from nothing does not look at its picture for a long time: the words
alone explain most of the loss. A head for each attribute of the scene teaches the tower
to see before the language model has to read it.
"""

import io
import random
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from pipeline.standin.draw_picture import encode, random_size, render
from pipeline.standin.world import Color, Layout, Place, Scene, Shape, Size, Special, Texture
from tools.standin.build_model import SIDE_PX

ATTRIBUTES: dict[str, list[object]] = {
    "color": list(Color),
    "shape": list(Shape),
    "background": list(Color),
    "texture": list(Texture),
    "size": list(Size),
    "place": list(Place),
    "count": [1, 2, 3],
    "layout": list(Layout),
    "watermark": [False, True],
    "special": list(Special),
}
IGNORED = -100


def training_image(scene: Scene, rng: random.Random) -> np.ndarray:
    """Return pixels, uint8, shape (SIDE_PX, SIDE_PX, 3), as the engine would feed them."""
    image = render(scene, rng.getrandbits(40), random_size(rng, 96, rng.choice([160, 320])))
    if rng.random() < 0.25:
        data = encode(image, "jpg", rng.randint(60, 95))
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
    return np.asarray(image.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS))


def to_pixels(images: Sequence[np.ndarray], *, noisy: bool) -> Tensor:
    """Return float pixels in [-1, 1], shape (n, 3, SIDE_PX, SIDE_PX)."""
    levels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    pixels = levels.div_(127.5).sub_(1)
    if noisy:
        num = pixels.shape[0]
        gain = (1 + 0.04 * torch.randn(num, 1, 1, 1)).clamp(0.88, 1.1)
        pixels = pixels * gain + 0.02 * torch.randn(num, 3, 1, 1)
        pixels = (pixels + 0.02 * torch.randn(1, 3, SIDE_PX, SIDE_PX)).clamp_(-1, 1)
    return pixels


def features(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Return what the projector is given: layer -2, shape (n, NUM_IMAGE_TOKENS, width)."""
    tower = model.model.vision_tower
    hidden = tower.embeddings(pixels)
    for layer in tower.encoder.layers[:-1]:
        hidden = layer(hidden, None)
    return hidden


class Heads(nn.Module):
    """One attention-pooled classifier for each attribute."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(ATTRIBUTES), width) * 0.1)
        self.norm = nn.LayerNorm(width)
        self.keys_values = nn.Linear(width, 2 * width)
        self.out = nn.ModuleList([nn.Linear(width, len(v)) for v in ATTRIBUTES.values()])

    def forward(self, hidden: Tensor) -> list[Tensor]:
        """Return one tensor of logits for each attribute, shape (n, number of values)."""
        keys, values = self.keys_values(self.norm(hidden)).chunk(2, -1)
        scores = torch.einsum("qd,bnd->bqn", self.queries.to(keys.dtype), keys)
        pooled = torch.softmax(scores.float(), -1).to(values.dtype) @ values
        return [out(pooled[:, i]).float() for i, out in enumerate(self.out)]


def labels(scenes: Sequence[Scene]) -> Tensor:
    """Return class indices, shape (n, attributes); IGNORED where nothing can be seen."""
    return torch.tensor([[_label(scene, name) for name in ATTRIBUTES] for scene in scenes])


def _label(scene: Scene, name: str) -> int:
    visible = scene.special is Special.NONE or name == "special"
    if scene.special is Special.BLANK and name in ("background", "texture", "watermark"):
        visible = True
    return ATTRIBUTES[name].index(getattr(scene, name)) if visible else IGNORED


def attribute_loss(logits: list[Tensor], wanted: Tensor) -> Tensor:
    """Return the mean cross entropy over the attributes that any scene shows."""
    losses = [
        functional.cross_entropy(out, wanted[:, i], ignore_index=IGNORED)
        for i, out in enumerate(logits)
        if bool((wanted[:, i] >= 0).any())
    ]
    return torch.stack(losses).mean()


def attribute_scores(logits: list[Tensor], wanted: Tensor) -> dict[str, float]:
    """Return the share of right answers of each attribute."""
    shares: dict[str, float] = {}
    for i, name in enumerate(ATTRIBUTES):
        seen = wanted[:, i] >= 0
        right = logits[i].argmax(-1) == wanted[:, i]
        shares[name] = round(float(right[seen].float().mean()), 3)
    return shares
