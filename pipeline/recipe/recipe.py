"""The recipe and its fingerprint. Batch sizes, replicas and addresses are not in it: they change no caption.

Neither is the selection of rows (`source.where`, `sample`, `limit`): it decides which captions exist, not what they
are. An output records it beside its recipe (`pipeline.ledger.run_record`).

Names in a recipe are those of the first edition, and settings that came later are left out at their default
(`pipeline.config.recipe_form`): an old output is resumed by a newer release.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import JobConfig
from pipeline.config.recipe_form import recipe_form
from pipeline.config.source_config import SELECTION_KEYS
from pipeline.recipe.weights import Weights

QUALITY_RULES = "2"
"""Version of `pipeline.quality` and of `stop_loops`. A changed rule changes it, and so every fingerprint."""


ENGINE_SETTINGS = ("kind", "dtype", "quantization", "kv_cache_dtype", "max_model_len")
"""Engine settings that can change a caption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that can change a caption."""

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
    """Tokens per caption, with the generation's default applied."""
    geometry: Mapping[str, int]
    """The size of the pixels, as fields of `images`."""


def build_recipe(
    job: JobConfig, weights: Weights, model: ModelFacts, *, vocabulary: str | None, clip: str | None = None
) -> Recipe:
    """Return the recipe of a job.

    Args:
        job: the job.
        weights: the weights of its model.
        model: facts from the model's family.
        vocabulary: digest of the tags of `quality.tags.vocabulary`, if there is one.
        clip: digest of the tokenizer of `quality.clip.tokenizer`, if there is one.
    """
    stored = recipe_form(job)
    if clip is not None:
        stored["quality"]["clip"]["tokenizer"] = clip
    return Recipe(
        fields={
            "model": {
                "id": job.model.id,
                "revision": job.model.revision,
                "digest": weights.digest,
                "generation": model.generation,
            },
            "captions": {slot["slot"]: slot for slot in stored["captions"]},
            "catalog": model.catalog,
            "sampling": {**stored["sampling"], "max_tokens": model.max_tokens},
            "engine": {name: value for name, value in stored["engine"].items() if name in ENGINE_SETTINGS},
            # None for a model without images.
            "images": {**_without(stored["images"], "timeout_s"), **model.geometry} if model.geometry else {},
            "rows": _without(stored["source"], "urls", "captions", "split", "index", *SELECTION_KEYS),
            "quality": {
                **stored["quality"],
                "version": QUALITY_RULES,
                # The tags that a vocabulary holds, wherever the file is.
                "tags": {**stored["quality"]["tags"], "vocabulary": vocabulary},
            },
            "seed": job.seed,
            **_of_prompt_fields(job),
        }
    )


def _of_prompt_fields(job: JobConfig) -> dict[str, Any]:
    """Every field that a prompt uses, those without settings too: a job without fields keeps its fingerprint."""
    used = {name: recipe_form(policy) for name, policy in job.field_policies.items()}
    return {"prompt_fields": used} if used else {}


def _without(section: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name not in names}
