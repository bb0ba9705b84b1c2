"""CPU of decoding a JPEG exactly and with `images.decode: fast`, how far the pixels are apart, and the reader's rest.

`python -m tests.benchmarks.decode [--rounds R] [--photos FOLDER] [--captions N]`. Pictures of 12 and 24 million pixels
are drawn with the spectrum of photographs (1/f, with edges), at quality 92, with chroma subsampling and without, and
progressive; --photos also takes real ones, as they are. Other decoders are measured beside Pillow where they are
installed. A second table has the share of a reader's CPU that is not decoding, at 512 px, and what a mapped file would
change. --captions asks the stand-in, greedily, for captions of the same pictures in both ways.
"""

import argparse
import asyncio
import importlib
import io
import mmap
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config import DecodeMode, ImagesConfig
from pipeline.images import decode, decode_or_exit
from pipeline.readers import list_shards
from pipeline.stages import read_batches
from tests.benchmarks.report import FOLDER, median, publish

SIDE_PX = 384
"""Of JoyCaption."""
LARGE = ((4032, 3024), (6000, 4000))
EXACT, FAST = ImagesConfig(), ImagesConfig(decode=DecodeMode.FAST)

Decoder = Callable[[bytes], np.ndarray]


def drawn(width: int, height: int, seed: int) -> Image.Image:
    """Noise of the spectrum 1/f in each channel, crossed by a few hard edges: what natural images are made of."""
    rng = np.random.default_rng(seed)
    layers = np.zeros((height, width, 3), np.float32)
    side = 4
    while side < max(width, height):
        coarse = rng.normal(0, 255 * 4 / side**0.9, (side, side, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(coarse[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            layers[..., channel] += np.asarray(layer)
        side *= 4
    for _ in range(12):
        left, top = int(rng.integers(width)), int(rng.integers(height))
        layers[top : top + height // 5, left : left + width // 7] += rng.normal(0, 60, 3).astype(np.float32)
    return Image.fromarray(np.clip(layers + 128, 0, 255).astype(np.uint8))


def jpegs(photos: Path | None) -> Iterator[tuple[str, bytes]]:
    for number, (width, height) in enumerate(LARGE):
        picture = drawn(width, height, number)
        for name, options in (
            ("4:4:4", {"subsampling": "4:4:4"}),
            ("4:2:0", {"subsampling": "4:2:0"}),
            ("4:2:0 progressive", {"subsampling": "4:2:0", "progressive": True}),
        ):
            sink = io.BytesIO()
            picture.save(sink, "JPEG", quality=92, **options)
            yield f"drawn, {width * height / 1e6:.0f} Mpx {name}", sink.getvalue()
    for file in sorted(photos.iterdir()) if photos else ():
        if file.suffix.lower() in (".jpg", ".jpeg"):
            yield file.name, file.read_bytes()


def cpu_ms(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        times.append(1000 * (time.process_time() - began))
    return median(times)


def deviation(exact: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Mean and maximum in levels, and the PSNR in dB."""
    levels = np.abs(exact.astype(float) - other)
    error = float((levels**2).mean())
    return {
        "mean": float(levels.mean()),
        "max": float(levels.max()),
        "psnr_db": 10 * float(np.log10(255**2 / error)) if error else 99.0,
    }


def resized(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS))


def others() -> dict[str, Decoder]:
    """Decoders that are not JoyFleet's, each to the size of the model."""
    result: dict[str, Decoder] = {}
    for name, make in (("pyvips", _pyvips), ("turbojpeg", _turbojpeg), ("cv2", _cv2)):
        try:
            result[name] = make(importlib.import_module(name))
        except (ImportError, OSError, RuntimeError) as err:
            print(f"{name}: not measured ({err})")
    return result


def _pyvips(module: Any) -> Decoder:
    def work(data: bytes) -> np.ndarray:
        image = module.Image.thumbnail_buffer(data, SIDE_PX, height=SIDE_PX, size="force", no_rotate=False)
        return image.colourspace("srgb").numpy()

    return work


def _turbojpeg(module: Any) -> Decoder:
    turbo = module.TurboJPEG()

    def work(data: bytes) -> np.ndarray:
        width, height, *_ = turbo.decode_header(data)
        # The eighths that leave at least twice the side: 3/8 and 5/8 are among them, which Pillow has not.
        factor = next(n for n in range(1, 9) if min(width, height) * n >= 8 * 2 * SIDE_PX)
        return resized(turbo.decode(data, pixel_format=module.TJPF_RGB, scaling_factor=(factor, 8)))

    return work


def _cv2(module: Any) -> Decoder:
    def work(data: bytes) -> np.ndarray:
        width, height = Image.open(io.BytesIO(data)).size
        factor = max(n for n in (1, 2, 4, 8) if min(width, height) >= n * 2 * SIDE_PX)
        flag = {1: module.IMREAD_COLOR}.get(factor) or getattr(module, f"IMREAD_REDUCED_COLOR_{factor}")
        return resized(module.imdecode(np.frombuffer(data, np.uint8), flag)[..., ::-1])

    return work


def decoding(photos: Path | None, rounds: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    size, beside = (SIDE_PX, SIDE_PX), others()
    for name, data in jpegs(photos):
        exact = decode(data, EXACT, size).pixels
        exact_ms, fast_ms = (cpu_ms(lambda: decode(data, config, size), rounds) for config in (EXACT, FAST))  # noqa: B023 - called at once
        row = {"jpeg": name, "mb": len(data) / 1e6, "exact_ms": exact_ms, "fast_ms": fast_ms}
        row |= {"ratio": exact_ms / fast_ms, **deviation(exact, decode(data, FAST, size).pixels)}
        for other, work in beside.items():
            row |= {f"{other}_ms": cpu_ms(lambda: work(data), rounds)}  # noqa: B023 - called at once
            row |= {f"{other}_mean": deviation(exact, work(data))["mean"]}
        rows.append(row)
        print(row, flush=True)
    return rows


def reading(folder: Path, num_images: int) -> dict[str, float]:
    """CPU ms an image of reading a tar of JPEGs of 512 px into batches, and what of it is not decoding."""
    from pipeline.models import FixedSize
    from pipeline.storage import open_store
    from tests.benchmarks.overhead import draw_shards, echo_job
    from tests.s3_server import make_bucket, s3_server

    draw_shards(folder, num_images)
    job = echo_job(folder, folder / "out", [])
    spec = read_batches.ReadSpec(
        source=job.source, images=job.images, geometry=FixedSize(SIDE_PX, SIDE_PX), batch_images=64
    )
    local = _reader_cost(spec)
    with s3_server() as environment:
        os.environ.update(environment)
        make_bucket(environment["AWS_ENDPOINT_URL"], "out")
        open_store("s3://out/photos").put("00000.tar", (folder / "00000.tar").read_bytes())
        remote = _reader_cost(replace(spec, source=job.source.model_copy(update={"urls": ("s3://out/photos",)})))
    names = {"read_512px": local, "read_512px_s3": remote}
    costs = {f"{name}_cpu_ms": cpu for name, (cpu, _) in names.items()}
    shares = {f"{name}_not_decoding": share for name, (_, share) in names.items()}
    return {**costs, **shares, **_mapped(folder / "00000.tar")}


def _reader_cost(spec: read_batches.ReadSpec) -> tuple[float, float]:
    """CPU ms an image of reading the only shard, and the share of it that is not decoding; the best of three."""
    [shard] = list_shards(spec.source)
    costs = []
    with pytest.MonkeyPatch.context() as patch:
        for _ in range(3):
            decoding = CpuOf(decode_or_exit)
            patch.setattr(read_batches, "decode_or_exit", decoding)
            began = time.process_time()
            num = sum(len(batch["images"][0]) for batch in read_batches.read_shard(spec, shard, []))
            cpu_s = time.process_time() - began
            costs.append((1000 * cpu_s / num, 1 - decoding.seconds / cpu_s))
    return min(costs)


class CpuOf:
    """A function, and the CPU seconds of its calls: `ReadTimings` has their wall time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.seconds = 0.0

    def __call__(self, *arguments: Any) -> Any:
        began = time.process_time()
        result = self._function(*arguments)
        self.seconds += time.process_time() - began
        return result


def _mapped(tar: Path) -> dict[str, float]:
    """CPU ms to get 1,000 files of 100 kB out of a local tar, by `pread` and from a mapping."""
    size = tar.stat().st_size
    offsets = [random.Random(1).randrange(size - 100_000) for _ in range(1000)]
    with tar.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)

        def touched() -> None:
            for offset in offsets:
                np.frombuffer(view[offset : offset + 100_000], np.uint8)[::4096].sum()

        read = cpu_ms(lambda: [os.pread(file.fileno(), 100_000, offset) for offset in offsets], 5)
        result = {"pread_ms_per_1000": read, "mmap_ms_per_1000": cpu_ms(touched, 5)}
        view.release()
    return result


async def captioned(num: int) -> dict[str, Any]:
    """Greedy captions of the stand-in for large pictures, decoded in both ways."""
    from pipeline.engines import EngineRequest
    from pipeline.standin.draw_picture import encode, render
    from pipeline.standin.world import sample_scene
    from tests.benchmarks.slots import Watched, started
    from tests.standin.check_caption import parse_caption, visible

    engine, rng = started(Watched()), random.Random(7)
    side = engine._tokens.geometry.width_px
    scenes = [sample_scene(rng, held_out=True) for _ in range(num)]
    files = [encode(render(scene, rng.getrandbits(40), (1600, 1200)), "jpg") for scene in scenes]
    texts: dict[str, list[str]] = {}
    for name, config in (("exact", EXACT), ("fast", FAST)):
        pixels = [decode(data, config, (side, side)).pixels for data in files]
        requests = [
            EngineRequest(
                id=f"{name}{number}",
                pixels=item,
                image_id=f"{name}{number}",
                system="You are a helpful image captioner.",
                prompt="Write a long descriptive caption for this image in a formal tone.",
                seed=0,
                temperature=0.0,
            )
            for number, item in enumerate(pixels)
        ]
        answers = await asyncio.gather(*(engine.answer(request) for request in requests))
        texts[name] = [answer.text or "" for answer in answers]
    engine.close()
    facts = ("color", "shape", "background")
    right = {
        name: sum(
            getattr(visible(scene), fact) == getattr(parse_caption(text), fact)
            for scene, text in zip(scenes, of, strict=True)
            for fact in facts
        )
        / (num * len(facts))
        for name, of in texts.items()
    }
    equal = sum(one == other for one, other in zip(texts["exact"], texts["fast"], strict=True))
    return {"captions": num, "equal texts": equal, "facts right, exact and fast": [right["exact"], right["fast"]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs")
    parser.add_argument("--captions", type=int, default=0, help="pictures to caption in both ways (starts vLLM)")
    parser.add_argument("--json", type=Path, default=FOLDER / "decode.json")
    args = parser.parse_args()
    rows = decoding(args.photos, args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        summary: dict[str, Any] = dict(reading(Path(folder), 500))
    if args.captions:
        summary |= asyncio.run(captioned(args.captions))
    publish(args, rows, summary)


if __name__ == "__main__":
    main()
