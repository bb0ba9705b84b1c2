"""Tables of every format are joined to captioned images by every kind of key; images without a match are counted."""

import csv
import gzip
import hashlib
import json
import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from schemas.caption_row import CAPTION_ROW
from tests.corpus.outputs import caption_row, digest, write_output
from tests.corpus.test_job import LONG, SHORT, TAGS, corpus, counted, database, make, rows_of
from tests.readers.shards import tar_of


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def source(number: int) -> dict:
    """Return the source row of the captioned image `number`; 5 has no key except its own name."""
    if number == 5:
        return {"tags": TAGS}
    # The last image is a copy of the first.
    same = 0 if number == 6 else number
    return {"tags": TAGS, "url": f"https://X.org/{same}.jpg#top", "md5": md5(str(same)).upper()}


def photos(folder: Path, key=lambda number: f"0012/{number}.webp", **rest) -> dict:
    """Return an entry of `captions`: seven images in two shards."""
    rows = []
    for number in range(7):
        same = 0 if number == 6 else number
        own = {
            "key": "0012/cover.webp" if number == 5 else key(same),
            "image": f"image {same}",
            **({"image_sha256": None} if number == 5 else {}),
            "source": source(number),
        }
        rows += [caption_row(f"{number // 4}.tar", number % 4, slot, text.format(number), **own)
                 for slot, text in (("long", LONG), ("short", SHORT))]  # fmt: skip
    url = write_output(folder / "captions", rows)
    return {"name": "photos", "outputs": url, "long": "long", "short": "short", **rest}


