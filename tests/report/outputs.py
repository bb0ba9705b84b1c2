"""A small output with everything that a page must cope with: committed rows over a source of real pictures."""

import io
import json
import os
import tarfile

import numpy as np
from PIL import Image

from pipeline.config import parse_job
from pipeline.ledger.run_record import claim_run
from pipeline.ledger.shard_plan import claim_plan
from pipeline.readers import list_shards
from pipeline.recipe import Recipe
from pipeline.storage import open_store
from tests.report.test_quality import commit, row

EVIL = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"


def draw_source(folder, shards=2, rows=8):
    """Tars of small pictures; returns their bytes by shard and row."""
    folder.mkdir()
    drawn = {}
    for shard in range(shards):
        name = f"{shard}.tar"
        with tarfile.open(folder / name, "w") as tar:
            for number in range(rows):
                out = io.BytesIO()
                pixels = np.full((30, 60, 3), (40 * shard, 9 * number, 200), np.uint8)
                Image.fromarray(pixels).save(out, "PNG")
                drawn[name, number] = out.getvalue()
                for extension, data in (("png", out.getvalue()), ("txt", b"a text")):
                    info = tarfile.TarInfo(f"{number:03d}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return drawn


def picture_of(data):
    import hashlib

    return {
        "image_sha256": hashlib.sha256(data).hexdigest(), "image_bytes": len(data), "image_format": "PNG",
        "width": 60, "height": 30, "prompt_tokens": 90, "caption_tokens": 12,
    }  # fmt: skip


def write_output(folder):
    """Return the URL of an output whose every text is hostile to HTML."""
    drawn = draw_source(folder / "in")
    job = parse_job(
        {
            "source": str(folder / "in"), "output": str(folder / "out"), "model": "standin",
            "captions": {"slot": "long", "mode": "descriptive", "length": 40},
        }
    )  # fmt: skip
    store = open_store(job.output)
    about = {"job": json.loads(job.model_dump_json()), "slots": ["long"], "versions": {"evil": EVIL}}
    claim_run(store, Recipe(fields={"model": "standin"}), about)
    claim_plan(store, list_shards(job.source))
    for shard, first_s in (("0.tar", 1_000_000), ("1.tar", 1_000_100)):
        commit(store, [_row(shard, number, drawn[shard, number]) for number in range(8)], shard)
        path = folder / "out" / "captions" / f"{shard}.parquet"
        os.utime(path, (first_s, first_s))
    return job.output


def _row(shard, number, data):
    asked = {"length_kind": "words", "length_words": 40, "slot": "long", "key": EVIL, "prompt": f"Describe {EVIL}"}
    kinds = {
        1: {"status": "rejected", "reason": "loop", "rejected_text": f"no no no {EVIL}", "message": EVIL},
        2: {"status": "failed", "reason": "undecodable", "message": EVIL, "width": None, "height": None},
        3: {"mode": "booru-tags", "text": f"sky, {EVIL}, sea", "length_kind": "none", "length_words": None},
        4: {"flags": ["too_short"], "attempts": 3, "earlier_reasons": ["loop", "loop"]},
    }  # fmt: skip
    made = {**picture_of(data), **asked, "text": f"a boat number {number} {EVIL}", **kinds.get(number, {})}
    return row(number, shard, **made)
