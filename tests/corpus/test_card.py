"""The card of a corpus: what `datasets` reads of it, what it shows, how it is written again, and how it is pushed."""

import io
import json
import math
import re
from collections import Counter
from pathlib import Path

import datasets
import huggingface_hub.constants
import huggingface_hub.utils
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from datasets.utils.info_utils import NonMatchingSplitsSizesError
from PIL import Image

from jobs.corpus_card import corpus_card
from jobs.export_corpus import export_corpus
from pipeline.corpus.corpus_identity import corpus_identity
from pipeline.corpus.report.census import BIN_WIDTHS
from pipeline.corpus.report.corpus_report import rewrite_card
from pipeline.corpus.report.training_result import MAX_BYTES, training_of
from pipeline.errors import ConfigError, OutputMismatch, PipelineError
from pipeline.storage.local import LocalStore
from schemas.corpus_row import CORPUS_ROW, Task
from schemas.record import PUBLISHED
from schemas.trainer_rows import DANTAGGEN, TIPO_V1_COYO, TIPO_V1_DANBOORU, TIPO_V1_GBC, TIPO_V2, TOKENS
from tests.corpus.test_export_corpus import LONG, SHORT, TAGS, export, files_of, write_corpus
from tests.corpus.tiny_tokenizer import train_tokenizer
from tests.golden import golden
from tests.hub_server import TOKEN, serve_hub

