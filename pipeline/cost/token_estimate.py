"""Tokens of a request and of its caption: measured where captions exist, else reckoned from what is asked."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from pipeline.config import JobConfig
from pipeline.engines.model_dims import JOYCAPTION
from pipeline.engines.roofline import SYSTEM_TOKENS
from pipeline.ledger.layout import CAPTIONS, STAGING
from pipeline.prompts import Request, RequestSampler
from pipeline.quality.length import CLASS_WORDS
from pipeline.storage import Store

DRAWN_IMAGES = 500
"""Whose requests are drawn from the mix."""

CHARS_PER_TOKEN = 4.5
"""Of English prompts in Llama 3's tokens; an assumption, as the two below."""
TOKENS_PER_WORD = 1.35
"""Of a caption, its punctuation included."""
OPEN_TOKENS = 120
"""Of a caption whose length is not asked for."""

SEEN_FILES = 8
"""Files of captions that are read, a few MB each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Averages of one request."""

    prompt: float
    """The image's included, as JoyCaption counts them."""
    caption: float
    source: str
    """Where the length of captions comes from."""
    row_bytes: float | None = None
    """Of a caption row as it is stored; None where none is."""


def guess_tokens(job: JobConfig) -> Tokens:
    """Draw requests as the run would, and reckon their tokens."""
    asker = RequestSampler(job)
    requests = [request for row in range(DRAWN_IMAGES) for request in asker.requests("", row)]
    return Tokens(
        prompt=prompt_tokens(requests),
        caption=sum(map(_caption_tokens, requests)) / len(requests),
        source=f"assumed: {TOKENS_PER_WORD} tokens a word asked for, {OPEN_TOKENS} where no length is",
    )


def prompt_tokens(requests: Sequence[Request]) -> float:
    """Return the average: system turn, image and words."""
    chars = sum(len(request.prompt) for request in requests) / len(requests)
    return SYSTEM_TOKENS + JOYCAPTION.vision.tokens + chars / CHARS_PER_TOKEN


def _caption_tokens(request: Request) -> float:
    words = request.length_words or CLASS_WORDS.get(request.length_class or "")
    return words * TOKENS_PER_WORD if words else OPEN_TOKENS


def staged_tokens(store: Store, guessed: Tokens) -> Tokens:
    """Return the tokens of the captions that an output holds, else what was guessed."""
    for folder in (CAPTIONS, STAGING):
        # Placeholders and probes are small, and no Parquet.
        files = [entry for entry in store.list(folder) if entry.path.endswith(".parquet")]
        step = max(1, len(files) // SEEN_FILES)
        chosen = files[::step][:SEEN_FILES]
        columns = [
            pq.read_table(io.BytesIO(store.get(file.path)), columns=["caption_tokens"])["caption_tokens"]
            for file in chosen
        ]
        rows = sum(len(column) for column in columns)
        tokens = int(np.nansum(np.concatenate([column.to_numpy() for column in columns]))) if rows else 0
        if tokens:
            # Rejected answers were paid for, too; rows without any answer count as none.
            return Tokens(
                prompt=guessed.prompt,
                caption=tokens / rows,
                source=f"measured: {rows:,} rows",
                row_bytes=sum(file.size for file in chosen) / rows,
            )
    return guessed
