"""The rule `mentions`: which of the tags and names that a prompt gave a caption has."""

import json

import pytest

from pipeline.config import QualityConfig, parse_job
from pipeline.errors import ConfigError
from pipeline.flow.prepared_job import check_job
from pipeline.quality import count_mentions, evaluate, prepare_rules
from schemas.status import Reason, Status
from tests.quality.labelled import Labelled

TEXT = "A woman with red hair, named Hatsune Miku, holds a cat's toy."


@pytest.mark.parametrize(
    ("items", "counts"),
    [
        ((), None),
        (("red_hair", "Hatsune Miku", "dog"), (3, 2)),
        (("RED HAIR", "red_hair"), (1, 1)),
        (("hair red", "ed hair", "re"), (3, 0)),
        (("cat",), (1, 1)),
        (("a woman with red hair",), None),
        (("a woman with red hair", "woman"), (1, 1)),
        (("<|eot_id|>", "?!"), (1, 0)),
        (("naïve",), (1, 0)),
    ],
)
def test_tags_and_names_are_counted_and_sentences_are_not(items, counts):
    assert count_mentions(items, TEXT) == counts


def verdict(text, action, items, **rest):
    request = Labelled("mentions", text, given_items=items, **rest)
    return evaluate(prepare_rules(QualityConfig(actions={"mentions": action}), None), request, text, "stop")


def test_a_caption_that_mentions_nothing_is_rejected_or_flagged():
    items = ("dog", "sea", "sky", "sand", "palm", "boat")
    rejected = verdict(TEXT, "reject", items)
    assert (rejected.status, rejected.reason) == (Status.REJECTED, Reason.MENTIONS)
    assert rejected.message == "mentions: none of 6 given: dog, sea, sky, sand, palm, ..."
    assert verdict(TEXT, "flag", items).flags == ("mentions",)
    assert verdict(TEXT, "off", items).flags == ()
    assert verdict(TEXT, "reject", (*items, "woman")).status is Status.OK
    assert verdict(TEXT, "reject", ()).status is Status.OK
    schema = json.dumps({"type": "object", "properties": {"dog": {"type": "string"}}})
    assert verdict('{"dog":"a cat"}', "reject", ("dog",), schema=schema).reason == Reason.MENTIONS


def test_the_rule_needs_a_prompt_with_a_field_and_is_part_of_the_recipe_only_where_it_is_on():
    def job(prompt, **actions):
        slot = {"slot": "a", "prompt": prompt}
        quality = {"actions": actions}
        return parse_job({"source": "a", "output": "o", "model": "standin", "captions": slot, "quality": quality})

    with pytest.raises(ConfigError, match=r"quality\.actions\.mentions is on, and no prompt has a field"):
        job("Describe it.", mentions="flag")
    job("Describe it.", mentions="off")
    recipes = [check_job(job("It has {source.tags}.", **actions))[0] for actions in ({}, {"mentions": "off"})]
    assert recipes[0] == recipes[1]
    assert "mentions" not in recipes[0].fields["quality"]["actions"]
