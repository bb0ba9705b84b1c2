import io

from jobs.source_summary import show_source
from pipeline.config import SourceConfig, parse_job
from pipeline.readers import list_shards
from pipeline.readers.count_estimate import estimate_counts
from tests.bad_inputs import zips
from tests.export.world import write_images, write_parquets
from tests.readers.test_folder import fill
from tests.readers.test_layouts import stats


def shown(root, num_rows=3) -> str:
    job = {"source": str(root), "output": "o", "model": "standin", "captions": {"slot": "a", "mode": "descriptive"}}
    out = io.StringIO()
    show_source(parse_job(job), num_rows, out)
    return out.getvalue()


def test_columns_splits_and_rows_are_shown(tmp_path):
    write_parquets(tmp_path, 2, 4)
    write_parquets(tmp_path, 1, 4, split="test")

    text = shown(tmp_path)

    assert "found: 3 parquet\nsplits: test 1, train 2; choose one with source.split\n" in text
    assert "images in column image, keys from the image's path" in text
    assert '  2  2.png  76 B  {"label": 0, "im_name": "2.png"}\n' in text
    assert "  3  " not in text


def test_failed_downloads_are_shown(tmp_path):
    fill(tmp_path, "00000/0.png", "00000/1.png", "00000.parquet")
    stats(tmp_path, "00000", **{"HTTP Error 404": 3})

    text = shown(tmp_path, 0)

    assert "found: 1 parts of folders of images\n" in text
    assert "img2dataset: 10 URLs, 7 images, 3 failed (3 HTTP Error 404)\n" in text
    assert "begins with" not in text


def test_a_shard_that_cannot_be_read_is_reported(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"<html>")

    assert "a.zip: not a zip that can be read" in shown(tmp_path)


def test_images_of_folders_and_zips_are_counted(tmp_path):
    write_images(tmp_path / "loose", 5)
    (tmp_path / "zips").mkdir()
    (tmp_path / "zips/a.zip").write_bytes(next(zips()).data)

    for folder, images in (("loose", 5), ("zips", 3)):
        source = SourceConfig(urls=(str(tmp_path / folder),))
        result = estimate_counts(list_shards(source), source)
        assert (result.images, result.exact, result.unreadable) == (images, True, {})
