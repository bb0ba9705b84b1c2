"""Each form honours an option, which then changes what it writes, or refuses it by name; a form is one record."""

import csv
import json
import pickle
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobs.export import export as export_command
from pipeline.config.export_config import ExportConfig, flag_of
from pipeline.errors import ConfigError
from pipeline.export.form import FILTERS
from pipeline.export.forms import FORMS, form_of
from tests.export import toy_form, world
from tests.export.world import caption_all, export, files_of, write_images, write_parquets, write_tars

GIVEN = {
    "slots": ("tags",),
    "template": "{long}!",
    "column": "text",
    "fields": ("mode",),
    "duplicates": True,
    "spread": ("long",),
    "statuses": ("ok", "rejected"),
    "modes": ("descriptive",),
    "without_flags": ("truncated",),
    "min_words": 4,
    "max_words": 2,
    "join": False,
    "images": None,  # what the form does not do by itself
    "suffix": "caption",
    "weights": ("long=2",),
    "image_root": "/data",
    "escape_formulas": True,
}
"""A value of each option that is not its default and that changes the files of a form that honours it."""

PAIRS = [(form, name) for form in FORMS for name in GIVEN]
HONOURED = [(form, name) for form, name in PAIRS if name in FILTERS | FORMS[form].honours]
IGNORED = [pair for pair in PAIRS if pair not in HONOURED]


def test_the_table_has_every_option_and_every_refusal_that_was_missing():
    # The other outputs are opened by the command: tests/chained/test_verbs.py.
    assert set(GIVEN) == set(ExportConfig.model_fields) - {"to", "outputs"}
    assert {("csv", "suffix"), ("sidecars", "column"), ("joycaption", "column"), ("webdataset", "join")} <= {*IGNORED}
    assert len(HONOURED) + len(IGNORED) == len(FORMS) * len(GIVEN)


def value_of(form: str, name: str) -> object:
    return not FORMS[form].needs_images if name == "images" else GIVEN[name]


@pytest.mark.parametrize(("form", "name"), IGNORED)
def test_an_option_that_a_form_does_not_honour_is_refused(form, name):
    with pytest.raises(
        ConfigError, match=rf"^export: --to {form} does not honour {flag_of(name)}; it honours --slot, "
    ):
        form_of(ExportConfig(to=form, **{name: value_of(form, name)}))


def test_an_option_at_its_default_is_refused_as_well_when_it_is_given():
    with pytest.raises(ConfigError, match=r"--to csv does not honour --suffix; .* or choose another form"):
        form_of(ExportConfig(to="csv", suffix="txt"))


def test_a_column_has_a_meaning_in_webdataset_beside_a_template_alone(tmp_path):
    with pytest.raises(
        ConfigError, match=r"not honour --column; it honours --slot, .*, --column beside --template\. L"
    ):
        form_of(ExportConfig(to="webdataset", column="text"))
    write_tars(tmp_path / "in", 1, 2)
    captioned = caption_all(tmp_path / "in", tmp_path / "out")
    export(captioned, tmp_path / "x", "webdataset", template="{long}", column="text")
    assert b"00000.text.txt" in files_of(tmp_path / "x")["00000.tar"]


def test_a_form_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match=r"--to xml: no such form; allowed: parquet, hf, csv, jsonl, webdataset, sid"):
        form_of(ExportConfig(to="xml"))


