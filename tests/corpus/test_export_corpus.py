"""A corpus as the files of a trainer, read by the public loaders' rules, by `datasets` and by a PyTorch loader."""

import json
from collections import Counter
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer

from jobs.export_corpus import export_corpus as command
from pipeline.config import CorpusConfig
from pipeline.config.corpus_export_config import CorpusExportConfig
from pipeline.config.load import parse_config
from pipeline.corpus.corpus_job import prepare_corpus, steps
from pipeline.corpus.export.corpus_form import CorpusForm, Reads
from pipeline.corpus.export.export_corpus import export_corpus
from pipeline.corpus.export.forms import FORMS, tipo_v1, tipo_v2
from pipeline.corpus.export.forms.tokens import tokenise
from pipeline.corpus.text.tokenizer import TextTokenizer
from pipeline.errors import ConfigError, OutputMismatch, PipelineError
from pipeline.storage import open_store
from schemas.record import RECORD
from schemas.trainer_rows import DANTAGGEN, TIPO_V2, TOKENS
from tests.corpus.outputs import caption_row, write_output
from tests.corpus.record_loaders import CONTEXT, RECORDED, checked, exported
from tests.corpus.records import draw_records
from tests.corpus.tiny_tokenizer import train_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden/first/corpus"
RECORDED_FACTS = json.loads(RECORDED.read_text())
V1 = {
    "danbooru": "danbooru2023-prompt-gen-data.parquet",
    "coyo": "coyo11m-meta.parquet",
    "gbc": "GBC10M-top-level-caption.parquet",
}
LONG = "A girl stands by the lake at dawn. The water is calm and reflects the sky. A boat is near the shore."
SHORT = "A girl stands by a lake."
TAGS = ["1girl", "solo", "lake", "dawn", "boat", "water"]


