"""The data of a chaos run and the output as seen from outside, on a disk or on S3."""

import contextlib
import gzip
import io
import os
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.ledger.layout import committed_path, shard_of_fragment
from pipeline.storage import Store, open_store
from tests.chaos.plan import ChaosPlan, Place
from tests.outputs import MARK, identities, marked
from tests.readers.shards import tar_of

BAD_EVERY = 17
"""One image in so many is damaged: its rows are failed ones."""

DISK = "24m"


@dataclass
class World:
    """Source and output of one chaos run."""

    plan: ChaosPlan
    folder: Path
    source: Store
    output: Store
    survivors: set[tuple[str, int, str]] = field(default_factory=set)
    """Rows of earlier attempts that the committed output must have."""
    rows_corrupted: int = 0
    corrupted: set[str] = field(default_factory=set)
    """Fragments that were."""
    committed: dict[str, bytes] = field(default_factory=dict)
    """Committed files as first seen."""
    added: list[tuple[str, int]] = field(default_factory=list)
    """Shards that the source has gained since: file name and images of each."""

    amended: dict[tuple[str, int, str], str] = field(default_factory=dict)
    """Texts that a person gave to rows."""

    @property
    def shards(self) -> tuple[tuple[str, int], ...]:
        return (*self.plan.shards, *self.added)

    @property
    def num_sound(self) -> int:
        """Images that reach the engine."""
        return sum(row % BAD_EVERY != BAD_EVERY - 1 for _, images in self.shards for row in range(images))

    def expected(self) -> Counter:
        return Counter(
            (shard, row, slot) for shard, images in self.shards for row in range(images) for slot in self.plan.slots
        )

    def fragments(self) -> list[str]:
        return sorted(entry.path for entry in self.output.list("staging") if shard_of_fragment(entry.path))

    def mark_fragments(self) -> None:
        """Mark what is staged, so that it can be told from what is made again."""
        for path in set(self.fragments()) - self.corrupted:
            data, result = marked(self.output.get(path))
            self.output.put(path, data)
            self.survivors |= result

    def corrupt_fragment(self, rng: random.Random) -> bool:
        """Cut a fragment or flip bits in it; its rows may be lost, no others."""
        paths = sorted(set(self.fragments()) - self.corrupted)
        if not paths:
            return False
        path = rng.choice(paths)
        data = bytearray(self.output.get(path))
        _, result = marked(bytes(data))
        if rng.random() < 0.5:
            data = data[: rng.randrange(len(data))]
        else:
            for _ in range(5):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        self.output.put(path, bytes(data))
        self.survivors -= result
        self.rows_corrupted += len(result)
        self.corrupted.add(path)
        return True

    def add_shard(self, rng: random.Random) -> None:
        """Put a new shard into the source; the next run adds it to the plan."""
        name, num_images = f"added/{len(self.added):05d}.{rng.choice(('tar', 'parquet'))}", rng.choice((1, 30, 60))
        self.source.put(name, _shard(name, num_images, np.random.default_rng(self.plan.seed)))
        self.added.append((name, num_images))

    def draw_edit(self, rng: random.Random) -> str | None:
        """Write an edits file for one committed row, and expect its effect; None if no row is committed."""
        paths = sorted(entry.path for entry in self.output.list("captions"))
        rows = self._rows(rng.choice(paths)) if paths else []
        if not rows:
            return None
        row = rng.choice(rows)
        identity, text = (row["shard"], row["row"], row["slot"]), f"edit {len(self.amended)} of a person"
        edits = self.folder / "edits.csv"
        edits.write_text(f"shard,row,slot,caption,editor\n{','.join(map(str, identity))},{text},ada\n")
        self.amended[identity] = text
        self.survivors.discard(identity)
        self.committed.pop(committed_path(row["shard"]), None)
        return str(edits)

    def not_amended(self) -> dict[tuple[str, int, str], str]:
        """Edits that the output does not have."""
        rows = [row for shard in {shard for shard, _, _ in self.amended} for row in self._rows(committed_path(shard))]
        texts = {(row["shard"], row["row"], row["slot"]): row["caption"] for row in rows if row["edited_by"] == "ada"}
        return {identity: text for identity, text in self.amended.items() if texts.get(identity) != text}

    def _rows(self, path: str) -> list[dict]:
        return pq.read_table(pa.BufferReader(self.output.get(path))).to_pylist()

    @contextlib.contextmanager
    def changed_shard(self, rng: random.Random) -> Iterator[None]:
        """A shard that is not what it was, until the context ends."""
        name = rng.choice([name for name, _ in self.plan.shards])
        before = self.source.get(name)
        file = self.folder / "in" / name
        times = (file.stat().st_atime_ns, file.stat().st_mtime_ns) if self.plan.place is not Place.S3 else None
        self.source.put(name, before[:-1] + bytes([before[-1] ^ 1]))
        try:
            yield
        finally:
            self.source.put(name, before)
            if times:
                os.utime(file, ns=times)

    def changed_commits(self) -> list[str]:
        """Committed files that are not what they were when first seen."""
        now = {entry.path: self.output.get(entry.path) for entry in self.output.list("captions")}
        wrong = [path for path, data in self.committed.items() if now.get(path) != data]
        self.committed = now | self.committed
        return wrong

    def lost_and_double(self) -> tuple[Counter, Counter, set[tuple[str, int, str]]]:
        """Identities that are missing, those that are there too often, and survivors that are not there as marked."""
        rows = [row for entry in self.output.list("captions") for row in self._rows(entry.path)]
        result = identities(rows)
        kept = {
            (row["shard"], row["row"], row["slot"])
            for row in rows
            if row["caption"] and row["caption"].startswith(MARK)
        }
        return self.expected() - result, result - self.expected(), self.survivors - kept


@contextlib.contextmanager
def build_world(plan: ChaosPlan, folder: Path) -> Iterator[World]:
    """Draw the data set and open the output; a small disk is unmounted afterwards."""
    with contextlib.ExitStack() as stack:
        (folder / "in").mkdir()
        source, output = str(folder / "in"), str(folder / "out")
        if plan.place is Place.S3:
            source, output = f"s3://out/chaos-{plan.seed}/in", f"s3://out/chaos-{plan.seed}/out"
        elif plan.place is Place.SMALL_DISK:
            stack.enter_context(_small_disk(folder / "disk"))
            output = str(folder / "disk" / "out")
        world = World(plan=plan, folder=folder, source=open_store(source), output=open_store(output))
        rng = np.random.default_rng(plan.seed)
        for name, num_images in plan.shards:
            world.source.put(name, _shard(name, num_images, rng))
        yield world


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def can_mount(folder: Path) -> bool:
    """Whether this machine lets us have a disk that is full soon."""
    try:
        with _small_disk(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def _shard(name: str, num_images: int, rng: np.random.Generator) -> bytes:
    images = [_image(row, rng) for row in range(num_images)]
    if name.endswith(".parquet"):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"key": [f"k{row}" for row in range(num_images)], "jpg": images}), sink)
        return sink.getvalue().to_pybytes()
    data = tar_of((f"k{row}.jpg", image) for row, image in enumerate(images))
    return gzip.compress(data) if name.endswith(".gz") else data


def _image(row: int, rng: np.random.Generator) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(out, "JPEG")
    return out.getvalue()[:200] if row % BAD_EVERY == BAD_EVERY - 1 else out.getvalue()
