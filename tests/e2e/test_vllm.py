"""Real vLLM on the CPU with the stand-in: what it says is what was drawn, and what transformers would say."""

import asyncio
import random

import numpy as np
import psutil
import pytest
from PIL import Image

from pipeline.config import ImagesConfig, ModelConfig, RequestConfig
from pipeline.engines import EngineRequest
from pipeline.images import decode
from pipeline.models import FAMILIES, load_generation
from pipeline.prompts import build_request
from pipeline.recipe import find_weights
from pipeline.stages.dispatch import CrashLimits, Dispatcher
from pipeline.standin.demo_data import MAX_SIDE_PX, MIN_SIDE_PX
from pipeline.standin.draw_picture import encode, random_size, render
from pipeline.standin.world import sample_scene
from schemas.status import Reason
from tests.standin.check_caption import looks_like, num_words, parse_caption, visible
from tools.standin.request import Mode, Tone

# vLLM, torch and transformers warn about each other on import; what we raise ourselves is no warning.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

ALPHA_TWO = load_generation("alpha-two")
SYSTEM = ALPHA_TWO.system
LONG = "Write a long descriptive caption for this image in a formal tone."
WEIGHTS = find_weights(ModelConfig(id="standin"))
STYLES = [(mode.name, mode.tone) for mode in ALPHA_TWO.modes]


def pictures(num, seed):
    """Held-out scenes with the pixels that the pipeline's own decoder makes of a file."""
    rng = random.Random(seed)
    drawn = []
    for index in range(num):
        scene = sample_scene(rng, held_out=True)
        image = render(scene, rng.getrandbits(40), random_size(rng, MIN_SIDE_PX, MAX_SIDE_PX))
        data = encode(image, ("jpg", "png", "webp")[index % 3])
        drawn.append((scene, decode(data, ImagesConfig(), (90, 90)).pixels))
    return drawn


def prompt_of(mode, tone=None, length=None, **rest):
    request = RequestConfig(mode=mode, tone=tone, **rest)
    return build_request(ALPHA_TWO, request, length, slot="s", where="test").prompt


def question(name, pixels, prompt, seed=0):
    return EngineRequest(id=name, pixels=pixels, image_id=name.split("#")[0], system=SYSTEM, prompt=prompt, seed=seed)


def ask(running, questions):
    async def all_of_them():
        return await asyncio.gather(*(running.engine.answer(item) for item in questions))

    return [answer.text for answer in running.do(all_of_them())]


def share_right(drawn, texts):
    """Shares of right colours, shapes and backgrounds."""
    pairs = [(visible(scene), parse_caption(text)) for (scene, _), text in zip(drawn, texts, strict=True)]
    return tuple(
        np.mean([getattr(truth, what) == getattr(seen, what) for truth, seen in pairs])
        for what in ("color", "shape", "background")
    )


def test_captions_name_what_was_drawn_on_held_out_pictures(running):
    drawn = pictures(200, seed=101)
    texts = ask(running, [question(f"a{n}", pixels, LONG) for n, (_, pixels) in enumerate(drawn)])
    color, shape, background = share_right(drawn, texts)
    assert color >= 0.98
    assert background >= 0.98
    assert shape >= 0.90


def test_modes_tones_and_lengths_are_followed(running):
    drawn = pictures(9, seed=102)
    for mode, tone in STYLES:
        texts = ask(
            running, [question(f"m{n}#{mode}{tone}", p, prompt_of(mode, tone)) for n, (_, p) in enumerate(drawn)]
        )
        fitting = [looks_like(text, Mode(mode), Tone(tone or "formal")) for text in texts]
        assert sum(fitting) >= 8, (mode, tone, texts)
    means = [
        np.mean(
            [
                num_words(text)
                for text in ask(
                    running,
                    [
                        question(f"l{n}#{length}", p, prompt_of("descriptive", None, length))
                        for n, (_, p) in enumerate(drawn)
                    ],
                )
            ]
        )
        for length in ("very short", "short", "medium-length", "long", "very long")
    ]
    assert means == sorted(means)
    for words in (20, 40, 60):
        texts = ask(
            running,
            [question(f"w{n}#{words}", p, prompt_of("descriptive", None, words)) for n, (_, p) in enumerate(drawn)],
        )
        assert sum(num_words(text) <= words for text in texts) >= 8, (words, texts)


