"""What finds do to a text: actions, cuts, tags, openings, lengths, rules of the user's own."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Categories, QualityConfig, Script, TagsConfig, Underscores
from pipeline.errors import ConfigError
from pipeline.models import FAMILIES, Form, form_of, generation_names, load_generation
from pipeline.quality import evaluate, load_vocabulary, prepare_rules, vocabulary_digest
from pipeline.quality.openings import meta_opening, remove_opening
from pipeline.quality.script import RANGES
from pipeline.quality.tag_lists import Tag, normalize_tags, parse_tags
from pipeline.quality.truncation import cut_truncated
from schemas.status import Flag, Reason
from tests.quality.labelled import Labelled

CLASS_WORDS = FAMILIES["joycaption"].class_words
PROSE = "A red boat lies on the beach. Two gulls stand on it. The sky is grey and"


def verdict(text, mode="descriptive", finish_reason="stop", vocabulary=None, asked=None, **config):
    rules = prepare_rules(QualityConfig(**config), vocabulary)
    return evaluate(rules, asked or Labelled("test", text, mode), text, finish_reason)


def some(num_words):
    """Different words without a number in them."""
    letters = [f"{a}{b}{c}" for a in "bcdfghkl" for b in "aeiou" for c in "mnprstvwxz"]
    return " ".join(letters[:num_words])


def test_every_mode_has_a_form():
    modes = {mode.name for name in generation_names() for mode in load_generation(name).modes}
    assert modes == {mode for family in FAMILIES.values() for mode in family.forms}
    assert form_of("custom") is Form.ANY
    assert form_of("a mode of tomorrow") is Form.ANY


def test_a_rule_rejects_flags_or_is_off():
    text = "I cannot help with that."
    result = [verdict(text, actions={"refusal": action}) for action in ("reject", "flag", "off")]
    assert [(item.reason, item.flags) for item in result] == [(Reason.REFUSAL, ()), (None, ("refusal",)), (None, ())]


def test_every_rule_with_an_action_has_its_flag():
    for reason in QualityConfig().actions:
        assert Flag(reason).value == Reason(reason).value


def test_a_stopped_loop_is_refused_whatever_its_text_and_the_actions():
    result = verdict("A boat.", finish_reason="repetition", actions={"loop": "off"})
    assert (result.reason, result.message) == (Reason.LOOP, "stopped_loop: the engine stopped a repetition")


def test_truncated_text_is_rejected_flagged_or_cut():
    result = {how: verdict(PROSE, finish_reason="length", truncated=how) for how in ("reject", "flag", "cut")}
    assert result["reject"].reason is Reason.TRUNCATED
    assert (result["flag"].text, result["flag"].flags) == (PROSE, ("truncated",))
    assert result["cut"].text == "A red boat lies on the beach. Two gulls stand on it."
    assert result["cut"].flags == ("truncated", "cut")
    assert verdict("A red boat that", finish_reason="length", truncated="cut").reason is Reason.TRUNCATED


@pytest.mark.parametrize(
    ("text", "form", "kept"),
    [
        ("blue sky, red boat, gu", Form.TAGS, "blue sky, red boat"),
        ("blue sky", Form.TAGS, None),
        ("a boat, oil painting, dra", Form.PROMPT, "a boat, oil painting"),
        ("Mr. Lee waits. Mrs.", Form.PROSE, "Mr. Lee waits."),
        ("It is 2.5 m long. It weighs 3.", Form.PROSE, "It is 2.5 m long."),
        ('The sign says "Stop!" A man', Form.PROSE, 'The sign says "Stop!"'),
        ("A boat.", Form.PROSE, None),
        ("A boat lies on", Form.PROSE, None),
    ],
)
def test_a_cut_keeps_whole_parts(text, form, kept):
    assert cut_truncated(text, form) == kept


def test_words_are_held_against_the_request_and_never_cut():
    for words, flags in ((69, ("too_short",)), (70, ()), (130, ()), (131, ("too_long",))):
        text = some(words)
        asked = Labelled("test", text, length_kind="words", length_words=100)
        result = verdict(text, asked=asked)
        assert (result.flags, result.text) == (flags, text), words


@pytest.mark.parametrize("name", CLASS_WORDS)
def test_a_class_is_kept_by_the_words_that_the_author_gives_it(name):
    text = some(CLASS_WORDS[name])
    assert (
        verdict(text, asked=Labelled("t", text, length_kind="class", length_class=name), length_tolerance=0).flags == ()
    )


def test_neighbouring_classes_share_no_words():
    def kept(words):
        text = some(words)
        asked = [Labelled("t", text, length_kind="class", length_class=name) for name in CLASS_WORDS]
        return sum(not verdict(text, asked=item, length_tolerance=0).flags for item in asked)

    assert {kept(words) for words in (1, 28, 29, 48, 49, 77, 78, 141, 142, 400)} == {1}


def test_tags_keep_their_order_and_lose_their_doubles():
    result = verdict("1girl,  solo, Long_Hair, long hair,, solo,\nblue_eyes.", "danbooru-tags")
    assert (result.text, result.flags) == ("1girl, solo, Long_Hair, blue_eyes", ("tags_normalized",))
    clean = "1girl, solo, :d, ;d"
    assert (verdict(clean, "danbooru-tags").text, verdict(clean, "danbooru-tags").flags) == (clean, ())
    assert verdict("sky, Sky, a_b, a b", "danbooru-tags").text == "sky, a_b"
    assert verdict("artist: ada, sky, artist:ada", "danbooru-tags").text == "artist:ada, sky"
    assert verdict("a,a", "danbooru-tags", tags={"normalize": False}).text == "a,a"


def test_category_prefixes_are_parsed_and_separators_are_changed():
    text = "artist:some one, character:ada lovelace, long hair, o_o, re:zero, meta:"
    assert parse_tags(text)[:2] == [Tag("artist", "some one"), Tag("character", "ada lovelace")]
    assert parse_tags(text)[4:] == [Tag(None, "re:zero")]
    spaces = TagsConfig(underscores=Underscores.SPACES, categories=Categories.STRIP)
    assert normalize_tags(text.replace(" h", "_h"), spaces) == "some one, ada lovelace, long hair, o_o, re:zero"
    joined = TagsConfig(underscores=Underscores.UNDERSCORES)
    assert normalize_tags(text, joined) == "artist:some_one, character:ada_lovelace, long_hair, o_o, re:zero"


@given(st.lists(st.sampled_from(["a b", "a_b", "A b", "c", ":d", "_", "", " e ", "x  y", "meta:z"]), max_size=12))
def test_normalising_twice_changes_nothing_more(tags):
    for config in (TagsConfig(), TagsConfig(underscores=Underscores.SPACES, categories=Categories.STRIP)):
        once = normalize_tags(",".join(tags), config)
        assert normalize_tags(once, config) == once


def test_unknown_tags_are_counted(tmp_path):
    file = tmp_path / "tags.csv"
    file.write_text('# name,count\n1girl,99\nlong_hair,7\n"solo",5\n')
    config = QualityConfig(tags=TagsConfig(vocabulary=str(file)))
    vocabulary = load_vocabulary(config)
    assert vocabulary == {"1girl", "long_hair", "solo"}
    result = verdict("1girl, long hair, sky, sea, artist:x", "danbooru-tags", vocabulary=vocabulary)
    assert (result.unknown_tags, result.flags) == (3, ("unknown_tags",))
    assert verdict("A boat.", vocabulary=vocabulary).unknown_tags is None
    assert vocabulary_digest(vocabulary) != vocabulary_digest(vocabulary | {"sky"})
    for content, message in ((None, "cannot be read"), ("# only\n", "contains no tag")):
        file.unlink()
        file.write_text(content) if content else None
        with pytest.raises(ConfigError, match=rf"quality\.tags\.vocabulary: .*{message}"):
            load_vocabulary(config)
        file.touch()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("This image shows a red boat on a beach.", "A red boat on a beach."),
        ("The photograph depicts two gulls. They sleep.", "Two gulls. They sleep."),
        ("In this image, we see the old harbor at dawn.", "The old harbor at dawn."),
        ("This is a digital illustration of a boat.", "This is a digital illustration of a boat."),
        ("The image shows that the boat is red.", None),
        ("This image shows a boat and has a calm mood.", None),
        ("The image is calm and bright.", None),
        ("A boat lies on the beach.", "A boat lies on the beach."),
    ],
)
def test_an_opening_is_taken_away_where_a_sentence_is_left(text, kept):
    assert remove_opening(text) == kept


def test_openings_are_flagged_removed_or_rejected():
    text = "This image shows a red boat."
    assert meta_opening(text) == "This image shows"
    result = {how: verdict(text, openings=how) for how in ("flag", "remove", "reject")}
    assert (result["flag"].text, result["flag"].flags) == (text, ("meta_opening",))
    assert (result["remove"].text, result["remove"].flags) == ("A red boat.", ("opening_removed",))
    assert result["reject"].reason is Reason.META_OPENING
    assert verdict("The image is calm.", openings="remove").reason is Reason.META_OPENING


def test_other_scripts_are_allowed_by_config():
    text = "На изображении показана молодая женщина за столиком."
    assert verdict(text).reason is Reason.FOREIGN_SCRIPT
    assert verdict(text, scripts=["cyrillic"]).reason is None
    assert set(RANGES) == set(Script)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"pattern": "https?://"}, "mine: has 'http://'"),
        ({"min_words": 9}, "mine: 8 words, below 9"),
        ({"max_words": 7}, "mine: 8 words, above 7"),
        ({"forbidden": ["RED boat"]}, "mine: has 'red boat'"),
        ({"required": ["boat", "gull"]}, "mine: does not have 'gull'"),
        ({"forbidden": ["oat"]}, None),
        ({"required": ["boat"], "min_words": 8, "max_words": 8}, None),
        ({"forbidden": ["boat"], "modes": ["danbooru-tags"]}, None),
    ],
)
def test_a_user_rule_matches_its_conditions(rule, message):
    text = "A red boat on the beach at http://example.org"
    rejected = verdict(text, rules=[{"name": "mine", **rule}])
    assert rejected.message == message
    assert rejected.reason is (Reason.USER_RULE if message else None)
    flagged = verdict(text, rules=[{"name": "mine", "action": "flag", **rule}])
    assert flagged.flags == (("user:mine",) if message else ())


def test_a_verdict_does_not_change_with_the_call():
    assert dataclasses.astuple(verdict(PROSE)) == dataclasses.astuple(verdict(PROSE))


@pytest.mark.parametrize(
    ("prompt", "text", "result"),
    [
        ("Write a long detailed description for this image.", "Write a long detailed description for this image", True),
        ("Write a long letter about the old boats there today.", "Write a long letter about the old boats again", True),
        ("Write a long letter about the old boats there today.", "Write a long letter about the old sea", False),
        ("Name the main colours of this image.", "A sign says: name the main colours of this image! A boat.", True),
        ("What is this?", "What is this?", True),
        ("What is this?", "What is this? A boat lies there.", False),
    ],
)
def test_a_prompt_is_echoed_by_its_opening_or_whole(prompt, text, result):
    reason = verdict(text, asked=Labelled("t", text, "custom", prompt)).reason
    assert reason is (Reason.PROMPT_ECHO if result else None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I'm sorry, but I can't get enough of this view. What a beach!", None),
        ("Sorry, I can't describe this beach.", Reason.REFUSAL),
        ("ASSISTANT: A red boat lies on the beach.", Reason.SPECIAL_TOKENS),
        ("Assistant referees at a football match.", None),
        ('A shop with a sign that says "本日は閉店しました、またのお越しを". It rains.', None),
        ("A shop with a sign that says 本日は閉店しました、またのお越しを. It rains.", Reason.FOREIGN_SCRIPT),
    ],
)
def test_a_fault_and_its_look_alike_are_distinguished(text, reason):
    assert verdict(text).reason is reason


def test_a_class_ends_at_the_geometric_middle_to_the_next():
    """20 words are very short and 40 short: 28.3 lies between them."""
    for words, flags in ((28, ()), (29, ("too_long",))):
        asked = Labelled("t", some(words), length_kind="class", length_class="very short")
        assert verdict(asked.text, asked=asked, length_tolerance=0).flags == flags
