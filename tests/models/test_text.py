"""Text models: prompts as the model's own chat template builds them, in which a text never becomes markup."""

import json

import pytest
from transformers import AutoConfig, AutoTokenizer

from pipeline.config import ModelConfig, parse_job
from pipeline.cost import card_rates, guess_tokens
from pipeline.engines.hub_model import PromptTokens
from pipeline.errors import ConfigError, ModelMismatch
from pipeline.flow.prepared_job import check_job
from pipeline.models import BFLOAT16, FAMILIES, family_of, generation_of, planned_dims, takes_images
from pipeline.models.text import _Layout as Layout
from pipeline.prompts import RequestSampler
from tests.copy_model import TEMPLATE, build
from tests.prompts.test_fields import HOSTILE

PROMPTS = ("Shorten: A red circle.", "x", "Merge:\n\na, b\nand  c.  ", "«ça» 🎉 日本", "a" * 300, '1998: "OPEN"?!')
THINKING = """{%- for message in messages -%}<|start_header_id|>{{ message['role'] }}
{{ message['content'] }}<|eot_id|>{%- endfor -%}
{%- if add_generation_prompt -%}<|start_header_id|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{%- endif -%}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokens(folder):
    return PromptTokens(FAMILIES["text"], str(folder))


def layout(folder, template=TEMPLATE, stated=None, **added):
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    if added:
        tokenizer.add_tokens(added["tokens"])
    tokenizer.chat_template = template
    return Layout(tokenizer, stated or AutoConfig.from_pretrained(str(folder)).to_dict(), "m"), tokenizer


def theirs(tokenizer, system, prompt):
    turns = [{"role": "system", "content": system}] if system else []
    turns.append({"role": "user", "content": prompt})
    return tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=True, return_dict=False, enable_thinking=False
    )


@pytest.mark.parametrize("template", [TEMPLATE, THINKING], ids=["plain", "thinking"])
def test_the_ids_are_those_of_the_models_chat_template(folder, template):
    made, tokenizer = layout(folder, template, tokens=["<think>", "</think>"])
    for system in ("", "You are short.\n"):
        for prompt in PROMPTS:
            expected = theirs(tokenizer, system.strip(), prompt.strip())
            assert list(made.encode(system, prompt)) == expected, prompt
            made.check(tuple(expected))


def special_ids(tokenizer):
    return {index for index, token in tokenizer.added_tokens_decoder.items()}


def test_a_prompt_has_the_marks_of_its_template_whatever_its_text_holds(folder):
    made, tokenizer = layout(folder, THINKING, tokens=["<think>", "</think>"])
    special = special_ids(tokenizer)
    expected = [index for index in made.encode("s", "p") if index in special]
    assert len(expected) == 7  # three starts of a turn, two ends, and the empty thought
    names = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    for text in ("".join(names), " ".join(names), "<<think>think>", "<think><think>", *names):
        for ids in (made.encode("s", f"Tags: {text}."), made.encode(text, "p")):
            assert [index for index in ids if index in special] == expected, text
        assert text in tokenizer.decode(made.encode("s", f"Tags: {text}."))


def test_an_added_token_that_the_template_does_not_write_is_an_ordinary_one(folder):
    made, tokenizer = layout(folder, tokens=["ing circle"])
    ids = made.encode("", "a shin" + "ing circle")
    assert tokenizer.convert_tokens_to_ids("ing circle") in ids
    assert list(ids) == theirs(tokenizer, "", "a shining circle")


def test_the_hostile_values_of_fields_are_text_for_the_model(tokens, folder):
    special = special_ids(tokens._tokenizer)
    slot = {"slot": "a", "prompt": "Shorten: {source.tags}"}
    model = {"id": str(folder)}
    job = parse_job({"source": {"urls": ["a"], "texts": True}, "output": "o", "model": model, "captions": slot})
    for _, value, _ in HOSTILE:
        [request] = RequestSampler(job).requests("s", 0, {"tags": value, "secret": "no"})
        ids = tokens.encode(request.system, request.prompt)
        assert sum(index in special for index in ids) == 5
        assert request.prompt.strip() in tokens.decode(ids).replace("user\n", "", 1)


REFUSES_SYSTEM = "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('no system') }}{%- endif -%}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "m: its tokenizer has none chat templates, must be 1; give a folder with a chat_template.jinja"),
        ("{{ strftime_now('%d') }}" + TEMPLATE, r"m: its chat template writes the date of the day \(strftime_now\)"),
        (TEMPLATE.replace("| trim", "* 2"), "writes the text of the user turn 2 times, must be once"),
        ("{{ bos_token }}hello", "writes the text of the user turn 0 times, must be once"),
    ],
)
def test_a_template_that_cannot_be_honoured_is_refused(folder, template, message):
    with pytest.raises(ModelMismatch, match=message):
        layout(folder, template)


def test_a_template_without_a_system_turn_is_refused_where_the_job_has_one(folder):
    made, _ = layout(folder, REFUSES_SYSTEM + TEMPLATE)
    assert made.encode("", "x")
    with pytest.raises(
        ModelMismatch, match=r"refuses system and user turns \(no system\); remove captions\.\*\.system"
    ):
        made.encode("You are short.", "x")


def test_a_template_with_a_date_gets_the_same_one_every_day(folder):
    dated = "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d') %}{%- endif %}"
    made, _ = layout(folder, dated + TEMPLATE.replace("{{- bos_token -}}", "{{- bos_token + date_string -}}"))
    assert made.template_settings == {"date_string": "26 July 2024"}
    assert "26 July 2024" in made._tokenizer.decode(made.encode("", "x"))


def test_another_prompt_of_a_server_is_named(folder):
    made, tokenizer = layout(folder)
    with pytest.raises(
        ModelMismatch, match="m: wrong prompt layout: the prompt does not end with the mark of an answer"
    ):
        made.check(tuple(theirs(tokenizer, "", "x")[:-1]))


def test_a_model_of_another_kind_is_refused(folder):
    with pytest.raises(ModelMismatch, match="m: architectures LlavaForConditionalGeneration: no causal language model"):
        layout(folder, stated={"architectures": ["LlavaForConditionalGeneration"]})


def config_of(tmp_path, **stated):
    (tmp_path / "m").mkdir(exist_ok=True)
    (tmp_path / "m/config.json").write_text(json.dumps(stated))
    return ModelConfig(id=str(tmp_path / "m"))


ON_THE_HUB = {"id": "o/n", "generation": "text"}
QWEN = {
    "architectures": ["Qwen3ForCausalLM"], "hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 9728, "vocab_size": 151936,
}  # fmt: skip


def test_a_local_model_is_recognised_and_one_of_the_hub_is_named(tmp_path):
    assert family_of(config_of(tmp_path, **QWEN)).name == "text"
    assert generation_of(ModelConfig(id="o/n", generation="text")).max_tokens == 300
    with pytest.raises(
        ConfigError, match=r"model: no known generation matches 'o/n'; .*text: a language model without"
    ):
        family_of(ModelConfig(id="o/n"))
    assert not takes_images(FAMILIES["text"].geometry_of(None))


def test_dimensions_follow_from_the_config_or_are_unknown(tmp_path):
    dims = planned_dims(config_of(tmp_path, **QWEN))
    assert (dims.vision_weights, dims.image_tokens, dims.image_flops, dims.shared_tokens) == (0, 0, 0, 12)
    assert 3.4e9 < dims.layer_weights < 3.8e9
    assert dims.weight_bytes(BFLOAT16) > 7e9
    assert planned_dims(config_of(tmp_path, **QWEN, num_experts=8)) is None
    assert planned_dims(config_of(tmp_path, **QWEN, quantization_config={"quant_method": "awq"})) is None
    assert planned_dims(config_of(tmp_path, architectures=["GPT2LMHeadModel"], n_embd=768)) is None
    assert planned_dims(ModelConfig(id="o/n", generation="text")) is None


def text_job(model, **rest):
    job = {"source": {"urls": ["a"], "texts": True}, "output": "o", "model": model}
    return parse_job({**job, "captions": {"slot": "s", "prompt": "Shorten: {source.alt}"}, **rest})


def test_a_plan_has_tokens_without_images_and_the_cards_on_which_the_model_fits(tmp_path):
    config_of(tmp_path, **QWEN)
    job = text_job(str(tmp_path / "m"))
    tokens = guess_tokens(job, [("s", 0, {"alt": "a" * 450})])
    assert 100 < tokens.prompt < 130
    assert {rate.name for rate in card_rates(job, tokens)} >= {"a10g", "h100"}
    big = {**QWEN, "hidden_size": 8192, "num_hidden_layers": 80, "intermediate_size": 28672, "num_attention_heads": 64}
    config_of(tmp_path, **big)
    assert card_rates(job, tokens) == []
    assert card_rates(text_job(ON_THE_HUB), tokens) == []


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (
            {"captions": {"slot": "s", "mode": "descriptive"}},
            r"captions\.0\.mode: found 'descriptive'; text has no modes: write a prompt",
        ),
        (
            {"source": "a"},
            r"source: o/n is a model without images; allowed: source\.captions .* or source\.texts: true",
        ),
        (
            {"images": {"max_pixels": 5}},
            r"images: o/n takes no images, so that no image is decoded; remove the section",
        ),
        (
            {"source": {"urls": ["a"], "texts": True, "where": {"width": {"min": 5}}}},
            r"source\.where: has a condition about the image \(width, .*\), and o/n takes no images",
        ),
        ({"model": "standin"}, r"source\.texts: true, but standin is a model for images; allowed: false"),
        ({"source": {"urls": ["a"], "texts": True, "image_column": "x"}}, "found image_column=x beside texts: true"),
        ({"source": {"captions": "out/p", "texts": True}}, "found texts: true beside captions; allowed: one of them"),
    ],
)
def test_what_has_no_meaning_for_texts_is_refused(rest, message):
    with pytest.raises(ConfigError, match=message):
        check_job(text_job(**{"model": ON_THE_HUB, **rest}))


def test_the_recipe_of_a_text_job_says_nothing_about_images():
    recipe, _, _ = check_job(text_job(ON_THE_HUB))
    assert recipe.fields["images"] == {}
    assert recipe.fields["rows"]["texts"] is True
