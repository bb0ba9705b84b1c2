"""A captioned source without Ray or a model: real shards, readers and ledger, captions made of the image's key."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.config import ImagesConfig, SourceConfig
from pipeline.config.export_config import ExportConfig
from pipeline.export import Captioned, Exported, run_export
from pipeline.ledger.commit import commit_shard
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.fragments import write_fragment
from pipeline.ledger.run_record import claim_run
from pipeline.ledger.shard_plan import claim_plan
from pipeline.models import FixedSize
from pipeline.readers import list_shards
from pipeline.recipe.recipe import Recipe
from pipeline.stages.read_batches import ReadSpec, read_shard
from pipeline.storage.local import LocalStore
from schemas.caption_row import CAPTION_ROW
from schemas.shard import Shard
from tests.odd_images import encode
from tests.readers.shards import tar_of

SLOTS = ("long", "tags")
RECIPE = Recipe(fields={"model": "none"})
RUN = RunIdentity(recipe=RECIPE.fingerprint, slots=SLOTS, versions={})
MAX_BYTES = 1 << 20


def image(number: int) -> bytes:
    """A picture of its number, so that mixed up images are seen."""
    return encode(Image.fromarray(np.full((8, 8, 3), number % 256, np.uint8)), "PNG")


def write_tars(root: Path, shards: int, images: int) -> None:
    for shard in range(shards):
        files = []
        for row in range(images):
            key = f"{shard:02d}{row:03d}"
            files += [(f"{key}.PNG", image(shard * images + row)), (f"{key}.json", json.dumps({"n": row}).encode())]
            files.append((f"{key}.mask.png", b"mask"))
        root.mkdir(parents=True, exist_ok=True)
        (root / f"{shard:05d}.tar").write_bytes(tar_of(files))


def write_parquets(root: Path, shards: int, images: int, *, split: str = "train") -> None:
    """As `datasets` pushes them: an Image feature, and columns with types of their own."""
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    for shard in range(shards):
        numbers = [shard * images + row for row in range(images)]
        table = pa.table(
            {
                "image": [{"bytes": image(number), "path": f"{number}.png"} for number in numbers],
                "label": pa.array([number % 2 for number in numbers], pa.int64()),
                "im_name": [f"{number}.png" for number in numbers],
            }
        ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        (root / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, root / f"data/{split}-{shard:05d}-of-{shards:05d}.parquet", row_group_size=3)


def write_images(root: Path, images: int) -> None:
    for number in range(images):
        path = root / f"{'ab'[number % 2]}/{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(number))


def caption_all(root: Path, output: Path, *, only: int | None = None, **source) -> Captioned:
    """Commit all shards, or the first `only`. Every fifth row is rejected in slot tags; row 6 has a flag."""
    config = SourceConfig(urls=(str(root),), metadata_fields=("*",), **source)
    store = LocalStore(str(output))
    about = {"job": {"source": config.model_dump(mode="json"), "images": {"max_bytes": MAX_BYTES}}}
    claim_run(store, RECIPE, {**about, "slots": list(SLOTS), "versions": {}})
    plan = claim_plan(store, list_shards(config))
    for shard in list(plan.shards.values())[:only]:
        _commit(store, config, shard)
    return Captioned(store=store, run=RUN, plan=plan, source=config, max_bytes=MAX_BYTES)


def _commit(store: LocalStore, config: SourceConfig, shard: Shard) -> None:
    spec = ReadSpec(
        source=config, images=ImagesConfig(max_bytes=MAX_BYTES), geometry=FixedSize(8, 8), batch_images=1000
    )
    [batch] = [table.to_pylist()[0] for table in read_shard(spec, shard, [])]
    rows = [_row(shard, item, slot) for item in batch["images"] for slot in SLOTS]
    table = pa.Table.from_pylist(rows, schema=CAPTION_ROW)
    fragment = write_fragment(store, RUN, shard, batch["num_images"], table)
    commit_shard(store, RUN, shard, batch["num_images"], [fragment])


def _row(shard: Shard, image: dict, slot: str) -> dict:
    rejected = slot == "tags" and image["row"] % 5 == 4
    said = {"reason": "loop", "rejected_text": "x x x"} if rejected else {"caption": caption_of(image["key"], slot)}
    return dict.fromkeys(CAPTION_ROW.names) | {name: image[name] for name in image if name in CAPTION_ROW.names} | {
        "shard": shard.path, "slot": slot, "mode": "descriptive" if slot == "long" else "booru-tags",
        "length_kind": "none", "options": [], "prompt": f"Write {slot}.", "system": "s",
        "status": "rejected" if rejected else "ok", "flags": ["truncated"] if image["row"] == 6 else [],
        "words": 3, "attempts": 1, "seed": 0, "recipe": RECIPE.fingerprint,
    } | said  # fmt: skip


def caption_of(key: str, slot: str) -> str:
    return f'{slot} of\n{key}, "é"'


def export(captioned: Captioned, folder: Path, to: str, workers: int = 1, **options) -> Exported:
    config = ExportConfig(to=to, **options)
    return run_export(captioned, LocalStore(str(folder)), config, workers, lambda exported, shards: None)


def files_of(folder: Path) -> dict[str, bytes]:
    """The data of an export."""
    result = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(result.items()) if not name.startswith(".")}
