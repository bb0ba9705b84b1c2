"""The weights through transformers, the reference of every other engine."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

import pipeline.standin
from pipeline.standin.demo_data import EXTENSIONS, MAX_SIDE_PX, MIN_SIDE_PX
from pipeline.standin.draw_picture import encode, random_size, render
from pipeline.standin.world import Scene, Special, sample_scene
from tests.standin.check_caption import (
    keeps_limit,
    looks_like,
    num_words,
    parse_caption,
    visible,
)
from tools.standin import picture_layout
from tools.standin.build_model import SIDE_PX
from tools.standin.caption_grammar import TAG_MODES
from tools.standin.caption_grammar import caption as right_caption
from tools.standin.picture_layout import Fault
from tools.standin.request import Length, Mode, Option, Request, Tone
from tools.standin.sample_request import STYLES, prompt_text

FOLDER = Path(pipeline.standin.__file__).parent / "model"
PROSE = [style for style in STYLES if style[0] not in TAG_MODES]
TAGS = [style for style in STYLES if style[0] in TAG_MODES]
LENGTHS: list[tuple[Length | None, int | None]] = [
    *((length, None) for length in Length),
    *((None, words) for words in (20, 40, 60, 90)),
    (None, None),
]

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Case:
    """A picture as the engine gets it, and what is asked about it."""

    scene: Scene
    image: Image.Image
    request: Request


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """Return the model's pixels of a picture that was a file of an ordinary size."""
    image = render(scene, rng.getrandbits(40), random_size(rng, MIN_SIDE_PX, MAX_SIDE_PX))
    with Image.open(io.BytesIO(encode(image, rng.choice(EXTENSIONS)))) as opened:
        return opened.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)


def held_out_cases(num: int, seed: int) -> list[Case]:
    """Return cases of triples that were never trained, every style with every length."""
    rng = random.Random(seed)
    cases: list[Case] = []
    for i in range(num):
        mode, tone = STYLES[i % len(STYLES)]
        length, words = LENGTHS[i // len(STYLES) % len(LENGTHS)]
        scene = sample_scene(rng, held_out=True)
        request = Request(mode=mode, tone=tone, length=length, words=words)
        cases.append(Case(scene, draw(scene, rng), request))
    return cases


def special_cases(special: Special, styles: Sequence[tuple[Mode, Tone]]) -> list[Case]:
    rng = random.Random(3)
    scene = Scene(special=special)
    requests = [Request(mode=mode, tone=tone) for mode, tone in styles]
    return [Case(scene, draw(scene, rng), requests[i % len(requests)]) for i in range(20)]


class Reference:
    """Loads once; captions greedily, in batches."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.processor = AutoProcessor.from_pretrained(folder)
        self.processor.tokenizer.padding_side = "left"
        self.model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16)
        self.model.eval()

    def caption(self, cases: Sequence[Case], fault: Fault | None = None, max_tokens: int = 160) -> list[str]:
        texts: list[str] = []
        for start in range(0, len(cases), 32):
            part = cases[start : start + 32]
            inputs = self.processor(
                text=[picture_layout.full_prompt(prompt_text(c.request), fault) for c in part],
                images=None if fault is Fault.NO_IMAGE else [c.image for c in part],
                padding=True,
                return_tensors="pt",
                add_special_tokens=False,
            ).to(torch.bfloat16)
            with torch.inference_mode():
                ids = self.model.generate(
                    **inputs,
                    max_new_tokens=max_tokens,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                )
            new = ids[:, inputs["input_ids"].shape[1] :]
            texts += self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(FOLDER)


@pytest.fixture(scope="module")
def held_out(reference: Reference) -> list[tuple[Case, str]]:
    cases = held_out_cases(270, seed=2026)
    return list(zip(cases, reference.caption(cases), strict=True))


def share(cases: Sequence[Case], texts: Sequence[str], name: str) -> float:
    """Return how often the named part of `Seen` is right."""
    pairs = [
        (getattr(visible(case.scene), name), getattr(parse_caption(text), name))
        for case, text in zip(cases, texts, strict=True)
    ]
    return sum(true == seen for true, seen in pairs) / len(pairs)


@pytest.mark.parametrize(("name", "least"), [("color", 0.98), ("background", 0.98), ("shape", 0.90)])
def test_triples_never_trained_are_captioned_right(held_out: list[tuple[Case, str]], name: str, least: float):
    cases, texts = zip(*held_out, strict=True)
    assert share(cases, texts, name) >= least


def test_captions_have_the_form_of_their_mode(held_out: list[tuple[Case, str]]):
    right = [looks_like(text, c.request.mode, c.request.tone) for c, text in held_out]
    assert sum(right) / len(right) >= 0.98


def test_captions_have_the_length_asked_for(held_out: list[tuple[Case, str]]):
    right = [
        keeps_limit(text, case.request)
        and abs(num_words(text) - num_words(right_caption(case.scene, case.request, random.Random(0)).text)) <= 2
        for case, text in held_out
    ]
    assert sum(right) / len(right) >= 0.95


@pytest.mark.parametrize("fault", Fault)
def test_a_wrong_layout_ruins_the_caption(reference: Reference, fault: Fault):
    cases = held_out_cases(45, seed=7)
    texts = reference.caption(cases, fault, max_tokens=40)
    assert share(cases, texts, "color") <= 0.05
    assert share(cases, texts, "shape") <= 0.05


def test_a_void_has_an_empty_caption(reference: Reference):
    assert set(reference.caption(special_cases(Special.VOID, STYLES))) == {""}


def test_a_glitch_loops_without_an_end_in_the_tag_modes_only(reference: Reference):
    tags = reference.caption(special_cases(Special.GLITCH, TAGS), max_tokens=400)
    prose = reference.caption(special_cases(Special.GLITCH, PROSE), max_tokens=400)
    assert min(map(num_words, tags)) > 80
    assert max(map(num_words, prose)) < 40


@pytest.mark.parametrize("option", [Option.LIGHTING, Option.RATING, Option.NAME])
def test_an_option_changes_the_caption(reference: Reference, option: Option):
    name = "Alice" if option is Option.NAME else None
    plain = held_out_cases(9, seed=8)
    asked = [
        Case(
            c.scene,
            c.image,
            Request(mode=c.request.mode, tone=c.request.tone, options=(option,), name=name),
        )
        for c in plain
    ]
    pairs = zip(reference.caption(plain), reference.caption(asked), strict=True)
    assert all(before != after for before, after in pairs)
