import os

import pytest

from pipeline.storage import place_of, reaches

OWN = ("captions", "staging")


def reached(source, output):
    return reaches(str(source), place_of(str(output)), OWN)


@pytest.mark.parametrize(
    ("source", "output", "expected"),
    [
        ("s3://b/photos", "s3://b/photos", True),
        ("s3://b/photos/", "s3://b/photos/out", True),
        ("s3a://b//photos", "s3://b/photos/x/out", True),
        ("gcs://b/photos", "gs://b/photos/out", True),
        ("s3://b", "s3://b/out", True),
        ("s3://b/photos", "s3://b/photos-captions", False),
        ("s3://b/photos", "s3://other/photos", False),
        ("s3://b/photos", "gs://b/photos", False),
        ("s3://b/out/photos", "s3://b/out", False),
        ("s3://b/out/captions/x", "s3://b/out", True),
        ("s3://b/photos/*.tar", "s3://b/photos", False),
        ("s3://b/photos/*.tar", "s3://b/photos/out", False),
        ("s3://b/*.parquet", "s3://b/out", False),
        ("s3://b/*/*.parquet", "s3://b/out", True),
        ("s3://b/in-*/*.parquet", "s3://b/out", False),
        ("s3://b/photos/*", "s3://b/photos", True),
        ("s3://b/photos/**", "s3://b/photos/x/out", True),
        ("s3://b/photos/**/*.tar", "s3://b/photos/out", False),
        ("s3://b/photos/**/*.parquet", "s3://b/photos/out", True),
        ("s3://b/photos/{a,b}*.parquet", "s3://b/photos/out", False),
    ],
)
def test_an_output_that_a_listing_would_show_is_known_by_bucket_and_key(source, output, expected):
    assert reached(source, output) is expected


@pytest.mark.parametrize("depth", ["", "out", "x/y"])
def test_local_places_are_the_same_by_links_relative_paths_and_two_dots(tmp_path, monkeypatch, depth):
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "inside").symlink_to(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    names = ["photos", "./photos/", "link", "elsewhere/inside", "elsewhere/../photos", tmp_path / "photos"]
    names += [f"file://{tmp_path}/photos"]
    for source in names:
        for output in names:
            assert reached(source, f"{str(output).rstrip('/')}/{depth}")
        assert not reached(source, "photos-captions")
        assert not reached(source, f"elsewhere/{depth or 'x'}")


def test_a_folder_of_two_names_is_one_place(tmp_path, monkeypatch):
    """As a bind mount or a disk that ignores case shows it; the link is hidden from the resolution of names."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "Photos").symlink_to("photos")
    monkeypatch.setattr(os.path, "realpath", os.path.abspath)
    assert reached(tmp_path / "photos", tmp_path / "Photos" / "out")
    assert not reached(tmp_path / "photos" / "in", tmp_path / "Photos" / "out")
