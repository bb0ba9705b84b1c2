"""The request that each image gets: a pure function of (run seed, shard, row, slot) and of the row's metadata fields.

Nothing in this module depends on batches, workers, cluster size, attempts or the order of work, so a retried, resumed
or repeated shard has the same requests with the same sampling seeds.
"""

import bisect
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

from pipeline.config import JobConfig, ModelConfig, RequestConfig, SlotConfig, WordsDistribution
from pipeline.config.captions_config import WordsLength
from pipeline.config.config_errors import Mistake
from pipeline.errors import ConfigError
from pipeline.models import Generation, family_of, generation_names, generation_of, load_generation
from pipeline.prompts.request import Request, build_request, request_mistakes
from pipeline.prompts.row_fields import CountTokens, RowFields
from pipeline.prompts.seeded_draws import uniform


class RequestSampler:
    """Builds the k requests of an image. Made once per process from the job; pickles."""

    def __init__(self, job: JobConfig, count_tokens: CountTokens | None = None) -> None:
        """Prepare the requests of a job.

        Args:
            job: the job.
            count_tokens: counts for `prompt_fields.*.max_tokens`; None estimates by characters, for a plan.
        """
        self._generation = generation_of(job.model)
        self._policies = job.field_policies
        self._count_tokens = count_tokens or _Estimate(family_of(job.model).chars_per_token)
        self._seed = job.seed
        self._slots = job.worded_slots
        self._cumulative = [list(itertools.accumulate(w for w, _ in slot.requests)) for slot in self._slots]

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots in the order of the config, one for each sample."""
        return tuple(name for slot in self._slots for name in slot.names)

    @property
    def uses_fields(self) -> bool:
        """Whether a prompt uses fields of the source row."""
        return bool(self._policies)

    def requests(self, shard: str, row: int, metadata: Mapping[str, Any] | None = None) -> list[Request]:
        """Return the requests of an image, in slot order.

        Args:
            shard: path of the shard.
            row: number of the image in it.
            metadata: the metadata fields of the row, as JSON values; without them placeholders stay in the prompts.
        """
        fields = None if metadata is None else self.fields_of(shard, row, metadata)
        return [request for index in range(len(self._slots)) for request in self._requests(index, shard, row, fields)]

    def fields_of(self, shard: str, row: int, metadata: Mapping[str, Any]) -> RowFields:
        """Return the texts of a row's fields; arguments as for `requests`."""
        return RowFields(self._policies, self._count_tokens, self._seed, (shard, row), metadata)

    def _requests(self, index: int, shard: str, row: int, fields: RowFields | None) -> tuple[Request, ...]:
        slot, cumulative = self._slots[index], self._cumulative[index]
        drawn = uniform("mix", self._seed, shard, row, slot.slot) * cumulative[-1]
        chosen = min(bisect.bisect_right(cumulative, drawn), len(cumulative) - 1)
        config = slot.requests[chosen][1]
        length = config.length
        if isinstance(length, WordsLength):
            length = draw_words(length.words, uniform("words", self._seed, shard, row, slot.slot))
        if fields is not None and config.fields_used:
            return _build(self._generation.name, index, chosen, length, self._slots, fields)
        return _build_cached(self._generation.name, index, chosen, length, self._slots)


class _Estimate:
    """Tokens by characters; pickles."""

    def __init__(self, chars_per_token: float) -> None:
        self._chars_per_token = chars_per_token

    def __call__(self, text: str) -> int:
        return math.ceil(len(text) / self._chars_per_token)


@functools.lru_cache(maxsize=4096)
def _build_cached(
    generation: str, index: int, chosen: int, length: int | str | None, slots: tuple[SlotConfig, ...]
) -> tuple[Request, ...]:
    return _build(generation, index, chosen, length, slots, None)


