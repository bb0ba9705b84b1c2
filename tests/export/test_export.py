"""What leaves, and that it leaves once: filters, refusals, what a second run finds, what a killed one leaves."""

import json
import re
import signal

import pytest

from pipeline.config.export_config import ExportConfig
from pipeline.errors import ConfigError, OutputMismatch, PipelineError, StoreError
from pipeline.export import export_shard as shard_module
from pipeline.export.choose_captions import choose
from pipeline.export.forms import FORMS
from pipeline.storage.local import LocalStore
from tests.cli import finish, run, start, wait_until
from tests.export.world import SLOTS, caption_all, export, files_of, write_images, write_parquets, write_tars
from tests.gate import Gate
from tests.trees import send, tree


@pytest.fixture
def captioned(tmp_path):
    write_tars(tmp_path / "in", 3, 10)
    return caption_all(tmp_path / "in", tmp_path / "out")


def one_row(row: int, slot: str) -> dict:
    rejected = row == 1 and slot == "tags"
    return {
        "row": row, "slot": slot, "key": f"k{row}", "shard": "0.tar", "words": row, "mode": slot,
        "status": "rejected" if rejected else "ok", "caption": None if rejected else f"{slot}{row}",
        "flags": ["truncated"] if row == 2 else [], "source": json.dumps({"tags": ["a", "b"], "n": row}),
    }  # fmt: skip


def rows():
    return [one_row(row, slot) for row in range(10) for slot in SLOTS]


def chosen(**options):
    config = ExportConfig(to="jsonl", **options)
    choice = choose(rows(), config.slots_of(SLOTS), config)
    return [(item.row, item.text or tuple(item.captions)) for item in choice.chosen], choice.dropped


@pytest.mark.parametrize(
    ("options", "kept", "dropped"),
    [
        ({}, 10, {"rejected": 1}),
        ({"slots": ("tags",)}, 9, {"rejected": 1, "images without a text": 1}),
        ({"slots": ("tags",), "statuses": ("ok", "rejected")}, 10, {}),
        ({"modes": ("long",)}, 10, {"mode tags": 9, "rejected": 1}),
        ({"slots": ("long",), "without_flags": ("truncated",)}, 9, {"flag truncated": 1, "images without a text": 1}),
        ({"slots": ("long",), "min_words": 3, "max_words": 5}, 3, {"words": 7, "images without a text": 7}),
        ({"template": "{tags}|{long}"}, 9, {"rejected": 1, "images without a text": 1}),
    ],
)
def test_a_filter_leaves_out_matching_captions_and_counts_them(options, kept, dropped):
    result, num_dropped = chosen(**options)
    assert (len(result), num_dropped) == (kept, dropped)


def test_a_template_combines_slots_key_and_metadata_fields():
    result, _ = chosen(template="{key}: {long} ({source.tags}; {source.n})")
    assert result[3] == (3, "k3: long3 (a, b; 3)")


def test_a_template_of_a_field_that_is_not_there_is_refused():
    with pytest.raises(PipelineError, match=r"needs source\.title, but its metadata has n, tags; keep the field"):
        chosen(template="{long} {source.title}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "jsonl", "slots": ("short",)}, r"no slot 'short'; found: long, tags"),
        ({"to": "jsonl", "template": "{short}"}, r"no slot 'short'"),
        ({"to": "sidecars"}, r"sidecars has one text per image, and there are the slots long, tags; choose one"),
    ],
)
def test_options_that_do_not_fit_the_output_are_refused(tmp_path, captioned, options, message):
    with pytest.raises(ConfigError, match=message):
        export(captioned, tmp_path / "x", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "csv", "template": "{long}", "slots": ("long",)}, "--slot is not honoured beside --template"),
        ({"to": "csv", "template": "long"}, "has no placeholder"),
        ({"to": "csv", "fields": ("colour",)}, "no field colour in a caption row; allowed: shard, row"),
    ],
)
def test_options_that_contradict_each_other_or_the_columns_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExportConfig(**options)