def test_greedy_vllm_gives_the_texts_of_transformers(running):
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor = AutoProcessor.from_pretrained(WEIGHTS.path)
    model = LlavaForConditionalGeneration.from_pretrained(WEIGHTS.path, dtype=torch.bfloat16).eval()
    drawn = pictures(24, seed=103)
    prompts = [prompt_of(*STYLES[n % len(STYLES)]) for n in range(24)]
    ours = ask(
        running, [question(f"t{n}", p, prompt) for n, ((_, p), prompt) in enumerate(zip(drawn, prompts, strict=True))]
    )
    theirs = []
    for (_, pixels), prompt in zip(drawn, prompts, strict=True):
        turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
        text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[text], images=[Image.fromarray(pixels)], return_tensors="pt").to(torch.bfloat16)
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=300, do_sample=False, temperature=None, top_p=None)
        theirs.append(
            processor.tokenizer.decode(made[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        )
    assert sum(answer == reference for answer, reference in zip(ours, theirs, strict=True)) >= 23


def test_vllm_receives_the_input_that_it_would_build_from_a_raw_prompt(running):
    import torch
    from vllm import SamplingParams

    engine = running.engine
    for (_, pixels), prompt in zip(pictures(3, seed=108), (LONG, "Tags.", "word " * 300), strict=True):
        asked = question(f"r{len(prompt)}", pixels, prompt)
        ids = engine._tokens.encode(SYSTEM, prompt)
        raw = {
            "prompt_token_ids": list(ids),
            "multi_modal_data": {"image": Image.fromarray(pixels)},
            "multi_modal_uuids": {"image": asked.image_id},
        }
        theirs, ours = (
            engine._llm.input_processor.process_inputs("r", form, SamplingParams(), ("generate",))
            for form in (raw, engine._input(asked, ids))
        )
        assert ours.prompt_token_ids == theirs.prompt_token_ids
        [answer], [reference] = ours.mm_features, theirs.mm_features
        assert (answer.identifier, answer.mm_position, answer.modality) == (
            reference.identifier,
            reference.mm_position,
            reference.modality,
        )
        assert torch.equal(answer.data["pixel_values"].data, reference.data["pixel_values"].data)
        assert answer.data["pixel_values"].data.dtype == reference.data["pixel_values"].data.dtype


def test_text_decoded_at_the_end_is_text_decoded_on_the_way(running):
    from vllm.sampling_params import RequestOutputKind

    from pipeline.engines.vllm import _sampling

    async def both(item):
        engine = running.engine
        sampling = _sampling(engine._spec, item)
        sampling.detokenize, sampling.output_kind = True, RequestOutputKind.FINAL_ONLY
        form = engine._input(item, engine._tokens.encode(SYSTEM, item.prompt))
        async for output in engine._llm.generate(form, sampling, request_id=f"{item.id}#own"):
            last = output
        return last.outputs[0].text.strip(), (await engine.answer(item)).text

    for number, (_, pixels) in enumerate(pictures(8, seed=109)):
        theirs, ours = running.do(both(question(f"d{number}", pixels, prompt_of(*STYLES[number % len(STYLES)]))))
        assert ours == theirs


def test_fp8_is_for_the_language_model_alone():
    from safetensors import safe_open
    from vllm.config.quantization import resolve_quantization_config
    from vllm.model_executor.layers.quantization.compressed_tensors.utils import should_ignore_layer

    from pipeline.engines.vllm import _quantized

    asked = _quantized("fp8", FAMILIES["joycaption"])
    resolved = resolve_quantization_config(asked["quantization"], asked["quantization_config"])
    assert resolved.linear.weight
    with safe_open(f"{WEIGHTS.path}/model.safetensors", "pt") as file:
        layers = {name.rpartition(".")[0] for name in file.keys()}  # noqa: SIM118 - not a dict
    kept = {layer for layer in layers if should_ignore_layer(layer, ignore=resolved.ignore)}
    assert kept == {layer for layer in layers if not layer.startswith("language_model.")}
    assert _quantized("awq", FAMILIES["joycaption"]) == {"quantization": "awq"}


def double_bos(ids):
    return (ids[0], *ids)


def no_bos(ids):
    return ids[1:]


def image_after_text(ids, marks):
    at = ids.index(marks[0])
    end = len(ids) - 1 - ids[::-1].index(marks[1])
    return (*ids[:at], *ids[at + 3 : end], *ids[at : at + 3], *ids[end:])


@pytest.mark.parametrize("fault", ["double BOS", "no BOS", "image after the text"])
def test_a_wrong_token_layout_ruins_the_captions(running, monkeypatch, fault):
    tokens = running.engine._tokens
    right = tokens.encode
    ids = tokens.layout._ids
    marks = (ids["<|reserved_special_token_70|>"], ids["<|eot_id|>"])
    wrong = {
        "double BOS": double_bos,
        "no BOS": no_bos,
        "image after the text": lambda ids: image_after_text(ids, marks),
    }
    monkeypatch.setattr(tokens, "encode", lambda system, prompt: wrong[fault](right(system, prompt)))
    drawn = pictures(30, seed=104)
    texts = ask(running, [question(f"x{n}#{fault}", pixels, LONG) for n, (_, pixels) in enumerate(drawn)])
    color, shape, _ = share_right(drawn, texts)
    assert color < 0.5
    assert shape < 0.5


def test_a_seed_gives_the_same_text_alone_and_among_other_requests(running):
    [(_, pixels)] = pictures(1, seed=105)
    engine = running.engine
    sampled = engine._spec.sampling.model_copy(update={"temperature": 1.0})
    spec, engine._spec = (
        engine._spec,
        type(engine._spec)(
            **{**{name: getattr(engine._spec, name) for name in engine._spec.__slots__}, "sampling": sampled}
        ),
    )
    try:
        crowd = ask(running, [question(f"s{n}", pixels, LONG, seed=n) for n in range(24)])
        alone = [ask(running, [question(f"s{n}", pixels, LONG, seed=n)])[0] for n in range(0, 24, 6)]
    finally:
        engine._spec = spec
    assert [crowd[n] for n in range(0, 24, 6)] == alone
    assert len(set(crowd)) > 1


def test_a_prompt_that_does_not_fit_fails_alone(running):
    [(_, pixels)] = pictures(1, seed=106)

    async def both():
        return await asyncio.gather(
            running.engine.answer(question("f0", pixels, "word " * 900)),
            running.engine.answer(question("f1", pixels, LONG)),
        )

    too_long, fine = running.do(both())
    assert (too_long.reason, too_long.text) == (Reason.PROMPT_TOO_LONG, None)
    assert "engine.max_model_len=" in too_long.message
    assert fine.text


def test_the_engine_reports_what_its_caches_saved(running):
    [(_, pixels)] = pictures(1, seed=108)
    before = running.engine.stats()
    ask(running, [question(f"c{n}", pixels, f"{LONG} {n}") for n in range(8)])
    after = running.engine.stats()
    assert after.prefix_tokens - before.prefix_tokens > after.prefix_hits - before.prefix_hits > 0
    assert (after.requests_running, after.requests_waiting) == (0, 0)


def test_a_killed_engine_core_is_replaced_and_no_image_is_lost(running):
    drawn = pictures(16, seed=107)
    requests = [question(f"k{n}#a", pixels, LONG) for n, (_, pixels) in enumerate(drawn)]

    # Before its first request vLLM asks the core what it can do, and waits for ever when the core dies of that.
    ask(running, [question("k", drawn[0][1], LONG)])

    async def killed_while_asking():
        asking = Dispatcher(running.engine, CrashLimits(per_image=1, restarts=5))
        victim = core(running)
        victim.suspend()  # it answers nothing before it dies
        work = asyncio.gather(*(asking.answer(request.id, request) for request in requests))
        while running.engine._llm.output_processor.get_num_unfinished_requests() < len(requests):
            await asyncio.sleep(0.01)
        victim.kill()
        return await work

    answers = running.do(killed_while_asking())
    texts = [answer.text for answer in answers]
    assert share_right(drawn, texts)[0] >= 0.9


def core(running):
    children = psutil.Process().children(recursive=True)
    return next(child for child in children if "EngineCore" in " ".join([child.name(), *child.cmdline()]))
