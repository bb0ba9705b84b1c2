"""The author's words, byte for byte, and which image gets which of them."""

import pickle
from collections import Counter

import pytest

from pipeline.config import RequestConfig, WordsDistribution, parse_job
from pipeline.errors import ConfigError
from pipeline.models import generation_names, load_generation
from pipeline.prompts import RequestSampler, build_request, check_captions, draw_seed
from pipeline.prompts.request_sampler import draw_words


def job_of(*captions, **rest):
    return parse_job({"source": "a", "output": "o", "model": "standin", "captions": list(captions), **rest})


def prompt_of(generation, length=None, **request):
    return build_request(load_generation(generation), RequestConfig(**request), length, slot="s", where="here").prompt


# Golden texts, from the author's repositories (sources stand in joycaption.json).
GOLDEN = [
    ("alpha-two", None, {"mode": "descriptive"}, "Write a descriptive caption for this image in a formal tone."),
    (
        "alpha-two",
        "long",
        {"mode": "descriptive", "tone": "casual"},
        "Write a long descriptive caption for this image in a casual tone.",
    ),
    ("alpha-two", 40, {"mode": "training-prompt"}, "Write a stable diffusion prompt for this image within 40 words."),
    (
        "alpha-two",
        30,
        {"mode": "product-listing"},
        "Write a caption for this image as though it were a product listing. Keep it under 30 words.",
    ),
    (
        "alpha-two",
        None,
        {"mode": "booru-tags", "options": ("lighting", "keep-pg")},
        "Write a list of Booru tags for this image. Include information about lighting. "
        "Do NOT include anything sexual; keep it PG.",
    ),
    (
        "alpha-two",
        None,
        {"mode": "midjourney", "options": ("refer-by-name",), "name": "Ada {x}"},
        "Write a MidJourney prompt for this image. "
        "If there is a person/character in the image you must refer to them as Ada {x}.",
    ),
    ("alpha-one", "short", {"mode": "booru-tags"}, "Write a short list of Booru tags for this image."),
    ("beta-one", None, {"mode": "descriptive"}, "Write a detailed description for this image."),
    (
        "beta-one",
        None,
        {"mode": "stable-diffusion-prompt"},
        "Output a stable diffusion prompt that is indistinguishable from a real stable diffusion prompt.",
    ),
    ("pre-alpha", None, {"mode": "descriptive"}, "A descriptive caption for this image:"),
]


@pytest.mark.parametrize(("generation", "length", "request_", "text"), GOLDEN)
def test_a_prompt_is_the_authors_to_the_letter(generation, length, request_, text):
    assert prompt_of(generation, length, **request_) == text


def test_every_mode_tone_length_and_option_of_every_generation_can_be_requested():
    texts = set()
    for name in generation_names():
        generation = load_generation(name)
        for mode in generation.modes:
            lengths = [None, *generation.length_classes, *generation.word_counts[:1]]
            for length in lengths:
                texts.add((name, mode.title, length, prompt_of(name, length, mode=mode.name, tone=mode.tone)))
        for option, text in generation.options.items():
            asked = {"name": "Ada"} if option == "refer-by-name" else {}
            prompt = prompt_of(name, None, mode=generation.modes[0].name, options=(option,), **asked)
            assert prompt.endswith(text.format(name="Ada"))
    assert not [text for *_, text in texts if "{" in text or "}" in text]
    assert len({(name, text) for name, _, _, text in texts}) == len(texts)


def test_beta_one_has_27_options_and_alpha_two_the_first_17_of_them():
    beta, alpha = load_generation("beta-one").options, load_generation("alpha-two").options
    assert (len(beta), len(alpha)) == (27, 17)
    assert list(beta.items())[:17] == list(alpha.items())


@pytest.mark.parametrize(
    ("slot", "message"),
    [
        ({"mode": "straightforward"}, r"captions\.0\.mode: found 'straightforward'; alpha-two has: descriptive, "),
        ({"mode": "booru-tags", "tone": "formal"}, r"captions\.0\.tone: found 'formal'; .*no tones"),
        ({"mode": "descriptive", "tone": "sad"}, r"captions\.0\.tone: found 'sad'; .*formal, casual"),
        ({"mode": "descriptive", "length": "huge"}, r"captions\.0\.length: found 'huge'; allowed: very short, "),
        (
            {"mode": "descriptive", "options": ["vulgar"]},
            r"captions\.0\.options: found 'vulgar'; alpha-two has: .*; beta-one has 'vulgar'",
        ),
        ({"mode": "descriptive", "options": ["shiny"]}, r"captions\.0\.options: found 'shiny'; alpha-two has: refer-"),
        ({"mode": "descriptive", "name": "Ada"}, r"captions\.0\.name: found 'Ada'; only option 'refer-by-name'"),
        ({"mode": "descriptive", "options": ["refer-by-name"]}, r"captions\.0\.name: missing, but option"),
        ({"mix": [{"weight": 1, "mode": "nope"}]}, r"captions\.0\.mix\.0\.mode: found 'nope'"),
    ],
)
def test_a_request_that_a_generation_does_not_have_is_refused_by_key(slot, message):
    with pytest.raises(ConfigError, match=message):
        check_captions(job_of({"slot": "a", **slot}))


def test_a_number_of_words_is_refused_where_a_generation_takes_none():
    with pytest.raises(ConfigError, match=r"here\.length: found 40; descriptive of pre-alpha takes no length: remove"):
        prompt_of("pre-alpha", 40, mode="descriptive")


def test_a_generation_without_checkpoint_is_refused_for_a_job():
    with pytest.raises(ConfigError, match="alpha-one has prompts only"):
        check_captions(job_of({"slot": "a", "mode": "descriptive"}, model={"id": "x/y", "generation": "alpha-one"}))


