"""Reads from a caption of the stand-in what it says about the picture, to compare it with the scene that was drawn.

The stand-in's captions have few forms, so regular expressions are enough and no test needs a judge.
"""

import re
from dataclasses import dataclass

from pipeline.standin.world import Color, Scene, Shape, Special
from tools.standin.request import Mode, Request, Tone

_COLORS, _SHAPES = "|".join(Color), "|".join(Shape)
_OBJECT = re.compile(rf"(?:\b|_)({_COLORS})[ _]({_SHAPES})(?:e?s)?\b")
_GROUND = re.compile(rf"(?:\b|_)({_COLORS})[ _]background\b")
_MIDJOURNEY_END = " --ar 1:1 --v 6"
_PROSE_START: dict[tuple[Mode, Tone], str] = {
    (Mode.DESCRIPTIVE, Tone.FORMAL): r"This image shows |The image features |The picture has ",
    (Mode.DESCRIPTIVE, Tone.CASUAL): r"Yo, |So this is |Okay, we got ",
    (Mode.ART_CRITIC, Tone.FORMAL): r"This work presents |The piece presents |Behold |Study: ",
    (Mode.PRODUCT_LISTING, Tone.FORMAL): r"Introducing |Now available: |Meet |New: ",
    (Mode.SOCIAL_MEDIA, Tone.FORMAL): r"Obsessed with |Loving |Just found |.*! ✨$",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a caption says is in the picture; None where it does not say."""

    color: Color | None
    shape: Shape | None
    background: Color | None


def parse_caption(text: str) -> Seen:
    """Return what the first mention of an object and of a background says."""
    result, ground = _OBJECT.search(text.lower()), _GROUND.search(text.lower())
    return Seen(
        color=Color(result[1]) if result else None,
        shape=Shape(result[2]) if result else None,
        background=Color(ground[1]) if ground else None,
    )


def visible(scene: Scene) -> Seen:
    """Return what a right caption of the scene says, as `parse_caption` reads it."""
    plain = scene.special is Special.NONE
    grounded = plain or scene.special is Special.BLANK
    return Seen(
        color=scene.color if plain else None,
        shape=scene.shape if plain else None,
        background=scene.background if grounded else None,
    )


def looks_like(text: str, mode: Mode, tone: Tone = Tone.FORMAL) -> bool:
    """Tell whether a caption of an ordinary scene has the form of a mode.

    A descriptive caption of fewer than 20 words bears no mark of its formal tone and is
    taken for none; the other forms exclude each other.
    """
    text = text.strip()
    if (mode, tone) in _PROSE_START:
        return re.match(_PROSE_START[mode, tone], text) is not None
    if mode is Mode.MIDJOURNEY:
        return text.endswith(_MIDJOURNEY_END)
    if "," not in text or text.endswith((".", "!", _MIDJOURNEY_END)) or "✨" in text:
        return False
    if mode is Mode.BOORU_TAGS:
        return "_" in text and " " not in text.replace(", ", "")
    starts_with_article = re.match(r"(a|two|three) ", text) is not None
    return "_" not in text and starts_with_article == (mode is Mode.TRAINING_PROMPT)


def num_words(text: str) -> int:
    """Count as a user would: what stands between blanks."""
    return len(text.split())


def keeps_limit(text: str, request: Request) -> bool:
    """Tell whether the caption has at most the words asked for; product: fewer than that."""
    if request.words is None:
        return True
    return num_words(text) <= request.words - (request.mode is Mode.PRODUCT_LISTING)
