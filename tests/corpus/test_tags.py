"""Raw tags become the tags of a record, and every one that does not is counted with its reason."""

import pickle

import pytest

from pipeline.config import RecordTagsConfig
from pipeline.corpus.records.tags import (
    DATABASE_TYPES,
    PERSON_TAGS,
    SITE_CATEGORIES,
    TagCleaner,
    TagDrop,
    TagType,
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
def test_a_tag_has_one_form(raw, tag):
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
def test_what_is_unwanted_is_left_out_with_its_reason(kind, raw, reason):
    clean = TagCleaner(RecordTagsConfig(blacklist=("(sample )?watermark",)))([(kind, raw)])
    assert dict(clean.drops) == ({reason: 1} if reason else {})
    assert bool(getattr(clean, kind.value)) is (reason is None)


def test_categories_go_by_type_and_persons_by_name():
    typed = [(G, "1girl"), (G, "smile"), (C, "miku"), (W, "vocaloid"), (A, "ask"), (M, "highres"), (G, "Smile")]
    clean = TagCleaner(RecordTagsConfig())(typed)
    assert (clean.special, clean.general, clean.character) == (["1girl"], ["smile"], ["miku"])
    assert (clean.copyright, clean.artist, clean.meta) == (["vocaloid"], ["ask"], ["highres"])
    assert clean.drops == {TagDrop.DOUBLE: 1}
    assert len(PERSON_TAGS) == 22


def test_the_two_numberings_are_not_one():
    assert [DATABASE_TYPES[number] for number in range(5)] == [G, A, C, W, M]
    assert [SITE_CATEGORIES[number] for number in (0, 1, 3, 4, 5)] == [G, A, W, C, M]


def test_aliases_are_followed_and_implied_tags_stay_unless_pruned():
    typed = [(G, "old_name"), (G, "cat_ears"), (G, "animal_ears"), (G, "ears")]
    implications = {"cat_ears": ["animal_ears"], "animal_ears": ["ears"]}
    kept = TagCleaner(RecordTagsConfig(), {"old_name": "new_name"}, implications)(typed)
    assert kept.general == ["new name", "cat ears", "animal ears", "ears"]
    cleaner = TagCleaner(RecordTagsConfig(prune_implied=True), {"old_name": "new_name"}, implications)
    pruned = pickle.loads(pickle.dumps(cleaner))(typed)
    assert pruned.general == ["new name", "cat ears"]
    assert pruned.drops == {TagDrop.IMPLIED: 2}


def test_what_cannot_be_honoured_is_refused():
    with pytest.raises(ConfigError, match="prune_implied: true needs a table of implications"):
        TagCleaner(RecordTagsConfig(prune_implied=True))
    with pytest.raises(ValueError, match="is no regular expression"):
        RecordTagsConfig(blacklist=("(",))
