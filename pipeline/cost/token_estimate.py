"""Tokens of a request and of its caption: measured if captions exist, else estimated from the requests."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline.config import JobConfig
from pipeline.ledger.layout import CAPTIONS, STAGING
from pipeline.models import ModelFamily, family_of
from pipeline.models.dims import TURN_TOKENS
from pipeline.prompts import Request, RequestSampler
from pipeline.storage import Store

DRAWN_IMAGES = 500
"""Number of images whose requests are drawn from the mix."""

OPEN_TOKENS = 120
"""Tokens of a caption without a requested length; an assumption."""

SAMPLED_FILES = 8
"""Number of caption files that are read, a few MB each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Averages of one request."""

    prompt: float
    """Including the image's."""
    caption: float
    source: str
    """Origin of the caption length, for people."""
    row_bytes: float | None = None
    """Stored size of a caption row; None without stored rows."""


SampledRow = tuple[str, int, Mapping[str, Any]]
"""Shard, row, and its metadata fields as JSON values."""


def guess_tokens(job: JobConfig, rows: Sequence[SampledRow] = ()) -> Tokens:
    """Draw requests as the run would, and estimate their tokens.

    Args:
        job: the job.
        rows: of the source, if prompts use their fields. Without them a placeholder counts as it stands.
    """
    sampler, family = RequestSampler(job), family_of(job.model)
    drawn: Sequence[SampledRow] = rows or [("", row, {}) for row in range(DRAWN_IMAGES)]
    requests = [request for row in drawn for request in sampler.requests(*row)]
    return Tokens(
        prompt=prompt_tokens(family, requests),
        caption=sum(_caption_tokens(family, request) for request in requests) / len(requests),
        source=f"assumed: {family.tokens_per_word} tokens per requested word, {OPEN_TOKENS} without a requested length",
    )


def rows_with_fields(job: JobConfig, rows: Sequence[SampledRow]) -> dict[str, int]:
    """Return for each field that a prompt uses in how many of these rows it has a text."""
    sampler = RequestSampler(job)
    texts = [sampler.fields_of(*row) for row in rows]
    return {field: sum(bool(fields.of(field).items) for fields in texts) for field in job.field_policies}


def prompt_tokens(family: ModelFamily, requests: Sequence[Request]) -> float:
    """Return the average of system turn, image and text."""
    chars = sum(len(request.prompt) for request in requests) / len(requests)
    if family.dims is not None:
        return family.dims.shared_tokens + chars / family.chars_per_token
    chars += sum(len(request.system) for request in requests) / len(requests)
    return TURN_TOKENS + chars / family.chars_per_token


def _caption_tokens(family: ModelFamily, request: Request) -> float:
    words = request.length_words or family.class_words.get(request.length_class or "")
    return words * family.tokens_per_word if words else OPEN_TOKENS


def staged_tokens(store: Store, guessed: Tokens) -> Tokens:
    """Return the measured tokens of the captions in an output; without captions, the estimate."""
    for folder in (CAPTIONS, STAGING):
        # Placeholders and probes are not Parquet files.
        files = [entry for entry in store.list(folder) if entry.path.endswith(".parquet")]
        step = max(1, len(files) // SAMPLED_FILES)
        chosen = files[::step][:SAMPLED_FILES]
        columns = [
            pq.read_table(io.BytesIO(store.get(file.path)), columns=["caption_tokens"])["caption_tokens"]
            for file in chosen
        ]
        rows = sum(len(column) for column in columns)
        tokens = int(np.nansum(np.concatenate([column.to_numpy() for column in columns]))) if rows else 0
        if tokens:
            # Rejected answers cost tokens too; rows without an answer count as zero.
            return Tokens(
                prompt=guessed.prompt,
                caption=tokens / rows,
                source=f"measured: {rows:,} rows",
                row_bytes=sum(file.size for file in chosen) / rows,
            )
    return guessed
