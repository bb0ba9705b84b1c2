"""Filters decide which records stay, the schedule how often each is drawn; both are pure functions of recipe and id."""

import json
from collections import Counter

import pytest

from jobs.corpus import dropped_line
from pipeline.config import CorpusConfig
from pipeline.config.corpus_filters import tasks_in, weight_in
from pipeline.config.load import parse_config
from pipeline.corpus.corpus_job import recipe_fields
from pipeline.corpus.report.corpus_report import read_dropped
from pipeline.errors import ConfigError, NothingDone
from pipeline.storage import open_store
from schemas.corpus_row import Task
from tests.corpus.outputs import write_output
from tests.corpus.test_job import LONG, SHORT, TAGS, corpus, counted, entry, lines, make, rows_of, shards

POST = {
    "tags": TAGS, "rating": "g", "score": 10, "fav_count": 10, "width": 800, "height": 600, "year": 2020,
    "short": SHORT, "long": "One two three four.",
}  # fmt: skip


def posts(folder, *changes, name="posts") -> dict:
    """Return a table of records: `POST` with changes."""
    rows = [{"id": number, **POST, **change} for number, change in enumerate(changes)]
    return {"name": name, "urls": lines(folder / f"{name}.jsonl", rows)}


def kept(folder) -> list[int]:
    return sorted(int(row["id"].split("/")[1]) for row in rows_of(folder, "records"))


def drops(folder, source="posts") -> dict[str, int]:
    return {
        reason: number
        for (name, reason), number in counted(folder).items()
        if name == source and (reason.startswith("dropped") or reason.endswith("_kept"))
    }


@pytest.mark.parametrize(
    ("condition", "values"),
    [
        ({"rating": ["general", "sensitive"]}, ({"rating": "s"}, {"rating": "e"}, {"rating": None})),
        ({"rating": "sensitive"}, ({"rating": "1"}, {"rating": "general"}, {"rating": "no rating"})),
        ({"score": {"min": 5}}, ({"score": 5}, {"score": 4}, {"score": None})),
        ({"favorites": {"min": 1, "max": 5}}, ({"fav_count": 5}, {"fav_count": 6}, {"fav_count": None})),
        ({"width": {"max": 800}}, ({}, {"width": 801}, {"width": 0})),
        ({"height": {"min": 600}}, ({}, {"height": 599}, {"height": None})),
        ({"shorter_side": {"min": 512}}, ({"width": 512}, {"width": 511}, {"height": None})),
        ({"pixels": {"min": 480000}}, ({}, {"width": 799}, {"width": None})),
        ({"aspect": {"min": 0.5, "max": 2}}, ({"width": 1200}, {"width": 1201}, {"width": None})),
        ({"year": {"min": 2015}}, ({"year": 2015}, {"year": 2014}, {"year": None})),
        ({"short_words": {"max": 6}}, ({}, {"short": "A girl stands by a cold lake."}, {"short": None})),
        ({"short_chars": {"min": 24}}, ({}, {"short": "A girl by a lake."}, {"short": None})),
        ({"long_words": {"min": 4, "max": 4}}, ({}, {"long": "One two three."}, {"long": None})),
        ({"long_chars": {"max": 19}}, ({}, {"long": "One two three fours."}, {"long": None})),
        (
            {"tags": {"all": ["1girl", "long_hair"], "any": ["hat", "lake"], "none": "comic"}},
            ({}, {"tags": [*TAGS, "comic"]}, {"tags": None}),
        ),
        ({"tags": {"any": ["hat", "cat"]}}, ({"character": ["cat"]}, {}, {"tags": None})),
        ({"tags": {"none": ["bad_id"]}}, ({"meta": "highres"}, {"meta": ["bad_id", "highres"]}, {"tags": []})),
    ],
)  # fmt: skip
def test_a_condition_drops_what_does_not_meet_it_and_what_lacks_the_field(tmp_path, condition, values):
    [field] = condition
    make(corpus(tmp_path, tables=posts(tmp_path, *values), filters=condition))
    assert kept(tmp_path) == [0]
    assert drops(tmp_path) == {f"dropped_filter_{field}": 1, f"dropped_filter_{field}_missing": 1}


