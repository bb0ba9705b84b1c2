"""Sources for an index, and an index run without Ray."""

import hashlib
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.config.index_config import IndexConfig
from pipeline.flow import prepared_index
from pipeline.flow.prepared_index import PreparedIndex, prepare_index
from pipeline.ledger.index_files import commit_rows, existing_rows
from pipeline.ledger.quarantine import Quarantined, put_quarantine
from pipeline.stages.index_rows import UnreadableShard, index_shard
from pipeline.storage import open_store
from schemas.index import Hash
from tests.ledger.faults import dying, sigkill
from tests.odd_images import encode, in_mode, picture, png, valid_files
from tests.readers.shards import tar_of
from tests.selection.world import write_parquet, write_tar

BOTH = (Hash.SHA256, Hash.PHASH)
NUM_ROWS = 12
"""Of each shard of `write_source`."""


def write_source(folder: Path) -> Path:
    """A tar and a Parquet file of 12 images each; row 5 of the tar is damaged."""
    write_tar(folder, "a.tar", damaged=(5,))
    write_parquet(folder, "b.parquet")
    return folder


def config_of(folder: Path, output: object, hashes=(Hash.SHA256,), **source) -> IndexConfig:
    return IndexConfig(source={"urls": [str(folder)], **source}, output=str(output), hashes=hashes)


def index_all(config: IndexConfig, *, extend: bool = False) -> PreparedIndex:
    """What `joyfleet index` does without Ray."""
    prepared = prepare_index(config, extend=extend)
    fingerprint = prepared.recipe.fingerprint
    for shard in prepared.todo:
        attempt = uuid.uuid4().hex
        if existing_rows(prepared.store, fingerprint, shard, attempt) is not None:
            continue
        read = index_shard(prepared.spec, shard)
        if isinstance(read, UnreadableShard):
            record = Quarantined(shard=shard.path, message=read.message, attempts=1, time="now", versions={})
            put_quarantine(prepared.store, record)
        else:
            commit_rows(prepared.store, fingerprint, shard, read.table, attempt)
    return prepared


def index_and_die(folder: str, output: str, num: int, when: str, die=sigkill) -> int:
    """Index with a store at whose `num`-th call this process dies; return the number of calls if it does not."""
    stores = []

    def open_dying(url: str):
        stores.append(dying(open_store(url), num, when, die))
        return stores[-1]

    prepared_index.open_store = open_dying
    try:
        index_all(config_of(Path(folder), output))
    finally:
        prepared_index.open_store = open_store
    return stores[0].num_calls


def rows_of(output: object) -> list[dict]:
    """All rows of an index, by identity, as any reader of Parquet finds them."""
    tables = [pq.read_table(file) for file in sorted(Path(str(output), "index").rglob("*.parquet"))]
    rows = pa.concat_tables(tables).to_pylist() if tables else []
    return sorted(rows, key=lambda row: (row["shard"], row["row"]))


def identities(output: object) -> list[tuple[str, int]]:
    return [(row["shard"], row["row"]) for row in rows_of(output)]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hostile_images() -> dict[str, bytes]:
    """Images by name that bring trouble; those whose name begins with `good` decode."""
    files = valid_files()
    jpeg = encode(picture(), "JPEG")
    return {
        "bad-empty": b"",
        "bad-text": b"this is not an image",
        "bad-html": b"<!doctype html><html></html>",
        "bad-truncated-header": jpeg[:30],
        "bad-truncated-pixels": jpeg[: len(jpeg) * 4 // 5],
        "bad-bomb": png(60_000, 60_000, 8, 6, rows=4),
        "good-grey-16": encode(in_mode("I;16"), "PNG"),
        "good-animated-gif": files["GIF-frames"],
        "good-animated-webp": files["WEBP-frames"],
        "good-cmyk": files["JPEG-CMYK"],
        "good-transparent": files["PNG-RGBA"],
        "good-one-pixel": encode(Image.new("RGB", (1, 1)), "PNG"),
    }


def write_hostile(folder: Path) -> list[str]:
    """A tar of `hostile_images`, and of a sample without an image; return the keys in order."""
    images = hostile_images()
    files = [(f"{name}.jpg", data) for name, data in images.items()] + [("no-image.txt", b"a text")]
    folder.mkdir(exist_ok=True)
    (folder / "hostile.tar").write_bytes(tar_of(files))
    return [*images, "no-image"]
