"""Rating, quality and era terms are those of the preset's tables."""

import pytest

from pipeline.config import Preset, Rating, Steps, WordsConfig
from pipeline.corpus.records.metadata_terms import Percentiles, Popularity, QualityTerms, rating_terms, term_of

RATINGS = {
    Preset.TIPO_V1: (["safe"], ["sensitive"], ["nsfw"], ["explicit", "nsfw"]),
    Preset.TIPO_V2: (["general"], ["sensitive"], ["questionable"], ["explicit"]),
    Preset.TIPO_V2_1: (["safe"], ["sensitive"], ["nsfw"], ["nsfw", "explicit"]),
    Preset.DANTAGGEN: (["safe"], ["sensitive"], ["nsfw"], ["explicit", "nsfw"]),
}


@pytest.mark.parametrize("preset", Preset)
def test_rating_terms(preset):
    config = WordsConfig(preset=preset)
    assert tuple(rating_terms(config, rating) for rating in Rating) == RATINGS[preset]
    assert rating_terms(config, None) == []


@pytest.mark.parametrize(
    ("year", "word"),
    [
        (2004, None),
        (2005, "old"),
        (2010, "old"),
        (2011, "early"),
        (2014, "early"),
        (2015, "mid"),
        (2017, "mid"),
        (2018, "recent"),
        (2020, "recent"),
        (2021, "newest"),
        (2026, "newest"),
    ],
)
def test_era_terms(year, word):
    eras = WordsConfig(preset="tipo-v2.1").eras
    assert eras is not None
    assert term_of(eras, year) == word


@pytest.mark.parametrize(
    ("favorites", "word"),
    [
        (0, "worst quality"),
        (11, "low quality"),
        (30, "normal quality"),
        (60, "good quality"),
        (80, "great quality"),
        (90, "best quality"),
        (99, "masterpiece"),
    ],
)
def test_quality_depends_on_favourites_within_the_rating(favorites, word):
    others = [Popularity(rating=Rating.EXPLICIT, favorites=9000 + number) for number in range(100)]
    seen = [Popularity(rating=Rating.GENERAL, favorites=number) for number in range(100)]
    words = QualityTerms(WordsConfig(preset="tipo-v1"), [*seen, *others])
    assert words(Popularity(rating=Rating.GENERAL, favorites=favorites, year=2024)) == [word]
    assert words(Popularity(rating=Rating.EXPLICIT, favorites=favorites)) == ["worst quality"]
    assert words(Popularity(rating=Rating.SENSITIVE, favorites=favorites)) == []


def test_quality_depends_on_score_and_year():
    assert QualityTerms(WordsConfig(preset="tipo-v2"))(Popularity(score=150, year=2024)) == ["masterpiece"]
    assert QualityTerms(WordsConfig(preset="tipo-v2"))(Popularity(score=-1)) == ["worst quality"]
    seen = [Popularity(score=number, favorites=number, year=2016) for number in range(100)]
    words = QualityTerms(WordsConfig(), seen)
    assert words(Popularity(score=99, favorites=99, year=2016)) == ["masterpiece", "mid"]
    assert words(Popularity(score=0, favorites=99, year=2016)) == ["normal quality", "mid"]
    assert words(Popularity(favorites=60, year=2016)) == ["good quality", "mid"]
    assert words(Popularity(score=99, year=2019)) == ["recent"]


def test_equal_numbers_share_the_middle_percentile():
    percentile = Percentiles([("a", 1), ("a", 2), ("a", 2), ("a", 3)])
    assert [percentile("a", value) for value in (0, 1, 2, 3, 4)] == [0, 12.5, 50, 87.5, 100]
    assert percentile("b", 1) is None


def test_steps_must_be_in_descending_order():
    with pytest.raises(ValueError, match="allowed: falling numbers"):
        Steps(steps=((1, "a"), (2, "b")))
    with pytest.raises(ValueError, match="found 'tipo-v9'; allowed: tipo-v1"):
        WordsConfig(preset="tipo-v9")