def test_what_lacks_a_field_is_kept_and_counted_if_the_filter_says_so(tmp_path):
    changes = ({}, {"score": 1}, {"score": None}, {"score": None, "year": None}, {"score": None, "year": 1999})
    filters = {"score": {"min": 5}, "score_percentile": {"min": 0}, "year": {"min": 2010}, "missing": "keep"}
    make(corpus(tmp_path, tables=posts(tmp_path, *changes), filters=filters))
    assert kept(tmp_path) == [0, 2, 3]
    assert drops(tmp_path) == {
        "dropped_filter_score": 1, "dropped_filter_year": 1, "filter_score_missing_kept": 2,
        "filter_score_percentile_missing_kept": 2, "filter_year_missing_kept": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("within", "expected"),
    [
        ("source", [3, 7, 8, 9]),  # 65 and more: of 0 0 2 4 5 6 7 8 9 9 the numbers 7 (65), 8 (75) and 9 (90)
        (
            "rating",
            [3, 6, 8, 9],
        ),  # of general 0 2 4 6 8 the numbers 6 (70) and 8 (90), of explicit 0 5 7 9 9 both 9 (80)
    ],
)
def test_percentiles_are_those_of_all_records_of_the_source_before_other_filters(tmp_path, within, expected):
    numbers = [0, 0, 2, 9, 4, 5, 6, 7, 8, 9]
    changes = [{"fav_count": number, "rating": "ge"[place % 2]} for place, number in enumerate(numbers)]
    tables = [posts(tmp_path, *changes), posts(tmp_path, *[{"fav_count": 10**6}] * 5, name="others")]
    percentile = {"favorites_percentile": {"min": 65, "within": within}}
    filters = [{"sources": "posts", **percentile}, {"sources": "others", "score": {"max": 99}}]
    make(corpus(tmp_path, tables=tables, filters=filters))
    assert sorted(int(row["id"].split("/")[1]) for row in rows_of(tmp_path, "records")
                  if row["source"] == "posts") == expected  # fmt: skip
    assert drops(tmp_path) == {"dropped_filter_favorites_percentile": 10 - len(expected)}
    assert not drops(tmp_path, "others")
    before = rows_of(tmp_path, "records")
    again = tmp_path / "again"
    make(corpus(again, tables=tables, filters=[*filters, {"sources": "posts", "rating": "explicit"}]))
    own = [row for row in before if row["source"] == "posts" and row["rating"] == ["nsfw", "explicit"]]
    assert [row for row in rows_of(again, "records") if row["source"] == "posts"] == own


def test_a_filter_does_not_change_the_quality_terms_and_the_split_of_what_it_keeps(tmp_path):
    tables = posts(tmp_path, *({"score": number, "fav_count": number} for number in range(200)))
    whole, part = tmp_path / "whole", tmp_path / "part"
    make(corpus(whole, tables=tables, split={"validation": 0.3}))
    make(corpus(part, tables=tables, split={"validation": 0.3}, filters={"score": {"min": 150}}))
    records = {row["id"]: row for row in rows_of(whole, "records")}
    assert len(rows_of(part, "records")) == 50
    assert {row["quality"][0] for row in rows_of(part, "records")} <= {"masterpiece", "best quality", "great quality"}
    assert all(records[row["id"]] == row for row in rows_of(part, "records"))
    texts = rows_of(whole, "text")
    assert all(row in texts for row in rows_of(part, "text"))


def test_a_record_that_a_filter_drops_does_not_drop_its_duplicates(tmp_path):
    tables = [posts(tmp_path, {"md5": "a" * 32, "score": 1}), posts(tmp_path, {"md5": "a" * 32}, name="others")]
    make(corpus(tmp_path, tables=tables, filters={"score": {"min": 5}}))
    assert [row["source"] for row in rows_of(tmp_path, "records")] == ["others"]


def test_all_filters_of_a_source_apply_and_those_of_others_do_not(tmp_path):
    tables = [posts(tmp_path, {}, {"score": 1}, {"year": 2000}), posts(tmp_path, {"score": 1}, name="others")]
    filters = [{"sources": ["posts"], "score": {"min": 5}}, {"year": {"min": 2010}}]
    make(corpus(tmp_path, tables=tables, filters=filters))
    assert {row["id"] for row in rows_of(tmp_path, "records")} == {"posts/0", "others/0"}
    assert drops(tmp_path) == {"dropped_filter_score": 1, "dropped_filter_year": 1}


