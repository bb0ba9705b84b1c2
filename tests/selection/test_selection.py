"""Which row is skipped by which condition, decided by the row alone."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import SourceConfig, parse_job
from pipeline.errors import ConfigError
from pipeline.flow.prepared_job import check_job
from pipeline.selection import RowFacts, Skip, selection_of
from pipeline.selection.selection import in_sample
from schemas.status import SKIPS, Reason


def select(**keys):
    return selection_of(SourceConfig.model_validate({"urls": ["in"], **keys}))


def job(*overrides, **source):
    captions = {"slot": "long", "mode": "descriptive"}
    data = {"source": {"urls": ["in"], **source}, "output": "out", "model": "standin", "captions": captions}
    return parse_job(data, overrides)


def test_the_message_of_a_skip_is_the_condition_as_the_config_has_it():
    selection = select(
        where={
            "short_side": {"min": 64},
            "fields": {"rating": {"one_of": ["safe", "general"]}, "score": {"min": 5}},
            "all_of": [{"format": ["PNG"]}],
            "any_of": [{"fields": {"lang": {"equals": "en"}}}, {"fields": {"lang": {"present": False}}}],
            "none_of": [{"fields": {"tags": {"has_any": ["bad"]}}}],
        }
    )
    good = {"rating": "safe", "score": 9, "tags": []}

    def skipped(width=64, height=64, image_format="PNG", **fields):
        facts = RowFacts(fields=good | fields, num_bytes=9, width=width, height=height, format=image_format)
        skip = selection.skip_by_image(facts)
        return skip and skip.condition

    assert skipped() is None
    assert skipped(height=63) == "source.where.short_side: {min: 64}"
    assert skipped(rating="odd") == "source.where.fields.rating: {one_of: [safe, general]}"
    assert skipped(rating=None) == "source.where.fields.rating: {one_of: [safe, general]} (missing)"
    assert skipped(rating=3) == "source.where.fields.rating: {one_of: [safe, general]} (of another type)"
    assert skipped(image_format="JPEG") == "source.where.all_of.0.format: [PNG]"
    assert skipped(lang="de") == (
        "source.where.any_of: [{fields: {lang: {equals: en}}}, {fields: {lang: {present: false}}}]"
    )
    assert skipped(tags=["bad"]) == "source.where.none_of: [{fields: {tags: {has_any: [bad]}}}]"
    assert skipped(tags=None) == "source.where.none_of: [{fields: {tags: {has_any: [bad]}}}] (missing)"
    # Of several undecided conditions the first is named, and a false one before all of them.
    assert skipped(rating=None, score=None) == "source.where.fields.rating: {one_of: [safe, general]} (missing)"
    assert skipped(rating=None, score=1) == "source.where.fields.score: {min: 5}"


def test_conditions_on_fields_are_decided_before_the_image_is_read():
    selection = select(where={"width": {"min": 64}, "fields": {"score": {"min": 5}}})
    before = selection.skip_before_image
    assert before("a.tar", 0, RowFacts(fields={"score": 1})) == Skip(
        Reason.FILTERED, "source.where.fields.score: {min: 5}"
    )
    assert before("a.tar", 0, RowFacts(fields={"score": 9})) is None
    # A missing field stays missing, whatever the image is.
    assert before("a.tar", 0, RowFacts()) == Skip(Reason.FILTERED, "source.where.fields.score: {min: 5} (missing)")
    assert selection.skip_by_image(RowFacts(fields={"score": 9}, width=10)).condition == "source.where.width: {min: 64}"
    only_fields = select(where={"fields": {"score": {"min": 5}}})
    assert not only_fields.needs_image
    assert only_fields.skip_before_image("a.tar", 0, RowFacts()) == Skip(
        Reason.FILTERED, "source.where.fields.score: {min: 5} (missing)"
    )


def test_sample_then_limit_then_where_is_named():
    selection = select(sample=0.5, limit=10, where={"fields": {"a": {"present": True}}}).up_to(100)
    out = next(row for row in range(200) if not in_sample(0.5, "s.tar", row))
    inside = next(row for row in range(100) if in_sample(0.5, "s.tar", row))
    behind = next(row for row in range(100, 200) if in_sample(0.5, "s.tar", row))
    nothing = RowFacts()
    assert selection.skip_before_image("s.tar", out, nothing) == Skip(Reason.NOT_SAMPLED, "source.sample: 0.5")
    assert selection.skip_before_image("s.tar", behind, nothing) == Skip(Reason.BEYOND_LIMIT, "source.limit: 10")
    assert selection.skip_before_image("s.tar", inside, nothing).reason is Reason.FILTERED
    assert {Reason.NOT_SAMPLED, Reason.BEYOND_LIMIT, Reason.FILTERED} < SKIPS


@given(shares=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)), row=st.integers(0, 10**9))
def test_a_smaller_sample_is_part_of_a_larger_one(shares, row):
    small, large = sorted(shares)
    assert not in_sample(small, "a/b.tar", row) or in_sample(large, "a/b.tar", row)
    assert in_sample(1, "a/b.tar", row)


def test_a_sample_has_about_its_share_of_every_shard():
    for shard in ("a.tar", "b.tar"):
        assert 900 < sum(in_sample(0.1, shard, row) for row in range(10_000)) < 1100


def test_the_sampled_rows_never_change():
    # A later release that draws others would ask other rows of an unfinished output.
    assert [row for row in range(60) if in_sample(0.1, "photos/00001.tar", row)] == SAMPLED


SAMPLED = [12, 13, 22, 31, 33, 34, 37, 54]


def test_a_selection_pickles():
    selection = select(sample=0.5, where={"width": {"min": 1}})
    assert pickle.loads(pickle.dumps(selection)) == selection


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"where": {}}, r"source\.where: found no condition; allowed: at least one of width, height"),
        ({"where": {"widht": {"min": 1}}}, r"source\.where\.widht: unknown key; .*did you mean width\?"),
        ({"where": {"width": {}}}, r"source\.where\.width: found neither min nor max"),
        ({"where": {"width": {"min": 9, "max": 3}}}, r"source\.where\.width: min=9 is above max=3"),
        ({"where": {"width": {"min": True}}}, r"source\.where\.width\.min: found True; allowed: a number"),
        ({"where": {"format": ["JPG"]}}, r"source\.where\.format: found JPG; allowed: JPEG, .*did you mean JPEG\?"),
        ({"where": {"fields": {"a": {}}}}, r"source\.where\.fields\.a: found no test"),
        ({"where": {"fields": {"a": {"mni": 1}}}}, r"source\.where\.fields\.a\.mni: unknown key; .*did you mean min"),
        (
            {"where": {"fields": {"a": {"matches": "(?=a)"}}}},
            r"source\.where\.fields\.a\.matches: found '\(\?=a\)'; not an expression of RE2 .*no look-around",
        ),
        (
            {"where": {"fields": {"a": {"matches": r"(a)\1"}}}},
            r"fields\.a\.matches: .*not an expression of RE2 .*back-references",
        ),
        ({"where": {"fields": {"a": {"min": 1, "max": "b"}}}}, r"min=1 and max='b' have different types"),
        ({"where": {"fields": {"a": {"present": False, "min": 1}}}}, r"found min beside present: false"),
        ({"where": {"any_of": [{}]}}, r"source\.where\.any_of\.0: found no condition"),
        ({"sample": 0}, r"source\.sample: found 0; .*greater than 0"),
        ({"sample": 1.5}, r"source\.sample: found 1\.5; .*less than or equal to 1"),
        ({"limit": 0}, r"source\.limit: found 0; .*greater than or equal to 1"),
    ],
)
def test_a_selection_that_cannot_be_meant_is_refused(source, message):
    with pytest.raises(ConfigError, match=message):
        job(**source)


def test_a_selection_may_be_set_on_the_command_line():
    looked = job("source.limit=1000", "source.where.short_side.min=64", "source.where.fields.day.min=2024-05-01")
    assert looked.source.limit == 1000
    assert looked.source.selection() == {
        "limit": 1000,
        "where": {"short_side": {"min": 64}, "fields": {"day": {"min": "2024-05-01"}}},
    }
    assert job().source.selection() == {}


def test_a_selection_is_no_part_of_the_recipe_and_existing_captions_are():
    plain = check_job(job())[0].fingerprint
    chosen = job(where={"width": {"min": 64}}, sample=0.5, limit=10)
    assert check_job(chosen)[0].fingerprint == plain
    assert check_job(job('captions={"slot": "long", "mode": "descriptive", "existing": "txt"}'))[0].fingerprint != plain


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ({"existing": {"field": ""}}, r"captions\.0\.existing\.field"),
        ({"existing": {"field": "a", "when": {"present": False}}}, r"existing\.when: found present: false"),
        ({"existing": {"field": "a", "action": "keep"}}, r"existing\.action: found 'keep'"),
        ({"existing": "a", "samples": 2}, r"captions\.0: found existing beside samples=2"),
    ],
)
def test_an_existing_caption_that_cannot_be_meant_is_refused(captions, message):
    data = {"source": "in", "output": "out", "model": "standin", "sampling": {"temperature": 0.5}}
    with pytest.raises(ConfigError, match=message):
        parse_job({**data, "captions": {"slot": "long", "mode": "descriptive", **captions}})


def test_the_short_forms_of_existing_mean_the_same():
    def existing(value):
        data = {"source": "in", "output": "out", "model": "standin"}
        return parse_job({**data, "captions": {"slot": "s", "mode": "descriptive", "existing": value}}).captions[0]

    assert existing("caption") == existing({"field": "caption"}) == existing({"field": "caption", "when": "present"})