def write(path: Path, rows: list[dict]) -> str:
    """Write rows in the format of the path's suffix."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


def records(folder: Path) -> dict[str, dict]:
    """Return the records by id; an id must not occur twice."""
    rows = rows_of(folder, "records")
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id


KEYS = {
    "id": lambda number: f"{number:05d}",
    "key": lambda number: f"0012/{number}.webp",
    "url": lambda number: f"http://x.org/{number}.jpg",
    "sha256": lambda number: digest(f"image {number}").upper(),
    "md5": lambda number: md5(str(number)),
}


@pytest.mark.parametrize(
    ("by", "name", "unmatched"),
    [
        ("id", "t.parquet", {"no_key": 1, "not_in_table": 1}),
        ("id", "t.csv", {"no_key": 1, "not_in_table": 1}),
        ("key", "t.csv", {"not_in_table": 2}),
        ("url", "t.jsonl", {"no_key": 1, "not_in_table": 1}),
        ("sha256", "t.parquet", {"no_key": 1, "not_in_table": 1}),
        ("md5", "t.jsonl.gz", {"no_key": 1, "not_in_table": 1}),
    ],
)
def test_every_kind_of_key_joins_and_counts_images_without_a_match(tmp_path, by, name, unmatched):
    # Images 0 to 3 (and 6, a copy of 0) have a row, 4 has none, 1 has two. Of the 8 rows, 3 match no image.
    numbers = [9, 0, 1, 2, 1, 3, 10, 11]
    table = [{by: KEYS[by](number), "artist": f"artist {place}"} for place, number in enumerate(numbers)]
    join = {"name": "t", "urls": write(tmp_path / name, table), "join": by}
    make(corpus(tmp_path, captions=photos(tmp_path), tables=join, dedupe=[]))
    artists = {name: row["artist"] for name, row in records(tmp_path).items()}
    assert artists == {
        "photos/0.tar#0": ["artist 1"], "photos/0.tar#1": ["artist 2"], "photos/0.tar#2": ["artist 3"],
        "photos/0.tar#3": ["artist 5"], "photos/1.tar#0": [], "photos/1.tar#1": [], "photos/1.tar#2": ["artist 1"],
    }  # fmt: skip
    counts = counted(tmp_path)
    assert {
        reason.removeprefix("unmatched_t_"): number
        for (_, reason), number in counts.items()
        if reason.startswith("unmatched")
    } == unmatched
    counted_rows = {reason: number for (entry, reason), number in counts.items() if entry == "t"}
    assert counted_rows == {
        "table_rows": 8, "table_rows_unused": 3, "images_matched": 5, "images_matched_more_than_once": 1,
    }  # fmt: skip


def test_a_typed_table_wins_over_the_flat_tags_of_the_image(tmp_path):
    typed = {"character": "hatsune_miku", "copyright": "vocaloid", "artist": "ask_(askzy)", "general": "solo"}
    flat = "1girl, hatsune miku, vocaloid, ask (askzy), long hair"
    entry = photos(tmp_path, columns={"general": "txt"})
    for file in (tmp_path / "captions/captions").rglob("*.parquet"):
        metadata = pq.read_schema(file).metadata
        rows = pq.read_table(file).to_pylist()
        table = pa.Table.from_pylist([{**row, "source": json.dumps({"txt": flat})} for row in rows], CAPTION_ROW)
        pq.write_table(table.replace_schema_metadata(metadata), file)
    table = {"name": "t", "urls": write(tmp_path / "t.jsonl", [{"id": n, **typed} for n in range(9)]), "join": "id"}
    make(corpus(tmp_path, captions=entry, tables=table, dedupe=[]))
    row = records(tmp_path)["photos/0.tar#1"]
    assert row["character"] == ["hatsune miku"]
    assert row["copyright"] == ["vocaloid"]
    assert row["artist"] == ["ask (askzy)"]
    assert (row["general"], row["special"]) == (["long hair", "solo"], ["1girl"])


def test_an_image_without_a_required_match_is_dropped_and_counted(tmp_path):
    first = {"name": "first", "urls": write(tmp_path / "a.csv", [{"id": 0, "artist": "a"}]), "join": "id"}
    table = [{"id": number, "artist": "b"} for number in range(3)]
    must = {"name": "must", "urls": write(tmp_path / "b.csv", table), "join": {"by": "id", "required": True}}
    make(corpus(tmp_path, captions=photos(tmp_path), tables=[first, must], dedupe=[]))
    artists = {name: row["artist"] for name, row in records(tmp_path).items()}
    assert artists == {
        "photos/0.tar#0": ["a", "b"], "photos/0.tar#1": ["b"], "photos/0.tar#2": ["b"], "photos/1.tar#2": ["a", "b"],
    }  # fmt: skip
    counts = counted(tmp_path)
    assert counts["photos", "images"] == 7
    assert counts["photos", "dropped_unmatched"] == 3
    assert counts["photos", "unmatched_must_not_in_table"] == 2
    assert counts["photos", "unmatched_must_no_key"] == 1
    assert counts["photos", "unmatched_first_not_in_table"] == 4


def test_a_join_applies_only_to_the_entries_in_to(tmp_path):
    posts = [{"id": number, "long": LONG.format(number), "tags": TAGS} for number in range(3)]
    tables = [
        {"name": "posts", "urls": write(tmp_path / "posts.jsonl", posts)},
        {
            "name": "t",
            "urls": write(tmp_path / "t.csv", [{"id": 1, "artist": "a"}]),
            "join": {"by": "id", "to": ["posts"]},
        },
    ]
    make(corpus(tmp_path, captions=photos(tmp_path), tables=tables, dedupe=[]))
    assert [name for name, row in records(tmp_path).items() if row["artist"]] == ["posts/1"]
    assert {entry for entry, reason in counted(tmp_path) if reason.startswith("unmatched_t")} == {"posts"}


def test_facts_of_the_image_override_tables_and_earlier_tables_override_later_ones(tmp_path):
    table = [{"id": 0, "rating": "s", "short": "From a table.", "score": 3, "width": 9, "tags": ["hat"]}]
    other = [{"id": 0, "rating": "e", "year": 2012, "tags": ["hat", "shoe"]}]
    tables = [
        {"name": "a", "urls": write(tmp_path / "a.jsonl", table), "join": "id"},
        {"name": "b", "urls": write(tmp_path / "b.jsonl", other), "join": "id"},
    ]
    make(corpus(tmp_path, captions=photos(tmp_path), tables=tables, dedupe=[]))
    row = records(tmp_path)["photos/0.tar#0"]
    assert (row["short"], row["rating"], row["score"], row["year"]) == (SHORT, ["sensitive"], 3, 2012)
    assert (row["width"], row["height"]) == (640, 480)
    assert row["general"][-2:] == ["hat", "shoe"]
    assert counted(tmp_path)["photos", "tag_double"] == 2  # in image 6, too


# Layouts of public data sets.


def side_cars(folder: Path, numbers: range, *, twin: bool = False, loose: bool = False) -> str:
    """Write the files that img2dataset makes of one shard; every third download failed. Return the folder's path.

    With `twin` the shard's Parquet lies beside it; with `loose` the files lie in a folder and not in a tar.
    """
    folder.mkdir()
    files: list[tuple[str, bytes]] = []
    rows: list[dict] = []
    for number in numbers:
        key = f"{number:09d}"
        failed = number % 3 == 2
        row = {
            "url": f"http://x.org/{number}.jpg", "caption": f"Alt text {number}", "key": key, "width": 256,
            "height": 128, "original_width": 1024, "original_height": 512, "exif": "{}",
            "status": "failed_to_download" if failed else "success", "error_message": "404" if failed else None,
            "tags": f"tag {number}, lake", "sha256": digest(f"image {number}"),
        }  # fmt: skip
        rows.append(row)
        if not failed:
            image = [(f"{key}.jpg", b"not read")]
            files += [*image, (f"{key}.txt", row["caption"].encode()), (f"{key}.json", json.dumps(row).encode())]
    if loose:
        (folder / "00000").mkdir()
        for name, data in files:
            (folder / "00000" / name).write_bytes(data)
    else:
        (folder / "00000.tar").write_bytes(tar_of(files))
    (folder / "00000_stats.json").write_text(json.dumps({"count": len(rows), "successes": len(files) // 3}))
    if twin:
        pq.write_table(pa.Table.from_pylist(rows), folder / "00000.parquet")
    return str(folder)


@pytest.mark.parametrize(
    ("by", "twin", "loose"),
    [("key", False, False), ("sha256", False, True), ("url", True, False), ("key", True, True)],
)
def test_sidecar_files_of_img2dataset_are_a_table(tmp_path, by, twin, loose):
    cars = side_cars(tmp_path / "cars", range(12), twin=twin, loose=loose)
    entry = photos(tmp_path, lambda number: f"{number:09d}")
    make(corpus(tmp_path, captions=entry, tables={"name": "cars", "urls": cars, "join": by}, dedupe=[]))
    by_id = records(tmp_path)
    row = by_id["photos/0.tar#1"]
    assert row["general"][-1] == "tag 1"
    assert (row["title"], row["key"]) == ("Alt text 1", "000000001")
    assert row["url"] == "https://X.org/1.jpg#top"
    # The Parquet also has the rows of failed downloads. Only one of Parquet and tar is read.
    assert ("tag 2" in by_id["photos/0.tar#2"]["general"]) is twin
    counts = counted(tmp_path)
    assert counts["cars", "table_rows"] == (12 if twin else 8)
    assert counts["cars", "images_matched"] == (6 if twin else 5)


def test_a_sidecar_file_with_invalid_json_is_counted(tmp_path):
    cars = [("1.jpg", b"-"), ("1.json", b'{"tags": "hat, shoe"}'), ("2.jpg", b"-"), ("2.json", b"{broken")]
    (tmp_path / "a.tar").write_bytes(tar_of(cars))
    make(corpus(tmp_path, tables={"name": "cars", "urls": str(tmp_path / "a.tar")}))
    assert [row["general"] for row in records(tmp_path).values()] == [["hat", "shoe"]]
    assert counted(tmp_path)["cars", "bad_row"] == 1


def test_captions_of_cc12m_llavanext_join_the_images_of_its_tars(tmp_path):
    rows = [
        {
            "caption_llava": LONG.format(n),
            "caption_llava_short": SHORT,
            "caption": f"alt {n}",
            "url": f"u{n}",
            "key": key,
        }
        for n, key in ((0, "000000000"), (1, 1), (77, 77))
    ]
    captions = write(tmp_path / "train.jsonl.gz", rows)
    sizes = {"width": 256, "height": 128, "original_width": 1024, "original_height": 512}
    files = [
        (f"{n:09d}.{suffix}", data)
        for n in range(3)
        for suffix, data in (
            ("jpg", b"-"),
            ("txt", b"alt"),
            ("json", json.dumps({"key": f"{n:09d}", **sizes}).encode()),
        )
    ]
    (tmp_path / "00000.tar").write_bytes(tar_of(files))
    tables = [
        {"name": "cc12m", "urls": str(tmp_path / "00000.tar")},
        # A number in one source and nine digits in the other: `id` matches both.
        {"name": "llava", "urls": captions, "join": "id"},
    ]
    make(corpus(tmp_path, tables=tables))
    by_id = {name.partition("@")[0]: row for name, row in records(tmp_path).items()}
    assert {name: row["short"] for name, row in by_id.items()} == {
        "cc12m/000000000": SHORT, "cc12m/000000001": SHORT,
    }  # fmt: skip
    assert by_id["cc12m/000000001"]["long"] == LONG.format(1)
    assert by_id["cc12m/000000001"]["title"] == "alt"
    assert (by_id["cc12m/000000001"]["width"], by_id["cc12m/000000001"]["height"]) == (1024, 512)
    assert counted(tmp_path)["cc12m", "dropped_nothing_known"] == 1


def graph(number: int, **rest) -> dict:
    """Return a row of GBC10M."""

    def vertex(name: str, label: str, descs: list[tuple[str, str]]) -> dict:
        return {
            "vertex_id": name, "label": label, "bbox": {"left": 0.0, "top": 0.0, "right": 1.0, "bottom": 1.0},
            "descs": [{"text": text, "label": kind} for kind, text in descs], "in_edges": [], "out_edges": [],
        }  # fmt: skip

    whole = [("original", f"alt {number}"), ("short", SHORT), ("detail", LONG.format(number))]
    return {
        "vertices": [vertex("1", "entity", [("short", "A wrong one.")]), vertex("", "image", whole)],
        "img_url": f"http://x.org/{number}.jpg", "img_path": None, **rest,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["gbc.jsonl", "gbc.parquet"])
def test_gbc10m_graphs_add_their_captions_by_url(tmp_path, name):
    own = {"original_caption": "own", "short_caption": "Its own short caption.", "detail_caption": None}
    rows = [graph(0, **dict.fromkeys(own)), graph(1, **own), graph(9, **dict.fromkeys(own))]
    tables = {"name": "gbc", "urls": write(tmp_path / name, rows), "join": "url"}
    make(
        corpus(
            tmp_path, captions={**photos(tmp_path), "short": [], "long": [], "tags": "short"}, tables=tables, dedupe=[]
        )
    )
    by_id = records(tmp_path)
    counted_rows = [
        tuple(by_id[f"photos/0.tar#{row}"][field] for field in ("title", "short", "long")) for row in (0, 1)
    ]
    assert counted_rows == [("alt 0", SHORT, LONG.format(0)), ("own", "Its own short caption.", LONG.format(1))]
    assert by_id["photos/0.tar#2"]["long"] is None


def test_coyo_adds_tags_to_captioned_images_by_url(tmp_path):
    rows = [
        {"url": f"http://X.org/{n}.jpg", "caption_llava": "Another.", "caption_llava_short": "Short.", "caption": "alt",
         "tags_open_images": '["Black"]', "tags_booru": "['tree_house']", "key": n, "clip_similarity_vitb32": 0.3,
         "width": 5, "height": 5}
        for n in range(3)
    ]  # fmt: skip
    tables = {"name": "coyo", "urls": write(tmp_path / "train_0.parquet", rows), "join": "url"}
    make(corpus(tmp_path, captions=photos(tmp_path), tables=tables))
    row = records(tmp_path)["photos/0.tar#1"]
    assert row["general"][:2] == ["black", "tree house"]
    assert (row["long"], row["short"], row["title"]) == (LONG.format(1), SHORT, "alt")
    assert (row["width"], row["height"]) == (640, 480)


def test_a_folder_with_danbooru_parquet_and_sqlite_is_read_once(tmp_path):
    folder = tmp_path / "danbooru2023"
    folder.mkdir()
    url = database(folder / "danbooru2023.db")
    with sqlite3.connect(url) as db:
        for name in ("post", "tag", "posttagrelation"):
            cursor = db.execute(f"SELECT * FROM {name}")
            columns = [column[0] for column in cursor.description]
            write(folder / f"{name}.parquet", [dict(zip(columns, row, strict=True)) for row in cursor])
    db.close()
    write(folder / "localpost.parquet", [{"id": 1, "filepath": "1.webp", "latentpath": None, "post_id": 1}])
    make(corpus(tmp_path, captions=photos(tmp_path), tables={"name": "posts", "urls": str(folder), "join": "id"}))
    row = records(tmp_path)["photos/0.tar#2"]
    assert (row["character"], row["artist"], row["copyright"]) == (["hatsune miku"], ["ask (askzy)"], ["vocaloid"])
    counts = counted(tmp_path)
    assert counts["posts", "table_rows"] == 40
    # Image 6 is a duplicate of 0.
    assert counts["posts", "images_matched"] == 6
    assert counts["photos", "dropped_duplicate_image"] == 1


def test_the_table_of_the_v1_trainer_is_a_source_of_records(tmp_path):
    lists = {name: [name] for name in ("general", "meta", "rating", "artist", "character", "copyright", "quality")}
    row = {
        **lists, "special": ["1girl"], "rating": ["safe"], "width": 640, "height": 480, "florence_long": "Not this.",
        "florence_short": SHORT, "phi3v_horny": None, "pixtral_caption": LONG.format(1),
    }  # fmt: skip
    make(corpus(tmp_path, tables={"name": "v1", "urls": write(tmp_path / "data.parquet", [row])}))
    [made] = records(tmp_path).values()
    for name in ("general", "meta", "artist", "character", "copyright", "quality"):
        assert made[name] == [name]
    assert (made["special"], made["rating"], made["short"]) == (["1girl"], ["safe"], SHORT)
    assert (made["pixtral_caption"], made["florence_short"]) == (LONG.format(1), SHORT)


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_an_unknown_column_is_refused_with_the_known_columns(tmp_path, name):
    table = {"name": "t", "urls": write(tmp_path / name, [{"id": 1, "words": "hat"}]), "columns": {"tags": "wrods"}}
    with pytest.raises(ConfigError, match=rf"{name}: `columns` names wrods; the file has: id, words"):
        make(corpus(tmp_path, tables=table))


def test_aliases_and_implications_change_the_tags_of_a_job(tmp_path):
    (tmp_path / "aliases.csv").write_text("long_hair,very_long_hair\r\n")
    with gzip.open(tmp_path / "implied.csv.gz", "wt") as file:
        file.write("mountain,outdoors\n")
    files = {"aliases": str(tmp_path / "aliases.csv"), "implications": str(tmp_path / "implied.csv.gz")}
    make(corpus(tmp_path, captions=photos(tmp_path), tags={"prune_implied": True}, tag_files=files, dedupe=[]))
    assert records(tmp_path)["photos/0.tar#0"]["general"] == [
        "solo",
        "very long hair",
        "lake",
        "mountain",
        "sky",
        "^_^",
    ]
    assert counted(tmp_path)["photos", "tag_implied"] == 7
    (tmp_path / "aliases.csv").write_text("one,two,three\n")
    with pytest.raises(ConfigError, match=r"aliases\.csv: line 1 has 3 fields; allowed: two, `from,to`"):
        make(corpus(tmp_path / "x", captions=photos(tmp_path / "x"), tag_files=files))


def test_kinds_of_keys_do_not_mix_and_the_first_row_with_a_key_is_used(tmp_path):
    folder = tmp_path / "posts"
    folder.mkdir()
    write(folder / "0.csv", [{"id": 8, "artist": "-"}, {"id": 0, "artist": "a"}])
    write(folder / "1.csv", [{"id": 0, "artist": "b"}])
    keys = [{"key": "0", "character": "wrong"}, {"key": "0012/1.webp", "character": "c"}]
    tables = [
        {"name": "posts", "urls": str(folder), "join": "id"},
        {"name": "keys", "urls": write(tmp_path / "keys.csv", keys), "join": "key"},
    ]
    make(corpus(tmp_path, captions=photos(tmp_path), tables=tables, dedupe=[]))
    by_id = records(tmp_path)
    assert by_id["photos/0.tar#0"]["artist"] == ["a"]
    assert {name for name, row in by_id.items() if row["character"]} == {"photos/0.tar#1"}
    assert by_id["photos/0.tar#1"]["character"] == ["c"]