def test_the_columns_of_a_source_that_has_none_are_refused(tmp_path):
    write_tars(tmp_path / "in", 2, 1)
    captioned = caption_all(tmp_path / "in", tmp_path / "out")
    with pytest.raises(
        ConfigError, match=r"--join needs a source with columns, such as Parquet, and 2 of 2 shards have none, "
    ):
        export(captioned, tmp_path / "x", "csv", join=True)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A captioned Parquet source, and a captioned folder of images."""
    root = tmp_path_factory.mktemp("sources")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "caption_of", lambda key, slot: f"={slot} of {key}")
        write_parquets(root / "parquet", 1, 8)
        write_images(root / "images", 8)
        return {
            "parquet": caption_all(root / "parquet", root / "out-parquet"),
            "images": caption_all(root / "images", root / "out-images"),
        }, root


def written(sources, folder: Path, form: str, **options) -> dict[str, bytes]:
    captioned, root = sources
    if not FORMS[form].beside_source:
        export(captioned["parquet"], folder, form, **options)
        return files_of(folder)
    before = set(files_of(root / "images"))
    try:
        export(captioned["images"], root / "images", form, **options)
        return {name: data for name, data in files_of(root / "images").items() if name not in before}
    finally:
        for path in [path for path in (root / "images").rglob("*") if path.is_file()]:
            if path.relative_to(root / "images").as_posix() not in before:
                path.unlink()


# tests/export/test_spread.py has captions that can be spread, tests/selection/test_duplicates.py has duplicates.
@pytest.mark.parametrize(("form", "name"), [pair for pair in HONOURED if pair[1] not in ("spread", "duplicates")])
def test_an_option_that_a_form_honours_changes_what_it_writes(tmp_path, sources, form, name):
    # Texts of slot tags are rejected in one row, and of another mode.
    plain = {"slots": ("tags",) if name in ("statuses", "modes") else ("long",)}
    given = {**({} if name == "template" else plain), name: value_of(form, name)}
    assert written(sources, tmp_path / "a", form, **plain) != written(sources, tmp_path / "b", form, **given)


def test_formulas_are_escaped_in_the_cells_and_the_header_of_csv_alone(tmp_path, monkeypatch):
    texts = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "a=1", "'=1", ""]
    monkeypatch.setattr(world, "caption_of", lambda key, slot: texts[int(key.removesuffix(".png"))])
    write_parquets(tmp_path / "in", 1, len(texts))
    captioned = caption_all(tmp_path / "in", tmp_path / "out")

    def rows(folder: str, **options) -> list[list[str]]:
        export(captioned, tmp_path / folder, "csv", slots=("long",), column="=caption", **options)
        [file] = (tmp_path / folder).rglob("*.csv")
        with file.open(newline="") as stream:
            return list(csv.reader(stream))

    header, *cells = rows("plain")
    assert (header[-1], [row[-1] for row in cells]) == ("=caption", texts)
    header, *cells = rows("escaped", escape_formulas=True)
    assert header[-1] == "'=caption"
    assert [row[-1] for row in cells] == ["'=1+1", "'+1", "'-1", "'@x", "'\tx", "'\rx", "a=1", "'=1", ""]
    assert [row[0] for row in cells] == [str(number % 2) for number in range(len(texts))]


def test_a_form_from_outside_the_package_is_exported_by_the_command(tmp_path, monkeypatch):
    write_tars(tmp_path / "in", 3, 2)
    caption_all(tmp_path / "in", tmp_path / "out")
    monkeypatch.setitem(FORMS, "capitals", toy_form.FORM)
    words = [str(tmp_path / "out"), str(tmp_path / "x"), "--to", "capitals", "--workers", "1"]

    done = CliRunner().invoke(export_command, [*words, "--slot", "long", "--suffix", "up"], catch_exceptions=False)
    refused = CliRunner().invoke(export_command, [*words, "--slot", "long", "--column", "c"])
    two_slots = CliRunner().invoke(export_command, words)

    assert done.exit_code == 0
    assert files_of(tmp_path / "x")["00001.tar.up"].startswith(b"01000: LONG OF")
    assert files_of(tmp_path / "x")["count"] == b"6"
    assert "--to capitals does not honour --column; it honours --slot, --with, --mode" in str(refused.exception)
    assert "capitals has one text per image, and there are the slots long, tags" in str(two_slots.exception)


def test_a_form_reaches_the_processes_that_export():
    assert pickle.loads(pickle.dumps(toy_form.FORM)) == toy_form.FORM
    assert all(pickle.loads(pickle.dumps(form)) == form for form in FORMS.values())


def test_an_export_of_an_earlier_release_is_resumed(tmp_path):
    write_tars(tmp_path / "in", 2, 2)
    export(caption_all(tmp_path / "in", tmp_path / "out", only=1), tmp_path / "x", "csv")
    record = tmp_path / "x/.joyfleet/export.json"
    stored = json.loads(record.read_text())
    del stored["options"]["escape_formulas"]
    record.write_text(json.dumps(stored))

    assert export(caption_all(tmp_path / "in", tmp_path / "out"), tmp_path / "x", "csv").num_shards == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "csv", "--min-words", "-1"], "--min-words -1: Input should be greater than or equal to 0"),
        (["--to", "csv", "--status", "good"], "--status good: Input should be 'ok', 'rejected', 'failed' or 'skipped'"),
        (["--to", "csv", "--push", "a/b"], "--push sends a data set of --to hf, not csv"),
        (["--to", "csv", "--template", "x"], "template 'x' has no placeholder such as {long}"),
    ],
)
def test_the_command_names_the_option_that_is_wrong(tmp_path, words, message):
    done = CliRunner().invoke(export_command, [str(tmp_path), str(tmp_path / "x"), *words])
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)


def test_the_documented_options_and_forms_are_those_of_the_command():
    page = (Path(__file__).parents[2] / "docs/export.md").read_text()
    help_text = CliRunner().invoke(export_command, ["--help"]).output
    for name in GIVEN:
        assert f"`{flag_of(name)}" in page
        assert flag_of(name) in help_text
    for form in FORMS:
        assert f"`{form}`" in page
