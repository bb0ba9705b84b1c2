"""A captioned source without Ray or a model: real shards, real readers, a real ledger, captions made of the key."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import SourceConfig
from pipeline.ledger.commit import commit_shard
from pipeline.ledger.footer import RunFacts
from pipeline.ledger.fragments import write_fragment
from pipeline.ledger.plan import claim_plan
from pipeline.ledger.run_record import claim_run
from pipeline.config import ImagesConfig
from pipeline.readers import list_shards
from pipeline.recipe.recipe import Recipe
from pipeline.stages.read import ReadSpec, read_shard
from pipeline.storage import LocalStore
from schemas.caption_row import CAPTION_ROW
from schemas.shard import Shard
from tests.odd_images import encode, picture
from tests.readers.shards import tar_of