def _build(
    generation: str,
    index: int,
    chosen: int,
    length: int | str | None,
    slots: tuple[SlotConfig, ...],
    fields: RowFields | None,
) -> tuple[Request, ...]:
    """The request of a slot, once for each of its samples."""
    config = slots[index].requests[chosen][1]
    where = _where(slots[index], index, chosen)
    slot = slots[index]
    request = build_request(load_generation(generation), config, length, slot=slot.slot, where=where, row=fields)
    return tuple(replace(request, slot=name, schema=slot.schema) for name in slot.names)


def _where(slot: SlotConfig, index: int, chosen: int) -> str:
    return f"captions.{index}.mix.{chosen}" if slot.mix else f"captions.{index}"


def draw_words(words: WordsDistribution, uniform: float) -> int:
    """Return the word count at quantile `uniform` in (0, 1): rounded up to a step, then clipped."""
    value = NormalDist(words.mean, words.std).inv_cdf(uniform) if words.std else words.mean
    return max(words.min, min(words.max, math.ceil(value / words.step) * words.step))


def check_captions(job: JobConfig) -> list[str]:
    """Refuse requests that the model's generation was not trained on, before anything starts.

    Returns:
        Remarks on requests and settings that are allowed but unusual.

    Raises:
        ConfigError: lists every wrong key with what was found and what is allowed.
    """
    slots = dict(enumerate(job.captions))
    mistakes = caption_mistakes(job.model, slots)
    if mistakes:
        raise ConfigError("\n".join(mistake.message for mistake in mistakes))
    generation = generation_of(job.model)
    remarks = _sampling_remarks(job)
    remarks += [
        remark
        for where, request in _requests_of(slots)
        for length in _extremes(request)
        for remark in _remarks(generation, length, where)
    ]
    return list(dict.fromkeys(remarks))


def _sampling_remarks(job: JobConfig) -> list[str]:
    """The config does not know the model, so its defaults may differ from the author's values."""
    family, fields = family_of(job.model), type(job.sampling).model_fields
    return [
        f"sampling.{key}: {fields[key].default:g} is JoyFleet's default; the author of {family.name} uses {value:g}"
        for key, value in family.sampling.items()
        if getattr(job.sampling, key) == fields[key].default != value
    ]


def caption_mistakes(model: ModelConfig, slots: Mapping[int, SlotConfig]) -> list[Mistake]:
    """Return what is wrong with slots, by their index in `captions`, for the generation of a model."""
    try:
        generation = generation_of(model)
    except ConfigError as err:
        return [Mistake(("model",), str(err))]
    if not generation.servable:
        servable = ", ".join(name for name in generation_names() if load_generation(name).servable)
        message = f"{generation.name} has prompts only: vLLM cannot load its checkpoint; allowed: {servable}"
        return [Mistake(("model", "generation"), f"model.generation: {message}")]
    messages = {
        message: where
        for where, request in _requests_of(slots)
        for length in _extremes(request)
        for message in request_mistakes(generation, request, length, where)
    }
    return [Mistake(tuple(where.split(".")), message) for message, where in messages.items()]


def _requests_of(slots: Mapping[int, SlotConfig]) -> list[tuple[str, RequestConfig]]:
    """The config key of each request, and the request."""
    return [
        (_where(slot, index, chosen), request)
        for index, slot in slots.items()
        for chosen, (_, request) in enumerate(slot.requests)
    ]


def _extremes(request: RequestConfig) -> Sequence[int | str | None]:
    if isinstance(request.length, WordsLength):
        return (request.length.words.min, request.length.words.max)
    return (request.length,)


def _remarks(generation: Generation, length: int | str | None, where: str) -> list[str]:
    counts = generation.word_counts
    if not counts or not isinstance(length, int) or length in counts:
        return []
    offered = f"{counts[0]} to {counts[-1]} in steps of {counts[1] - counts[0]}"
    return [f"{where}.length: {length} words; the page of {generation.name}'s author offers {offered}"]
