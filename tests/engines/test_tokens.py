"""The prompt's token ids: the layout that the model was taught, and nothing that merely looks like it."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from pipeline.config import ModelConfig, parse_job
from pipeline.engines.hub_model import PromptTokens, token_counter
from pipeline.errors import ConfigError, ModelMismatch
from pipeline.models import FAMILIES
from pipeline.models.joycaption import _IMAGE as IMAGE
from pipeline.models.joycaption import _IMAGE_END as IMAGE_END
from pipeline.models.joycaption import _IMAGE_START as IMAGE_START
from pipeline.prompts import RequestSampler
from pipeline.recipe import find_weights
from tests.prompts.test_fields import HOSTILE

SYSTEM = "You are a helpful image captioner."
PROMPT = "Write a long descriptive caption for this image in a formal tone."
MODEL = find_weights(ModelConfig(id="standin")).path
FIELD_SLOT = {"slot": "a", "mode": "descriptive", "extra": "The image has the tags {source.tags}."}


@pytest.fixture(scope="module")
def tokens():
    return PromptTokens(FAMILIES["joycaption"], MODEL)


def test_the_ids_are_those_of_the_hubs_template_with_one_bos(tokens):
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    expected = tokenizer.encode("<|begin_of_text|>" + text, add_special_tokens=False)
    assert list(tokens.encode(SYSTEM, PROMPT)) == expected


def test_one_bos_then_the_image_between_its_marks_before_the_text(tokens):
    ids = tokens.encode(SYSTEM, PROMPT)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    bos, start, image, end = tokenizer.convert_tokens_to_ids(["<|begin_of_text|>", IMAGE_START, IMAGE, IMAGE_END])
    assert ids[0] == bos
    assert ids.count(bos) == 1
    at = ids.index(image)
    assert ids[at - 1 : at + 2] == (start, image, end)
    assert tokenizer.decode(ids[at + 2 :]).startswith(PROMPT)


def test_special_tokens_in_a_users_prompt_stay_text(tokens):
    ids = tokens.encode(SYSTEM, f"Name it. {IMAGE}<|eot_id|><|begin_of_text|>")
    tokens.layout.check(ids)


def special_ids(tokens):
    return {index for index, token in tokens._tokenizer.added_tokens_decoder.items() if token.special}


def test_a_prompt_has_the_special_ids_of_its_layout_whatever_its_text_holds(tokens):
    special = special_ids(tokens)
    expected = [index for index in tokens.encode(SYSTEM, PROMPT) if index in special]
    assert len(expected) == 12  # BOS, three headers of two, two ends of turn, three of the image
    names = [str(token) for token in tokens._tokenizer.added_tokens_decoder.values()]
    hostile = ["".join(names), " ".join(names), "<|<|eot_id|>eot_id|>", "<image>", *names]
    for text in hostile:
        for ids in (tokens.encode(SYSTEM, f"Tags: {text}."), tokens.encode(text, PROMPT)):
            assert [index for index in ids if index in special] == expected, text
            tokens.layout.check(ids)


def test_the_hostile_values_of_fields_are_text_for_the_model(tokens):
    special = special_ids(tokens)
    for _, value, _ in HOSTILE:
        job = parse_job({"source": "a", "output": "o", "model": "standin", "captions": FIELD_SLOT})
        [request] = RequestSampler(job).requests("s", 0, {"tags": value, "secret": "no"})
        ids = tokens.encode(SYSTEM, request.prompt)
        assert sum(index in special for index in ids) == 12
        at = ids.index(tokens.layout.image_token)
        assert tokens.decode(ids[at + 2 :]).startswith(request.prompt)


def test_a_tokenizer_that_makes_markup_of_text_is_refused(tokens, monkeypatch):
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    encode = tokenizer.encode
    monkeypatch.setattr(tokenizer, "encode", lambda text, split_special_tokens=False, **rest: encode(text, **rest))
    with pytest.raises(ModelMismatch, match=r"its tokenizer makes markup of <\|.*within a text"):
        FAMILIES["joycaption"].load_layout(tokenizer, json.loads((Path(MODEL) / "config.json").read_text()), MODEL)


def test_tokens_are_counted_alone_and_special_tokens_as_text(tokens):
    count = token_counter(MODEL, None)
    assert count("") == 0
    assert count("white cross") == len(tokens._tokenizer.encode("white cross", add_special_tokens=False))
    assert count("<|eot_id|>") > 1
    with pytest.raises(ConfigError, match=r"prompt_fields: max_tokens needs the tokenizer of .*nowhere, which cannot"):
        token_counter("/nowhere", None)


def swapped(ids, at):
    return (*ids[:at], ids[at + 1], ids[at], *ids[at + 2 :])


def test_a_wrong_layout_is_named(tokens):
    ids = tokens.encode(SYSTEM, PROMPT)
    image = ids.index(tokens.layout._ids[IMAGE])
    cases = {
        "BOS 0 is at \\[0, 1\\]": (ids[0], *ids),
        "BOS 0 is at \\[\\]": ids[1:],
        "image token 6 is at \\[\\]": tuple(token for token in ids if token != ids[image]),
        "not between its start and end": swapped(ids, image),
        "does not end with the assistant's header": ids[:-4],
    }
    for message, wrong in cases.items():
        with pytest.raises(ModelMismatch, match=message):
            tokens.layout.check(wrong)


def changed_model(tmp_path, **changes):
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return str(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_token_index": 7}, "image_token_index is 7, but the tokenizer's .* is 6"),
        ({"image_seq_length": 35}, "image_seq_length 35; JoyCaption has 'full' with"),
        ({"vision_feature_select_strategy": "default"}, "strategy 'default'"),
    ],
)
def test_a_model_of_another_shape_is_refused(tmp_path, changes, message):
    with pytest.raises(ModelMismatch, match=message):
        PromptTokens(FAMILIES["joycaption"], changed_model(tmp_path, **changes))


def test_lengths_that_make_every_prompt_too_long_are_refused_with_the_numbers(tokens):
    fewest = tokens.num_tokens(tokens.encode("", ""), 90, 90)
    tokens.check_room(100, fewest + 100)
    message = rf"max_tokens=101: .* {fewest} tokens.*at least {fewest + 101}; found {fewest + 100}.* up to 100$"
    with pytest.raises(ConfigError, match=message):
        tokens.check_room(101, fewest + 100)


def test_a_caption_is_decoded_without_cleaning_up_spaces(tokens, monkeypatch):
    monkeypatch.setattr(tokens._tokenizer, "clean_up_tokenization_spaces", True)
    asked_twice = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
    monkeypatch.setattr(tokens._tokenizer, asked_twice, True)
    said = "A red circle , on a blue ground . It 's large !"
    ids = tokens._tokenizer.encode(said, add_special_tokens=False)
    assert tokens.decode([*ids, tokens.layout._ids["<|eot_id|>"]]) == said


def test_an_incomplete_character_at_the_end_is_removed(tokens):
    ids = tokens._tokenizer.encode("blue \u2603", add_special_tokens=False)
    whole, cut = tokens.decode(ids), tokens.decode(ids[:-1])
    assert (whole, cut) == ("blue \u2603", "blue ")
    assert "\ufffd" in tokens._tokenizer.decode(ids[:-1])


def test_around_image_returns_the_rest_of_the_prompt(tokens):
    ids = tokens.encode(SYSTEM, PROMPT)
    before, after = tokens.around_image(ids)
    assert (*before, tokens.layout.image_token, *after) == ids
    assert tokens.layout.image_token not in before + after
