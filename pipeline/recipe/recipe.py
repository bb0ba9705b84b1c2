"""The recipe and its fingerprint. Batch sizes, replicas and addresses are not in it: they change no caption."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import JobConfig
from pipeline.recipe.weights import Weights

QUALITY_RULES = "2"
"""Version of `pipeline.quality` and of `stop_loops`; a changed rule changes it, and with it every recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that can change a caption."""

    fields: dict[str, Any]
    """JSON values only."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 of the fields as canonical JSON.

        Raises:
            TypeError: a field has no stable form.
        """
        text = json.dumps(self.fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the model family adds to a recipe."""

    generation: str
    """Name of the model's generation."""
    catalog: str
    """Digest of the prompt catalogue."""
    max_tokens: int
    """Tokens per caption, after the generation's default."""
    geometry: Mapping[str, int]
    """The size of the pixels, as fields of `images`."""


def build_recipe(job: JobConfig, weights: Weights, model: ModelFacts, *, vocabulary: str | None) -> Recipe:
    """Gather the recipe of a job.

    Args:
        job: the job.
        weights: the weights of its model.
        model: facts from the model's family.
        vocabulary: digest of the tags of `quality.tags.vocabulary`, if there is one.
    """
    engine = job.engine
    return Recipe(
        fields={
            "model": {
                "id": job.model.id,
                "revision": job.model.revision,
                "digest": weights.digest,
                "generation": model.generation,
            },
            "captions": {slot.slot: slot.model_dump(mode="json") for slot in job.captions},
            "catalog": model.catalog,
            "sampling": {**job.sampling.model_dump(mode="json"), "max_tokens": model.max_tokens},
            "engine": {
                "kind": engine.kind.value,
                "dtype": engine.dtype,
                "quantization": engine.quantization,
                "kv_cache_dtype": engine.kv_cache_dtype,
                "max_model_len": engine.max_model_len,
            },
            "images": {**job.images.model_dump(mode="json", exclude={"timeout_s"}), **model.geometry},
            "rows": job.source.model_dump(mode="json", exclude={"urls", "split"}),
            "quality": _quality(job, vocabulary),
            "seed": job.seed,
        }
    )


def _quality(job: JobConfig, vocabulary: str | None) -> dict[str, Any]:
    """The rules; a vocabulary is what it holds, wherever it lies."""
    config = job.quality.model_dump(mode="json")
    return {**config, "version": QUALITY_RULES, "tags": {**config["tags"], "vocabulary": vocabulary}}
