"""Random requests for the training of the stand-in, with the prompts of the project's own catalogue."""

import random

from pipeline.models import load_generation
from tools.standin.request import Length, Mode, Option, Request, Tone

STYLES: tuple[tuple[Mode, Tone], ...] = (
    (Mode.DESCRIPTIVE, Tone.FORMAL),
    (Mode.DESCRIPTIVE, Tone.CASUAL),
    *((mode, Tone.FORMAL) for mode in Mode if mode is not Mode.DESCRIPTIVE),
)
"""The nine pairs of mode and tone of alpha-two."""


def prompt_text(request: Request) -> str:
    """Return the prompt of the request, word for word as JoyFleet sends it to alpha-two."""
    generation = load_generation("alpha-two")
    [mode] = [
        mode for mode in generation.modes if (mode.name, mode.tone or Tone.FORMAL) == (request.mode, request.tone)
    ]
    template = mode.word_count if request.words else mode.length_class if request.length else mode.no_length
    extras = dict(zip(Option, generation.options.values(), strict=True))
    parts = [template or "", *(extras[option] for option in request.options)]
    return " ".join(parts).format(name=request.name or "{NAME}", length=request.length, word_count=request.words)


# Each of these names is one token; the made-up names beside them teach the model to copy any name.
NAMES = (
    "Alice",
    "Bob",
    "Carol",
    "David",
    "Emma",
    "Frank",
    "Grace",
    "Henry",
    "Ivy",
    "Jack",
    "Kate",
    "Liam",
    "Mia",
    "Noah",
)
_SYLLABLES = (
    "ba",
    "do",
    "ka",
    "li",
    "mo",
    "na",
    "ra",
    "se",
    "ti",
    "vu",
    "zo",
    "fe",
    "hu",
    "la",
    "ni",
    "po",
    "ru",
    "sa",
    "te",
    "wi",
)
_FREE_PROMPTS = (
    "Describe this image.",
    "What is in this picture?",
    "Tell me what you see.",
    "Write a caption.",
    "Caption this image in detail, please.",
    "Describe the scene for a blind reader.",
)


def _sample_name(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(NAMES)
    return "".join(rng.choices(_SYLLABLES, k=rng.choice([2, 2, 3]))).capitalize()


def _sample_words(rng: random.Random) -> int:
    """Return a word limit: mostly a multiple of ten, as in real configs."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(range(10, 101, 10))
    return rng.choice(range(110, 261, 10)) if kind < 0.75 else rng.randint(10, 120)


def sample_request(rng: random.Random) -> tuple[Request, str]:
    """Draw a request and its prompt; 2 % of the prompts are free text without a mode."""
    if rng.random() < 0.02:
        return Request(), rng.choice(_FREE_PROMPTS)
    mode, tone = rng.choice(STYLES)
    form = rng.random()
    options: list[Option] = []
    if rng.random() < 0.4:
        options = rng.sample(list(Option), rng.choice([1, 1, 2, 3]))
        if Option.NAME not in options and rng.random() < 0.2:
            options[0] = Option.NAME
        if rng.random() < 0.5:
            options.sort(key=list(Option).index)
    request = Request(
        mode=mode,
        tone=tone,
        length=rng.choice(list(Length)) if form < 0.35 else None,
        words=_sample_words(rng) if form > 0.5 else None,
        options=tuple(options),
        name=_sample_name(rng) if Option.NAME in options else None,
    )
    return request, prompt_text(request)
