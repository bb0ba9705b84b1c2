"""What the quality report counts, and that it stays small."""

import io
import random
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.quality import _cells
from pipeline.ledger.caption_table import to_parquet
from pipeline.ledger.footer import Footer, RunIdentity
from pipeline.ledger.layout import committed_path
from pipeline.report.duplicates import Duplicates
from pipeline.report.key_sample import KeySample, Smallest, hash64
from pipeline.report.quality_stats import FOLDER, distinct, measure_quality, percentile, write_report
from pipeline.storage import open_store
from schemas.caption_row import CAPTION_ROW
from schemas.quality_report import QUALITY_GROUPS, QUALITY_OPENINGS, QUALITY_REASONS, QUALITY_WORDS

RUN = RunIdentity(recipe="r" * 16, slots=("long",), versions={})


def row(number, shard="a.tar", text="a red boat lies on the beach", **rest):
    made = dict.fromkeys(CAPTION_ROW.names) | {
        "shard": shard, "row": number, "key": f"k{number}", "slot": "long", "mode": "descriptive",
        "length_kind": "none", "options": [], "prompt": "p", "system": "s", "status": "ok", "flags": [],
        "attempts": 1, "seed": 0, "source": "{}", "recipe": RUN.recipe,
    }  # fmt: skip
    made |= {"caption": text, "words": len(text.split())} if rest.get("status", "ok") == "ok" else {}
    return made | rest


def commit(store, rows, shard="a.tar"):
    footer = Footer(run=RUN, shard=shard, size=1, etag="e", num_images=len(rows), attempt="0" * 32, statuses={})
    store.put(committed_path(shard), to_parquet(pa.Table.from_pylist(rows, schema=CAPTION_ROW), footer))


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "out"))


def test_rows_are_counted_by_mode_length_and_status(store):
    commit(
        store,
        [
            row(0),
            row(1, attempts=3, earlier_reasons=["loop", "refusal"], rejected_text="x"),
            row(2, status="rejected", reason="loop", earlier_reasons=["loop", "loop"], attempts=3),
            row(3, status="failed", reason="undecodable", attempts=0),
            row(4, length_kind="words", length_words=40, flags=["too_short"]),
            row(5, length_kind="words", length_words=40),
            row(6, mode="booru-tags", length_kind="class", length_class="long", text="sky, sea"),
        ],
    )
    report = measure_quality(store)
    groups = {(item["mode"], item["length"]): item for item in report.groups.to_pylist()}
    assert set(groups) == {("descriptive", "none"), ("descriptive", "40 words"), ("booru-tags", "long")}
    none, words = groups["descriptive", "none"], groups["descriptive", "40 words"]
    assert [none[name] for name in ("rows", "ok", "repaired", "rejected", "failed")] == [4, 1, 1, 1, 1]
    assert (none["length_kept"], words["length_kept"], words["too_short"], words["too_long"]) == (None, 0.5, 0.5, 0)
    assert [none[name] for name in ("words_mean", "words_p10", "words_p90")] == [7, 7, 7]
    assert {(item["kind"], item["name"], item["rows"]) for item in report.reasons.to_pylist()} == {
        ("rejected", "loop", 1), ("failed", "undecodable", 1), ("earlier", "loop", 3), ("earlier", "refusal", 1),
        ("flag", "too_short", 1),
    }  # fmt: skip
    assert {(item["mode"], item["words"], item["rows"]) for item in report.words.to_pylist()} == {
        ("descriptive", 7, 2), ("booru-tags", 2, 1),
    }  # fmt: skip
    assert report.openings.to_pylist()[-1]["opening"] == "a red boat"


def test_duplicates_are_those_of_other_images(store):
    alike = "a man in a blue coat walks a small brown dog along the river while it rains over the old stone bridge"
    texts = ["one and the same text", "One and  the same text", alike, f"{alike} today", "two gulls on a roof"]
    rows = [row(number, text=text) for number, text in enumerate(texts)]
    commit(store, [*rows, row(4, text="two gulls on a roof", slot="other")])
    [group] = measure_quality(store).groups.to_pylist()
    assert group["exact_rate"] == 1
    assert group["exact_duplicates"] == pytest.approx(2 / 5)
    assert group["near_duplicates"] == pytest.approx(4 / 5)


