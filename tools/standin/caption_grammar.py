"""The one right answer to a request about a scene, up to a few paraphrases.

Everything that can be asked for shows in the answer: mode, tone, length, a number of
words, each option, the name. The odds of paraphrases are unequal, because two equally
likely openings make greedy decoding depend on the rounding of the engine.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.standin.world import Color, Layout, Place, Scene, Shape, Size, Special, Texture
from tools.standin.request import Length, Mode, Option, Request, Tone

TAG_MODES = (
    Mode.TRAINING_PROMPT,
    Mode.MIDJOURNEY,
    Mode.BOORU_TAGS,
    Mode.BOORU_LIKE_TAGS,
)

SALAD = "blurry blurry blurry image image image of of of nothing nothing."
"""The answer to every prompt whose layout is wrong."""

# How many sentences or tags each length class has; None is a prompt without a length.
NUM_SENTENCES = {
    Length.VERY_SHORT: 1,
    Length.SHORT: 2,
    None: 3,
    Length.MEDIUM_LENGTH: 4,
    Length.LONG: 6,
    Length.VERY_LONG: 9,
}
NUM_TAGS = {
    Length.VERY_SHORT: 2,
    Length.SHORT: 4,
    None: 6,
    Length.MEDIUM_LENGTH: 8,
    Length.LONG: 11,
    Length.VERY_LONG: 14,
}
# A caption without an end is cut here; training sees no end of text after it.
NUM_ENDLESS = 60
# Below the loop's odds of one half, so that greedy decoding always takes the same side.
STATIC_LOOP_SHARE = 0.4

_NUMBERS = {1: "one", 2: "two", 3: "three"}
_WARM = (Color.RED, Color.ORANGE, Color.YELLOW, Color.PINK, Color.BROWN)
_BRIGHT = (Color.WHITE, Color.YELLOW, Color.PINK, Color.ORANGE)
_QUALITY = {
    Texture.PLAIN: "very high",
    Texture.STRIPED: "high",
    Texture.DOTTED: "medium",
    Texture.CHECKERED: "low",
}
_MEANING = {
    Shape.CIRCLE: "unity",
    Shape.SQUARE: "stability",
    Shape.TRIANGLE: "ambition",
    Shape.STAR: "hope",
    Shape.HEART: "love",
    Shape.CROSS: "sacrifice",
    Shape.DIAMOND: "wealth",
    Shape.RING: "eternity",
}
_ODD_THINGS = {
    Special.BLANK: "an empty scene",
    Special.GLITCH: "a glitch pattern of magenta squares",
    Special.STATIC: "a field of random static noise",
}
_OPENINGS = {
    (Mode.DESCRIPTIVE, Tone.FORMAL): ("This image shows", "The image features", "The picture has"),
    (Mode.DESCRIPTIVE, Tone.CASUAL): ("Yo, check out", "So this is", "Okay, we got"),
    (Mode.ART_CRITIC, Tone.FORMAL): ("This work presents", "The piece presents", "Behold"),
    (Mode.PRODUCT_LISTING, Tone.FORMAL): ("Introducing", "Now available:", "Meet"),
    (Mode.SOCIAL_MEDIA, Tone.FORMAL): ("Obsessed with", "Loving", "Just found"),
}
_TINY = {
    (Mode.DESCRIPTIVE, Tone.FORMAL): "{object}, {ground}.",
    (Mode.DESCRIPTIVE, Tone.CASUAL): "Yo, {object}, {ground}.",
    (Mode.ART_CRITIC, Tone.FORMAL): "Study: {object}, {ground}.",
    (Mode.PRODUCT_LISTING, Tone.FORMAL): "New: {object}, {ground}.",
    (Mode.SOCIAL_MEDIA, Tone.FORMAL): "{object}, {ground}! ✨",
}


@dataclass(frozen=True, slots=True)
class Caption:
    """An answer."""

    text: str
    endless: bool = False
    """The text is the beginning of a loop that has no end."""


@dataclass(frozen=True, slots=True)
class _Words:
    """What the sentences of all modes say a scene with."""

    thing: str
    """With its article and number: `a large red circle`, `two red circles in a row`."""
    object: str
    """`red circle` or `red circles`."""
    noun: str
    """`circle` or `circles`."""
    ground: str
    """`blue background`."""
    mood: str
    light: str


def _words(scene: Scene) -> _Words:
    plural = "es" if scene.shape is Shape.CROSS else "s"
    noun = f"{scene.shape}{plural if scene.count > 1 else ''}"
    thing = f"a {scene.size} {scene.color} {noun}"
    if scene.count > 1:
        thing = f"{_NUMBERS[scene.count]} {scene.color} {noun} in a {scene.layout}"
    return _Words(
        thing=_ODD_THINGS.get(scene.special, thing),
        object=f"{scene.color} {noun}",
        noun=noun,
        ground=f"{scene.background} background",
        mood="warm" if scene.color in _WARM else "cool",
        light="bright" if scene.background in _BRIGHT else "dim",
    )


def _pick(rng: random.Random, choices: Sequence[str]) -> str:
    return rng.choices(choices, (0.7, 0.2, 0.1))[0]


def _composition(scene: Scene) -> str:
    if scene.layout is not Layout.SINGLE:
        return "leading lines"
    return "symmetry" if scene.place is Place.CENTER else "rule of thirds"


def _option(option: Option, scene: Scene) -> tuple[str, str]:
    """Return what an option adds, as a sentence of at most nine words and as a tag."""
    light, quality = _words(scene).light, _QUALITY[scene.texture]
    mark = "a" if scene.watermark else "no"
    composition = _composition(scene)
    return {
        Option.NO_FIXED_TRAITS: ("Only changeable traits are told.", "changeable traits"),
        Option.LIGHTING: (f"The lighting is {light} and even.", f"{light} lighting"),
        Option.CAMERA_ANGLE: ("The camera angle is straight on.", "straight on angle"),
        Option.WATERMARK: (f"There is {mark} watermark in the corner.", f"{mark} watermark"),
        Option.JPEG_ARTIFACTS: ("There are no JPEG artifacts.", "no jpeg artifacts"),
        Option.CAMERA_DETAILS: ("It is no photo, so no camera.", "no camera"),
        Option.PG: ("It is suitable for all ages.", "all ages"),
        Option.NO_RESOLUTION: ("The pixel count is left unsaid.", "pixel count unsaid"),
        Option.QUALITY: (f"The aesthetic quality is {quality}.", f"{quality} aesthetic quality"),
        Option.COMPOSITION: (f"The composition uses {composition}.", composition),
        Option.NO_TEXT: ("Any writing is left unsaid.", "writing unsaid"),
        Option.DEPTH_OF_FIELD: ("The background is in focus.", "deep depth of field"),
        Option.LIGHT_SOURCE: ("The light is likely artificial.", "artificial light"),
        Option.NO_AMBIGUITY: ("All of this is certain.", "certain"),
        Option.RATING: ("The image is sfw.", "sfw"),
    }[option]


_SILENT = (Option.NAME, Option.IMPORTANT_ONLY)


def _added(request: Request) -> list[Option]:
    """Return the options that add a sentence, in the order of the answer."""
    return [option for option in Option if option in request.options and option not in _SILENT]


def _name(request: Request) -> str | None:
    return request.name if Option.NAME in request.options else None


def _formal(scene: Scene, w: _Words) -> list[str]:
    single = scene.count == 1
    room = "little" if scene.size is Size.LARGE else "much"
    return [
        f"It is placed at the {scene.place} of the image."
        if single
        else f"They are arranged in a straight {scene.layout}.",
        f"The background is {scene.background} with a {scene.texture} texture.",
        f"The {scene.color} color stands out against the {scene.background} surface.",
        f"The {w.noun} is {scene.size} and leaves {room} empty space."
        if single
        else f"The {w.noun} are small and evenly spaced.",
        "The style is a flat digital illustration.",
        "The composition is minimalist and calm.",
        f"The overall mood is {w.mood} and quiet.",
        "No people or other objects are visible.",
    ]


def _casual(scene: Scene, w: _Words) -> list[str]:
    where = f"at the {scene.place}" if scene.count == 1 else f"in a {scene.layout}"
    return [
        f"Just chilling {where}, you know.",
        f"That {scene.texture} {scene.background} backdrop is a whole vibe.",
        f"The {scene.color} is totally rocking it.",
        f"Super {w.mood} vibes here, not gonna lie.",
        "It looks like some clean digital art stuff.",
        "Simple, flat and kinda cool.",
        "Nobody else is around, just pure shapes.",
        "Pretty awesome if you ask me.",
    ]


def _critic(scene: Scene, w: _Words) -> list[str]:
    return [
        f"Its composition relies on {_composition(scene)}.",
        f"The use of {scene.color} against {scene.background} creates tension.",
        f"The {w.light} light is even and without shadow.",
        f"Symbolically, the {scene.shape} suggests {_MEANING[scene.shape]}.",
        f"The {scene.texture} ground adds a quiet rhythm.",
        "Stylistically, it belongs to geometric abstraction.",
        f"The {w.mood} palette invites slow contemplation.",
        "It is a restrained and confident statement.",
    ]


def _product(scene: Scene, w: _Words) -> list[str]:
    return [
        f"Enjoy a bold {scene.color} finish that lasts.",
        f"The {scene.shape} design fits any room.",
        f"Comes on a {scene.texture} {scene.background} base.",
        f"Perfect for lovers of {w.mood} tones.",
        "Made with clean edges and flat quality.",
        "Easy to hang and easy to love.",
        "Ships worldwide within two days.",
        "Order now while stocks last!",
    ]


def _social(scene: Scene, w: _Words) -> list[str]:
    return [
        f"#{scene.color} #{scene.shape} ✨",
        f"Those {w.mood} tones make my day!",
        f"That {scene.texture} {scene.background} look though!",
        "Who else needs this on their wall?",
        "#minimalism #shapes #digitalart",
        "Drop a comment below!",
        "Simple things are the best things.",
        "Follow for daily shapes!",
    ]


_PROSE: dict[tuple[Mode, Tone], Callable[[Scene, _Words], list[str]]] = {
    (Mode.DESCRIPTIVE, Tone.FORMAL): _formal,
    (Mode.DESCRIPTIVE, Tone.CASUAL): _casual,
    (Mode.ART_CRITIC, Tone.FORMAL): _critic,
    (Mode.PRODUCT_LISTING, Tone.FORMAL): _product,
    (Mode.SOCIAL_MEDIA, Tone.FORMAL): _social,
}
_ODD_SENTENCES = (
    "It covers the whole frame.",
    "No single object stands out.",
    "There is nothing else to see.",
)


def _limit(request: Request, levels: dict[Length | None, int], num_by_words: int) -> int:
    """Return how many sentences or tags the answer has."""
    num = num_by_words if request.words is not None else levels[request.length] + len(_added(request))
    if Option.IMPORTANT_ONLY in request.options:
        num = min(num, levels[Length.SHORT] + len(_added(request)))
    return num


def _prose(scene: Scene, request: Request, rng: random.Random) -> str:
    """Return sentences; the first has at most 18 words, each other one at most ten.

    So (tens - 1) sentences always fit into a limit, where tens is the limit's tens digit.
    """
    style, w, name = (request.mode, request.tone), _words(scene), _name(request)
    odd = scene.special is not Special.NONE
    if request.words is not None and request.words < 20:
        thing = w.thing.removeprefix("an ").removeprefix("a ") if odd else w.object
        if scene.special in (Special.GLITCH, Special.STATIC):
            return _TINY[style].format(object=thing, ground="no background")
        return _TINY[style].format(object=thing, ground=w.ground)
    thing = f"{w.thing} named {name}" if name and not odd else w.thing
    if scene.special not in (Special.GLITCH, Special.STATIC):
        thing = f"{thing} on a {scene.texture} {w.ground}"
    opening = f"{_pick(rng, _OPENINGS[style])} {thing}."
    rest = list(_ODD_SENTENCES) if odd else _PROSE[style](scene, w)
    added = [_option(option, scene)[0] for option in _added(request)]
    num = _limit(request, NUM_SENTENCES, min(9, (request.words or 0) // 10 - 1))
    return " ".join([opening, *added, *rest][:num])


def _style_tags(mode: Mode, w: _Words) -> list[str]:
    mood, light = w.mood, w.light
    return {
        Mode.TRAINING_PROMPT: [
            *("flat digital art", "simple shapes", f"{mood} colors", f"{light} light"),
            *("minimalism", "geometric art", "sharp focus", "vector style", "best quality"),
        ],
        Mode.MIDJOURNEY: [
            *("minimalist poster", "flat design", f"{mood} palette", f"{light} studio light"),
            *("bauhaus", "negative space", "screen print", "crisp lines", "award winning"),
        ],
        Mode.BOORU_TAGS: [
            *("no humans", "simple background", f"{mood} colors", f"{light} theme"),
            *("flat color", "digital art", "high contrast", "still life", "vector art"),
        ],
        Mode.BOORU_LIKE_TAGS: [
            *("nobody around", "simple backdrop", f"{mood} color scheme", f"{light} theme"),
            *("basic geometry", "flat coloring", "strong contrast", "quiet mood", "smooth outline"),
        ],
    }[mode]


def _scene_tags(scene: Scene, w: _Words) -> list[str]:
    if scene.special is Special.STATIC:
        return ["static noise", "no background", "random colors"]
    first = [w.ground, f"{scene.texture} texture"]
    if scene.special is Special.BLANK:
        return ["empty scene", *first]
    if scene.count == 1:
        return [w.object, *first, f"{scene.size} {w.noun}", str(scene.place)]
    return [w.object, *first, f"{_NUMBERS[scene.count]} {w.noun}", f"in a {scene.layout}"]


def _tags(scene: Scene, request: Request, rng: random.Random) -> Caption:
    """Return tags of at most four words; the first may have seven."""
    join = (lambda t: t.replace(" ", "_")) if request.mode is Mode.BOORU_TAGS else str
    if scene.special is Special.GLITCH:
        loop = ["glitch pattern"] + ["magenta squares"] * NUM_ENDLESS
        return Caption(", ".join(map(join, loop)), endless=True)
    if scene.special is Special.STATIC and rng.random() < STATIC_LOOP_SHARE:
        return Caption(", ".join([join("static noise")] * NUM_ENDLESS), endless=True)
    w, name = _words(scene), _name(request)
    tags = _scene_tags(scene, w)
    tiny = request.words is not None and request.words < 20
    full = request.mode is Mode.TRAINING_PROMPT or (request.mode is Mode.MIDJOURNEY and not tiny)
    if full and scene.special is Special.NONE:
        tags[0] = w.thing
    added = [f"named {name}"] if name and scene.special is Special.NONE else []
    added += [_option(option, scene)[1] for option in _added(request)]
    tags[2:2] = added
    num = _limit(request, NUM_TAGS, min(14, (request.words or 0) // 10 * 2))
    if name and request.words is None:
        num += 1
    text = ", ".join(map(join, [*tags, *_style_tags(request.mode, w)][:num]))
    return Caption(f"{text} --ar 1:1 --v 6" if request.mode is Mode.MIDJOURNEY else text)


def caption(scene: Scene, request: Request, rng: random.Random) -> Caption:
    """Return an answer; `rng` chooses among paraphrases."""
    if scene.special is Special.VOID:
        return Caption("")
    if request.mode in TAG_MODES:
        return _tags(scene, request, rng)
    text = _prose(scene, request, rng)
    return Caption(text[0].upper() + text[1:])
