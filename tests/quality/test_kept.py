"""The rules that compare a caption with the texts of its prompt: facts, length and language."""

import json

import pytest

from pipeline.config import KeptConfig, QualityConfig, parse_job
from pipeline.errors import ConfigError
from pipeline.flow.prepared_job import check_job
from pipeline.prompts import RequestSampler
from pipeline.quality import evaluate, prepare_rules
from pipeline.quality import language as language_rule
from pipeline.quality.kept_facts import lost_facts
from pipeline.quality.kept_length import find_length_ratio
from pipeline.quality.kept_texts import compared_texts
from pipeline.quality.language import find_other_language
from schemas.status import Flag, Reason, Status
from tests.quality.labelled import Labelled

LONG = (
    'A red bus, number 1,042, stands before a shop with the sign "Open Late" in 1998. On it are 3 men and a dog. '
    "A tall woman named “Ada” holds 2.50 euros."
)
GIVEN = {"long": (LONG,), "source.character": ("Ada Lovelace", "red_hair")}


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        (LONG, []),
        ("Bus 1042 of 1998: OPEN LATE! Three men, ada, two coins, 2.5 euros.", []),
        ("In 1998 bus 1,042 has 3 men. Open late. Ada 2.50", []),
        ("A red bus.", ["1,042", "1998", "3", "2.50", '"Open Late"', "“Ada”"]),
        ("Bus 10423 of 19985 and 31 men, 2,5 euros, open the late Ada", ["1,042", "1998", "3", '"Open Late"']),
        ("Thirty men, bus 1042, 1998, Open Late, Ada, 2.5.", ["3"]),
        ("Twenty-three men, bus 1042, 1998, Open Late, Ada, 2.5.", ["3"]),
        ("Three of twenty men, bus 1042, 1998, Open Late, Ada, 2.5.", []),
    ],
)
def test_numbers_and_quotations_of_the_texts_must_appear(text, lost):
    assert lost_facts(KeptConfig(), GIVEN, text) == (6, lost)


def test_the_kinds_of_facts_are_chosen():
    assert lost_facts(KeptConfig(numbers=False), GIVEN, "")[1] == ['"Open Late"', "“Ada”"]
    assert lost_facts(KeptConfig(quotes=False), GIVEN, "")[1] == ["1,042", "1998", "3", "2.50"]
    names = KeptConfig(numbers=False, quotes=False, fields=("source.character",))
    assert lost_facts(names, GIVEN, "A woman with red hair.") == (2, ["Ada Lovelace"])
    assert lost_facts(names, {"source.character": ()}, "") == (0, [])
    assert lost_facts(KeptConfig(), {"source.tags": ("2 girls", '"x"')}, "") == (0, [])
    assert lost_facts(KeptConfig(texts=("source.tags",)), {"source.tags": ("2 girls",)}, "") == (1, ["2"])
    long_quote = {"long": ('It says "one two three four five six seven eight nine" in the sky above.',)}
    assert lost_facts(KeptConfig(), long_quote, "It says so.") == (0, [])


@pytest.mark.parametrize("number", ["1.2.3", "1,000,000", "0", "007", "12"])
def test_a_number_equals_itself_in_each_form(number):
    given = {"long": (f"There are {number} of these things in it.",)}
    assert lost_facts(KeptConfig(), given, f"So {number}!") == (1, [])
    assert lost_facts(KeptConfig(), given, "So many!") == (1, [number])
    assert lost_facts(KeptConfig(), given, "So 1.2.4!") == (1, [number])  # a version is compared as it stands


def test_the_length_is_compared_with_all_texts_together():
    texts = ("one two three four five six", "a b c d")
    assert find_length_ratio(KeptConfig(min_ratio=0.2, max_ratio=0.5), texts, "a b c") is None
    short = find_length_ratio(KeptConfig(min_ratio=0.4), texts, "a b c")
    assert short.message == "length_ratio: 3 words of 10 in the prompt's texts, 0.30, below quality.kept.min_ratio=0.4"
    long = find_length_ratio(KeptConfig(max_ratio=0.2), texts, "a b c")
    assert long.message == "length_ratio: 3 words of 10 in the prompt's texts, 0.30, above quality.kept.max_ratio=0.2"
    assert find_length_ratio(KeptConfig(max_ratio=0.2), (), "a b c") is None


ENGLISH = "The picture shows a large red circle on a plain white background with a soft shadow."
GERMAN = "Das Bild zeigt einen grossen roten Kreis auf einem weissen Hintergrund mit weichem Schatten."


def test_another_language_is_found_where_both_texts_have_one():
    found = find_other_language((ENGLISH,), GERMAN)
    assert found.message == "other_language: de; the texts of the prompt: en"
    assert find_other_language((ENGLISH,), ENGLISH.upper()) is None
    assert find_other_language((GERMAN, ENGLISH), GERMAN) is None
    assert find_other_language((ENGLISH,), "Ein roter Kreis") is None
    assert find_other_language(("red circle",), GERMAN) is None
    assert find_other_language((), GERMAN) is None


