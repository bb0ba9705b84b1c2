"""The report page: what it counts, and that whatever stands in a row stays text."""

import hashlib
import re

import pytest
from click.testing import CliRunner

from jobs.report import report
from pipeline.report.gallery import OF_A_KIND, Gallery
from pipeline.report.html import link_of, share
from pipeline.report.key_sample import Smallest
from pipeline.report.output_stats import output_stats
from pipeline.storage import open_store
from tests.browser import PHONE, looking_at, needs_chromium
from tests.memory_store import MemoryStore
from tests.report.outputs import EVIL, write_output
from tests.report.test_quality import commit, row


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    url = write_output(folder)
    done = CliRunner().invoke(report, [url], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder / "out"


@pytest.fixture(scope="module")
def page(output):
    return (output / "report" / "index.html").read_text()


def test_rows_are_counted_in_one_pass(output):
    survey, quality = output_stats(open_store(str(output)))
    assert (survey.images, survey.statuses) == (16, {"ok": 12, "rejected": 2, "failed": 2})
    assert survey.rows["long", "booru-tags", "ok"] == 2
    assert survey.reasons == {("rejected", "loop"): 2, ("failed", "undecodable"): 2}
    assert (survey.tagged, survey.tags["sky"], survey.tags["sea"]) == (2, 2, 2)
    assert (survey.prompt_tokens, survey.caption_tokens) == (16 * 90, 16 * 12)
    assert [(commit.time_s, commit.rows) for commit in survey.commits] == [(1_000_000, 8), (1_000_100, 8)]
    assert sum(group["rows"] for group in quality.groups.to_pylist()) == 16


def test_images_with_equal_bytes_are_counted(output):
    survey, _ = output_stats(open_store(str(output)))
    assert survey.copied_images == 0
    store = MemoryStore("memory://copies")
    commit(store, [row(number, image_sha256="ab" * 32 if number < 3 else f"{number:064d}") for number in range(4)])
    assert output_stats(store)[0].copied_images == 0.75


def test_nothing_of_a_row_is_markup(page):
    assert EVIL not in page
    assert page.count("<script>") == 1
    assert "<img src=x" not in page
    assert page.count("&lt;script&gt;") > 20


def test_the_page_sends_no_request(page):
    addresses = set(re.findall(r"(?:src|href)=\"([^\"]*)\"", page))
    assert {address.split(":")[0] for address in addresses if ":" in address} == {"data", "file"}
    assert "default-src &#39;none&#39;" in page
    assert "@import" not in page
    assert "url(http" not in page


def test_pictures_are_those_of_the_rows(output, page):
    assert page.count('src="data:image/jpeg;base64,') == 14  # two could not be decoded
    assert "it could not be decoded" in page


def test_an_image_that_the_source_has_replaced_is_not_shown(tmp_path):
    url = write_output(tmp_path)
    tar = tmp_path / "in" / "0.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    from pipeline.config import ImagesConfig, SourceConfig
    from pipeline.readers import list_shards
    from pipeline.report.thumbnails import ImageSource, read_thumbnails

    tar.write_bytes(bytes(data))
    source = SourceConfig(urls=(str(tmp_path / "in"),))
    shards = {shard.path: shard for shard in list_shards(source)}
    rows = [shown.row for shown in output_stats(open_store(url))[0].gallery.rows()]
    result = read_thumbnails(ImageSource(shards, source, ImagesConfig()), rows)
    assert result["0.tar", 0].missing == "the source has another image in this row now"
    assert result["0.tar", 1].uri is not None


def test_a_source_that_is_gone_leaves_a_page_without_pictures(tmp_path):
    url = write_output(tmp_path)
    for tar in (tmp_path / "in").iterdir():
        tar.unlink()
    done = CliRunner().invoke(report, [url, "--page", str(tmp_path / "page.html")], catch_exceptions=False)
    assert done.exit_code == 0
    text = (tmp_path / "page.html").read_text()
    assert "data:image" not in text
    assert "its shard cannot be read" in text


def test_an_output_without_any_commit_has_a_page(tmp_path):
    url = write_output(tmp_path)
    for file in (tmp_path / "out" / "captions").iterdir():
        file.unlink()
    done = CliRunner().invoke(report, [url], catch_exceptions=False)
    assert done.exit_code == 0
    assert "0 of 2" in (tmp_path / "out" / "report" / "index.html").read_text()


def test_a_page_that_cannot_be_written_is_refused(tmp_path, output):
    from pipeline.errors import ConfigError

    with pytest.raises(ConfigError, match=r"--page .*cannot be written .* give a file in a folder that exists"):
        CliRunner().invoke(report, [str(output), "--page", str(tmp_path / "no" / "x.html")], catch_exceptions=False)


def test_the_gallery_is_bounded_and_of_few_shards():
    gallery = Gallery()
    shards = 200
    for number in range(shards):
        name = f"{number}.tar"
        rows = [row(index, name, image_sha256=hashlib.sha256(b"x").hexdigest()) for index in range(20)]
        gallery.begin(name)
        batch = _batch(rows)
        gallery.take(batch, rows)
    gallery.end()
    shown = gallery.rows()
    assert len(shown) == OF_A_KIND
    assert len({item.row["shard"] for item in shown}) == 4
    assert all(item.row["caption"] for item in shown)


def test_a_single_shard_fills_the_gallery_alone():
    gallery = Gallery()
    rows = [row(index) for index in range(40)]
    gallery.begin("a.tar")
    gallery.take(_batch(rows), rows)
    gallery.end()
    assert len(gallery.rows()) == OF_A_KIND


def test_the_worst_are_those_with_most_flags_and_attempts():
    gallery = Gallery()
    rows = [row(index, flags=["too_long"] * (index % 3), attempts=1 + index % 2) for index in range(60)]
    gallery.begin("a.tar")
    gallery.take(_batch(rows), rows)
    gallery.end()
    worst = [item.row for item in gallery.rows() if item.worst]
    assert len(worst) == 24
    assert [len(item["flags"]) for item in worst[:10]] == [2] * 10
    assert all(item["flags"] for item in worst)


def test_the_smallest_keys_are_kept_in_order():
    smallest = Smallest(3)
    for key in (5, 1, 4, 2, 3):
        smallest.add((0, key, 0), {"key": key})
    assert [result["key"] for _, result in smallest.items] == [1, 2, 3]
    assert smallest.wants((0, 0, 0))
    assert not smallest.wants((0, 9, 0))


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("/a b/<x>.tar", "file:///a%20b/%3Cx%3E.tar"),
        ("s3://bucket/a.tar", None),
        ("https://host/a.tar", "https://host/a.tar"),
        ("javascript:alert(1)", None),
        ("javascript://x%0aalert(1)", None),
    ],
)
def test_only_addresses_that_a_browser_may_open_are_links(url, link):
    assert link_of(url) == link


