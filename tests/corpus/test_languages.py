"""Languages are detected, filtered and split into sentences by libraries; one that lacks or differs is refused."""

from collections import Counter
from importlib.metadata import PackageNotFoundError, version

import datasets
import pyarrow.parquet as pq
import pytest

from pipeline.config import RenderConfig
from pipeline.config.corpus_config import LanguagesConfig
from pipeline.corpus import libraries
from pipeline.corpus.corpus_job import prepare_corpus, recipe_fields, steps
from pipeline.corpus.records.languages import detect_language
from pipeline.corpus.tables.column_mapping import facts_of
from pipeline.corpus.text.sentences_by_library import split_by_library
from pipeline.corpus.text.trim import trim_long, trim_short
from pipeline.errors import ConfigError, OutputMismatch, PipelineError
from schemas.record import PUBLISHED, PUBLISHED_WITH_LANGUAGE
from tests.corpus.records import SENTENCES
from tests.corpus.test_job import TAGS, corpus, counted, lines, make, rows_of


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


detects = pytest.mark.skipif(not _installed("py3langid"), reason="needs the extra languages")
splits = pytest.mark.skipif(not _installed("sentencex"), reason="needs the extra languages")

CAPTIONS = {
    "en": "A girl with long hair stands by a still lake. Mountains rise behind the water. The sky is clear.",
    "de": "Ein Mädchen mit langen Haaren steht am See. Hinter dem Wasser erheben sich Berge. Der Himmel ist klar.",
    "ja": "長い髪の少女が静かな湖のそばに立っている。水の向こうに山がある。空は晴れている。",
    "hi": "लंबे बालों वाली एक लड़की झील के किनारे खड़ी है। पानी के पीछे पहाड़ हैं। आकाश साफ है।",
    "ru": "Девушка с длинными волосами стоит у тихого озера. За водой поднимаются горы. Небо ясное.",
    "my": "မိန်းကလေးတစ်ယောက် ရပ်နေသည်။ ကောင်းကင်သည် ပြာသည်။ ရေသည် ငြိမ်သည်။",
}


def captions(folder) -> dict:
    rows = [{"id": number, "tags": TAGS, "long": text} for number, text in enumerate(CAPTIONS.values())]
    rows += [{"id": 10, "tags": TAGS}, {"id": 11, "tags": TAGS, "short": "3.5, 12 / 7"}]
    return {"name": "t", "urls": lines(folder / "t.jsonl", rows)}


@detects
@pytest.mark.parametrize(("language", "text"), CAPTIONS.items())
def test_the_language_of_a_caption_is_detected(language, text):
    assert detect_language(text, LanguagesConfig()) == language


@detects
def test_short_captions_need_few_candidates():
    short = "A girl stands by a lake."
    assert detect_language(short, LanguagesConfig(min_confidence=0.5)) is None
    assert detect_language(short, LanguagesConfig(min_confidence=0.5, candidates=("de", "en", "ja"))) == "en"