def test_a_filter_on_a_field_that_no_source_has_is_refused_before_records_are_built(tmp_path):
    rows = [{"id": 1, "tags": TAGS}]
    tables = [
        {"name": "posts", "urls": lines(tmp_path / "posts.jsonl", rows)},
        {"name": "scores", "urls": lines(tmp_path / "scores.jsonl", [{"id": 1, "score": 9}]), "join": "id"},
    ]
    config = corpus(tmp_path, tables=tables, filters=[{"score": {"min": 1}}, {"rating": "general"}])
    with pytest.raises(
        ConfigError, match=r"filters\.1\.rating: no record of posts has a value for it; known there: id, score, tags;"
    ):
        make(config, until="records")


def test_a_filter_on_a_field_that_the_captions_lack_is_refused(tmp_path):
    url = write_output(tmp_path / "in", shards(1, 5))
    with pytest.raises(ConfigError, match=r"filters\.0\.score: no record of photos has a value for it; name its col"):
        make(corpus(tmp_path, captions=entry(url), filters={"score": {"min": 1}, "missing": "keep"}))
    make(corpus(tmp_path / "size", captions=entry(url), filters={"width": {"min": 1}}))


def test_filters_that_drop_everything_end_with_an_error_each_time(tmp_path):
    config = corpus(tmp_path, tables=posts(tmp_path, {}, {}, {"score": None}), filters={"score": {"min": 11}})
    for _ in range(2):
        with pytest.raises(NothingDone, match=r"filters: none of 3 records is left \(2 filter_score, 1 filter_score_m"):
            make(config)
    assert not (tmp_path / "corpus/README.md").exists()