def test_shares_are_shown_with_significant_digits():
    assert [share(value) for value in (None, 0, 0.0001, 0.123, 1)] == ["–", "0.0 %", "<0.1 %", "12.3 %", "100 %"]


def _batch(rows):
    import pyarrow as pa

    from schemas.caption_row import CAPTION_ROW

    return pa.RecordBatch.from_pylist(rows, schema=CAPTION_ROW)


@needs_chromium
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_page_in_a_browser(output):
    with looking_at((output / "report" / "index.html").as_uri()) as (page, seen):
        assert page.title() == str(output)  # nothing of a row ran
        cards = page.locator("[data-rows]")
        shown = page.locator("[data-rows]:visible")
        assert cards.count() == shown.count() == 16
        page.get_by_label("Status").select_option("rejected")
        assert shown.count() == 2
        assert page.locator("form output").inner_text() == "2 of 16 shown"
        page.get_by_label("Status").select_option("")
        page.get_by_label("Reason").select_option("undecodable")
        assert shown.count() == 2
        page.get_by_label("Reason").select_option("")
        page.get_by_label("Mode").select_option("booru-tags")
        assert shown.count() == 2
        page.get_by_label("Mode").select_option("")
        page.get_by_label("Shown as").select_option("worst")
        assert shown.count() == 2
        page.get_by_label("Shown as").select_option("")
        page.get_by_label("Text").fill("BOAT number 7")
        assert shown.count() == 2
        page.get_by_label("Text").fill("<script>")
        assert shown.count() == 16
        assert page.locator("img").evaluate_all("all => all.every(one => one.naturalWidth > 0)")
        assert page.locator("main script, main iframe").count() == 0
        assert seen.complaints == []
        assert [url for url in seen.requests if not url.startswith("data:")] == [page.url]


@needs_chromium
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_page_fits_a_phone_in_the_dark(output):
    with looking_at((output / "report" / "index.html").as_uri(), PHONE, "dark") as (page, seen):
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 24, 27)"
        letters = page.locator("figure svg text").first
        assert letters.evaluate("one => getComputedStyle(one).fill") == "rgb(157, 152, 143)"
        assert letters.bounding_box()["height"] >= 8
        assert seen.complaints == []
