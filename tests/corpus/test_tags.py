"""Raw tags become the tags of a record; dropped tags are counted by reason."""

import pickle
from collections import Counter

import pytest

from pipeline.config import RecordTagsConfig
from pipeline.corpus.records.tags import (
    PERSON_TAGS,
    TagCleaner,
    TagDrop,
    TagType,
    clean_terms,
    normal_tag,
)
from pipeline.errors import ConfigError

G, A, C, W, M = TagType.GENERAL, TagType.ARTIST, TagType.CHARACTER, TagType.COPYRIGHT, TagType.META


@pytest.mark.parametrize(
    ("raw", "tag"),
    [
        ("Long_Hair", "long hair"),
        ("^_^", "^_^"),
        ("o_o", "o_o"),
        ("a_b", "a_b"),
        ("a_bc", "a bc"),
        ("hatsune_miku_\\(cosplay\\)", "hatsune miku (cosplay)"),
        ("re:zero", "re:zero"),
        ("  two\n\twords ", "two words"),
        ("zero\u200bwidth", "zero width"),
        ("\\m/", "\\m/"),
        (":3", ":3"),
    ],
)
def test_tags_are_normalised(raw, tag):
    assert normal_tag(raw) == tag
    assert normal_tag(tag) == tag


@pytest.mark.parametrize(
    ("kind", "raw", "reason"),
    [
        (G, "", TagDrop.EMPTY),
        (G, "__", None),
        (G, "a,b", TagDrop.COMMA),
        (G, "<|long|>", TagDrop.MARK),
        (G, "</s>", TagDrop.MARK),
        (G, ">_<", None),
        (G, "2019", TagDrop.YEAR),
        (C, "2019", None),
        (G, "20190", None),
        (M, "bad_id", TagDrop.META_BLACKLIST),
        (M, "translation_request", TagDrop.META_BLACKLIST),
        (M, "photo_(medium)", TagDrop.META_BLACKLIST),
        (M, "highres", None),
        (G, "bad_id", None),
        (A, "banned_artist", TagDrop.ARTIST_BLACKLIST),
        (G, "banned_book", None),
        (G, "watermark", TagDrop.BLACKLIST),
        (G, "watermark_on_wall", None),
        (G, "sample_watermark", TagDrop.BLACKLIST),
    ],
)
def test_an_unwanted_tag_is_dropped_with_its_reason(kind, raw, reason):
    clean = TagCleaner(RecordTagsConfig(blacklist=("(sample )?watermark",)))([(kind, raw)])
    assert dict(clean.drops) == ({reason: 1} if reason else {})
    assert bool(getattr(clean, kind.value)) is (reason is None)


def test_tags_are_sorted_by_type_and_person_tags_by_name():
    typed = [(G, "1girl"), (G, "smile"), (C, "miku"), (W, "vocaloid"), (A, "ask"), (M, "highres"), (G, "Smile")]
    clean = TagCleaner(RecordTagsConfig())(typed)
    assert (clean.special, clean.general, clean.character) == (["1girl"], ["smile"], ["miku"])
    assert (clean.copyright, clean.artist, clean.meta) == (["vocaloid"], ["ask"], ["highres"])
    assert clean.drops == {TagDrop.DOUBLE: 1}
    assert len(PERSON_TAGS) == 22


def test_aliases_are_replaced_and_implied_tags_are_kept_unless_pruned():
    typed = [(G, "old_name"), (G, "cat_ears"), (G, "animal_ears"), (G, "ears")]
    implications = {"cat_ears": ["animal_ears"], "animal_ears": ["ears"]}
    kept = TagCleaner(RecordTagsConfig(), {"old_name": "new_name"}, implications)(typed)
    assert kept.general == ["new name", "cat ears", "animal ears", "ears"]
    cleaner = TagCleaner(RecordTagsConfig(prune_implied=True), {"old_name": "new_name"}, implications)
    pruned = pickle.loads(pickle.dumps(cleaner))(typed)
    assert pruned.general == ["new name", "cat ears"]
    assert pruned.drops == {TagDrop.IMPLIED: 2}


def test_invalid_tag_rules_are_refused():
    with pytest.raises(ConfigError, match=r"tags\.prune_implied: true needs implications; set tag_files"):
        TagCleaner(RecordTagsConfig(prune_implied=True))
    with pytest.raises(ValueError, match="not a regular expression"):
        RecordTagsConfig(blacklist=("(",))


@pytest.mark.parametrize(
    ("raw", "terms", "drops"),
    [
        (["masterpiece", " newest"], ["masterpiece", "newest"], {}),
        (["masterpiece,  newest"], ["masterpiece", "newest"], {}),
        (["Best_Quality\ntarget: <|short|>"], ["best quality"], {TagDrop.MARK: 1}),
        (["<|gen_meta|>", "</s>", "low quality"], ["low quality"], {TagDrop.MARK: 2}),
        (["old", "", " ,", "Old"], ["old"], {TagDrop.DOUBLE: 1}),
    ],
)
def test_quality_terms_are_cleaned(raw, terms, drops):
    counted: Counter[TagDrop] = Counter()
    assert clean_terms(raw, counted) == terms
    assert counted == drops


def test_halves_of_a_mark_are_no_tags():
    clean = TagCleaner(RecordTagsConfig())([(G, "<|"), (G, "hat"), (G, "|>"), (G, "|_|"), (G, ">_<")])
    assert clean.general == ["hat", "|_|", ">_<"]
    assert clean.drops == {TagDrop.MARK: 2}


def test_a_typed_tag_is_not_general_whatever_the_order_of_its_sources():
    typed = [(G, "hatsune_miku"), (G, "bad_id"), (G, "hat"), (C, "hatsune miku"), (M, "bad_id"), (A, "hat"), (W, "hat")]
    clean = TagCleaner(RecordTagsConfig())(typed)
    assert (clean.general, clean.character, clean.meta) == ([], ["hatsune miku"], [])
    assert (clean.artist, clean.copyright) == (["hat"], [])
    assert clean.drops == {TagDrop.META_BLACKLIST: 1, TagDrop.DOUBLE: 4}


def test_words_for_a_missing_value_are_no_general_tags():
    clean = TagCleaner(RecordTagsConfig())([(G, "NaN"), (G, "none"), (G, "null"), (A, "null"), (G, "no one")])
    assert (clean.general, clean.artist) == (["no one"], ["null"])
    assert clean.drops == {TagDrop.NOT_A_TAG: 3}
