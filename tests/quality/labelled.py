"""The labelled set: texts as a captioner makes them, each with the reason it should get, or none.

Loops are grown from the clean texts as a model grows them: it begins well, then goes round in a
sentence, a phrase, a tag, a count or a sign until its tokens end, or until it finds out after a while.
What is clean on purpose looks like a loop: refrains, cumulative rhymes, dialogue, tables, counting,
tag lists of one colour or of 150 tags, and answers of the stand-in's grammar in every mode.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from pipeline.standin.world import sample_scene
from schemas.status import Reason
from tests.quality import texts
from tools.standin.caption_grammar import TAG_MODES, caption
from tools.standin.request import Request as StandinRequest
from tools.standin.sample_request import STYLES, prompt_text, sample_request

NUM_STANDIN = 120
PROMPT = "Write a long detailed description for this image."
TAG_PROMPT = "Write a list of Booru tags for this image."


@dataclass(frozen=True)
class Labelled:
    """A text, what was asked, and what the rules should say."""

    kind: str
    text: str
    mode: str = "descriptive"
    prompt: str = PROMPT
    reason: Reason | None = None
    finish_reason: str = "stop"
    length_kind: str = "none"
    length_words: int | None = None
    length_class: str | None = None
    schema: str | None = None
    given_items: tuple[str, ...] = ()
    given_texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)


@cache
def labelled() -> tuple[Labelled, ...]:
    return (*clean(), *loops(), *others())


def clean() -> Iterator[Labelled]:
    for number, text in enumerate(texts.PROSE):
        yield Labelled("prose", text, ("descriptive", "straightforward", "art-critic", "product-listing")[number % 4])
    for name in ("POEMS", "DIALOGUE", "NAMES", "LISTS", "QUOTED"):
        for text in getattr(texts, name):
            yield Labelled(name.lower(), text)
    for number, text in enumerate(texts.PHRASES):
        yield Labelled("phrases", text, ("training-prompt", "midjourney", "stable-diffusion-prompt")[number % 3])
    rng = random.Random(1)
    for number in range(24):
        tags = rng.sample(texts.GENERAL_TAGS, (12, 40, 80, 150)[number % 4])
        joined = ", ".join(tags) if number % 2 else ", ".join(tags).replace("_", " ")
        head = "artist:someone, character:ada, meta:highres, " if number % 3 == 0 else ""
        yield Labelled("tags", head + joined, ("danbooru-tags", "e621-tags", "booru-like-tags")[number % 3])
    for number in range(8):
        yield Labelled("similar tags", ", ".join(_similar_tags(rng, number)), "danbooru-tags", TAG_PROMPT)
    yield from joined_prose(rng)
    yield from standin(rng)


def _similar_tags(rng: random.Random, number: int) -> list[str]:
    """Honest lists in which much is alike: one colour, a few doubles, numbered outfits."""
    things = [
        "hair",
        "eyes",
        "dress",
        "ribbon",
        "shoes",
        "sky",
        "flower",
        "hat",
        "gloves",
        "background",
        "bow",
        "socks",
    ]
    tags = [f"{['blue', 'red', 'white'][number % 3]}_{thing}" for thing in things]
    doubles = rng.sample(tags, 3)
    return [*rng.sample(texts.GENERAL_TAGS, 25), *tags, *doubles, *(f"{n}girls" for n in range(1, 5))]


def joined_prose(rng: random.Random) -> Iterator[Labelled]:
    """Captions of 250 to 400 words; the words of the trade return in all of them."""
    for _ in range(16):
        yield Labelled("long prose", " ".join(rng.sample(texts.PROSE, 6)))


def standin(rng: random.Random) -> Iterator[Labelled]:
    """What the stand-in says of ordinary pictures, over all modes, lengths and options."""
    for _ in range(NUM_STANDIN):
        request, prompt = sample_request(rng)
        yield _standin(request, prompt, rng)
    for mode, tone in STYLES:
        request = StandinRequest(mode=mode, tone=tone)
        yield _standin(request, prompt_text(request), rng)


def _standin(request: StandinRequest, prompt: str, rng: random.Random) -> Labelled:
    text = caption(sample_scene(rng), request, rng).text
    return Labelled("stand-in", text, str(request.mode), prompt)


def loops() -> Iterator[Labelled]:
    rng = random.Random(2)
    for kind, make in LOOPS.items():
        for number in range(14):
            mode = "danbooru-tags" if kind in TAG_LOOPS else "descriptive"
            # Most loops go on until the tokens end; some models leave them again.
            ended = "stop" if number % 5 == 4 else "length"
            yield Labelled(f"loop: {kind}", make(rng), mode, reason=Reason.LOOP, finish_reason=ended)


def start(rng: random.Random) -> str:
    """One to three good sentences of a caption."""
    sentences = rng.choice(texts.PROSE).split(". ")
    return ". ".join(sentences[: rng.randint(1, 3)]).rstrip(".") + ". "


def sentence(rng: random.Random) -> str:
    options = [item for text in texts.PROSE for item in text.rstrip(".").split(". ") if 6 <= len(item.split()) <= 20]
    return rng.choice(options)


def some_tags(rng: random.Random, low: int, high: int) -> list[str]:
    return rng.sample(texts.GENERAL_TAGS, rng.randint(low, high))


def _sentence_loop(rng):
    return start(rng) + f"{sentence(rng)}. " * rng.randint(6, 20)


def _two_sentences_loop(rng):
    return start(rng) + f"{sentence(rng)}. {sentence(rng)}. " * rng.randint(5, 12)


def _paragraph_loop(rng):
    return (start(rng) + f"{sentence(rng)}. {sentence(rng)}.\n\n") * rng.randint(4, 8)


def _phrase_loop(rng):
    words = sentence(rng).split()[: rng.randint(3, 6)]
    return start(rng) + ("and " + " ".join(words).strip(",") + " ") * rng.randint(10, 40)


def _word_loop(rng):
    return start(rng) + f"{rng.choice(['very', 'the', 'blue', 'detail', 'and'])} " * rng.randint(30, 200)


def _sentence_with_a_change(rng):
    """The same sentence about another thing, time and again."""
    things = ["left", "right", "center", "top", "bottom", "corner", "edge", "middle", "front", "back"]
    made = [
        f"There is a small white object that can be seen in the {rng.choice(things)} of the image." for _ in range(20)
    ]
    return start(rng) + " ".join(made)


def _shuffled_sentences(rng):
    """A few sentences in an order that never settles."""
    few = [f"{sentence(rng)}." for _ in range(3)]
    return " ".join(rng.choice(few) for _ in range(rng.randint(24, 30)))


def _cut_in_the_middle(rng):
    text = start(rng) + f"{sentence(rng)}. " * 14
    return text[: -rng.randint(8, 30)]


def _tag_loop(rng):
    tags = some_tags(rng, 4, 30)
    return ", ".join([*tags, *[rng.choice(tags)] * rng.randint(8, 90)])


def _tag_cycle(rng):
    tags = some_tags(rng, 5, 20)
    return ", ".join(tags + tags[-rng.randint(2, 5) :] * rng.randint(10, 30))


def _tag_shuffle(rng):
    tags = some_tags(rng, 8, 14)
    return ", ".join([*tags, *(rng.choice(tags) for _ in range(60))])


def _tag_flood(rng):
    """One word with everything that a vocabulary has."""
    things = {tag.split("_")[-1] for tag in texts.GENERAL_TAGS}
    word = rng.choice(["blue", "holding", "magical", "detailed"])
    return ", ".join([*some_tags(rng, 3, 8), *(f"{word}_{thing}" for thing in rng.sample(sorted(things), 50))])


def _numbered(rng):
    stem = rng.choice(["flower_", "style_parody_", "character", "tag ", "artist_name_"])
    first = rng.randint(1, 5)
    return ", ".join([*some_tags(rng, 2, 10), *(f"{stem}{n}" for n in range(first, first + rng.randint(18, 80)))])


def _standin_loop(rng):
    return ", ".join(["glitch_pattern", *["magenta_squares"] * rng.randint(12, 60)])


def _endless_word(rng):
    return start(rng) + rng.choice(["ha", "o", "la", "_x", "aeo"]) * rng.randint(60, 300)


def _signs(rng):
    return start(rng).rstrip(". ") + rng.choice(["?", "!", "? ", "✨", "~"]) * rng.randint(40, 300)


LOOPS = {
    "sentence": _sentence_loop,
    "two sentences": _two_sentences_loop,
    "paragraph": _paragraph_loop,
    "phrase": _phrase_loop,
    "word": _word_loop,
    "sentence with a change": _sentence_with_a_change,
    "shuffled sentences": _shuffled_sentences,
    "sentence, cut": _cut_in_the_middle,
    "tag": _tag_loop,
    "cycle of tags": _tag_cycle,
    "shuffled tags": _tag_shuffle,
    "tag flood": _tag_flood,
    "numbered tags": _numbered,
    "stand-in": _standin_loop,
    "endless word": _endless_word,
    "signs": _signs,
}
TAG_LOOPS = ("tag", "cycle of tags", "shuffled tags", "tag flood", "numbered tags", "stand-in")


def others() -> Iterator[Labelled]:
    rng = random.Random(3)
    for text in texts.REFUSALS:
        yield Labelled("refusal", text, rng.choice(["descriptive", "danbooru-tags"]), reason=Reason.REFUSAL)
    for text in texts.FOREIGN:
        yield Labelled("foreign script", text, reason=Reason.FOREIGN_SCRIPT)
    for number, text in enumerate(texts.PROSE[:20]):
        yield Labelled("prose for tags", text, "danbooru-tags", TAG_PROMPT, Reason.WRONG_FORM)
        tags = ", ".join(some_tags(rng, 8, 60))
        yield Labelled("tags for prose", tags, ("descriptive", "art-critic")[number % 2], reason=Reason.WRONG_FORM)
    for mark in ("<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>", "<image>", "</s>", "[/INST]",
                 "<|reserved_special_token_69|>", "<|begin_of_text|>"):  # fmt: skip
        yield Labelled("special token", texts.PROSE[0] + mark, reason=Reason.SPECIAL_TOKENS)
        yield Labelled("special token", mark + texts.PROSE[1], reason=Reason.SPECIAL_TOKENS)
    yield Labelled("special token", "assistant\n\n" + texts.PROSE[2], reason=Reason.SPECIAL_TOKENS)
    for _ in range(12):
        request, prompt = sample_request(rng)
        mode = "custom" if request.mode in TAG_MODES else str(request.mode)
        yield Labelled("prompt echo", prompt, mode, prompt, Reason.PROMPT_ECHO)
        yield Labelled("prompt echo", f"{prompt}\n\n{texts.PROSE[3]}", mode, prompt, Reason.PROMPT_ECHO)
    for text in ("", "  \n", ".", " , , ,", "✨"):
        yield Labelled("empty", text, reason=Reason.EMPTY_CAPTION)
