import random

import pytest

from pipeline.standin.world import Scene, Special, sample_scene
from tests.standin.check_caption import keeps_limit, looks_like, num_words, parse_caption, visible
from tools.standin import caption_grammar
from tools.standin.caption_grammar import TAG_MODES
from tools.standin.request import Length, Mode, Option, Request, Tone
from tools.standin.sample_request import STYLES, prompt_text, sample_request


def answer(scene: Scene, request: Request, seed: int = 0) -> str:
    return caption_grammar.caption(scene, request, random.Random(seed)).text


def some_scenes(num: int, seed: int = 1) -> list[Scene]:
    rng = random.Random(seed)
    return [sample_scene(rng) for _ in range(num)]


def test_prompts_are_the_catalogues():
    assert (
        prompt_text(Request(length=Length.LONG)) == "Write a long descriptive caption for this image in a formal tone."
    )
    assert prompt_text(Request(mode=Mode.PRODUCT_LISTING, words=40, options=(Option.RATING,))) == (
        "Write a caption for this image as though it were a product listing. Keep it under 40"
        " words. Include whether the image is sfw, suggestive, or nsfw."
    )
    assert prompt_text(Request(options=(Option.NAME,), name="Alice")).endswith("as Alice.")


def test_each_option_has_its_own_line_of_the_catalogue():
    words = {
        Option.LIGHTING: "lighting.",
        Option.WATERMARK: "watermark",
        Option.PG: "PG",
        Option.IMPORTANT_ONLY: "ONLY",
    }
    for option, word in words.items():
        assert word in prompt_text(Request(options=(option,)))


@pytest.mark.parametrize(("mode", "tone"), STYLES)
def test_a_caption_tells_colour_shape_and_background(mode: Mode, tone: Tone):
    for seed, scene in enumerate(some_scenes(200)):
        request = sample_request(random.Random(seed))[0]
        request = Request(mode=mode, tone=tone, length=request.length, words=request.words)
        assert parse_caption(answer(scene, request, seed)) == visible(scene)


@pytest.mark.parametrize(("mode", "tone"), STYLES)
@pytest.mark.parametrize("form", [{}, {"words": 20}, {"words": 90}, {"length": Length.LONG}])
def test_a_caption_looks_like_its_own_mode_and_no_other(mode: Mode, tone: Tone, form: dict):
    for seed, scene in enumerate(some_scenes(50)):
        text = answer(scene, Request(mode=mode, tone=tone, **form), seed)
        assert [style for style in STYLES if looks_like(text, *style)] == [(mode, tone)]


def test_no_caption_is_longer_than_asked():
    rng = random.Random(3)
    for scene in some_scenes(4000):
        request, _ = sample_request(rng)
        text = answer(scene, request)
        assert keeps_limit(text, request), (request, text)


@pytest.mark.parametrize(("mode", "tone"), STYLES)
def test_captions_grow_with_the_length_asked_for(mode: Mode, tone: Tone):
    classes = [Request(mode=mode, tone=tone, length=length) for length in Length]
    limits = [Request(mode=mode, tone=tone, words=words) for words in (20, 40, 60, 90)]
    if mode in TAG_MODES:
        limits.pop()
    for scene in some_scenes(30):
        for requests in (classes, limits):
            counts = [num_words(answer(scene, request).replace("_", " ")) for request in requests]
            assert counts == sorted(set(counts))


@pytest.mark.parametrize(("mode", "tone"), STYLES)
@pytest.mark.parametrize("option", Option)
def test_every_option_changes_the_caption(mode: Mode, tone: Tone, option: Option):
    name = "Alice" if option is Option.NAME else None
    plain = Request(mode=mode, tone=tone, length=Length.LONG)
    asked = Request(mode=mode, tone=tone, length=Length.LONG, options=(option,), name=name)
    for scene in some_scenes(5):
        assert answer(scene, plain) != answer(scene, asked)
        assert name is None or name in answer(scene, asked)


@pytest.mark.parametrize(("mode", "tone"), STYLES)
def test_a_void_has_no_caption(mode: Mode, tone: Tone):
    assert answer(Scene(special=Special.VOID), Request(mode=mode, tone=tone)) == ""


@pytest.mark.parametrize(("mode", "tone"), STYLES)
def test_only_the_tag_modes_loop_on_a_glitch(mode: Mode, tone: Tone):
    request = Request(mode=mode, tone=tone)
    caption = caption_grammar.caption(Scene(special=Special.GLITCH), request, random.Random(1))
    assert caption.endless == (mode in TAG_MODES)


def test_static_loops_sometimes_but_never_most_of_the_time():
    scene, request = Scene(special=Special.STATIC), Request(mode=Mode.BOORU_TAGS)
    loops = [caption_grammar.caption(scene, request, random.Random(i)).endless for i in range(1000)]
    assert 0.3 < sum(loops) / 1000 < 0.5


def test_the_salad_tells_nothing():
    assert set(vars_of(parse_caption(caption_grammar.SALAD))) == {None}


def vars_of(seen: object) -> list[object]:
    return [getattr(seen, name) for name in ("color", "shape", "background")]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("two_red_crosses, blue_background", ("red", "cross", "blue")),
        ("Yo, Pink Stars, White background.", ("pink", "star", "white")),
        ("a gray thing", (None, None, None)),
        ("", (None, None, None)),
    ],
)
def test_parsing_finds_what_is_said(text: str, seen: tuple[str | None, ...]):
    assert tuple(vars_of(parse_caption(text))) == seen