NAME = "me/tipo-texts"
# The hub's client sends files to a server without Xet in a way that httpx will drop.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def posts(num: int) -> list[dict]:
    return [
        {
            "tags": TAGS[: 3 + number % 4],
            "long": LONG,
            "short": SHORT,
            "width": 640,
            "height": 480,
            "rating": "g",
            "score": number,
        }
        for number in range(num)
    ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus with texts of every task; read only."""
    rows = {"posts": posts(60), "bare": [{"tags": TAGS[:3]}] * 4, "captions": [{"long": LONG, "short": SHORT}] * 9}
    return Path(write_corpus(tmp_path_factory.mktemp("card"), rows, split={"validation": 0.2}, epochs=3))


@pytest.fixture
def copied(corpus, tmp_path):
    """A copy that a test may change."""
    for name, data in files_of(corpus).items():
        (tmp_path / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "corpus" / name).write_bytes(data)
    return tmp_path / "corpus"


def rows_of(folder: Path, kind: str, split: str = "*") -> list[dict]:
    return [
        row for file in sorted(folder.glob(f"{kind}/{split}/**/*.parquet")) for row in pq.read_table(file).to_pylist()
    ]


def head_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def result_of(folder: Path, **changed) -> dict:
    """The result of a training on a corpus."""
    return {
        "corpus": corpus_identity(LocalStore(str(folder))),
        "trainer": "train.py",
        "model": "LLaMA",
        "num_parameters": 1234567,
        "batch_texts": 8,
        "losses": [6.5 * math.exp(-step / 40) + 1 for step in range(200)],
        "validation_losses": [[0, 7.4], [200, 1.25]],
        "num_tokens": 98765,
        "seconds": 61.4,
        "continuations": [{"prompt": "tag: lake", "output": ", dawn\nlong: A lake."}],
        **changed,
    }


def assert_figures(folder: Path) -> None:
    """Each figure of the card is a whole PNG file beside it."""
    sources = re.findall(r'<img src="([^"]+)" width="360" alt="[^"]+">', (folder / "README.md").read_text())
    assert sources
    assert len(sources) == len(set(sources)) == (folder / "README.md").read_text().count("<img")
    for source in sources:
        with Image.open(io.BytesIO((folder / source).read_bytes())) as image:
            image.load()
            assert image.format == "PNG"
            assert image.width == 720


def test_datasets_finds_the_features_and_the_numbers_of_the_head(corpus, tmp_path):
    for name, schema, kind in (("text", CORPUS_ROW, "text"), ("records", PUBLISHED, "records")):
        features = datasets.Features.from_arrow_schema(schema)
        builder = datasets.load_dataset_builder(str(corpus), name, cache_dir=str(tmp_path / "before"))
        assert builder.info.features == features
        counted = {split: info.num_examples for split, info in builder.info.splits.items()}
        assert counted == {split: len(rows_of(corpus, kind, split)) for split in ("train", "validation")}
        loaded = datasets.load_dataset(str(corpus), name, cache_dir=str(tmp_path / "cache"))
        assert {split: rows.features for split, rows in loaded.items()} == dict.fromkeys(counted, features)
        assert {split: len(rows) for split, rows in loaded.items()} == counted
        for split, rows in loaded.items():
            # A few bits of nulls more or less: `datasets` writes batches of its own.
            assert builder.info.splits[split].num_bytes == pytest.approx(rows.data.nbytes, rel=0.1)


def test_datasets_refuses_a_corpus_that_lost_a_file(copied, tmp_path):
    for file in sorted(copied.glob("text/train/**/*.parquet"))[:1]:
        file.unlink()
    with pytest.raises(NonMatchingSplitsSizesError):
        datasets.load_dataset(str(copied), cache_dir=str(tmp_path / "cache"))


def test_a_split_without_a_text_is_not_in_the_head(tmp_path):
    made = Path(write_corpus(tmp_path, {"a": posts(5)}, split={"validation": 0}))
    assert [split["name"] for info in head_of(made)["dataset_info"] for split in info["splits"]] == ["train", "train"]
    assert len(datasets.load_dataset(str(made), cache_dir=str(tmp_path / "cache"))["train"]) == 5


@pytest.mark.parametrize(
    ("form", "schemas"),
    [
        (
            "tipo-v1",
            {
                "danbooru2023-prompt-gen-data": TIPO_V1_DANBOORU,
                "coyo11m-meta": TIPO_V1_COYO,
                "GBC10M-top-level-caption": TIPO_V1_GBC,
            },
        ),
        ("tipo-v2", {"default": TIPO_V2}),
        ("dantaggen", {"captions": DANTAGGEN}),
        ("tokens", {"default": TOKENS}),
    ],
)
def test_an_export_has_the_features_and_the_numbers_of_its_rows(tmp_path, form, schemas):
    rows = {"posts": posts(30), "coyo": posts(9), "gbc": [{"long": LONG, "short": SHORT}] * 9}
    made = write_corpus(tmp_path, rows, split={"validation": 0.2})
    options = {}
    if form == "tokens":
        train_tokenizer([LONG, SHORT, ", ".join(TAGS)], tmp_path / "tokenizer.json", vocab=400)
        options = {"tokenizer": str(tmp_path / "tokenizer.json")}
    done = export(made, tmp_path / "out", to=form, **options)
    infos = {info["config_name"]: info for info in head_of(tmp_path / "out")["dataset_info"]}
    assert set(infos) == set(schemas)
    for name, schema in schemas.items():
        loaded = datasets.load_dataset(str(tmp_path / "out"), name, cache_dir=str(tmp_path / "cache"))
        assert {rows.features == datasets.Features.from_arrow_schema(schema) for rows in loaded.values()} == {True}
        sizes = {split["name"]: (split["num_examples"], split["num_bytes"]) for split in infos[name]["splits"]}
        assert sizes == {split: (len(rows), pytest.approx(rows.data.nbytes, rel=0.2)) for split, rows in loaded.items()}
    assert sum(split["num_examples"] for info in infos.values() for split in info["splits"]) == done.rows.total()


def test_the_card_has_an_example_of_every_task_and_whole_figures(corpus):
    card = (corpus / "README.md").read_text()
    texts = Counter(row["task"] for row in rows_of(corpus, "text"))
    assert set(texts) == set(map(str, Task))
    for task, number in texts.items():
        assert f"<tr><td><code>{task}</code><br>{number:,} texts</td><td><b>" in card
    assert card.count("<td><b>") == len(Task)
    assert_figures(corpus)
    assert {path.name for path in (corpus / "report").glob("*.png")} == {
        *("texts-by-task.png", "texts-by-length.png", "histogram-characters.png", "histogram-tags.png"),
        *("histogram-short-words.png", "histogram-long-words.png"),
    }


def test_an_example_is_a_text_of_the_corpus(corpus):
    shown = re.findall(r"<td><b>(.*?)</b>(.*?)</td></tr>\n", (corpus / "README.md").read_text())
    texts = {(row["user"], row["output"]) for row in rows_of(corpus, "text")}
    assert len(shown) == len(Task)
    for halves in shown:
        unescaped = tuple(
            half.replace("<br>", "\n").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
            for half in halves
        )
        assert unescaped in texts


def test_the_histograms_are_those_of_the_rows(corpus):
    counted: dict[str, Counter[int]] = {}
    for row in pq.read_table(corpus / "report/histograms.parquet").to_pylist():
        assert row["width"] == BIN_WIDTHS[row["name"]]
        counted.setdefault(row["name"], Counter())[row["start"]] += row["number"]
    values = {
        "characters": [len(row["user"] + row["output"]) for row in rows_of(corpus, "text")],
        "tags": [len(row["general"] + row["special"]) for row in rows_of(corpus, "records")],
        "short_words": [len(row["short"].split()) for row in rows_of(corpus, "records") if row["short"]],
        "long_words": [len(row["long"].split()) for row in rows_of(corpus, "records") if row["long"]],
    }
    assert counted == {
        name: Counter(value // BIN_WIDTHS[name] * BIN_WIDTHS[name] for value in found) for name, found in values.items()
    }


def test_tokens_take_the_place_of_characters(tmp_path):
    train_tokenizer([LONG, SHORT], tmp_path / "tokenizer.json", vocab=400)
    made = Path(write_corpus(tmp_path, {"a": posts(9)}, tokenizer=str(tmp_path / "tokenizer.json")))
    assert (made / "report/histogram-tokens.png").exists()
    assert not (made / "report/histogram-characters.png").exists()
    bins = [row for row in pq.read_table(made / "report/histograms.parquet").to_pylist() if row["name"] == "tokens"]
    tokens = [row["n_tokens"] for row in rows_of(made, "text")]
    assert sum(row["number"] for row in bins) == len(tokens)
    assert {row["start"] for row in bins} == {number // 16 * 16 for number in tokens}


def test_a_card_is_written_again_with_the_same_bytes(copied):
    before = files_of(copied)
    for name in before:
        if name == "README.md" or name.endswith(".png"):
            (copied / name).write_bytes(b"cut")
    rewrite_card(LocalStore(str(copied)))
    assert files_of(copied) == before


def test_a_result_of_a_training_is_shown_and_stays(copied, tmp_path):
    file = tmp_path / "result.json"
    file.write_text(json.dumps(result_of(copied)))
    done = CliRunner().invoke(corpus_card, [str(copied), "--training", str(file)], catch_exceptions=False)
    assert done.output == f"{copied}/README.md\n"
    card = (copied / "README.md").read_text()
    for line in (
        "| model | LLaMA, 1,234,567 parameters |",
        "| steps | 200, 8 texts each |",
        "| loss, first and last steps | 6.823, 1.050 |",
        "| loss on held-out texts, first and last | 7.400, 1.250 |",
        "| tokens with loss | 98,765 |",
        "<tr><td><b>tag: lake</b>, dawn<br>long: A lake.</td></tr>\n",
    ):
        assert line in card
    assert_figures(copied)
    file.unlink()
    rewrite_card(LocalStore(str(copied)))
    assert (copied / "README.md").read_text() == card


def test_a_result_of_another_corpus_is_refused_and_changes_nothing(copied, tmp_path):
    (tmp_path / "other").mkdir()
    other = write_corpus(tmp_path / "other", {"a": posts(3)}, seed=7)
    before = files_of(copied)
    for wrong in (
        result_of(Path(other)),
        result_of(copied, corpus={**corpus_identity(LocalStore(str(copied))), "plan": "0" * 16}),
    ):
        data = json.dumps(wrong).encode()
        with pytest.raises(
            OutputMismatch, match=r"r\.json: the result of a training on another corpus \(.*plan \w+, and"
        ):
            rewrite_card(LocalStore(str(copied)), data, "r.json")
    assert files_of(copied) == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"losses": []}, r"losses: .*at least 1 item"),
        ({"losses": [1.0, math.nan]}, r"losses\.1: .*finite"),
        ({"losses": [1.0, -1.0]}, r"losses\.1: .*greater than or equal to 0"),
        ({"validation_losses": [[201, 1.0]]}, r"validation_losses names step 201; allowed: 0 to 200"),
        ({"loss": 1}, r"loss: unknown key; allowed here: batch_texts, .*; did you mean losses\?"),
        ({"model": "x" * 201}, r"model: .*at most 200 characters"),
        ({"num_parameters": "many"}, r"num_parameters: found 'many'"),
    ],
)
def test_a_file_that_is_no_result_is_refused_with_its_mistake(corpus, changed, message):
    data = json.dumps(result_of(corpus, **changed)).encode()
    with pytest.raises(ConfigError, match=rf"r\.json: not the result of a training \(.*{message}"):
        training_of(data, "r.json", corpus_identity(LocalStore(str(corpus))))


def test_a_file_that_cannot_be_a_result_is_refused(corpus, tmp_path):
    (tmp_path / "text").write_text("{")
    (tmp_path / "large").write_bytes(b" " * (MAX_BYTES + 1))
    for name, message in (
        ("text", r"text: not JSON \("),
        ("large", r"large: has 16,777,217 bytes; allowed: 16,777,216\. Keep fewer losses"),
        ("missing", r"missing: cannot be read \(No such file or directory\); give the file that the trainer wrote"),
    ):
        with pytest.raises(ConfigError, match=message):
            CliRunner().invoke(corpus_card, [str(corpus), "--training", str(tmp_path / name)], catch_exceptions=False)


def test_markup_in_a_result_stays_text(copied):
    hostile = "</td></table><script>alert(1)</script>|\n\n# x"
    result = result_of(copied, model=hostile, continuations=[{"prompt": hostile, "output": hostile}])
    rewrite_card(LocalStore(str(copied)), json.dumps(result).encode(), "r")
    card = (copied / "README.md").read_text()
    assert "<script>" not in card
    assert "\n# x" not in card
    assert card.count("</table>") == 2


class Killed(BaseException):
    """The end of a process."""


class KillingStore(LocalStore):
    """A store whose process ends before its write number `left`, or in the middle of it."""

    def put(self, path: str, data: bytes) -> None:
        if LEFT[0] == 0:
            raise Killed
        LEFT[0] -= 1
        super().put(path, data)


LEFT = [0]


def test_a_killed_card_is_completed_by_the_same_command(corpus, copied):
    result = json.dumps(result_of(corpus)).encode()
    rewrite_card(LocalStore(str(copied)), result, "r")
    whole = files_of(copied)
    writes = sum(name.endswith(".png") for name in whole) + 2
    for number in range(writes):
        for name, data in files_of(corpus).items():
            (copied / name).write_bytes(data)
        (copied / "report/training.json").unlink(missing_ok=True)
        (copied / "report/training-loss.png").unlink(missing_ok=True)
        LEFT[0] = number
        with pytest.raises(Killed):
            rewrite_card(KillingStore(str(copied)), result, "r")
        assert (copied / "README.md").read_bytes() == (corpus / "README.md").read_bytes()
        rewrite_card(LocalStore(str(copied)), result, "r")
        assert files_of(copied) == whole


def test_the_card_of_a_corpus_of_the_first_edition_is_written_again(tmp_path, monkeypatch):
    folder = golden.copy_of(golden.FIRST, tmp_path / "golden") / golden.CORPUS
    before = files_of(folder)
    rewrite_card(LocalStore(str(folder)))
    changed = {name for name, data in files_of(folder).items() if before.get(name) != data}
    # The first edition measured no lengths and bytes.
    assert changed == {"README.md", "report/texts-by-task.png", "report/texts-by-length.png"}
    assert "splits" not in head_of(folder)["dataset_info"][0]
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].features == datasets.Features.from_arrow_schema(CORPUS_ROW)
    assert (folder / "README.md").read_text().count("<td><b>") == len({row["task"] for row in rows_of(folder, "text")})
    assert_figures(folder)


def test_what_is_no_finished_corpus_has_no_card(copied, tmp_path):
    (copied / "README.md").unlink()
    with pytest.raises(ConfigError, match=r"corpus: the corpus is not finished; `joyfleet corpus` resumes it"):
        rewrite_card(LocalStore(str(copied)))
    with pytest.raises(ConfigError, match=r"run\.json, so not an output of JoyFleet"):
        rewrite_card(LocalStore(str(tmp_path / "empty")))


def test_a_corpus_without_matplotlib_is_refused_before_any_work(tmp_path, monkeypatch):
    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "matplotlib" else real(name, *rest)
    )
    with pytest.raises(
        ConfigError, match=r"corpus: matplotlib is not installed; run: pip install 'joyfleet\[corpus\]'"
    ):
        write_corpus(tmp_path, {"a": posts(1)})
    assert not (tmp_path / "corpus").exists()


@pytest.fixture
def hub(monkeypatch):
    """A hub that this process pushes to."""
    with serve_hub() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def push(folder: Path, *words: str):
    return CliRunner().invoke(corpus_card, [str(folder), "--push", NAME, *words], catch_exceptions=False)


def test_a_pushed_corpus_is_the_data_set_and_nothing_else(hub, corpus, tmp_path):
    done = push(corpus, "--private")
    assert done.stdout == f"{corpus}/README.md\n{hub.endpoint}/datasets/{NAME}\n"
    pushed = hub.repositories[NAME]
    assert pushed.private
    assert pushed.commits == ["Card by JoyFleet"]
    local = files_of(corpus)
    assert pushed.files == {
        name: data
        for name, data in local.items()
        if name.startswith(("text/", "records/", "report/")) or name == "README.md"
    }
    assert {name.partition("/")[0] for name in local} - {name.partition("/")[0] for name in pushed.files} == {
        *("run.json", "plan.parquet", "parts"),
    }
    clone = hub.write(NAME, tmp_path / "clone")
    for name, schema in (("text", CORPUS_ROW), ("records", PUBLISHED)):
        loaded = datasets.load_dataset(str(clone), name, cache_dir=str(tmp_path / "cache"))
        assert loaded["train"].features == datasets.Features.from_arrow_schema(schema)
        assert sum(map(len, loaded.values())) == len(rows_of(corpus, name))
    assert_figures(clone)


def test_a_second_push_sends_only_what_changed(hub, copied):
    push(copied)
    hub.requests.clear()
    push(copied)
    assert hub.repositories[NAME].commits == ["Card by JoyFleet"]
    rewrite_card(LocalStore(str(copied)), json.dumps(result_of(copied)).encode(), "r")
    push(copied)
    assert len(hub.repositories[NAME].commits) == 2
    assert sum("/large/" in request for request in hub.requests) == 1
    assert "A model trained on it" in hub.repositories[NAME].files["README.md"].decode()


def test_an_exported_corpus_is_pushed_with_its_splits(hub, corpus, tmp_path):
    words = [str(corpus), str(tmp_path / "out"), "--to", "tipo-v2", "--push", NAME]
    done = CliRunner().invoke(export_corpus, words, catch_exceptions=False)
    assert done.stdout.endswith(f"{hub.endpoint}/datasets/{NAME}\n")
    assert set(hub.repositories[NAME].files) == {
        name for name in files_of(tmp_path / "out") if not name.startswith(".joyfleet")
    }
    assert not hub.repositories[NAME].private


def test_private_is_not_silently_ignored(hub, corpus):
    push(corpus)
    hub.requests.clear()
    with pytest.raises(
        PipelineError, match=rf"{NAME} exists and is public, so --private cannot be honoured; nothing was"
    ):
        push(corpus, "--private")
    assert not [request for request in hub.requests if "commit" in request or "preupload" in request]
    with pytest.raises(ConfigError, match=r"corpus-card: --private needs --push; add --push, or leave --private out"):
        CliRunner().invoke(corpus_card, [str(corpus), "--private"], catch_exceptions=False)


def test_an_upload_that_fails_is_one_line_that_says_what_to_do(hub, corpus, monkeypatch):
    monkeypatch.setattr(huggingface_hub.utils._http, "_DEFAULT_RETRY_ON_STATUS_CODES", ())
    hub.fails = "commit"
    with pytest.raises(
        PipelineError, match=rf"corpus-card: {NAME} cannot be pushed \(HfHubHTTPError: .*; {corpus} is complete"
    ):
        push(corpus)
    assert not hub.repositories[NAME].files
    hub.fails = ""
    push(corpus)
    assert "README.md" in hub.repositories[NAME].files
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(PipelineError, match=r"cannot be pushed \((RepositoryNotFoundError|HfHubHTTPError): "):
        push(corpus)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PipelineError, match=r"cannot be pushed \(ConnectError: .*so run the same command again"):
        push(corpus)


@pytest.mark.parametrize(
    ("output", "name", "message"),
    [
        ("s3://bucket/corpus", "me/x", r"--push sends a local folder, not s3://bucket/corpus; write into a local"),
        ("corpus", "x", r"--push x: found no owner; allowed: OWNER/NAME"),
        ("corpus", "a/b/c", r"--push a/b/c: Repo id must be in the form"),
    ],
)
def test_a_push_that_cannot_be_done_is_refused_before_any_work(tmp_path, output, name, message):
    from jobs.corpus import corpus as make_verb

    job = {"output": output if "://" in output else str(tmp_path / output), "tables": {"name": "t", "urls": "nowhere"}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    with pytest.raises(ConfigError, match=rf"^corpus: {message}"):
        CliRunner().invoke(make_verb, [str(tmp_path / "job.yaml"), "--push", name], catch_exceptions=False)
    assert not (tmp_path / "corpus").exists()
    done = CliRunner().invoke(make_verb, ["--check", "x.txt", "--push", "me/x"])
    assert "--check reads files and sends none; leave --push out" in done.output
