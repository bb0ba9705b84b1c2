"""Draws a scene: the picture is a pure function of the scene, a seed and a size.

Everything is placed in a unit square and stretched to the picture. Resizing to the model's square input then gives the
same shapes, whatever the proportions of the picture.
"""

import io
import math
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw

from pipeline.standin.world import Color, Layout, Place, Scene, Shape, Size, Special, Texture

Rgb = tuple[int, int, int]
Point = tuple[float, float]

PALETTE: dict[Color, Rgb] = {
    Color.RED: (215, 30, 35),
    Color.ORANGE: (245, 135, 20),
    Color.YELLOW: (245, 225, 40),
    Color.GREEN: (35, 150, 60),
    Color.BLUE: (35, 75, 205),
    Color.PURPLE: (120, 40, 160),
    Color.PINK: (250, 150, 190),
    Color.BROWN: (115, 65, 30),
    Color.BLACK: (14, 14, 14),
    Color.WHITE: (246, 246, 246),
    Color.GRAY: (130, 130, 130),
}
# Random offset of each level: enough that no colour is one fixed triple, too small to confuse gray with white or orange
# with brown.
COLOR_JITTER = 9


def _ngon(degrees: Sequence[float], radii: Sequence[float]) -> list[Point]:
    pairs = zip(degrees, radii, strict=True)
    return [(r * math.cos(math.radians(a)), r * math.sin(math.radians(a))) for a, r in pairs]


def _heart() -> list[Point]:
    turns = [math.tau * i / 48 for i in range(48)]
    curve = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) for t in turns]
    xs = [16 * math.sin(t) ** 3 for t in turns]
    return [(x / 16, -(y + 2) / 15) for x, y in zip(xs, curve, strict=True)]


# Corners in units of the object's radius, y down. Circle and ring are ellipses instead.
CORNERS: dict[Shape, list[Point]] = {
    Shape.SQUARE: _ngon([45, 135, 225, 315], [1.2] * 4),
    Shape.TRIANGLE: _ngon([-90, 30, 150], [1.2] * 3),
    Shape.DIAMOND: _ngon([0, 90, 180, 270], [0.66, 1.02, 0.66, 1.02]),
    Shape.STAR: _ngon([-90 + 36 * i for i in range(10)], [1.2, 0.46] * 5),
    Shape.HEART: _heart(),
    Shape.CROSS: [
        *[(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3)],
        *[(0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)],
    ],
}


class _Canvas:
    """A picture that is being drawn, addressed in the unit square, y down."""

    def __init__(self, size: tuple[int, int], fill: Rgb) -> None:
        self.image = Image.new("RGB", size, fill)
        self._draw = ImageDraw.Draw(self.image)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Rgb) -> None:
        w, h = self.image.size
        self._draw.rectangle((left * w, top * h, right * w, bottom * h), fill=fill)

    def disc(self, center: Point, radius: float, fill: Rgb, *, band: float = 0.0) -> None:
        """Draw an ellipse; `band` is the width of a ring's rim, 0 for a full disc."""
        (x, y), (w, h) = center, self.image.size
        corners = ((x - radius) * w, (y - radius) * h, (x + radius) * w, (y + radius) * h)
        if band:
            self._draw.ellipse(corners, outline=fill, width=max(2, round(band * min(w, h))))
        else:
            self._draw.ellipse(corners, fill=fill)

    def polygon(self, center: Point, radius: float, corners: list[Point], fill: Rgb) -> None:
        (x, y), (w, h) = center, self.image.size
        at = [((x + radius * dx) * w, (y + radius * dy) * h) for dx, dy in corners]
        self._draw.polygon(at, fill=fill)


def _tint(color: Color, rng: random.Random) -> Rgb:
    r, g, b = (max(0, min(255, level + rng.randint(-COLOR_JITTER, COLOR_JITTER))) for level in PALETTE[color])
    return r, g, b


def _shade(rgb: Rgb) -> Rgb:
    """Return the texture's second tone: darker, or lighter where the ground is dark."""
    r, g, b = (round(level * 0.75) if sum(rgb) > 200 else level + 50 for level in rgb)
    return r, g, b


