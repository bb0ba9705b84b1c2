"""A few images of an output with all their captions: one listing, and at most one committed file for each image."""

import heapq
from collections import Counter
from typing import Any

from pipeline.report.committed import CommittedFile, list_committed, read_committed
from pipeline.report.key_sample import hash64
from pipeline.storage import Store

COLUMNS = ["row", "key", "slot", "status", "reason", "message", "caption", "rejected_text", "source"]


def sample_captions(store: Store, num_images: int) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Return the caption rows (`COLUMNS`) of some images, by shard and row; the same images at each call.

    The shards are spread evenly over the committed ones. Within a shard, images are drawn by a hash of their row, with
    whatever status their captions have.

    Raises:
        StoreError: a committed file is damaged.
    """
    entries = sorted(list_committed(store).items())
    if not entries:
        return {}
    drawn_of = Counter(number * len(entries) // num_images for number in range(num_images))
    sample: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for index, num_drawn in drawn_of.items():
        committed = read_committed(store, *entries[index])
        rows = set(_drawn_rows(committed, num_drawn))
        for batch in committed.batches(COLUMNS):
            for caption in batch.to_pylist():
                if caption["row"] in rows:
                    sample.setdefault((committed.shard, caption["row"]), []).append(caption)
    return sample


def _drawn_rows(committed: CommittedFile, num_drawn: int) -> list[int]:
    rows = {row for batch in committed.batches(["row"]) for row in batch["row"].to_pylist()}
    return heapq.nsmallest(num_drawn, rows, key=lambda row: hash64(f"{committed.shard}\x1f{row}"))