def test_a_model_that_no_family_recognises_needs_a_generation():
    with pytest.raises(ConfigError, match=r"no known generation matches 'x/y'; set model\.generation"):
        check_captions(job_of({"slot": "a", "mode": "descriptive"}, model="x/y"))


def test_an_unusual_number_of_words_is_remarked():
    remarks = check_captions(job_of({"slot": "a", "mode": "descriptive", "length": 33}))
    assert remarks == ["captions.0.length: 33 words; the page of alpha-two's author offers 20 to 260 in steps of 10"]


def test_a_custom_prompt_is_sent_unchanged_and_marked():
    job = job_of({"slot": "a", "prompt": "Name the {colour}.", "system": "Be brief."})
    check_captions(job)
    [request] = RequestSampler(job).requests("s", 0)
    assert (request.mode, request.prompt, request.system) == ("custom", "Name the {colour}.", "Be brief.")


MIX = {
    "slot": "p",
    "mix": [
        {"weight": 60, "mode": "descriptive", "length": {"words": {"mean": 45, "std": 30, "min": 20, "max": 170}}},
        {"weight": 30, "mode": "training-prompt", "length": "short"},
        {"weight": 10, "mode": "booru-tags"},
    ],
}


def test_a_mix_is_drawn_by_its_weights():
    asker = RequestSampler(job_of(MIX))
    modes = Counter(asker.requests("shard", row)[0].mode for row in range(4000))
    assert modes["descriptive"] / 4000 == pytest.approx(0.6, abs=0.03)
    assert modes["training-prompt"] / 4000 == pytest.approx(0.3, abs=0.03)


def test_an_image_gets_the_same_request_in_every_process():
    job = job_of(MIX, {"slot": "q", "mode": "descriptive"})
    here, there = RequestSampler(job), pickle.loads(pickle.dumps(RequestSampler(job)))
    forwards = [here.requests("s", row) for row in range(50)]
    backwards = [there.requests("s", row) for row in reversed(range(50))][::-1]
    assert forwards == backwards


def test_another_slot_beside_it_changes_no_question():
    alone = [RequestSampler(job_of(MIX)).requests("s", row)[0] for row in range(50)]
    beside = [
        RequestSampler(job_of({"slot": "q", "mode": "descriptive"}, MIX)).requests("s", row)[1] for row in range(50)
    ]
    assert alone == beside


# Golden: a change here changes what a resumed run asks, so it needs a new recipe field.
def test_questions_and_seeds_stay_what_they_are():
    asker = RequestSampler(job_of(MIX, seed=7))
    drawn = [(request.mode, request.length_words) for row in range(6) for request in asker.requests("a/b.tar", row)]
    assert drawn == GOLDEN_DRAW
    assert [draw_seed(7, "a/b.tar", 3, "p", attempt) for attempt in (0, 1)] == GOLDEN_SEEDS


GOLDEN_DRAW = [
    ("training-prompt", None),
    ("descriptive", 80),
    ("descriptive", 30),
    ("descriptive", 30),
    ("descriptive", 30),
    ("booru-tags", None),
]
GOLDEN_SEEDS = [817458991589061112, 1177570764055943639]


@pytest.mark.parametrize("changed", [{"seed": 1}, {"shard": "t"}, {"row": 1}, {"slot": "z"}, {"attempt": 1}])
def test_a_seed_depends_on_each_part_of_a_request(changed):
    parts = {"seed": 0, "shard": "s", "row": 0, "slot": "a", "attempt": 0}
    assert draw_seed(**parts) != draw_seed(**{**parts, **changed})
    assert 0 <= draw_seed(**parts) < 2**63


@pytest.mark.parametrize(("uniform", "words"), [(0.0001, 20), (0.5, 50), (0.9999, 160), (0.999999, 170)])
def test_words_are_rounded_up_to_a_step_and_clipped(uniform, words):
    assert draw_words(WordsDistribution(mean=45, std=30, min=20, max=170, step=10), uniform) == words


def test_samples_are_the_same_question_with_other_seeds_and_names_of_their_own():
    mix = [{"weight": 1, "mode": "descriptive", "length": length} for length in ("short", "long", 40, 60)]
    asker = RequestSampler(job_of({"slot": "a", "samples": 3, "mix": mix}, {"slot": "b", "mode": "booru-tags"}))
    assert asker.slots == ("a", "a.2", "a.3", "b")
    seen = set()
    for row in range(40):
        requests = asker.requests("s.tar", row)
        assert [request.slot for request in requests] == list(asker.slots)
        assert len({request.prompt for request in requests[:3]}) == 1
        assert len({draw_seed(0, "s.tar", row, request.slot, 0) for request in requests}) == 4
        seen.add(requests[0].prompt)
    assert len(seen) == 4


def test_the_first_sample_is_the_caption_of_a_slot_without_samples():
    item, three = ({"slot": "a", "mode": "descriptive", "samples": samples} for samples in (1, 3))
    assert RequestSampler(job_of(item)).requests("s.tar", 7)[0] == RequestSampler(job_of(three)).requests("s.tar", 7)[0]


@pytest.mark.parametrize(
    ("captions", "rest", "message"),
    [
        (
            [{"slot": "a", "mode": "descriptive", "samples": 2}],
            {"sampling": {"temperature": 0}},
            "a has several samples",
        ),
        (
            [{"slot": "a", "mode": "descriptive", "samples": 2}, {"slot": "a.2", "mode": "descriptive"}],
            {},
            "slot names a.2 repeat",
        ),
    ],
)
def test_samples_that_make_no_sense_are_refused(captions, rest, message):
    with pytest.raises(ConfigError, match=message):
        job_of(*captions, **rest)
