"""A sample data set whose every row carries the truth about its own picture.

Half the rows are WebDataset tar shards, half Parquet shards as Hugging Face writes them,
with the file formats mixed as they are in the wild. The bytes depend on the arguments and
the versions of Pillow and pyarrow only, so a test may compare two runs.
"""

import io
import json
import random
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.standin.draw_picture import encode, random_size, render
from pipeline.standin.world import Scene, Special, sample_scene

EXTENSIONS = ("jpg", "png", "webp")
MIN_SIDE_PX = 160
MAX_SIDE_PX = 512
# As it is in the world: one scene in ten is of a kind that was never trained.
HELD_OUT_EVERY = 10

PARQUET_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False, metadata={"doc": "unique in the data set"}),
        pa.field(
            "image",
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            nullable=False,
            metadata={"doc": "the file's bytes, and its name: key and extension"},
        ),
        pa.field("scene", pa.string(), nullable=False, metadata={"doc": "what was drawn, JSON"}),
        pa.field("tags", pa.string(), nullable=False, metadata={"doc": "comma-separated"}),
    ]
)


@dataclass(frozen=True, slots=True)
class _Sample:
    key: str
    extension: str
    data: bytes
    scene: Scene

    @property
    def truth(self) -> str:
        return json.dumps(asdict(self.scene), sort_keys=True)

    @property
    def tags(self) -> str:
        if self.scene.special is not Special.NONE:
            return f"{self.scene.special}"
        scene = self.scene
        return f"{scene.color}, {scene.shape}, {scene.background} background, {scene.texture}"


def _draw(index: int, seed: int, special_share: float) -> _Sample:
    """Return one sample; it does not depend on how many others there are."""
    rng = random.Random(f"{seed}/{index}")
    held_out = index % HELD_OUT_EVERY == 0
    scene = sample_scene(rng, held_out=held_out, special_share=special_share)
    image = render(scene, rng.getrandbits(40), random_size(rng, MIN_SIDE_PX, MAX_SIDE_PX))
    extension = EXTENSIONS[index % len(EXTENSIONS)]
    return _Sample(f"{index:06d}", extension, encode(image, extension), scene)


def _write_tar(path: Path, samples: Sequence[_Sample]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            members = {
                sample.extension: sample.data,
                "json": sample.truth.encode(),
                "txt": sample.tags.encode(),
            }
            for extension, data in members.items():
                # TarInfo's own defaults are mtime 0, no owner, mode 0644.
                info = tarfile.TarInfo(f"{sample.key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _write_parquet(path: Path, samples: Sequence[_Sample]) -> None:
    rows = [
        {
            "key": sample.key,
            "image": {"bytes": sample.data, "path": f"{sample.key}.{sample.extension}"},
            "scene": sample.truth,
            "tags": sample.tags,
        }
        for sample in samples
    ]
    pq.write_table(pa.Table.from_pylist(rows, PARQUET_SCHEMA), path)


def draw_dataset(
    folder: Path,
    *,
    num_images: int,
    seed: int,
    shard_rows: int,
    special_share: float = 0.0,
) -> dict[str, Scene]:
    """Write `tar/00000.tar`, ... and `parquet/00000.parquet`, ... into a folder.

    Args:
        folder: Made if absent; files of the same names are replaced.
        num_images: In both kinds of shard together; the tar shards hold the larger half.
        seed: Image i of a seed is the same whatever the other arguments but the share.
        shard_rows: Rows in every shard but the last of its kind, at least 1.
        special_share: Share of pictures made to make a captioner misbehave, in [0, 1].

    Returns:
        What was drawn, by key, in the order of the keys; the tar shards come first.

    Raises:
        ValueError: `shard_rows` is not positive.
    """
    if shard_rows < 1:
        raise ValueError(f"shard_rows={shard_rows}, not at least 1")
    samples = [_draw(i, seed, special_share) for i in range(num_images)]
    half = (num_images + 1) // 2
    for kind, part, write in (
        ("tar", samples[:half], _write_tar),
        ("parquet", samples[half:], _write_parquet),
    ):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for shard, start in enumerate(range(0, len(part), shard_rows)):
            path = folder / kind / f"{shard:05d}.{kind}"
            write(path, part[start : start + shard_rows])
    return {sample.key: sample.scene for sample in samples}