def test_the_order_of_files_does_not_matter(tmp_path):
    rng = random.Random(1)
    parts = {
        name: [
            row(n, name, " ".join(rng.choices(["red", "blue", "boat", "sky", "sea", "gull", "sand"], k=9)))
            for n in range(300)
        ]
        for name in ("a.tar", "b.tar")
    }
    there, back = open_store(str(tmp_path / "there")), open_store(str(tmp_path / "back"))
    for name, other in (("a.tar", "b.tar"), ("b.tar", "a.tar")):
        commit(there, parts[name], name)
        commit(back, [item | {"shard": name} for item in parts[other]], name)
    first, second = (measure_quality(store) for store in (there, back))
    for name in ("reasons", "words", "openings"):
        assert getattr(first, name) == getattr(second, name)


def test_memory_does_not_grow_with_the_output(store):
    """Three times the captions, the same peak: only samples, histograms and one file are held."""
    rng = random.Random(2)
    words = [f"word{n}" for n in range(500)]

    def peak(num_files):
        for file in range(num_files):
            name = f"{file:03d}.tar"
            commit(store, [row(n, name, " ".join(rng.choices(words, k=30))) for n in range(400)], name)
        tracemalloc.start()
        measure_quality(store, Duplicates(exact_texts=300, near_texts=100))
        actual = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return actual

    small = peak(5)
    assert peak(15) < 1.3 * small


def test_a_sample_keeps_equal_keys_together_and_knows_its_rate():
    sample = KeySample(1000)
    for number in range(20_000):
        for _ in range(2):
            sample.add(hash64(str(number)), number)
    assert 250 <= sum(map(len, sample.kept.values())) <= 1000
    assert all(len(values) == 2 for values in sample.kept.values())
    assert len(sample.kept) / sample.rate == pytest.approx(20_000, rel=0.15)
    texts = Smallest[int, str](10)
    for number in random.Random(0).sample(range(1000), 1000):
        texts.add(number, str(number))
    assert [text for _, text in texts.items] == [str(n) for n in range(10)]


def test_a_sampled_share_of_duplicates_stays_right():
    duplicates = Duplicates(exact_texts=500, near_texts=500)
    rng = random.Random(4)
    words = [f"word{n}" for n in range(2000)]
    for number in range(4000):
        text = " ".join(rng.choices(words, k=40))
        duplicates.add(1, number, text)
        if number % 4 == 0:
            duplicates.add(1, 100_000 + number, text)
    assert duplicates.exact()[1].share == pytest.approx(0.4, abs=0.08)
    assert duplicates.near()[1].share == pytest.approx(0.4, abs=0.08)


def test_mentions_of_given_tags_and_names_are_added_up(store):
    counts = [{"given": 3, "mentioned": 1}, {"given": 1, "mentioned": 1}, {}]
    rejected = {"given": 5, "mentioned": 0, "status": "rejected", "reason": "mentions"}
    commit(store, [row(number, **count) for number, count in enumerate([*counts, rejected])])
    [group] = measure_quality(store).groups.to_pylist()
    assert (group["given"], group["mentioned"]) == (4, 0.5)
    commit(store, [row(0)])
    [group] = measure_quality(store).groups.to_pylist()
    assert (group["given"], group["mentioned"]) == (0, None)


def test_figures():
    assert percentile({1: 50, 7: 49, 100: 1}, 50) == 1
    assert percentile({1: 50, 7: 49, 100: 1}, 90) == 7
    assert distinct(["a b a b", "a"], 1) == pytest.approx(2 / 5)
    assert distinct(["a b a b", "a"], 2) == pytest.approx(2 / 3)
    assert distinct(["a"], 3) is None


def test_the_tables_are_of_their_schemas_and_a_second_report_replaces_the_first(store):
    commit(store, [row(0)])
    for _ in range(2):
        paths = write_report(store, measure_quality(store))
    assert sorted(entry.path for entry in store.list(FOLDER)) == sorted(paths)
    declared = (QUALITY_GROUPS, QUALITY_REASONS, QUALITY_WORDS, QUALITY_OPENINGS)
    for path, schema in zip(paths, declared, strict=True):
        assert pq.read_table(io.BytesIO(store.get(path))).schema.equals(schema)
        assert all(b"doc" in field.metadata for field in schema)


def test_an_output_without_captions_gives_empty_tables(store):
    report = measure_quality(store)
    assert [report.groups.num_rows, report.reasons.num_rows] == [0, 0]


def test_the_verb_reports_that_the_output_does_not_exist(tmp_path):
    from jobs.commands import cli

    result = CliRunner().invoke(cli, ["quality", str(tmp_path / "nowhere")])
    assert "no run.json, so not an output" in str(result.exception)


def test_a_group_without_captions_has_no_figures(store):
    commit(store, [row(0, status="failed", reason="undecodable")])
    [group] = measure_quality(store).groups.to_pylist()
    assert _cells(group)[-5:] == ["-"] * 5