def test_a_column_that_the_source_has_is_refused(tmp_path):
    write_parquets(tmp_path / "in", 1, 3)
    captioned = caption_all(tmp_path / "in", tmp_path / "out")

    with pytest.raises(PipelineError, match=r"column label is in the source already \(label, im_name\); rename the"):
        export(captioned, tmp_path / "x", "csv", slots=("long",), column="label")


def test_sources_of_different_columns_are_no_one_table(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_parquets(tmp_path / "in", 2, 3)
    file = tmp_path / "in/data/train-00001-of-00002.parquet"
    pq.write_table(pq.read_table(file).append_column("more", pa.array([1, 2, 3])), file)
    captioned = caption_all(tmp_path / "in", tmp_path / "out")

    with pytest.raises(PipelineError, match=r"have different columns: more: int64; .*--no-join"):
        export(captioned, tmp_path / "x", "csv", slots=("long",))
    export(captioned, tmp_path / "y", "csv", slots=("long",), join=False)


def test_a_second_run_writes_nothing_and_prints_the_same_summary(tmp_path, captioned, monkeypatch):
    first = export(captioned, tmp_path / "x", "jsonl")
    monkeypatch.setattr("pipeline.export.export_driver.export_shard", lambda *_: pytest.fail("exported again"))

    assert export(captioned, tmp_path / "x", "jsonl") == first
    assert (first.num_shards, first.num_images, first.num_exported) == (3, 30, 30)


def test_shards_committed_later_are_added_by_the_same_command(tmp_path):
    write_tars(tmp_path / "in", 3, 10)
    some = export(caption_all(tmp_path / "in", tmp_path / "out", only=1), tmp_path / "x", "hf", slots=("long",))
    assert (some.num_shards, some.num_uncommitted) == (1, 2)

    every = export(caption_all(tmp_path / "in", tmp_path / "out"), tmp_path / "x", "hf", slots=("long",))

    assert (every.num_shards, every.num_uncommitted, every.num_exported) == (3, 0, 30)
    assert "30 images with captions" in (tmp_path / "x/README.md").read_text()


def test_other_options_are_refused_and_named(tmp_path, captioned):
    export(captioned, tmp_path / "x", "jsonl", slots=("long",))

    with pytest.raises(OutputMismatch, match=r"options\.min_words: None in the output, 5 in this run"):
        export(captioned, tmp_path / "x", "jsonl", slots=("long",), min_words=5)


def test_a_folder_of_something_else_is_refused(tmp_path, captioned):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/thesis.txt").write_text("years of work")

    with pytest.raises(OutputMismatch, match=r"x: has thesis\.txt and is not an export of JoyFleet"):
        export(captioned, tmp_path / "x", "jsonl")


def test_captions_that_changed_since_are_refused(tmp_path, captioned):
    export(captioned, tmp_path / "x", "jsonl")
    file = tmp_path / "out/captions/00001.tar.parquet"
    file.write_bytes(file.read_bytes() + b"x")

    with pytest.raises(OutputMismatch, match=r"captions of 1 shards changed since they were exported, such as 00001"):
        export(captioned, tmp_path / "x", "jsonl")


def test_damaged_captions_are_named(tmp_path, captioned):
    file = tmp_path / "out/captions/00001.tar.parquet"
    file.write_bytes(file.read_bytes()[:-9])

    with pytest.raises(StoreError, match=r"captions/00001\.tar\.parquet: cannot be read as Parquet"):
        export(captioned, tmp_path / "x", "jsonl")


def test_an_image_that_is_not_the_captioned_one_is_refused(tmp_path):
    write_parquets(tmp_path / "in", 1, 3)
    captioned = caption_all(tmp_path / "in", tmp_path / "out")
    write_parquets(tmp_path / "other", 2, 3)
    file = tmp_path / "in/data/train-00000-of-00001.parquet"
    [shard] = captioned.plan.shards.values()
    other = (tmp_path / "other/data/train-00001-of-00002.parquet").read_bytes()
    file.write_bytes(other)
    changed = type(shard)(shard.path, shard.url, len(other), "an-etag-of-a-store-without-versions")

    with pytest.raises(PipelineError, match=r"row 0: the image is not the one that was captioned \(sha256"):
        shard_module.export_shard(
            shard_module.ExportTask(
                output=captioned.store, destination=LocalStore(str(tmp_path / "x")), config=ExportConfig(to="hf"),
                form=FORMS["hf"],
                slots=SLOTS, schemas={}, source=captioned.source, max_bytes=1 << 20, joined=True,
            ),
            changed,
        )  # fmt: skip


@pytest.mark.parametrize("step", ["file", "record"])
def test_a_kill_between_file_and_record_costs_nothing(tmp_path, captioned, monkeypatch, step):
    export(captioned, tmp_path / "whole", "jsonl")
    name = "put_idempotent" if step == "file" else "put_if_absent"
    real = getattr(shard_module, name)
    calls = []

    def dies(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(shard_module, name, dies)
    with pytest.raises(KeyboardInterrupt):
        export(captioned, tmp_path / "x", "jsonl")
    monkeypatch.undo()

    export(captioned, tmp_path / "x", "jsonl")

    assert files_of(tmp_path / "x") == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_processes_write_what_one_writes(tmp_path, captioned):
    export(captioned, tmp_path / "one", "webdataset")

    exported = export(captioned, tmp_path / "two", "webdataset", workers=2)

    assert exported.num_shards == 3
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


def test_beside_wants_the_folder_of_the_images(tmp_path, captioned):
    with pytest.raises(ConfigError, match=r"--to beside writes into one local source folder of loose images"):
        export(captioned, tmp_path / "x", "beside", slots=("long",))


@pytest.mark.slow
def test_a_killed_export_resumes_where_it_stopped(tmp_path):
    write_tars(tmp_path / "in", 6, 10)
    captioned = caption_all(tmp_path / "in", tmp_path / "out")
    words = ("export", "out", "x", "--to", "hf", "--slot", "long")
    done = tmp_path / "x/.joyfleet/done"

    gate = Gate(tmp_path / "gate")
    process = start(tmp_path, *words, "--workers", "2", **gate.environment)
    gate.let(2)
    wait_until(lambda: len(list(done.glob("*"))) == 2 and gate.held() == 2, process, "2 shards, and 2 in work")
    process.send_signal(signal.SIGKILL)
    assert finish(process).code == -signal.SIGKILL  # its workers hold its pipes: they ended too
    exported = len(list(done.glob("*")))
    ended = run(tmp_path, *words, "--workers", "1")
    export(captioned, tmp_path / "whole", "hf", slots=("long",))

    assert ended.code == 0, ended.err
    assert exported == 2
    assert "60 of 60 images of 6 shards" in ended.out
    assert files_of(tmp_path / "x") == files_of(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, "1"), (signal.SIGINT, "2")])
