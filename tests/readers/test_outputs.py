"""What a listing of a source shows of outputs that lie inside it: nothing, and says so."""

import pytest

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.ledger import layout
from pipeline.readers import list_shards, list_source, outputs
from tests.readers.test_folder import fill

OUTPUT = (
    "run.json",
    "plan.parquet",
    "captions/a/0.tar.parquet",
    "staging/1.tar/0000000000-x.parquet",
    "report/a.parquet",
)


def source(*urls):
    return SourceConfig(urls=tuple(map(str, urls)))


def fill_output(root):
    fill(root, *OUTPUT)


def test_the_layout_is_that_of_the_ledger():
    assert (outputs.RUN, outputs.PLAN, outputs.FOLDERS) == (layout.RUN, layout.PLAN, layout.FOLDERS)


@pytest.mark.parametrize("at", ["", "out", "deep/er"])
def test_a_folder_of_images_with_outputs_in_it_stays_one_of_images(tmp_path, at):
    fill(tmp_path, "a.png", "b.png", "deep/c.png")
    before = list_shards(source(tmp_path))
    fill_output(tmp_path / at)
    fill_output(tmp_path / "second")
    listed = list_source(source(tmp_path))
    assert listed.shards == before
    root = str(tmp_path / at)
    assert f"{tmp_path}: 4 files of JoyFleet's output {root} are not read" in [
        remark.replace("5 files", "4 files") for remark in listed.remarks
    ]
    assert len(listed.remarks) == 2


@pytest.mark.parametrize("glob", ["", "/**", "/**/*.parquet", "/*/*.parquet"])
def test_parquet_shards_are_distinguished_from_those_of_an_output(tmp_path, glob):
    fill(tmp_path, "x/0.parquet", "y/1.parquet")
    fill_output(tmp_path / "x/out")
    fill_output(tmp_path / "z")
    assert [shard.path for shard in list_shards(source(f"{tmp_path}{glob}"))] == ["x/0.parquet", "y/1.parquet"]


def test_what_only_looks_like_a_part_of_an_output_is_a_shard(tmp_path):
    fill(tmp_path, "captions/0.parquet", "plan.parquet", "report/run.json", "report/1.parquet")
    listed = list_source(source(tmp_path))
    assert [shard.path for shard in listed.shards] == ["captions/0.parquet", "plan.parquet", "report/1.parquet"]
    assert listed.remarks == ()


@pytest.mark.parametrize("below", ["", "/captions", "/captions/a"])
def test_an_output_as_the_source_is_refused_by_name(tmp_path, below):
    fill_output(tmp_path / "out")
    with pytest.raises(
        ConfigError, match=r"all its files belong to JoyFleet's output .*/out; give the folder of the im"
    ):
        list_shards(source(f"{tmp_path}/out{below}"))


def test_tables_may_be_those_of_an_output(tmp_path):
    fill_output(tmp_path / "out")
    listed = list_shards(source(tmp_path / "out" / "captions"), (".parquet",))
    assert [shard.path for shard in listed] == ["a/0.tar.parquet"]
