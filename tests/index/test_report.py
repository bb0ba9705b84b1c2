"""The report of an index: tables that DuckDB counts, and a page that looks like the others."""

import re

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.commands import cli
from pipeline.errors import ConfigError
from pipeline.storage import open_store
from schemas.index_report import INDEX_COPIES, INDEX_FORMATS, INDEX_HISTOGRAMS, INDEX_REASONS
from tests.browser import PHONE, looking_at, needs_chromium
from tests.index.world import BOTH, config_of, index_all
from tests.odd_images import encode, picture
from tests.readers.shards import tar_of
from tests.report.outputs import EVIL

pytest.importorskip("matplotlib")


def write_copies(folder):
    """Ten images: 3 equal, 3 similar to them, 3 others, and one that cannot be read, with a hostile name."""
    base = picture(200, 150)
    similar = [encode(base, "JPEG", quality=quality) for quality in (95, 80, 60)]
    others = [encode(picture(90 + 40 * number, 120).rotate(90 * number + 30), "PNG") for number in range(3)]
    first = [("a.jpg", similar[0]), ("b.png", others[0]), ("c.jpg", similar[0]), ("d.jpg", similar[1])]
    second = [("e.jpg", similar[2]), ("f.png", others[1]), ("g.jpg", similar[0]), ("h.png", others[2])]
    second += [("i<img src=x>.jpg", b"no image")]
    folder.mkdir()
    (folder / "1.tar").write_bytes(tar_of(first))
    (folder / "2.tar").write_bytes(tar_of(second))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_copies(folder / "in")
    index_all(config_of(folder / "in", folder / "index", BOTH))
    done = CliRunner().invoke(cli, ["report", str(folder / "index")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == f"{folder}/index/report/index.html"
    return folder / "index"


def table(index, name, schema=None):
    stored = pq.read_table(index / "report/index" / f"{name}.parquet")
    assert schema is None or stored.schema.equals(schema)
    return stored.to_pylist()


def test_formats_reasons_and_sizes_are_counted(index):
    formats = {row["format"]: row["images"] for row in table(index, "formats", INDEX_FORMATS)}
    assert formats == {"JPEG": 5, "PNG": 3, None: 1}
    assert table(index, "reasons", INDEX_REASONS) == [{"reason": "unsupported_format", "images": 1}]
    bins = table(index, "histograms", INDEX_HISTOGRAMS)
    by_name = {name: sum(row["images"] for row in bins if row["name"] == name) for name in ("long_side", "bytes")}
    assert by_name == {"long_side": 8, "bytes": 9}
    assert all(row["start"] < row["end"] for row in bins)
    [long_side] = [row for row in bins if row["name"] == "long_side" and row["start"] <= 200 < row["end"]]
    assert long_side["images"] >= 5


def test_copies_are_those_of_the_clusters(index):
    exact, near = table(index, "copies", INDEX_COPIES)
    assert exact == {"by": "sha256", "distance": 0, "images": 9, "clusters": 1, "members": 3, "copies": 2}
    assert (near["by"], near["distance"], near["images"], near["clusters"], near["copies"]) == ("phash", 4, 8, 1, 4)
    followers = [(row["shard"], row["row"], row["leader_shard"], row["leader_row"]) for row in table(index, "followers_sha256")]  # fmt: skip  # noqa: E501
    assert followers == [("1.tar", 2, "1.tar", 0), ("2.tar", 2, "1.tar", 0)]


def test_the_page_shows_the_largest_clusters_with_their_images(index):
    page = (index / "report/index.html").read_text()
    assert "Largest clusters by sha256" in page
    assert "Largest clusters by phash:4" in page
    assert page.count('src="data:image/jpeg;base64,') == 3 + 3
    assert "5 images; the first 3 of them" in page
    assert [role for role in re.findall(r'class="slot">([\w ]+)<', page) if role == "leader"] == ["leader"] * 2


def test_nothing_of_a_row_is_markup_and_no_request_is_sent(index):
    page = (index / "report/index.html").read_text()
    assert "<img src=x" not in page
    assert EVIL not in page
    addresses = set(re.findall(r"(?:src|href)=\"([^\"]*)\"", page))
    assert {address.split(":")[0] for address in addresses if ":" in address} <= {"data", "file"}


def test_an_index_without_hashes_has_a_page_without_copies(tmp_path):
    write_copies(tmp_path / "in")
    index_all(config_of(tmp_path / "in", tmp_path / "index", ()))
    words = ["report", str(tmp_path / "index"), "--page", str(tmp_path / "page.html")]
    assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
    assert "<h2>Copies</h2>" not in (tmp_path / "page.html").read_text()
    with pytest.raises(ConfigError, match=r"--near 3: the index .* has no perceptual hashes"):
        CliRunner().invoke(cli, [*words, "--near", "3"], catch_exceptions=False)


def test_an_index_without_any_row_has_a_page(tmp_path):
    write_copies(tmp_path / "in")
    index_all(config_of(tmp_path / "in", tmp_path / "index", BOTH))
    for file in (tmp_path / "index/index").iterdir():
        file.unlink()
    done = CliRunner().invoke(cli, ["report", str(tmp_path / "index")], catch_exceptions=False)
    assert done.exit_code == 0
    assert "2 shards are not indexed yet" in (tmp_path / "index/report/index.html").read_text()


def test_near_is_an_option_of_an_index_only(tmp_path):
    from pipeline.ledger.run_record import claim_run
    from pipeline.ledger.shard_plan import claim_plan
    from pipeline.recipe import Recipe
    from schemas.shard import Shard
    from tests.selection.world import job_of

    store, job = open_store(str(tmp_path / "out")), job_of(tmp_path).model_dump(mode="json")
    claim_run(store, Recipe(fields={}), {"job": job, "slots": ["long"], "versions": {}})
    claim_plan(store, [Shard("a", "a", 1, "e")])
    with pytest.raises(ConfigError, match="--near 3: only for an index of images, and OUTPUT holds captions"):
        CliRunner().invoke(cli, ["report", str(tmp_path / "out"), "--near", "3"], catch_exceptions=False)


@needs_chromium
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("viewport", [None, PHONE])
def test_the_page_in_a_browser(index, viewport):
    options = {} if viewport is None else {"viewport": viewport}
    with looking_at((index / "report/index.html").as_uri(), **options) as (page, seen):
        assert page.locator("figure svg").count() == 4
        assert page.locator("article.card").count() == 3 + 3
        assert page.locator("img").evaluate_all("all => all.every(one => one.naturalWidth > 0)")
        width, shown = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= shown
        assert seen.complaints == []
        assert [url for url in seen.requests if not url.startswith("data:")] == [page.url]