def _texture(canvas: _Canvas, texture: Texture, tone: Rgb, rng: random.Random) -> None:
    if texture is Texture.STRIPED:
        num, shift = rng.choice([7, 8]), rng.random()
        for i in range(-1, num + 1):
            canvas.box((i + shift) / num, 0, (i + shift + 0.5) / num, 1, tone)
    elif texture is Texture.DOTTED:
        num = rng.choice([7, 8])
        for i in range(num * num):
            center = ((i % num + 0.5) / num, (i // num + 0.5) / num)
            canvas.disc(center, 0.25 / num, tone)
    elif texture is Texture.CHECKERED:
        num = rng.choice([5, 6])
        for i in range(num * num):
            x, y = i % num, i // num
            if (x + y) % 2 == 0:
                canvas.box(x / num, y / num, (x + 1) / num, (y + 1) / num, tone)


def _centers(scene: Scene, rng: random.Random) -> list[Point]:
    if scene.layout is Layout.SINGLE:
        step = 0.25 if scene.size is Size.SMALL else 0.14
        index = list(Place).index(scene.place)
        x, y = 0.5 + step * (index % 3 - 1), 0.5 + step * (index // 3 - 1)
        return [(x + rng.uniform(-0.02, 0.02), y + rng.uniform(-0.02, 0.02))]
    offsets = {2: [-0.24, 0.24], 3: [-0.32, 0.0, 0.32]}[scene.count]
    across = 0.5 + rng.uniform(-0.08, 0.08)
    along = [0.5 + offset for offset in offsets]
    if scene.layout is Layout.ROW:
        return [(x, across) for x in along]
    return [(across, y) for y in along]


def _objects(canvas: _Canvas, scene: Scene, rng: random.Random) -> None:
    fill = _tint(scene.color, rng)
    base = 0.155 if scene.count == 3 else 0.195 if scene.size is Size.SMALL else 0.31
    radius = base * rng.uniform(0.97, 1.06)
    for center in _centers(scene, rng):
        if scene.shape is Shape.CIRCLE:
            canvas.disc(center, radius, fill)
        elif scene.shape is Shape.RING:
            canvas.disc(center, radius, fill, band=0.36 * radius)
        else:
            canvas.polygon(center, radius, CORNERS[scene.shape], fill)


def _watermark(canvas: _Canvas) -> None:
    canvas.box(0.68, 0.90, 0.98, 0.98, (255, 255, 255))
    for i in range(4):
        canvas.box(0.71 + 0.066 * i, 0.92, 0.745 + 0.066 * i, 0.96, (0, 0, 0))


def _mosaic(special: Special, size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return the picture of a glitch or of static: big square pixels."""
    if special is Special.GLITCH:
        num, odd = rng.choice([6, 8]), rng.randint(0, 1)
        cells = [(250, 0, 250) if (i // num + i + odd) % 2 else (0, 0, 0) for i in range(num**2)]
    else:
        num = 12
        cells = [(rng.randrange(256), rng.randrange(256), rng.randrange(256)) for _ in range(144)]
    small = Image.new("RGB", (num, num))
    small.putdata(cells)
    return small.resize(size, Image.Resampling.NEAREST)


def random_size(rng: random.Random, low: int, high: int) -> tuple[int, int]:
    """Return a width and a height in px, each in low..high, at most 4:3 to one another."""
    width = rng.randint(low, high)
    height = round(width * rng.uniform(0.75, 1.33))
    return width, max(low, min(high, height))


def render(scene: Scene, seed: int, size: tuple[int, int] | None = None) -> Image.Image:
    """Return an RGB picture of the scene.

    Args:
        scene: What is drawn.
        seed: Decides what the scene does not fix: exact tones, places, sizes.
        size: Width and height in px; by default drawn from 96..256 by the seed.
    """
    rng = random.Random(seed)
    size = random_size(rng, 96, 256) if size is None else size
    if scene.special is Special.VOID:
        return Image.new("RGB", size, (0, 0, 0))
    if scene.special in (Special.GLITCH, Special.STATIC):
        return _mosaic(scene.special, size, rng)
    ground = _tint(scene.background, rng)
    canvas = _Canvas(size, ground)
    _texture(canvas, scene.texture, _shade(ground), rng)
    if scene.special is Special.NONE:
        _objects(canvas, scene, rng)
    if scene.watermark:
        _watermark(canvas)
    return canvas.image


def encode(image: Image.Image, extension: str, quality: int = 90) -> bytes:
    """Return the file's bytes; `extension` is jpg, png or webp, `quality` is 1..100."""
    sink = io.BytesIO()
    if extension == "png":
        image.save(sink, "PNG", compress_level=3)
    else:
        image.save(sink, {"jpg": "JPEG", "webp": "WEBP"}[extension], quality=quality)
    return sink.getvalue()
