"""`joyfleet preview`: the run's own captions on a few images, one page, no output."""

import re

import pytest
from click.testing import CliRunner

from jobs.preview import preview
from pipeline.errors import ConfigError
from pipeline.standin.demo_data import draw_dataset
from tests.browser import PHONE, looking_at, needs_chromium
from tests.cli import run, write_job
from tests.outputs import committed_rows

SLOTS = [
    {"slot": "long", "mode": "descriptive", "length": {"words": {"mean": 45, "std": 30, "min": 20, "max": 90}}},
    {"slot": "tags", "mode": "booru-tags"},
]


def test_a_source_without_an_image_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(b"no tar")
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"job\.yaml: no image could be read from the source: .*a\.tar"):
        CliRunner().invoke(preview, [job], catch_exceptions=False)


def test_a_missing_folder_is_reported_before_anything_starts(tmp_path):
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"--page .*: there is no folder .*create it or name another"):
        CliRunner().invoke(preview, [job, "--page", str(tmp_path / "no" / "x.html")], catch_exceptions=False)


@pytest.fixture(scope="module")
def previewed(tmp_path_factory):
    """A preview of two recipes by the echo engine, whose captions tell pixels and seed, and the run itself."""
    folder = tmp_path_factory.mktemp("preview")
    draw_dataset(folder / "in", num_images=24, seed=3, shard_rows=6)
    other = write_job(folder, folder / "in", folder / "other", captions=SLOTS[:1], seed=7)
    other = (folder / "job.yaml").rename(folder / "other.yaml")
    job = write_job(folder, folder / "in", folder / "out", captions=SLOTS)
    done = run(folder, "preview", job, "-n", "8", "--compare", str(other), DISPLAY="", WAYLAND_DISPLAY="")
    assert done.code == 0, done
    assert done.out.splitlines()[-1] == "job.preview.html"
    assert not (folder / "out").exists()
    assert not (folder / "other").exists()
    return folder


def captions_of(page):
    return re.findall(r'<p class="caption" dir="auto">(.*?)</p>', page)


@pytest.mark.slow
def test_captions_are_those_of_the_run(previewed):
    page = (previewed / "job.preview.html").read_text()
    done = run(previewed, "caption", "job.yaml")
    assert done.code == 0, done
    rows = {row["caption"]: row for row in committed_rows(previewed / "out")}
    shown = captions_of(page)
    ours = [caption for caption in shown if caption in rows]
    assert (len(shown), len(ours)) == (24, 16)  # the other recipe has another seed and one slot
    assert {rows[caption]["prompt"] for caption in ours} <= set(
        re.findall(r'<p class="prompt" dir="auto">(.*?)</p>', page)
    )
    assert len({rows[caption]["shard"] for caption in ours}) == 4
    assert page.count("no such slot") == 8


@needs_chromium
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_page_in_a_browser(previewed):
    with looking_at((previewed / "job.preview.html").as_uri()) as (page, seen):
        shown = page.locator(".image:visible")
        assert shown.count() == 8
        sides = page.locator("img.pixels").evaluate_all("all => all.map(one => [one.naturalWidth, one.naturalHeight])")
        assert sides == [[90, 90]] * 8  # what the stand-in sees
        first = page.locator(".recipe").nth(0).bounding_box()
        second = page.locator(".recipe").nth(1).bounding_box()
        assert first["y"] == second["y"]
        assert first["x"] < second["x"]
        page.get_by_label("Text").fill("no such words anywhere")
        assert shown.count() == 0
        assert seen.complaints == []
        assert [url for url in seen.requests if not url.startswith("data:")] == [page.url]
    with looking_at((previewed / "job.preview.html").as_uri(), PHONE) as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