def test_the_summary_and_the_card_count_dropped_records_by_reason(tmp_path):
    tables = posts(tmp_path, {}, {"score": 1}, {"score": 2}, {"md5": "a" * 32}, {"md5": "a" * 32})
    make(corpus(tmp_path, tables=tables, filters={"score": {"min": 5}}))
    counts = read_dropped(open_store(str(tmp_path / "corpus")))
    assert dropped_line(counts) == "3 of 5 images: 2 filter_score, 1 duplicate_image"
    assert dropped_line(Counter(images=3)) == "no record"
    assert "| posts | dropped_filter_score | 2 |" in (tmp_path / "corpus/README.md").read_text()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"filters": {"scores": {"min": 1}}}, r"filters\.0\.scores: unknown key; allowed here: aspect, .*; did you"),
        ({"filters": {"score": {"least": 1}}}, r"filters\.0\.score\.least: unknown key; allowed here: max, min"),
        ({"filters": {"score": {"min": "many"}}}, r"filters\.0\.score\.min: found 'many'; Input should be a valid"),
        ({"filters": {"score": {"min": 2, "max": 1}}}, r"found min 2 above max 1; allowed: min up to max"),
        ({"filters": {"score": {}}}, r"filters\.0\.score: found neither min nor max; allowed: at least one"),
        ({"filters": {"favorites_percentile": {"min": 101}}}, r"percentile\.min: found 101; Input should be less than"),
        ({"filters": {"favorites_percentile": {"min": 9, "within": "tag"}}}, r"found 'tag'; Input should be 'source'"),
        ({"filters": {"rating": "sfw"}}, r"filters\.0\.rating\.0: found 'sfw'; Input should be 'general', 'sensitive'"),
        ({"filters": {"language": "English"}}, r"filters\.0\.language\.0: found 'English'; .* match pattern"),
        ({"filters": {"tags": {"all": "a", "none": "a"}}}, r"found a as present and as absent"),
        ({"filters": {"tags": {}}}, r"found none of all, any and none; allowed: at least one of them, with tags"),
        ({"filters": {"missing": "keep"}}, r"filters\.0: found no condition; allowed: at least one of rating, score"),
        ({"filters": {"sources": "post", "score": {"min": 1}}}, r"sources: found post; allowed: posts; did you mean p"),
        ({"schedule": {"weight": -1}}, r"schedule\.0\.weight: found -1; Input should be greater than or equal to 0"),
        ({"schedule": {"sources": "posts"}}, r"found neither weight nor tasks; allowed: at least one of them"),
        ({"schedule": {"tasks": "tag_to_short"}}, r"schedule\.0\.tasks\.0: found 'tag_to_short'; Input should be 't"),
        ({"schedule": {"sources": "coyo", "weight": 2}}, r"schedule\.0\.sources: found coyo; allowed: posts"),
        ({"schedule": {"first_epoch": 1, "weight": 2}}, r"schedule\.0: names epoch 1; allowed: 0 to 0, since"),
        ({"schedule": {"last_epoch": 3, "weight": 2}}, r"schedule\.0: names epoch 3; allowed: 0 to 0"),
        (
            {"epochs": 4, "schedule": {"first_epoch": 2, "last_epoch": 1, "weight": 2}},
            r"found last_epoch 1 before first_epoch 2; allowed: from it upwards",
        ),
        (
            {"epochs": 2, "schedule": {"first_epoch": 1, "weight": 0}},
            r"schedule: no source has a weight above 0 in epoch 1; allowed: at least one in every epoch",
        ),
    ],
)  # fmt: skip
def test_a_selection_that_cannot_be_honoured_is_refused(tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        corpus(tmp_path, tables={"name": "posts", "urls": "t.csv"}, **keys)


def test_the_recipe_holds_filters_and_schedule_only_if_there_are_any(tmp_path):
    table = {"name": "posts", "urls": "t.csv"}
    fields = recipe_fields(corpus(tmp_path, tables=table), None)
    assert not {"filters", "schedule"}.intersection(fields)
    fields = recipe_fields(corpus(tmp_path, tables=table, filters={"score": {"min": 1}}), None)
    assert fields["filters"][0]["score"] == {"min": 1.0, "max": None}


def test_a_weight_repeats_each_record_with_other_draws_and_the_first_is_that_without_weight(tmp_path):
    tables = posts(tmp_path, *[{}] * 40)
    make(corpus(tmp_path / "plain", tables=tables, epochs=2))
    make(corpus(tmp_path / "three", tables=tables, epochs=2, schedule={"first_epoch": 1, "weight": 3}))
    plain, three = rows_of(tmp_path / "plain", "text"), rows_of(tmp_path / "three", "text")
    assert Counter(row["epoch"] for row in three) == {0: 40, 1: 120}
    assert set(Counter((row["epoch"], row["id"]) for row in three).values()) == {1, 3}
    assert all(row in three for row in plain)
    assert len({(row["id"], row["user"], row["output"]) for row in three}) > 150
    assert len({row["seed"] for row in three}) == 160


def test_a_fraction_of_a_weight_draws_other_records_in_each_epoch(tmp_path):
    config = corpus(tmp_path, tables=posts(tmp_path, *[{}] * 400), epochs=2, schedule={"weight": 1.25})
    make(config)
    more = {epoch: {row["id"] for row in rows_of(tmp_path, "text") if row["epoch"] == epoch} for epoch in range(2)}
    assert all(len(ids) == 400 for ids in more.values())
    numbers = Counter((row["epoch"], row["id"]) for row in rows_of(tmp_path, "text"))
    twice = [{name for (at, name), number in numbers.items() if number == 2 and at == epoch} for epoch in range(2)]
    assert all(60 < len(names) < 140 for names in twice)
    assert twice[0] != twice[1]


def test_a_curriculum_limits_sources_and_tasks_to_epochs(tmp_path):
    tables = [posts(tmp_path, *[{}] * 30), posts(tmp_path, *[{"id": n} for n in range(30)], name="others")]
    schedule = [
        {"sources": "others", "first_epoch": 1, "weight": 0},
        {"last_epoch": 0, "tasks": ["tag"]},
        {"sources": "posts", "first_epoch": 2, "tasks": ["tag_to_long", "long_to_tag"]},
    ]
    make(corpus(tmp_path, tables=tables, epochs=3, schedule=schedule))
    texts = rows_of(tmp_path, "text")
    assert Counter((row["source"], row["epoch"]) for row in texts) == {
        ("posts", 0): 30, ("posts", 1): 30, ("posts", 2): 30, ("others", 0): 30,
    }  # fmt: skip
    tasks = [{row["task"] for row in texts if row["epoch"] == epoch} for epoch in range(3)]
    assert tasks[0] == {"tag"}
    assert len(tasks[1]) > 3
    assert tasks[2] == {"tag_to_long", "long_to_tag"}


def test_a_schedule_that_leaves_no_text_ends_with_an_error(tmp_path):
    tables = posts(tmp_path, {"short": None}, {"short": None})
    with pytest.raises(NothingDone, match=r"schedule: none of 2 records has a text; raise a weight or name more tasks"):
        make(corpus(tmp_path, tables=tables, schedule={"tasks": "short_to_tag"}))
    assert not (tmp_path / "corpus/README.md").exists()


def test_of_several_entries_the_first_that_applies_decides(tmp_path):
    config = corpus(tmp_path, tables=[{"name": name, "urls": "t.csv"} for name in ("a", "b")], epochs=4, schedule=[
        {"sources": "a", "last_epoch": 1, "weight": 3}, {"weight": 2}, {"sources": "b", "weight": 9, "tasks": "tag"},
    ])  # fmt: skip
    weights = [[weight_in(config.schedule, source, epoch) for epoch in range(4)] for source in "ab"]
    assert weights == [[3, 3, 2, 2], [2, 2, 2, 2]]
    assert (tasks_in(config.schedule, "a", 0), tasks_in(config.schedule, "b", 0)) == ((), (Task.TAG,))


def test_a_stopped_job_with_filters_and_a_schedule_resumes_and_makes_the_same_rows(tmp_path):
    changes = [{"score": number % 7, "fav_count": number} for number in range(50)]
    keys = {
        "tables": posts(tmp_path, *changes), "epochs": 2,
        "filters": {"score": {"min": 2}, "favorites_percentile": {"min": 30}},
        "schedule": [{"weight": 2.5}],
    }  # fmt: skip
    for until in ("records", "dedupe", "publish", "report"):
        folder = tmp_path / until
        config = corpus(folder, **keys)
        make(config, until=until)
        make(config)
    texts = [rows_of(tmp_path / until, "text") for until in ("records", "dedupe", "publish", "report")]
    assert all(text == texts[0] for text in texts)
    assert 100 < len(texts[0]) < 200


def test_captions_are_filtered_by_what_was_read_from_the_image(tmp_path):
    rows = shards(1, 6)
    for row in rows:
        row["width"] = 100 * (1 + row["row"])
        row["source"] = json.dumps({"tags": TAGS, "score": row["row"]})
    url = write_output(tmp_path / "in", rows)
    make(corpus(tmp_path, captions=entry(url), filters={"width": {"min": 300}, "score": {"max": 4}}))
    assert [row["width"] for row in rows_of(tmp_path, "records")] == [300, 400, 500]
    assert drops(tmp_path, "photos") == {"dropped_filter_width": 2, "dropped_filter_score": 1}


def test_a_tag_filter_reads_the_current_names_of_tags(tmp_path):
    aliases = tmp_path / "aliases.csv"
    aliases.write_text("ugly_name,comic\n")
    tables = posts(tmp_path, {}, {"tags": [*TAGS, "ugly name"]})
    make(corpus(tmp_path, tables=tables, tag_files={"aliases": str(aliases)}, filters={"tags": {"none": "comic"}}))
    assert kept(tmp_path) == [0]


def test_an_old_config_with_the_new_keys_at_their_defaults_has_its_fingerprint(tmp_path):
    table = {"name": "posts", "urls": "t.csv"}
    given = parse_config(
        CorpusConfig, {"output": str(tmp_path), "tables": table, "filters": [], "schedule": []}, (), origin="test"
    )
    plain = parse_config(CorpusConfig, {"output": str(tmp_path), "tables": table}, (), origin="test")
    assert recipe_fields(given, None) == recipe_fields(plain, None)


def test_long_captions_of_a_job_are_counted_in_words(tmp_path):
    url = write_output(tmp_path / "in", shards(1, 4))
    words = len(LONG.split()) + 1
    make(corpus(tmp_path, captions=entry(url), filters={"long_words": {"min": words, "max": words}}))
    assert len(rows_of(tmp_path, "records")) == 4
