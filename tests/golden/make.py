"""Wrote `first/` with the code of commit 5ce5608. Kept as a record and never run again: see README.md.

It imports nothing of the project, so that no later change of the project changes it. At that commit:

    unshare --uts sh -c "hostname golden && .venv/bin/python tests/golden/make.py /srv/golden"
"""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageDraw

MTIME_S = 1_700_000_000
"""Of every file: the etag of a local file is its time of change."""

CHECKSUM_BYTE = 150
"""Of a tar header. In the first header of the damaged shard this byte has its lowest bit flipped."""

TAGS = (
    "1girl, solo, long_hair, lake, mountain, sky, outdoors",
    "2boys, sword, night, city_lights, rain",
    "no_humans, cat, window, plant, still_life, cup, book, table, morning",
    "1girl, 1boy, beach, umbrella, sunset",
)
RATINGS = ("general", "sensitive", "questionable", "explicit")

JOB = {
    "source": {
        "urls": ["source/shards", "source/photos"],
        "images_per_shard": 8,
        "carry": ["*"],
    },
    "output": "output",
    "model": {"id": "fancyfeast/llama-joycaption-alpha-two-hf-llava", "revision": "golden"},
    "captions": [
        {
            "slot": "long",
            "mode": "descriptive",
            "tone": "casual",
            "length": {"words": {"mean": 45, "std": 30, "min": 20, "max": 170}},
            "options": ["lighting", "no-resolution"],
        },
        {
            "slot": "tags",
            "mix": [
                {"weight": 3, "mode": "booru-tags", "length": "short"},
                {"weight": 1, "prompt": "List what is seen.", "system": "You answer in lists."},
            ],
        },
    ],
    "sampling": {"temperature": 0.5, "max_tokens": 256},
    "engine": {
        "kind": "echo",
        "batch_images": 2,
        "batches_in_flight": 1,
        "echo_latency_s": 0.1,
        "max_deaths_per_image": 2,
    },
    "quality": {
        "length_tolerance": 0.5,
        "openings": "remove",
        "repair": {"attempts": 1, "temperature_add": 0.3},
        "tags": {"vocabulary": "vocabulary.txt"},
        # The echo engine's text ends with the seed: half of the texts are rejected, and another attempt has another.
        "rules": [
            {"name": "seed", "pattern": "[0-4]$"},
            {"name": "nine", "action": "flag", "pattern": "9$"},
        ],
    },
    "cluster": {"num_cpus": 2, "object_store_gib": 0.3, "stall_timeout_s": 120, "readers": 1, "grace_s": 20},
    "seed": 7,
}

ENDPOINT = {
    "source": "source/photos",
    "output": "endpoint",
    "model": "fancyfeast/llama-joycaption-beta-one-hf-llava",
    "captions": {"slot": "long", "mode": "descriptive", "samples": 2},
    "engine": {
        "kind": "endpoint",
        "endpoint": {
            "urls": ["http://127.0.0.1:9/v1"],
            "check_layout": False,
            "retries": 0,
            "patience_s": 0.5,
            "timeout_s": 5,
        },
    },
    "cluster": {"num_cpus": 2, "object_store_gib": 0.3, "stall_timeout_s": 60},
}

CORPUS = {
    "captions": [
        {"name": "photos", "outputs": "output", "long": "long", "tags": {"slot": "tags", "modes": ["booru-tags"]}}
    ],
    "tables": [{"name": "posts", "urls": "posts.csv", "join": "key"}],
    "output": "corpus",
    "split": {"validation": 0.2, "seed": 3},
    "formats": ["parquet", "jsonl"],
    "memory_gib": 0.5,
    "render": {"drop_all": 0.2, "drop_some": 0.4, "keep_line": 0.5, "loss_all": 0.6},
    "cluster": {"num_cpus": 1, "object_store_gib": 0.2, "stall_timeout_s": 120},
    "seed": 11,
}

UNFINISHED = "shards/00004.tar"


def picture(number: int, form: str) -> bytes:
    """A small picture that no other is like."""
    colour = ((number * 53) % 256, (number * 97) % 256, (number * 151) % 256)
    image = Image.new("RGB", (32 + number % 5, 24), colour)
    ImageDraw.Draw(image).rectangle((4, 4, 12 + number % 7, 16), fill=tuple(255 - part for part in colour))
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


def about(number: int) -> dict:
    return {"tags": TAGS[number % 4], "rating": RATINGS[number % 4], "score": number * 3 % 40}


def members(numbers: range, form: str) -> list[tuple[str, bytes]]:
    """An image and its JSON for each number."""
    suffix = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[form]
    result = []
    for number in numbers:
        result += [(f"p{number:03d}.{suffix}", picture(number, form))]
        result += [(f"p{number:03d}.json", json.dumps(about(number)).encode())]
    return result


