"""The rule `max_clip_tokens`: with a tokenizer of CLIP its own count, else words and marks, which are fewer."""

import json

import pytest

from pipeline.config import QualityConfig, parse_job
from pipeline.errors import ConfigError
from pipeline.flow.prepared_job import check_job, load_clip_tokenizer, run_identity_of
from pipeline.quality import evaluate, prepare_rules
from pipeline.quality.clip_tokens import clip_counter, num_pieces
from schemas.status import Reason, Status
from tests.quality.clip_vocabulary import plain_tokenizer, write_clip_folder
from tests.quality.labelled import Labelled

TEXTS = (
    *("a red circle", "The 3 men's hats!", "don't", "", "naïve café, 42% — «ja»", "x_y __ z", "He'LL 've 'RE", "1998"),
    *("an unknownwordthatislong", "🎉 party 🎉🎉", "日本 語", "tab\tand\nline", "a" * 500, "...!?...", "I'm", "'s"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip_folder(tmp_path_factory.mktemp("clip"))


def verdict(text, tokenizer=None, **clip):
    config = QualityConfig(actions={"max_clip_tokens": "reject"}, clip=clip)
    return evaluate(prepare_rules(config, None, tokenizer), Labelled("clip", text), text, "stop")


def test_words_and_marks_are_counted_without_a_tokenizer():
    text = "A man's hat, 25 cm wide."
    assert num_pieces(text) == 2 + len(["a", "man", "'s", "hat", ",", "2", "5", "cm", "wide", "."])
    assert verdict(text, max_tokens=12).status is Status.OK
    rejected = verdict(text, max_tokens=11)
    assert (rejected.status, rejected.reason) == (Status.REJECTED, Reason.MAX_CLIP_TOKENS)
    assert rejected.message == "max_clip_tokens: 12 CLIP tokens at least, counted as words and marks; allowed: 11"


def test_the_tokenizer_of_transformers_counts(folder):
    from transformers import CLIPTokenizer

    content = load_clip_tokenizer(QualityConfig(actions={"max_clip_tokens": "flag"}, clip={"tokenizer": str(folder)}))
    count, theirs = clip_counter(content), CLIPTokenizer.from_pretrained(str(folder))
    for text in TEXTS:
        assert count(text) == len(theirs(text).input_ids), text
        assert num_pieces(text) <= count(text), text
    text = "a red unknownwordthatislong"
    assert num_pieces(text) == 5
    rejected = verdict(text, content, max_tokens=count(text) - 1)
    assert rejected.message == f"max_clip_tokens: {count(text)} CLIP tokens; allowed: {count(text) - 1}"
    assert verdict(text, content, max_tokens=count(text)).status is Status.OK


def job(**clip):
    slot = {"slot": "a", "mode": "descriptive"}
    quality = {"actions": {"max_clip_tokens": "flag"}, "clip": clip}
    return parse_job({"source": "a", "output": "o", "model": "standin", "captions": slot, "quality": quality})


def test_the_recipe_and_the_files_of_an_output_say_how_was_counted(folder, tmp_path):
    words, _, remarks = check_job(job())
    assert remarks[-1].startswith("quality.clip.tokenizer: none, so max_clip_tokens counts words and marks")
    assert run_identity_of(job(), words).versions["clip_tokens"] == "words"
    counted, _, remarks = check_job(job(tokenizer=str(folder)))
    assert not any("clip" in remark for remark in remarks)
    digest = counted.fields["quality"]["clip"]["tokenizer"]
    assert run_identity_of(job(tokenizer=str(folder)), counted).versions["clip_tokens"] == digest
    # The content decides, wherever it is.
    content = load_clip_tokenizer(job(tokenizer=str(folder)).quality)
    (tmp_path / "tokenizer.json").write_text(content)
    assert check_job(job(tokenizer=str(tmp_path / "tokenizer.json")))[0] == counted


def test_what_is_no_tokenizer_of_clip_is_refused(tmp_path):
    plain = plain_tokenizer(tmp_path / "plain.json")
    with pytest.raises(ConfigError, match=r"quality\.clip\.tokenizer: .*plain\.json: is another tokenizer than CLIP's"):
        check_job(job(tokenizer=str(plain)))
    (tmp_path / "broken.json").write_text("{")
    for name in ("broken.json", "missing"):
        with pytest.raises(ConfigError, match=rf"quality\.clip\.tokenizer: .*{name}: cannot be loaded \("):
            check_job(job(tokenizer=str(tmp_path / name)))


def test_a_json_caption_has_no_clip_tokens():
    schema = json.dumps({"type": "object", "properties": {"a": {"type": "string"}}})
    rules = prepare_rules(QualityConfig(actions={"max_clip_tokens": "reject"}, clip={"max_tokens": 3}), None)
    text = '{"a":"one two three four"}'
    assert evaluate(rules, Labelled("clip", text, schema=schema), text, "stop").status is Status.OK