@detects
def test_a_job_records_counts_and_filters_languages(tmp_path):
    table = captions(tmp_path)
    make(corpus(tmp_path / "all", tables=table, languages="py3langid"))
    by_id = {row["id"]: row["language"] for row in rows_of(tmp_path / "all", "records")}
    assert by_id == {**{f"t/{number}": code for number, code in enumerate(CAPTIONS)}, "t/10": None, "t/11": None}
    counts = {reason: number for (_, reason), number in counted(tmp_path / "all").items() if "language" in reason}
    assert counts == {**{f"language_{code}": 1 for code in CAPTIONS}, "language_unknown": 1, "language_uncertain": 1}
    loaded = datasets.load_dataset(
        str(tmp_path / "all/corpus"), "records", split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.features == datasets.Features.from_arrow_schema(PUBLISHED_WITH_LANGUAGE)

    make(corpus(tmp_path / "some", tables=table, languages="py3langid", filters={"language": ["en", "ja"]}))
    assert {row["id"] for row in rows_of(tmp_path / "some", "records")} == {"t/0", "t/2"}
    counts = counted(tmp_path / "some")
    assert (counts["t", "dropped_filter_language"], counts["t", "dropped_filter_language_missing"]) == (4, 2)


@detects
def test_the_column_of_a_source_wins_over_the_detector(tmp_path):
    rows = [
        {"id": n, "tags": TAGS, "long": CAPTIONS["en"], "lang": code} for n, code in enumerate(("nl-BE", "?", None))
    ]
    table = {"name": "t", "urls": lines(tmp_path / "t.jsonl", rows), "columns": {"language": "lang"}}
    make(corpus(tmp_path / "a", tables=table, languages={"candidates": ["en", "de"]}))
    assert [row["language"] for row in rows_of(tmp_path / "a", "records")] == ["nl", "en", "en"]
    assert counted(tmp_path / "a")["t", "bad_language"] == 1
    make(corpus(tmp_path / "b", tables=table, filters={"language": "nl"}))
    assert [row["id"] for row in rows_of(tmp_path / "b", "records")] == ["t/0"]


@pytest.mark.parametrize(("value", "code"), [("en", "en"), ("EN-us", "en"), ("zh_Hans_CN", "zh"), ("yue", "yue")])
def test_codes_of_languages_are_normalised(value, code):
    assert facts_of({"lang": value}, {"language": "lang"}, Counter()) == {"language": code}


def test_a_column_named_language_is_not_read_unless_the_config_names_it():
    assert facts_of({"language": "en", "lang": "en", "id": 1}, {}, Counter()) == {"id": "1"}
    faults: Counter[str] = Counter()
    assert facts_of({"lang": "English"}, {"language": "lang"}, faults) == {"language": None}
    assert faults == {"bad_language": 1}


def test_a_corpus_without_languages_has_the_columns_and_the_recipe_of_before(tmp_path):
    config = corpus(tmp_path, tables=captions(tmp_path))
    make(config)
    [file] = (tmp_path / "corpus/records/train").rglob("*.parquet")
    assert pq.read_schema(file).names == PUBLISHED.names
    assert "language" not in PUBLISHED.names
    fields = recipe_fields(config, None)
    assert "languages" not in fields
    assert "sentences" not in fields["render"]
    assert not {"py3langid", "sentencex"}.intersection(fields["versions"])


@detects
@splits
def test_the_versions_of_the_libraries_are_in_the_recipe_and_another_one_is_refused(tmp_path, monkeypatch):
    keys = {"tables": captions(tmp_path), "languages": "py3langid", "render": {"sentences": "sentencex"}}
    config = corpus(tmp_path, **keys)
    versions = prepare_corpus(config).recipe.fields["versions"]
    assert versions["py3langid"] == version("py3langid")
    assert versions["sentencex"] == version("sentencex")
    monkeypatch.setattr(libraries, "version", lambda name: "9.9")
    with pytest.raises(OutputMismatch, match=r"versions\.py3langid: '[\d.]+' in the output, '9\.9' in this run"):
        prepare_corpus(config)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"languages": "py3langid"}, r"languages\.detector: py3langid is not installed; run: pip install 'joyf"),
        ({"render": {"sentences": "sentencex"}}, r"render\.sentences\.by: sentencex is not installed; run: pip inst"),
    ],
)  # fmt: skip
def test_a_library_that_is_not_installed_is_refused_with_the_command(tmp_path, monkeypatch, keys, message):
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(libraries, "version", absent)
    with pytest.raises(ConfigError, match=message):
        prepare_corpus(corpus(tmp_path, tables=captions(tmp_path), **keys))
    assert not (tmp_path / "corpus").exists()
    prepare_corpus(corpus(tmp_path, tables=captions(tmp_path)))


@detects
@splits
@pytest.mark.parametrize("step", ["records", "publish"])
def test_a_worker_with_another_version_is_refused(tmp_path, monkeypatch, step):
    config = corpus(
        tmp_path, tables=captions(tmp_path), languages="py3langid", render={"sentences": {"by": "sentencex"}}
    )
    make(config, until=step)
    [work] = [part for part in _until(config, step) if part.name == step]
    monkeypatch.setattr(libraries, "version", lambda name: "0.1")
    with pytest.raises(PipelineError, match=r"py3langid: a worker has version 0\.1, the driver .*; install the same"):
        work.work(work.items[0])


def _until(config, name):
    for step in steps(prepare_corpus(config)):
        yield step
        if step.name == name:
            return
        _ = step.driver_work() if step.driver_work else [step.work(item) for item in step.items]