def tar_of(files: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def write_source(root: Path) -> None:
    shards, photos = root / "source/shards", root / "source/photos"
    (photos / "inner").mkdir(parents=True)
    shards.mkdir()
    broken = picture(5, "JPEG")
    odd = [("p005.jpg", broken[: len(broken) // 3]), ("p006.txt", b"a text without its image")]
    (shards / "00000.tar").write_bytes(tar_of([*members(range(5), "JPEG"), *odd]))
    rows = [{"key": f"p{number:03d}", "image": picture(number, "PNG"), **about(number)} for number in range(10, 15)]
    pq.write_table(pa.Table.from_pylist(rows), shards / "00001.parquet")
    with zipfile.ZipFile(shards / "00002.zip", "w") as archive:
        for name, data in members(range(20, 25), "WEBP"):
            archive.writestr(zipfile.ZipInfo(name), data)
    damaged = bytearray(tar_of(members(range(30, 33), "JPEG")))
    damaged[CHECKSUM_BYTE] ^= 1
    (shards / "00003.tar").write_bytes(damaged)
    (root / "source" / UNFINISHED).write_bytes(tar_of(members(range(40, 52), "JPEG")))
    for number in range(60, 67):
        folder = photos / "inner" if number % 2 else photos
        (folder / f"p{number:03d}.png").write_bytes(picture(number, "PNG"))
        (folder / f"p{number:03d}.txt").write_text(f"photo {number}, taken outdoors")
    (photos / "p067.jpg").write_bytes(b"<html>not an image</html>")
    with (root / "posts.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["key", "artist", "fav_count", "created_at"])
        for number in range(70):
            table.writerow([f"p{number:03d}", f"artist_{number % 3}", number * 7 % 50, 2008 + number % 15])
    (root / "vocabulary.txt").write_text("mean colour 0 0 0\nsolo\nlake\n")
    for name, config in (("job", JOB), ("endpoint", ENDPOINT), ("corpus", CORPUS)):
        (root / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def set_times(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (MTIME_S, MTIME_S))


def start(root: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen([sys.executable, "-m", "jobs", *words], cwd=root, env=environment, text=True)


def run(root: Path, *words: str, code: int) -> None:
    result = start(root, *words).wait(600)
    if result != code:
        raise SystemExit(f"{words}: exit code {result}, not {code}")


def wait_until(seen: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not seen():
        if process.poll() is not None:
            raise SystemExit(f"the run ended (exit code {process.returncode}) too early; run again")
        time.sleep(0.002)


def kill_tree(process: subprocess.Popen[str]) -> None:
    top = psutil.Process(process.pid)
    for item in [*top.children(recursive=True), top]:
        try:
            item.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()
    time.sleep(2)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []


def write_captions(root: Path) -> None:
    """A stopped run, a killed one, and a retry that ends; then an output whose only run failed."""
    captions, staged = root / "output/captions", root / "output/staging" / UNFINISHED
    process = start(root, "caption", "job.yaml")
    wait_until(lambda: len(files(captions)) >= 1, process)
    process.send_signal(signal.SIGTERM)
    if process.wait(120) != 4:
        raise SystemExit("the first run was to be stopped; run again")
    process = start(root, "caption", "job.yaml", "--set", "engine.echo_latency_s=0.5")
    wait_until(lambda: len(files(captions)) == 4 and len(files(staged)) >= 3, process)
    kill_tree(process)
    if len(files(captions)) != 4 or len(files(root / "output/quarantine")) != 1 or not files(staged):
        raise SystemExit("the second run was to be killed in the middle of its last shard; run again")
    run(root, "retry", "output", "--rows", "failed", code=3)
    run(root, "caption", "endpoint.yaml", code=1)
    run(root, "export", "output", "export", "--to", "jsonl", "--field", "mode", code=3)


def write_corpora(root: Path) -> None:
    run(root, "corpus", "corpus.yaml", code=0)
    parts = root / "corpus-killed/parts"
    process = start(root, "corpus", "corpus.yaml", "--set", "output=corpus-killed")
    wait_until(lambda: len(files(parts)) >= 1, process)
    kill_tree(process)
    if (root / "corpus-killed/README.md").exists() or not 1 <= len(files(parts)) < len(files(root / "corpus/parts")):
        raise SystemExit("the corpus was to be killed between its first part and its last; run again")


def main() -> None:
    root = Path(sys.argv[1])
    root.mkdir(parents=True)
    write_source(root)
    set_times(root)
    write_captions(root)
    set_times(root)
    write_corpora(root)
    set_times(root)
    shutil.rmtree(root / "logs")
    for folder in root.rglob(".tmp"):
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
