"""Builds outputs with captions without an engine: committed files like those of a run."""

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.ledger.caption_table import count_statuses, to_parquet
from pipeline.ledger.footer import Footer, RunIdentity
from pipeline.ledger.layout import committed_path
from pipeline.ledger.run_record import claim_run
from pipeline.ledger.shard_plan import claim_plan
from pipeline.recipe import Recipe
from pipeline.storage import open_store
from schemas.caption_row import CAPTION_ROW
from schemas.shard import Shard

EMPTY: dict[str, Any] = {
    "tone": None, "length_kind": "none", "options": [], "prompt": "-", "system": "-", "flags": [], "attempts": 1,
    "seed": 0, "image_bytes": 1, "image_format": "JPEG",
}  # fmt: skip


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def caption_row(shard: str, row: int, slot: str, text: str | None, **rest: Any) -> dict[str, Any]:
    """Return a caption row; `source` may be a mapping, the digest is that of the text `image`."""
    image = rest.pop("image", f"{shard}#{row}")
    source = rest.pop("source", {})
    return {
        **EMPTY, "shard": shard, "row": row, "key": f"{row:06d}", "slot": slot, "mode": "descriptive",
        "status": "ok" if text else "rejected", "reason": None if text else "loop", "caption": text,
        "image_sha256": digest(image), "width": 640, "height": 480, "source": json.dumps(source), "recipe": "r", **rest,
    }  # fmt: skip


def write_output(folder: Path, rows: list[dict[str, Any]]) -> str:
    """Write an output with the committed shards of the rows; return its URL."""
    store = open_store(str(folder))
    slots = tuple(dict.fromkeys(row["slot"] for row in rows))
    run = RunIdentity(recipe="r", slots=slots, versions={})
    claim_run(store, Recipe(fields={"slots": list(slots)}), {"job": {}, "slots": list(slots), "versions": {}})
    names = list(dict.fromkeys(row["shard"] for row in rows))
    shards = [Shard(name, f"/nowhere/{name}", 1, "etag") for name in names]
    claim_plan(store, shards)
    for shard in shards:
        own = [row for row in rows if row["shard"] == shard.path]
        table = pa.Table.from_pylist(own, schema=CAPTION_ROW)
        images = len({row["row"] for row in own})
        footer = Footer(
            run=run, shard=shard.path, size=1, etag="etag", num_images=images, attempt=uuid.uuid4().hex,
            statuses=count_statuses(table),
        )  # fmt: skip
        store.put(committed_path(shard.path), to_parquet(table, footer))
    return str(folder)
