"""Scenes: one kind of object on one background, so that a caption can state everything in the picture.

A test can check a caption without a human or a second model: it compares the caption with the scene that was drawn.
"""

import random
import zlib
from dataclasses import dataclass
from enum import StrEnum


class Color(StrEnum):
    """Of objects and of backgrounds alike."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    BLUE = "blue"
    PURPLE = "purple"
    PINK = "pink"
    BROWN = "brown"
    BLACK = "black"
    WHITE = "white"
    GRAY = "gray"


class Shape(StrEnum):
    """Drawn upright, never turned."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"
    HEART = "heart"
    CROSS = "cross"
    DIAMOND = "diamond"
    RING = "ring"


class Texture(StrEnum):
    """Of a background, in two tones of its colour."""

    PLAIN = "plain"
    STRIPED = "striped"
    DOTTED = "dotted"
    CHECKERED = "checkered"


class Size(StrEnum):
    """A large object is about 0.6 of the picture's side, a small one 0.4."""

    SMALL = "small"
    LARGE = "large"


class Place(StrEnum):
    """Where a single object lies; the order is row by row, from the top left."""

    TOP_LEFT = "top left"
    TOP_CENTER = "top center"
    TOP_RIGHT = "top right"
    CENTER_LEFT = "center left"
    CENTER = "center"
    CENTER_RIGHT = "center right"
    BOTTOM_LEFT = "bottom left"
    BOTTOM_CENTER = "bottom center"
    BOTTOM_RIGHT = "bottom right"


class Layout(StrEnum):
    """How several objects are arranged; one object is always `SINGLE`."""

    SINGLE = "single"
    ROW = "row"
    COLUMN = "column"


class Special(StrEnum):
    """The kind of picture. All but `NONE` make a captioner fail in a known way."""

    NONE = "none"
    BLANK = "blank"
    """A background without an object."""
    VOID = "void"
    """Pure black; its caption is empty."""
    GLITCH = "glitch"
    """Magenta and black checks; in the tag modes its caption never ends."""
    STATIC = "static"
    """Coloured noise; in the tag modes its caption sometimes never ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is in one picture.

    Several objects are always small and near the centre. If a field is not visible because of `special` (a void has no
    colour), it keeps its drawn value.
    """

    color: Color = Color.RED
    shape: Shape = Shape.CIRCLE
    background: Color = Color.WHITE
    """Never equal to `color`."""
    texture: Texture = Texture.PLAIN
    """Of the background."""
    size: Size = Size.LARGE
    place: Place = Place.CENTER
    count: int = 1
    """In 1..3; `layout` is `SINGLE` exactly when it is 1."""
    layout: Layout = Layout.SINGLE
    watermark: bool = False
    special: Special = Special.NONE


def is_held_out(scene: Scene) -> bool:
    """Return whether training has no scene with this colour, shape and background.

    One combination in ten is held out, by a checksum that is the same in every run.
    """
    triple = f"{scene.color} {scene.shape} {scene.background}"
    return zlib.crc32(triple.encode()) % 10 == 0


def sample_scene(rng: random.Random, *, held_out: bool = False, special_share: float = 0.0) -> Scene:
    """Draw a scene from one side of the held-out split.

    Args:
        rng: Advanced by a number of draws that varies.
        held_out: Which side of `is_held_out` the scene is on.
        special_share: Share of scenes whose `special` is not `NONE`, in [0, 1].
    """
    count = rng.choice([1, 1, 1, 1, 2, 3])
    several = count > 1
    special = Special.NONE
    if rng.random() < special_share:
        special = rng.choice([s for s in Special if s is not Special.NONE])
    bare = special not in (Special.NONE, Special.BLANK)
    layout = rng.choice([Layout.ROW, Layout.COLUMN])
    size, place = rng.choice(list(Size)), rng.choice(list(Place))
    texture, watermark = rng.choice(list(Texture)), rng.random() < 0.25
    while True:
        color, background = rng.sample(list(Color), 2)
        scene = Scene(
            color=color,
            shape=rng.choice(list(Shape)),
            background=background,
            texture=Texture.PLAIN if bare else texture,
            size=Size.SMALL if several else size,
            place=Place.CENTER if several else place,
            count=count,
            layout=layout if several else Layout.SINGLE,
            watermark=watermark and not bare,
            special=special,
        )
        if is_held_out(scene) == held_out:
            return scene
