"""The playground without its page: one image, one prompt setting, several answers.

The answers come from the stages of a run, each from its own slot: same prompt, rules and retries, different seeds.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.config import JobConfig, parse_job
from pipeline.engines import Engine
from pipeline.ledger.footer import RunIdentity
from pipeline.models import Geometry, Mode, load_generation
from pipeline.prompts import RequestSampler, check_captions
from pipeline.quality import load_vocabulary
from pipeline.readers import SourceRow
from pipeline.report.html import render
from pipeline.stages.captioning import Captioner, CaptionSpec
from pipeline.stages.read_batches import ReadSpec, batches_of
from schemas.shard import Shard

SHARD = Shard(path="playground", url="", size=0, etag="")
NO_TONE = "none"
NO_LENGTH = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The prompt settings that a person picked."""

    generation: str
    mode: str
    tone: str
    """Or `NO_TONE`."""
    length: str
    """A class, a number of words, or `NO_LENGTH`."""
    options: Sequence[str]
    name: str
    """Empty for none."""

    def request(self) -> dict[str, Any]:
        """Return it as an entry of `captions`, without the slot and without unset fields."""
        length = int(self.length) if self.length.isdigit() else self.length
        fields = {
            "mode": self.mode,
            "tone": None if self.tone == NO_TONE else self.tone,
            "length": None if length == NO_LENGTH else length,
            "options": list(self.options),
            "name": self.name.strip(),
        }
        return {key: value for key, value in fields.items() if value}


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to a choice."""

    rows: Sequence[Mapping[str, Any]]
    """Caption rows, one per sample."""
    seconds: float


def modes_of(generation: str) -> list[str]:
    """Return the names of a generation's modes, each once."""
    return list(dict.fromkeys(mode.name for mode in load_generation(generation).modes))


def tones_of(generation: str, mode: str) -> list[str]:
    """Return the tones of a mode, the default first; `NO_TONE` alone where it has none."""
    return [form.tone or NO_TONE for form in _forms(generation, mode)]


def lengths_of(generation: str, mode: str) -> list[str]:
    """Return the lengths that the author's page offers for a mode, `NO_LENGTH` first."""
    form, catalog = _forms(generation, mode)[0], load_generation(generation)
    classes = list(catalog.length_classes) if form.length_class else []
    counts = [str(count) for count in catalog.word_counts] if form.word_count else []
    return [NO_LENGTH, *classes, *counts]


def _forms(generation: str, mode: str) -> list[Mode]:
    return [form for form in load_generation(generation).modes if form.name == mode]


def job_of(base: JobConfig, choice: Choice, samples: int, seed: int) -> JobConfig:
    """Return the job that captions the image `samples` times.

    Raises:
        ConfigError: the generation was not trained on the request; names what is allowed.
    """
    data = base.model_dump(mode="json")
    slots = [{"slot": f"sample-{number + 1}", **choice.request()} for number in range(samples)]
    model = {**data["model"], "generation": choice.generation}
    # The page has no source row, so its prompts use no fields.
    replaced = {"model": model, "captions": slots, "seed": seed, "prompt_fields": {}}
    job = parse_job({**data, **replaced}, origin="playground")
    check_captions(job)
    return job


def prompt_of(base: JobConfig, choice: Choice) -> tuple[str, str]:
    """Return the exact prompt and system turn; raises ConfigError as `job_of`."""
    request = RequestSampler(job_of(base, choice, 1, 0)).requests(SHARD.path, 0)[0]
    return request.prompt, request.system


async def ask(engine: Engine, job: JobConfig, geometry: Geometry, data: bytes) -> Answers:
    """Caption one encoded image, once per slot of the job.

    Raises:
        EngineDead: the engine cannot be kept alive.
    """
    read = ReadSpec(source=job.source, images=job.images, geometry=geometry, batch_images=1)
    run = RunIdentity(recipe="playground", slots=RequestSampler(job).slots, versions={})
    spec = CaptionSpec(job=job, run=run, vocabulary=load_vocabulary(job.quality))
    [batch] = batches_of(read, SHARD, 1, [SourceRow(0, "image", data)])
    started = time.monotonic()
    table = await Captioner(spec, engine).rows(batch)
    return Answers(table.to_pylist(), time.monotonic() - started)


def answers_html(answers: Answers) -> str:
    """Return the answers side by side, escaped, for a place inside another page."""
    return render("answers.html.jinja", {"rows": answers.rows, "seconds": f"{answers.seconds:.2f}"})


def recipe_yaml(base: JobConfig, choice: Choice) -> str:
    """Return the part of a job file with these settings."""
    model = {"id": base.model.id, "generation": choice.generation}
    part = {"model": model, "captions": [{"slot": "caption", **choice.request()}]}
    return yaml.safe_dump(part, sort_keys=False, allow_unicode=True)