@detects
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"languages": {"candidates": ["en", "qq"]}},
            r"languages\.candidates: found qq; py3langid knows: ace, .*, zu",
        ),
        ({"languages": "py3langid", "filters": {"language": "qq"}}, r"filters\.0\.language: found qq; py3langid is as"),
        (
            {"languages": {"candidates": ["en", "ja"]}, "filters": {"language": ["de", "en"]}},
            r"filters\.0\.language: found de; py3langid is asked for: en, ja$",
        ),
    ],
)
def test_languages_that_the_library_does_not_know_are_refused(tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        prepare_corpus(corpus(tmp_path, tables=captions(tmp_path), **keys))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"filters": {"language": "en"}}, r"filters\.0\.language: no record has a language; set languages, or"),
        ({"languages": "fasttext"}, r"languages\.detector: found 'fasttext'; Input should be 'py3langid'"),
        ({"languages": {"candidates": "en"}}, r"candidates: found 'en'; allowed: at least two languages, or none"),
        ({"languages": {"candidates": ["en", "en"]}}, r"candidates en repeat; allowed: each once"),
        ({"render": {"sentences": "pysbd"}}, r"render\.sentences\.by: found 'pysbd'; Input should be 'rules' or 'sent"),
        ({"render": {"sentences": {"language": "de"}}}, r"found language de with by: rules, which have none; allowed:"),
    ],
)  # fmt: skip
def test_settings_of_languages_that_cannot_be_honoured_are_refused(tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        corpus(tmp_path, tables=captions(tmp_path), **keys)


@splits
@pytest.mark.parametrize("language", CAPTIONS)
def test_the_library_splits_sentences_without_loss(language):
    parts = split_by_library(CAPTIONS[language], language)
    assert len(parts) == 3
    assert "".join(parts) == CAPTIONS[language]


@splits
def test_the_library_knows_abbreviations_and_marks_that_the_rules_do_not():
    german = "Ein Haus steht z. B. am See. Es ist ca. 3 m hoch. Der Himmel ist blau."
    assert len(split_by_library(german, "de")) == 3
    assert trim_short(CAPTIONS["my"], 2, 0) == CAPTIONS["my"]
    trimmed = {trim_short(CAPTIONS["my"], 2, seed, "my") for seed in range(20)}
    first, second, third = split_by_library(CAPTIONS["my"], "my")
    assert trimmed == {(first + second).rstrip(), first + third}
    japanese = {trim_long(CAPTIONS["ja"], 1, 2, seed, "ja") for seed in range(20)}
    assert all(" " not in text and text.count("。") == 2 for text in japanese)


@splits
def test_any_text_is_split_without_loss():
    odd = [
        "",
        ".",
        "...",
        "!?",
        "a.b",
        "  two  blanks. Here  too.  ",
        "1. One 2. Two",
        '"Quote." He said. (No.)',
        "😀. 😀!",
    ]
    odd += ["e. e. cummings. [1] Next.", "\u200fعربي. نص؟ نعم", "A\u2028B. C", "x" * 5000, "No. 5. " * 200]
    for text in [*odd, *SENTENCES[:200], " ".join(SENTENCES[:50])]:
        for language in ("en", "de", "ja", "my", "zz"):
            assert "".join(split_by_library(text, language)) == text


GERMAN = "Herr Klein wohnt bzw. Arbeitet dort. Der Himmel ist blau. Ein Haus steht am See."


@splits
def test_a_job_trims_by_the_language_of_the_record_or_by_the_one_of_the_config(tmp_path):
    rows = [{"id": n, "tags": ["hat"], "long": GERMAN, "lang": "de" if n < 60 else None} for n in range(120)]
    table = {"name": "t", "urls": lines(tmp_path / "t.jsonl", rows), "columns": {"language": "lang"}}
    make(corpus(tmp_path, tables=table, render={"sentences": "sentencex"}, split={"validation": 0}))
    first = {"de": set(), "en": set()}
    for row in rows_of(tmp_path, "text"):
        if "long" in row["task"]:
            long = next(line for line in (row["user"] + row["output"]).splitlines() if line.startswith("long: "))
            first["de" if int(row["id"].split("/")[1]) < 60 else "en"].add(long.removeprefix("long: "))
    german, english = split_by_library(GERMAN, "de"), split_by_library(GERMAN, "en")
    assert (len(german), len(english)) == (3, 4)
    assert first["de"] == {(german[0] + other).rstrip() for other in german[1:]}
    assert first["en"] == {(english[0] + other).rstrip() for other in english[1:]}


def test_sentences_by_rules_are_those_of_before():
    assert RenderConfig().sentences == RenderConfig(sentences="rules").sentences
    assert RenderConfig().sentences.package is None