def test_a_stopped_export_finishes_the_shards_in_flight_and_resumes_later(tmp_path, number, workers):
    write_tars(tmp_path / "in", 40, 40)
    captioned = caption_all(tmp_path / "in", tmp_path / "out")
    words = ("export", "out", "x", "--to", "hf", "--slot", "long")
    done = tmp_path / "x/.joyfleet/done"

    process = start(tmp_path, *words, "--workers", workers)
    wait_until(lambda: len(list(done.glob("*"))) >= 2, process, "two shards")
    send(reversed(tree(process.pid)), number)  # as a terminal does at Ctrl-C, to the workers first
    stopped = finish(process)
    left = len(list(done.glob("*")))
    assert stopped.code == 4, stopped
    (line,) = [line for line in stopped.err.splitlines() if line.startswith("joyfleet: ")]
    assert re.search(r"stopped with \d+ of 40 shards exported; .*run the same command again to resume$", line)
    assert not list((tmp_path / "x/.tmp").glob("*"))
    ended = run(tmp_path, *words)
    export(captioned, tmp_path / "whole", "hf", slots=("long",))

    assert ended.code == 0, ended.err
    assert left < 40
    assert files_of(tmp_path / "x") == files_of(tmp_path / "whole")


def test_texts_beside_need_no_folder(tmp_path):
    write_images(tmp_path / "in", 3)
    caption_all(tmp_path / "in", tmp_path / "out")

    done = run(tmp_path, "export", "out", "--to", "beside", "--slot", "long")

    assert done.code == 0, done.err
    assert len(list((tmp_path / "in").rglob("*.txt"))) == 3
