"""Parallel listings: the same keys in the same order as one request after the other, whatever the names."""

import random
import threading
from contextlib import nullcontext
from itertools import count

import pytest

from pipeline.storage import s3_listing
from pipeline.storage.s3_listing import list_keys

PAGE = 10


class Bucket:
    """Answers ListObjectsV2 from a list of keys, `PAGE` at a time."""

    def __init__(self, keys, *, honours_start=True):
        self.keys = sorted(keys)
        self.honours_start = honours_start
        self.requests = []

    def __call__(self, **request):
        prefix, delimiter = request["Prefix"], request.get("Delimiter", "")
        start, token = request.get("StartAfter", ""), request.get("ContinuationToken", "")
        size = request.get("MaxKeys", PAGE)
        self.requests.append({"start": start, "token": token, "delimiter": delimiter, "size": size})
        after = token or (start if self.honours_start else "")
        entries = {}
        for key in self.keys:
            if not key.startswith(prefix):
                continue
            below, _, rest = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            folder = f"{prefix}{below}/" if delimiter and (rest or key.endswith("/")) else None
            # A folder is listed once, as long as one of its keys lies behind the start.
            if key > after and (folder or key) != after:
                entries[folder or key] = folder is not None
        names = sorted(entries)
        page = {
            "Contents": [{"Key": name} for name in names[:size] if not entries[name]],
            "CommonPrefixes": [{"Prefix": name} for name in names[:size] if entries[name]],
            "IsTruncated": len(names) > size,
        }
        return page | ({"NextContinuationToken": names[size - 1]} if page["IsTruncated"] else {})


def listed(bucket, prefix=""):
    return list(list_keys(bucket, prefix, lambda item: item["Key"]))


def names(seed):
    """Keys of some layout: folders of all sizes, files side by side, numbers, folder marks, words."""
    rng = random.Random(seed)
    folders = [f"{rng.choice(('train', 'val', f'{n:03d}', 'x' * n))}/" for n in range(rng.randrange(6))] + [""]
    keys = set()
    for folder in folders:
        digits = rng.choice((1, 3, 5))
        keys |= {f"{folder}{rng.choice(('', 'part-'))}{n:0{digits}d}.tar" for n in range(rng.randrange(60))}
        keys |= {f"{folder}{rng.choice('abcé')}/{n}/file" for n in range(rng.randrange(8))}
        if folder and rng.random() < 0.5:
            keys.add(folder)
    return keys


@pytest.mark.parametrize("honours_start", [True, False])
@pytest.mark.parametrize("seed", range(60))
def test_every_key_is_listed_once_in_order(seed, honours_start):
    keys = {f"top/{name}" for name in names(seed)} | {"before/1", "top2/1"}
    expected = sorted(key for key in keys if key.startswith("top/") and not key.endswith("/"))
    assert listed(Bucket(keys, honours_start=honours_start), "top/") == expected


def test_one_page_is_one_request():
    bucket = Bucket(f"{number}.tar" for number in range(PAGE))
    assert len(listed(bucket)) == PAGE
    assert len(bucket.requests) == 1


@pytest.mark.parametrize(
    "keys",
    [
        [f"{folder:02d}/{number:04d}.tar" for folder in range(20) for number in range(30)],
        [f"{number:05d}.tar" for number in range(900)],
    ],
    ids=["folders", "numbers"],
)
def test_the_rest_is_listed_by_ranges(keys):
    bucket = Bucket(keys)
    assert listed(bucket) == sorted(keys)
    ranges = {request["start"] for request in bucket.requests if request["start"] and not request["delimiter"]}
    assert len(ranges) > 10


def test_folders_of_a_page_each_take_about_a_whole_page_each():
    keys = [f"{folder:02d}/{number}.tar" for folder in range(40) for number in range(PAGE)]
    bucket = Bucket(keys)
    assert listed(bucket) == keys
    whole = [request for request in bucket.requests if request["size"] == PAGE]
    assert len(whole) <= 40 + s3_listing.FOLDER_PAGES


def test_many_small_folders_take_about_as_many_requests_as_pages():
    keys = [f"{folder:04d}/{number}.jpg" for folder in range(2000) for number in range(2)]
    bucket = Bucket(keys)
    assert listed(bucket) == keys
    assert len(bucket.requests) < len(keys) / PAGE + s3_listing.FOLDER_PAGES + 3 * s3_listing.MAX_RANGES


def test_an_error_of_a_range_is_raised():
    bucket = Bucket(f"{folder:02d}/{number:04d}.tar" for folder in range(20) for number in range(30))
    numbers = count()

    def fail(**request):
        if next(numbers) == 12:
            raise OSError("connection reset")
        return bucket(**request)

    with pytest.raises(OSError, match="connection reset"):
        list(list_keys(fail, "", lambda item: item["Key"]))


def test_a_range_of_a_listing_that_is_given_up_sends_no_further_request():
    bucket, stop = Bucket(f"{number:04d}.tar" for number in range(100)), threading.Event()

    def ask(**request):
        stop.set()
        return bucket(**request)

    s3_listing._range(ask, "", ("", None), lambda item: item["Key"], stop)
    assert len(bucket.requests) == 1


@pytest.mark.parametrize("fails", [True, False])
def test_a_listing_that_fails_or_is_closed_gives_up_its_ranges(monkeypatch, fails):
    keys = [f"{folder:02d}/{number:04d}.tar" for folder in range(20) for number in range(30)]
    stops = []

    def noted(ask, prefix, ends, convert, stop):
        stops.append(stop)
        if fails:
            raise OSError("connection reset")
        return []

    monkeypatch.setattr(s3_listing, "_range", noted)
    listing = list_keys(Bucket(keys), "", lambda item: item["Key"])
    with pytest.raises(OSError, match="reset") if fails else nullcontext():
        list(listing)
    assert stops[0].is_set()
