"""A release that adds a setting does not change the fingerprint of a job that leaves it at its default."""

import pytest
from pydantic import Field

from pipeline.config import CorpusConfig, JobConfig, QualityConfig, SamplingConfig, SlotConfig, SourceConfig, parse_job
from pipeline.config.load import parse_config
from pipeline.config.quality_config import TagsConfig
from pipeline.config.recipe_form import added, recipe_form
from pipeline.config.render_config import RecordTagsConfig
from pipeline.corpus.corpus_job import recipe_fields
from pipeline.flow.prepared_job import check_job
from pipeline.recipe import Recipe

JOB = {
    "source": "in",
    "output": "out",
    "model": "fancyfeast/llama-joycaption-beta-one-hf-llava",
    "captions": {"slot": "s", "mode": "descriptive"},
}


class ToySampling(SamplingConfig):
    toy: float = added(default=0.5, ge=0)


class ToySource(SourceConfig):
    toy: tuple[str, ...] = added(default=())


class ToySlot(SlotConfig):
    toy: str | None = added(default=None)


class ToyTags(TagsConfig):
    toy: bool = added(default=False)


class ToyQuality(QualityConfig):
    tags: TagsConfig = ToyTags()


class UndeclaredSampling(SamplingConfig):
    toy: float = Field(default=0.5)


def fingerprint(job: JobConfig) -> str:
    return check_job(job)[0].fingerprint


def with_section(name, section):
    return parse_job(JOB).model_copy(update={name: section})


@pytest.mark.parametrize(
    ("name", "at_default", "changed"),
    [
        ("sampling", ToySampling(), ToySampling(toy=0.6)),
        ("source", ToySource(urls=("in",)), ToySource(urls=("in",), toy=("a",))),
        ("captions", (ToySlot(slot="s", mode="descriptive"),), (ToySlot(slot="s", mode="descriptive", toy="a"),)),
        ("quality", ToyQuality(), ToyQuality(tags=ToyTags(toy=True))),
    ],
)
def test_an_added_setting_is_in_the_recipe_only_if_it_is_not_at_its_default(name, at_default, changed):
    before = fingerprint(parse_job(JOB))
    assert fingerprint(with_section(name, at_default)) == before
    assert fingerprint(with_section(name, changed)) != before


def test_a_setting_that_is_not_declared_as_added_changes_every_fingerprint():
    assert fingerprint(with_section("sampling", UndeclaredSampling())) != fingerprint(parse_job(JOB))


class ToyRecordTags(RecordTagsConfig):
    toy: int = added(default=1, ge=1)


class ToyCorpus(CorpusConfig):
    toy: bool = added(default=False)


def test_an_added_setting_of_a_corpus_is_in_its_recipe_only_if_it_is_not_at_its_default():
    def fields(kind=CorpusConfig, **rest):
        data = {"output": "out", "tables": [{"name": "t", "urls": "t.csv"}], **rest}
        return parse_config(kind, data, (), origin="test")

    def print_of(config):
        return Recipe(fields=recipe_fields(config, None)).fingerprint

    before = print_of(fields())
    assert print_of(fields(ToyCorpus)) == before
    assert print_of(fields(ToyCorpus, toy=True)) != before
    assert print_of(fields().model_copy(update={"tags": ToyRecordTags()})) == before
    assert print_of(fields().model_copy(update={"tags": ToyRecordTags(toy=2)})) != before


def test_the_recipe_has_the_names_of_the_first_edition():
    form = recipe_form(parse_job(JOB))
    assert "carry" in form["source"]
    assert "repair" in form["quality"]
