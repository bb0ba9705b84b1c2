"""A run, a shard and its caption rows, and what a driver does with them: stage what is missing, commit."""

import uuid

import pyarrow as pa

from pipeline.ledger.commit import commit_shard
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.fragments import FragmentInfo, read_fragment_info, write_fragment
from pipeline.ledger.layout import committed_path
from pipeline.ledger.shard_plan import Plan, remaining
from pipeline.ledger.verification import SourceImage, verify_shard
from schemas.caption_row import CAPTION_ROW
from schemas.shard import Shard

RUN = RunIdentity(recipe="recipe-1", slots=("long", "booru"), versions={"joyfleet": "0.1.0", "vllm": "0.29.0"})
SHARD = Shard("photos/00001.tar", "s3://bucket/photos/00001.tar", 1234, "etag-1")
OTHER = Shard("photos/00002.tar", "s3://bucket/photos/00002.tar", 99, "etag-2")
NUM_IMAGES = 10
IMAGES = [SourceImage(f"key{row}", f"{row:064x}") for row in range(NUM_IMAGES)]
"""As the source has them."""
PLAN = Plan({SHARD.path: SHARD})


def caption_row(row, slot, text, shard=SHARD, run=RUN):
    status = "failed" if row % 5 == 4 else "ok"
    made = dict.fromkeys(CAPTION_ROW.names) | {
        "shard": shard.path, "row": row, "key": f"key{row}", "slot": slot, "mode": "descriptive",
        "length_kind": "none", "options": [], "prompt": "p", "system": "s", "status": status, "flags": [],
        "attempts": 1, "seed": row, "source": "{}", "recipe": run.recipe, "image_sha256": f"{row:064x}",
    }  # fmt: skip
    return made | ({"caption": text, "words": 1} if status == "ok" else {"reason": "undecodable", "message": text})


def rows_table(rows, text=None, shard=SHARD, run=RUN):
    text = text or uuid.uuid4().hex
    made = [caption_row(row, slot, text, shard, run) for row in rows for slot in run.slots]
    return pa.Table.from_pylist(made, schema=CAPTION_ROW)


def stage(store, rows, shard=SHARD, run=RUN, num_images=NUM_IMAGES, text=None):
    return write_fragment(store, run, shard, num_images, rows_table(rows, text, shard, run))


def commit(store, fragments, shard=SHARD, run=RUN, num_images=NUM_IMAGES, attempt=None):
    return commit_shard(store, run, shard, num_images, fragments, attempt)


def resume(store, chunk=4):
    """What a driver and its workers do with one shard, from the listing to the commit; None when it is done."""
    left = remaining(store, PLAN)
    if SHARD.path in left.committed:
        return None
    result = [read_fragment_info(store, path, RUN, SHARD) for path in left.fragments[SHARD.path]]
    valid = [facts for facts in result if isinstance(facts, FragmentInfo)]
    covered = {int(row) for facts in valid for row in facts.rows}
    missing = [row for row in range(NUM_IMAGES) if row not in covered]
    fragments = [facts.path for facts in valid]
    fragments += [stage(store, missing[start : start + chunk]) for start in range(0, len(missing), chunk)]
    return commit(store, fragments)


def committed(store, shard=SHARD):
    return store.get(committed_path(shard.path))


def paths(store, folder=""):
    return sorted(entry.path for entry in store.list(folder))


def violations(store, images=IMAGES, num_images=NUM_IMAGES):
    """What `verify` finds in the shard's committed file."""
    return list(verify_shard(store, RUN, SHARD, num_images, images).violations)