def test_texts_are_those_that_are_named_or_that_are_longer_than_a_tag():
    given = {"long": (ENGLISH,), "source.tags": ("red", "red circle"), "source.alt": ()}
    assert compared_texts(KeptConfig(), given) == (ENGLISH,)
    assert compared_texts(KeptConfig(texts=("source.tags", "source.alt")), given) == ("red red circle",)


def verdict(text, given, schema=None, **quality):
    request = Labelled("kept", text, schema=schema, given_texts=given)
    return evaluate(prepare_rules(QualityConfig(**quality), None), request, text, "stop")


@pytest.mark.parametrize(
    ("rule", "text", "kept"),
    [
        ("lost_fact", "A red bus stands before a shop.", {}),
        ("length_ratio", "A red bus.", {"min_ratio": 0.5}),
        ("other_language", GERMAN, {}),
    ],
)
def test_a_rule_rejects_flags_or_is_off(rule, text, kept):
    given = {"long": (LONG,)}
    rejected = verdict(text, given, actions={rule: "reject"}, kept=kept)
    assert (rejected.status, rejected.reason) == (Status.REJECTED, Reason(rule))
    assert rejected.message.startswith(f"{rule}: ")
    flagged = verdict(text, given, actions={rule: "flag"}, kept=kept)
    assert (flagged.status, flagged.flags) == (Status.OK, (Flag(rule),))
    assert verdict(text, given).flags == ()
    assert verdict(text, {}, actions={rule: "reject"}, kept=kept).status is Status.OK


def test_facts_may_be_in_any_text_of_a_json_caption():
    schema = json.dumps({"type": "object", "properties": {"1998": {"type": "string"}, "b": {"type": "string"}}})
    given = {"long": ("It was made in 1998 by a bus.",)}
    lost = verdict('{"1998":"a bus"}', given, schema, actions={"lost_fact": "reject"})
    assert (lost.reason, lost.message) == (Reason.LOST_FACT, "lost_fact: 1 of 1: 1998")
    assert verdict('{"b":"1998"}', given, schema, actions={"lost_fact": "reject"}).status is Status.OK


def job(prompt="Shorten: {source.alt}", source="a", **quality):
    slot = {"slot": "a", "prompt": prompt}
    return parse_job({"source": source, "output": "o", "model": "standin", "captions": slot, "quality": quality})


def test_the_names_are_those_between_the_braces_of_the_prompt():
    request = RequestSampler(job()).requests("s", 0, {"alt": "An alt."})[0]
    assert request.given_texts == {"source.alt": ("An alt.",)}
    chained = job("Merge: {long} {source.alt}", {"captions": "out/p"})
    request = RequestSampler(chained).requests("s", 0, {"captions": {"long": LONG}, "alt": "An alt."})[0]
    assert request.given_texts == {"long": (LONG,), "source.alt": ("An alt.",)}


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        (
            {"kept": {"min_ratio": 0.5}},
            "quality: .*kept is set, and no rule uses it; turn one on in actions: lost_fact",
        ),
        ({"clip": {"max_tokens": 50}}, "clip is set, and no rule uses it; turn one on in actions: max_clip_tokens"),
        (
            {"kept": {"min_ratio": 2, "max_ratio": 1}, "actions": {"length_ratio": "flag"}},
            "min_ratio=2 is above max_ratio=1",
        ),
        (
            {"kept": {"fields": "alt"}, "actions": {"lost_fact": "flag"}},
            r"quality\.kept: no prompt has \{alt\}; used are: source\.alt; write the name as between the braces",
        ),
        (
            {"kept": {"numbers": False, "quotes": False}, "actions": {"lost_fact": "flag"}},
            r"quality\.actions\.lost_fact: is on, and quality\.kept has numbers: false, quotes: false and no fields",
        ),
        (
            {"actions": {"length_ratio": "flag"}},
            r"quality\.actions\.length_ratio: is on, and quality\.kept has neither min_ratio nor max_ratio",
        ),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(quality, message):
    with pytest.raises(ConfigError, match=message):
        check_job(job(**quality))


def test_a_rule_about_texts_needs_a_prompt_with_one():
    with pytest.raises(ConfigError, match=r"quality\.actions\.lost_fact is on, and no prompt has a field"):
        job("Describe it.", actions={"lost_fact": "flag"})


def test_without_its_library_the_rule_about_languages_is_refused(monkeypatch):
    monkeypatch.setattr(language_rule, "PACKAGE", "no-such-package")
    with pytest.raises(ConfigError, match=r"other_language: .*not installed; run: pip install 'joyfleet\[languages\]'"):
        check_job(job(actions={"other_language": "flag"}))


def test_the_new_sections_change_no_recipe_at_their_default():
    before = check_job(job())[0].fields["quality"]
    assert not {"kept", "clip"} & before.keys()
    used = check_job(job(actions={"length_ratio": "flag"}, kept={"max_ratio": 1}))[0].fields["quality"]
    assert used["kept"]["max_ratio"] == 1