def write_corpus(folder: Path, rows_by_source: dict[str, list[dict]], **keys) -> str:
    """Make a corpus of tables; return its folder."""
    tables = []
    for name, rows in rows_by_source.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"id": number, **row}) + "\n" for number, row in enumerate(rows)))
        tables.append({"name": name, "urls": str(path)})
    config = {"output": str(folder / "corpus"), "memory_gib": 0.5, "tables": tables, "dedupe": [], **keys}
    for step in steps(prepare_corpus(parse_config(CorpusConfig, config, (), origin="test"))):
        for item in step.items:
            step.work(item)
        if step.driver_work is not None:
            step.driver_work()
    return str(folder / "corpus")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus of five sources with a validation split and two epochs."""
    posts = [
        {"general": TAGS, "artist": ["some one"], "rating": "g", "width": 640, "height": 480, "long": LONG, "score": n}
        for n in range(40)
    ]
    return write_corpus(
        tmp_path_factory.mktemp("made"),
        {
            "photos": [{"tags": TAGS, "long": LONG, "short": SHORT}] * 20,
            "posts": posts,
            "coyo": [{"general": TAGS, "long": LONG, "short": SHORT}] * 20,
            "cc12m": [{"long": LONG, "short": SHORT, "caption": "lake girl"}] * 20,
            "bare": [{"tags": ["lake", "dawn"], "width": 9, "height": 9}] * 3,
        },
        split={"validation": 0.2},
        epochs=2,
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer([LONG, SHORT, ", ".join(TAGS)], path, vocab=400)
    return str(path)


def export(corpus: str, folder: Path, **options):
    return export_corpus(open_store(corpus), folder, CorpusExportConfig(**options), lambda _done, _all: None)


def load(folder: Path, tmp_path: Path, *names: str, **options):
    return datasets.load_dataset(str(folder), *names, cache_dir=str(tmp_path / "cache"), **options)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", RECORDED_FACTS["files"])
def test_rows_are_those_that_the_public_loaders_rendered(name):
    recorded = RECORDED_FACTS["files"][name]
    assert recorded
    assert exported(200)[name][: len(recorded)] == [entry["row"] for entry in recorded]


@pytest.mark.parametrize("name", RECORDED_FACTS["files"])
def test_texts_of_the_public_loaders_have_no_fault_but_those_of_their_renderers(name):
    texts = [text for entry in RECORDED_FACTS["files"][name] for text in entry["texts"]]
    actual = [checked(name, text) for text in texts]
    assert [fault for fault, known in actual if fault and not known] == []
    assert sum(fault is None for fault, _ in actual) > len(texts) * 0.8


@pytest.mark.parametrize("way", ["whole", "halves"])
def test_token_ids_and_labels_are_those_of_the_public_trainers(way, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(RECORDED_FACTS["tokens"]["tokenizer"]))
    texts = RECORDED_FACTS["tokens"]["texts"]
    config = CorpusExportConfig(to="tokens", tokenizer=str(path), tokenise=way, context=CONTEXT)
    rows = tokenise(pa.Table.from_pylist(texts), TextTokenizer(str(path)), config, Counter())
    expected = [(text[way]["input_ids"], text[way]["labels"]) for text in texts]
    assert [tuple(row) for row in rows] == [pair for pair in expected if set(pair[1]) != {-100}]
    differing = sum(text["whole"]["input_ids"] != text["halves"]["input_ids"] for text in texts)
    assert differing >= sum(text["loss"] == "output" for text in texts) - 1 > 3
    assert any(len(ids) == CONTEXT for ids, _ in expected)


def test_each_record_goes_to_the_v1_file_whose_renderer_can_use_it():
    [danbooru] = draw_records(1, kinds=("danbooru",)).to_pylist()
    sized = {**danbooru, "width": 9, "height": 9, "special": [], "general": ["a", "b", "c", "no humans"], "title": None}
    cases = [
        ("danbooru", sized),
        ("coyo", {**sized, "source": "coyo-hd"}),
        ("danbooru", {**sized, "source": "coyo-hd", "short": None}),
        ("coyo", {**sized, "width": None}),
        ("gbc", {**sized, "source": "gbc"}),
        ("gbc", {**sized, "general": ["a", "b"]}),
        ("coyo", {**sized, "general": ["a", "b", "c"]}),  # one of them would become `special`
        ("danbooru", {**sized, "general": ["a", "b", "c"], "special": ["1girl"]}),
        ("gbc", {**sized, "general": ["2019", "2020"], "special": []}),
    ]
    for number, (name, record) in enumerate(cases):
        counts: Counter[str] = Counter()
        tables = tipo_v1.convert(pa.Table.from_pylist([record], schema=RECORD), counts)
        assert {file for file, table in tables.items() if table.num_rows} == {V1[name]}, number
        assert not counts
    [row] = tipo_v1.convert(pa.Table.from_pylist([sized], schema=RECORD), Counter())[V1["danbooru"]].to_pylist()
    assert (row["special"], row["general"]) == (["no humans"], ["a", "b", "c"])
    counts = Counter()
    bad = {**sized, "long": None}
    left_out = [{**bad, "general": ["a"]}, {**bad, "height": None}, {**bad, "general": ["a", "b", "c"]}]
    tipo_v1.convert(pa.Table.from_pylist(left_out, schema=RECORD), counts)
    assert counts == {
        "few_tags_and_not_both_captions": 1, "no_size_and_not_both_captions": 1, "few_general_tags": 1,
    }  # fmt: skip


def test_coyo_tags_are_a_list_in_python_and_in_json():
    [record] = draw_records(1, kinds=("coyo",)).to_pylist()
    tags = ['say "cheese"', "o'clock", "back\\slash", "☃", "😀"]
    table = pa.Table.from_pylist([{**record, "special": [], "general": [*tags, "^_^", "_", "_☃"]}], schema=RECORD)
    [row] = tipo_v1.convert(table, Counter())[V1["coyo"]].to_pylist()
    tags.append("^ ^")  # as the loader writes it; `_` would be empty there, and `_☃` is the tag that exists
    assert eval(row["tags_open_images"]) + eval(row["tags_booru"]) == tags
    assert json.loads(row["tags_booru"]) == tags


def test_v2_records_have_the_persons_in_general_and_quality_as_a_text():
    [record] = draw_records(1, kinds=("danbooru",)).to_pylist()
    record |= {"special": ["1girl"], "general": ["a", "b"], "quality": ["masterpiece", "newest"]}
    rows = [record, {**record, "quality": []}, {**record, "general": ["a"]}]
    counts: Counter[str] = Counter()
    first, second = tipo_v2.convert(pa.Table.from_pylist(rows, schema=RECORD), counts)[""].to_pylist()
    assert (first["general"], first["quality"]) == (["1girl", "a", "b"], "masterpiece, newest")
    assert "special" not in first
    assert second["quality"] is None
    assert counts == {"few_tags": 1}


def test_the_v1_export_is_the_three_files_of_the_trainer(corpus, tmp_path):
    done = export(corpus, tmp_path / "v1", to="tipo-v1")
    assert {name: sum(done.rows[split, name] for split in ("train", "validation")) for name in V1.values()} == {
        V1["danbooru"]: 40, V1["coyo"]: 40, V1["gbc"]: 20,
    }  # fmt: skip
    assert done.counts == {"few_tags_and_not_both_captions": 3}
    for kind, name in V1.items():
        files = [str(file) for file in (tmp_path / "v1").glob(f"*/{name}")]
        assert len(files) == 2
        whole = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]
        columns = set(whole.column_names)
        assert ("original_caption" in columns, "caption_llava" in columns) == (kind == "gbc", kind == "coyo")
        by_config = load(tmp_path / "v1", tmp_path, Path(name).stem)
        assert sum(map(len, by_config.values())) == len(whole)
    splits = {split: [] for split in ("train", "validation")}
    for file in Path(corpus, "records").rglob("*.parquet"):
        splits[file.relative_to(corpus).parts[1]] += pq.read_table(file)["id"].to_pylist()
    for split, ids in splits.items():
        for file in (tmp_path / "v1" / split).glob("*.parquet"):
            assert set(pq.read_table(file)["id"].to_pylist()) <= set(ids)


def test_small_files_of_a_corpus_become_large_row_groups(corpus, tmp_path, monkeypatch):
    groups = []
    for rows in (20_000, 15):
        monkeypatch.setattr("pipeline.corpus.export.export_corpus.ROW_GROUP_ROWS", rows)
        export(corpus, tmp_path / str(rows), to="tipo-v1")
        files = sorted((tmp_path / str(rows)).rglob("*.parquet"))
        groups.append([pq.read_metadata(file).num_row_groups for file in files])
    assert set(groups[0]) == {1}
    assert max(groups[1]) > 1
    assert pq.read_table(files[0]).equals(pq.read_table(tmp_path / "20000" / files[0].relative_to(tmp_path / "15")))


def test_the_v2_export_is_a_record_source_by_index(corpus, tmp_path):
    export(corpus, tmp_path / "v2", to="tipo-v2")
    rows = load(tmp_path / "v2", tmp_path)
    assert rows["train"].features == datasets.Features.from_arrow_schema(TIPO_V2)
    assert sum(map(len, rows.values())) == 80
    assert rows["train"][3]["general"][0] == "1girl"


def test_dantaggen_lines_keep_their_types_when_a_list_is_empty_in_the_first_block(tmp_path):
    size = {"width": 4, "height": 4}
    rows = {"a": [{"tags": TAGS, **size}] * 300, "b": [{"tags": TAGS, "artist": ["x"], "rating": "g", **size}] * 3}
    made = write_corpus(tmp_path, rows, split={"validation": 0}, words={"quality_by": "none"})
    done = export(made, tmp_path / "dtg", to="dantaggen")
    assert done.rows == {("train", "captions.jsonl"): 303}
    path = tmp_path / "dtg/train/captions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["id"] for line in lines}) == 303
    assert set(lines[0]) == set(DANTAGGEN.names)
    # As HakuPhi loads it, but with blocks of 10 kB in place of 10 MB.
    loaded = datasets.load_dataset("json", data_files=[str(path)], cache_dir=str(tmp_path / "cache"), chunksize=10_000)[
        "train"
    ]
    assert sorted(row["id"] for row in loaded if row["artist"]) == ["b/0", "b/1", "b/2"]
    assert set(loaded["quality"]) == {""}
    assert len(load(tmp_path / "dtg", tmp_path)["train"]) == 303


def test_tokens_are_streamed_by_datasets_and_by_a_plain_loader(corpus, tokenizer, tmp_path):
    done = export(corpus, tmp_path / "t", to="tokens", tokenizer=tokenizer, context=64)
    texts = [row for file in sorted(Path(corpus, "text").rglob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert done.rows.total() + done.counts["dropped_cut_before_the_first_label"] == len(texts)
    plain = Tokenizer.from_file(tokenizer)
    streamed = load(tmp_path / "t", tmp_path, split="train", streaming=True).with_format("torch")
    expected = Counter(row["user"] + row["output"] for row in texts if row["split"] == "train")
    decoded: Counter[str] = Counter()
    for row in torch.utils.data.DataLoader(streamed, batch_size=None):
        ids, labels = row["input_ids"], row["labels"]
        assert ids.dtype == labels.dtype == torch.int64
        assert len(ids) == len(labels) <= 64
        assert torch.equal(ids[labels != -100], labels[labels != -100])
        assert labels[0] == -100
        whole = ids[-1] == plain.token_to_id("</s>")
        if whole:
            decoded[plain.decode(ids[1:-1].tolist(), skip_special_tokens=False)] += 1
    assert done.counts["texts_cut"] > 0
    assert decoded.total() > 0
    assert not decoded - expected
    uncut = Counter({text: n for text, n in expected.items() if len(plain.encode(text).ids) + 2 <= 64})
    assert decoded == uncut


def test_packed_sequences_hold_each_text_once_and_whole(corpus, tokenizer, tmp_path):
    options = {"to": "tokens", "tokenizer": tokenizer, "context": 64, "tokenise": "halves"}
    export(corpus, tmp_path / "plain", **options)
    export(corpus, tmp_path / "packed", **options, pack=200)
    texts, packed = (load(tmp_path / name, tmp_path)["train"] for name in ("plain", "packed"))
    unpacked: Counter[tuple] = Counter()
    for row in packed:
        assert len(row["input_ids"]) == len(row["labels"]) == sum(row["seq_lengths"]) <= 200
        start = 0
        for length in row["seq_lengths"]:
            unpacked[tuple(row["input_ids"][start : start + length]), tuple(row["labels"][start : start + length])] += 1
            start += length
    assert unpacked == Counter((tuple(row["input_ids"]), tuple(row["labels"])) for row in texts)
    assert len(packed) < len(texts) / 2


def test_a_text_that_is_cut_before_its_first_label_is_left_out(tokenizer):
    texts = pa.table({"user": ["lake " * 60, "lake " * 60], "output": ["dawn"] * 2, "loss": ["output", "all"]})
    counts: Counter[str] = Counter()
    config = CorpusExportConfig(to="tokens", tokenizer=tokenizer, context=20)
    rows = tokenise(texts, TextTokenizer(tokenizer), config, counts)
    assert len(rows) == 1
    assert counts == {"texts_cut": 2, "dropped_cut_before_the_first_label": 1}


def test_json_lines_of_a_corpus_give_the_tokens_of_its_parquet(tokenizer, tmp_path):
    rows = {"a": [{"tags": TAGS, "long": LONG}] * 5}
    tables = []
    for name, formats in (("p", ["parquet"]), ("j", ["jsonl"])):
        (tmp_path / name).mkdir()
        made = write_corpus(tmp_path / name, rows, formats=formats, split={"validation": 0})
        export(made, tmp_path / name / "out", to="tokens", tokenizer=tokenizer)
        [file] = (tmp_path / name / "out").rglob("*.parquet")
        tables.append((file.relative_to(tmp_path / name / "out"), pq.read_table(file)))
    assert tables[0] == tables[1]
    assert tables[0][1].schema.equals(TOKENS)


def test_the_corpus_of_the_first_edition_is_exported(tokenizer, tmp_path):
    done = export(str(GOLDEN), tmp_path / "t", to="tokens", tokenizer=tokenizer)
    assert done.rows.total() == sum(pq.read_metadata(file).num_rows for file in (GOLDEN / "text").rglob("*.parquet"))
    for name in ("tipo-v1", "tipo-v2", "dantaggen"):
        assert export(str(GOLDEN), tmp_path / name, to=name).rows.total() > 0


def test_an_export_without_a_row_is_an_error(tmp_path):
    made = write_corpus(tmp_path, {"a": [{"tags": TAGS}] * 2, "b": [{"tags": TAGS[:2]}]})
    with pytest.raises(PipelineError, match=r"no row of the corpus fits --to dantaggen \(1 few_tags, 2 no_size\)"):
        export(made, tmp_path / "d", to="dantaggen")


def test_two_exports_do_not_write_into_one_folder_at_once(corpus, tmp_path):
    def again(_done: int, _all: int) -> None:
        with pytest.raises(PipelineError, match=r"another process exports into this folder; wait for it to end"):
            export(corpus, tmp_path / "out", to="tipo-v1")

    export_corpus(open_store(corpus), tmp_path / "out", CorpusExportConfig(to="tipo-v1"), again)


def test_an_export_that_was_ended_begins_again_and_makes_the_same_files(corpus, tokenizer, tmp_path):
    for name, options in (("v1", {"to": "tipo-v1"}), ("t", {"to": "tokens", "tokenizer": tokenizer})):
        export(corpus, tmp_path / f"{name}-whole", **options)

        def end(num_done: int, num_files: int) -> None:
            if num_done == num_files - 1:
                raise KeyboardInterrupt

        folder = tmp_path / name
        with pytest.raises(KeyboardInterrupt):
            export_corpus(open_store(corpus), folder, CorpusExportConfig(**options), end)
        assert not (folder / "README.md").exists()
        # The files of the second split were open, or partly written as files of their own.
        assert name == "t" or not (folder / "validation").exists()
        assert not [file for file in files_of(folder) if file.endswith((".part", ".rest"))]
        export(corpus, folder, **options)
        assert files_of(folder) == files_of(tmp_path / f"{name}-whole")
        export(corpus, folder, **options)
        assert files_of(folder) == files_of(tmp_path / f"{name}-whole")


def test_an_export_that_was_killed_before_its_lock_starts_again(corpus, tmp_path):
    (tmp_path / "out/.joyfleet").mkdir(parents=True)
    export(corpus, tmp_path / "out", to="tipo-v1")
    export(corpus, tmp_path / "whole", to="tipo-v1")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_folder_with_something_else_is_refused(corpus, tokenizer, tmp_path):
    (tmp_path / "full").mkdir()
    export(corpus, tmp_path / "out", to="tipo-v1")
    with pytest.raises(OutputMismatch, match=r"out: holds another export: to: 'tipo-v1' in the output, 'tipo-v2' in"):
        export(corpus, tmp_path / "out", to="tipo-v2")
    twin = write_corpus(tmp_path, {"photos": [{"tags": TAGS, "long": LONG, "short": SHORT}]})
    same = write_corpus(tmp_path / "full", {"photos": [{"tags": TAGS, "long": LONG, "short": SHORT}] * 2})
    export(twin, tmp_path / "twin", to="tipo-v2")
    with pytest.raises(
        OutputMismatch, match=r"twin: holds another export: plan: '[0-9a-f]+' in the output, '[0-9a-f]+'"
    ):
        export(same, tmp_path / "twin", to="tipo-v2")
    with pytest.raises(OutputMismatch, match=r"full: is not empty and holds no corpus export; give an empty folder"):
        export(corpus, tmp_path / "full", to="tipo-v1")
    export(corpus, tmp_path / "t", to="tokens", tokenizer=tokenizer)
    moved = Path(tokenizer).parent
    export(corpus, tmp_path / "t", to="tokens", tokenizer=str(moved))  # the same content by another path
    train_tokenizer([LONG], tmp_path / "other.json", vocab=350)
    with pytest.raises(OutputMismatch, match=r"holds another export: tokenizer: '[0-9a-f]{16}' in the output, '"):
        export(corpus, tmp_path / "t", to="tokens", tokenizer=str(tmp_path / "other.json"))


def test_captions_and_unfinished_corpora_are_refused(tmp_path):
    captions = write_output(tmp_path / "in", [caption_row("0.tar", 0, "long", "A cat.")])
    with pytest.raises(ConfigError, match=r"in: holds captions, not a corpus; `joyfleet export` takes captions"):
        export(captions, tmp_path / "a", to="tipo-v1")
    made = write_corpus(tmp_path, {"a": [{"tags": TAGS}]})
    Path(made, "README.md").unlink()
    with pytest.raises(ConfigError, match=r"the corpus is not finished; `joyfleet corpus` resumes it"):
        export(made, tmp_path / "b", to="tipo-v1")
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to", "tipo"), r"--to tipo: no such form; allowed: tipo-v1, tipo-v2, dantaggen, tokens"),
        (("--to", "tipo-v1", "--pack", "4096"), r"--to tipo-v1 does not honour --pack; it honours no option\. Leave"),
        (("--to", "tokens", "--context", "64"), r"--to tokens requires --tokenizer; add it"),
        (("--to", "tokens", "--context", "x"), r"--context x: Input should be a valid integer"),
        (("--to", "tokens", "--context", "64", "--pack", "32"), r"--pack 32 is less than --context 64, so a text may"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused_before_anything_is_written(corpus, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(command, [corpus, str(tmp_path / "out"), *options], catch_exceptions=False)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote_and_what_it_left_out(corpus, tmp_path):
    with pytest.raises(ConfigError, match=r"s3://b/x: not a local folder; trainers open local files"):
        CliRunner().invoke(command, [corpus, "s3://b/x", "--to", "tipo-v1"], catch_exceptions=False)
    result = CliRunner().invoke(command, [corpus, str(tmp_path / "out"), "--to", "tipo-v1"], catch_exceptions=False)
    assert result.exit_code == 0
    assert f"rows of validation in validation/{V1['danbooru']}" in result.output
    assert "  few tags and not both captions: 3" in result.output
    card = (tmp_path / "out/README.md").read_text()
    assert "| few_tags_and_not_both_captions | 3 |" in card
    assert "src/dataset/tipo/" in card


def test_a_form_from_outside_is_one_record(corpus, tmp_path, monkeypatch):
    def ids(records: pa.Table, counts: Counter[str]) -> dict[str, pa.Table]:
        counts["seen"] += records.num_rows
        return {"ids.jsonl": records.select(["id"])}

    toy = CorpusForm(
        name="toy", summary="ids", reads=Reads.RECORDS, convert=lambda _config, _tokenizer: ids, json_lines=True
    )
    monkeypatch.setitem(FORMS, "toy", toy)
    done = export(corpus, tmp_path / "toy", to="toy")
    lines = [line for file in (tmp_path / "toy").rglob("ids.jsonl") for line in file.read_text().splitlines()]
    assert len(lines) == done.counts["seen"] == done.rows.total() == 103
