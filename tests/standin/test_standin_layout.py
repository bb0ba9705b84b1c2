import random
from pathlib import Path

import pytest
from transformers import AutoProcessor, PreTrainedTokenizerFast

import pipeline.standin
from pipeline.standin.draw_picture import render
from pipeline.standin.world import Scene
from tools.standin import picture_layout
from tools.standin.build_model import NUM_IMAGE_TOKENS, SIDE_PX
from tools.standin.picture_layout import Fault
from tools.standin.sample_request import prompt_text, sample_request

FOLDER = Path(pipeline.standin.__file__).parent / "model"
TEXT = "Write a caption for this image."


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(FOLDER)


def test_special_tokens_have_the_ids_of_their_places(tokenizer: PreTrainedTokenizerFast):
    ids = tokenizer.convert_tokens_to_ids(list(picture_layout.SPECIAL_TOKENS))
    assert ids == list(range(len(picture_layout.SPECIAL_TOKENS)))


def test_a_prompt_has_one_bos_at_its_start_and_one_image_between_its_marks(
    tokenizer: PreTrainedTokenizerFast,
):
    ids = tokenizer(picture_layout.full_prompt(TEXT), add_special_tokens=False)["input_ids"]
    names = tokenizer.convert_ids_to_tokens(ids)
    assert [i for i, name in enumerate(names) if name == picture_layout.BOS] == [0]
    at = names.index(picture_layout.IMAGE)
    assert names.count(picture_layout.IMAGE) == 1
    assert names[at - 1 : at + 2] == [picture_layout.IMAGE_START, picture_layout.IMAGE, picture_layout.IMAGE_END]
    assert names[-4:-1] == [picture_layout.HEADER, "assistant", picture_layout.HEADER_END]


def test_the_layout_is_golden(tokenizer: PreTrainedTokenizerFast):
    ids = tokenizer(picture_layout.full_prompt("Write 120 words."), add_special_tokens=False)["input_ids"]
    assert "|".join(tokenizer.convert_ids_to_tokens(ids)).replace("<|", "<").replace("|>", ">") == (
        "<begin_of_text>|<start_header_id>|system|<end_header_id>|ĊĊ|Cutting|ĠKnowledge|ĠDate|:"
        "|ĠDecember|Ġ|2|0|2|3|Ċ|Today|ĠDate|:|Ġ|2|6|ĠJuly|Ġ|2|0|2|4|ĊĊ|You|Ġare|Ġa|Ġhelpful"
        "|Ġimage|Ġcaptioner|.|<eot_id>|<start_header_id>|user|<end_header_id>|ĊĊ"
        "|<reserved_special_token_70>|<reserved_special_token_69>|<reserved_special_token_71>"
        "|Write|Ġ|1|2|0|Ġwords|.|<eot_id>|<start_header_id>|assistant|<end_header_id>|ĊĊ"
    )


def test_the_tokenizer_adds_bos_and_the_chat_template_does_not():
    processor = AutoProcessor.from_pretrained(FOLDER)
    conversation = [
        {"role": "system", "content": picture_layout.SYSTEM},
        {"role": "user", "content": TEXT},
    ]
    text = processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert picture_layout.BOS + text == picture_layout.full_prompt(TEXT)
    inputs = processor(text=text, images=render(Scene(), 1), return_tensors="pt")
    ids = inputs["input_ids"][0].tolist()
    assert ids.count(picture_layout.SPECIAL_TOKENS.index(picture_layout.BOS)) == 1
    assert ids.count(picture_layout.SPECIAL_TOKENS.index(picture_layout.IMAGE)) == NUM_IMAGE_TOKENS
    assert inputs["pixel_values"].shape == (1, 3, SIDE_PX, SIDE_PX)


def test_the_chat_template_drops_an_image_token_in_the_users_text():
    processor = AutoProcessor.from_pretrained(FOLDER)
    conversation = [{"role": "user", "content": f"{picture_layout.IMAGE} {TEXT}"}]
    text = processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert text.count(picture_layout.IMAGE) == 1


def test_pictures_are_resampled_with_lanczos_as_joycaption_does():
    processor = AutoProcessor.from_pretrained(FOLDER)
    assert processor.image_processor.resample == 1


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_changes_the_layout(fault: Fault):
    assert picture_layout.full_prompt(TEXT, fault) != picture_layout.full_prompt(TEXT)


def test_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast):
    rng = random.Random(1)
    for _ in range(200):
        text = prompt_text(sample_request(rng)[0])
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
    assert tokenizer.decode(tokenizer("Éß 漢字 😀", add_special_tokens=False)["input_ids"]) == ("Éß 漢字 😀")
