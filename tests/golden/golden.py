"""The golden output with the verbs and config keys of today, and a copy of it to work on.

A release that renames a verb or a config key changes the names here, and nothing else of these tests. `first/` keeps
the old keys: an old `run.json` must be read as what it meant.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

FIRST = Path(__file__).with_name("first")
MTIME_S = 1_700_000_000
"""Of every file when the first edition read it: the etag of a local file is its modification time."""

OUTPUT, ENDPOINT, EXPORT, CORPUS, KILLED_CORPUS = "output", "endpoint", "export", "corpus", "corpus-killed"

# The verbs, with the words that follow them.
CAPTION = ("caption",)
STATUS = ("status",)
PLAN = ("plan",)
VERIFY = ("verify",)
QUALITY = ("quality",)
REPORT = ("report",)
CLEAN = ("clean",)
EXPORT_TO = ("export",)
MAKE_CORPUS = ("corpus",)
LEAVE_QUARANTINE = ("unquarantine",)
RETRY_ROWS = ("retry",)
GOLDEN_EXPORT = ("--to", "jsonl", "--field", "mode")
"""Options of the export in `export/`."""

TEMPERATURE = "sampling.temperature"
GEN_META = "render.gen_meta"

CARRY = "metadata_fields"
ECHO_LATENCY = "echo_latency_s"
MAX_DEATHS = "max_crashes_per_image"
PATIENCE = "reconnect_timeout_s"
REPAIR = "retry"
READERS, GRACE = "max_concurrent_reads", "drain_timeout_s"
DROP_ALL, DROP_SOME = "drop_all_probability", "drop_some_probability"
KEEP_LINE, LOSS_ALL = "keep_line_probability", "loss_on_all_probability"

OWN_RAY = {"num_cpus": 2, "object_store_gib": 0.3}

CAPTION_JOB: dict[str, Any] = {
    "source": {"urls": ["source/shards", "source/photos"], "images_per_shard": 8, CARRY: ["*"]},
    "output": OUTPUT,
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
    "engine": {"kind": "echo", "batch_images": 2, "batches_in_flight": 1, ECHO_LATENCY: 0.1, MAX_DEATHS: 2},
    "quality": {
        "length_tolerance": 0.5,
        "openings": "remove",
        REPAIR: {"attempts": 1, "temperature_add": 0.3},
        "tags": {"vocabulary": "vocabulary.txt"},
        "rules": [{"name": "seed", "pattern": "[0-4]$"}, {"name": "nine", "action": "flag", "pattern": "9$"}],
    },
    "cluster": {**OWN_RAY, "stall_timeout_s": 120, READERS: 1, GRACE: 20},
    "seed": 7,
}

ENDPOINT_JOB: dict[str, Any] = {
    "source": "source/photos",
    "output": ENDPOINT,
    "model": "fancyfeast/llama-joycaption-beta-one-hf-llava",
    "captions": {"slot": "long", "mode": "descriptive", "samples": 2},
    "engine": {
        "kind": "endpoint",
        "endpoint": {
            "urls": ["http://127.0.0.1:9/v1"],
            "check_layout": False,
            "retries": 0,
            PATIENCE: 0.5,
            "timeout_s": 5,
        },
    },
    "cluster": {**OWN_RAY, "stall_timeout_s": 60},
}

CORPUS_JOB: dict[str, Any] = {
    "captions": [
        {"name": "photos", "outputs": OUTPUT, "long": "long", "tags": {"slot": "tags", "modes": ["booru-tags"]}}
    ],
    "tables": [{"name": "posts", "urls": "posts.csv", "join": "key"}],
    "output": CORPUS,
    "split": {"validation": 0.2, "seed": 3},
    "formats": ["parquet", "jsonl"],
    "memory_gib": 0.5,
    "render": {DROP_ALL: 0.2, DROP_SOME: 0.4, KEEP_LINE: 0.5, LOSS_ALL: 0.6},
    "cluster": {**OWN_RAY, "num_cpus": 1, "stall_timeout_s": 120},
    "seed": 11,
}

DAMAGED = "source/shards/00003.tar"
CHECKSUM_BYTE = 150
UNFINISHED = "shards/00004.tar"


def copy_of(edition: Path, folder: Path) -> Path:
    """Copy an edition to `folder`, with the modification times that its plans hold and the jobs in today's keys."""
    shutil.copytree(edition, folder)
    for name, job in (("job", CAPTION_JOB), ("endpoint", ENDPOINT_JOB), ("corpus", CORPUS_JOB)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(job))
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (MTIME_S, MTIME_S))
    return folder


def repair(folder: Path) -> None:
    """Make the damaged shard what it should have been; its size and time stay, so its etag does."""
    shard = folder / DAMAGED
    data = bytearray(shard.read_bytes())
    data[CHECKSUM_BYTE] ^= 1
    shard.write_bytes(data)
    os.utime(shard, (MTIME_S, MTIME_S))


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
