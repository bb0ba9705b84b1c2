"""An index of images: which source it describes, and what it says of each image."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.config.base import AS_LIST, ConfigPart, Url, refuse_repeats
from pipeline.config.cluster_config import ClusterConfig
from pipeline.config.images_config import ImagesConfig
from pipeline.config.job_config import JobConfig
from pipeline.config.source_config import SELECTION_KEYS, SourceConfig
from pipeline.errors import ConfigError
from schemas.index import Hash


class IndexConfig(ConfigPart):
    """An index of all images of a source."""

    source: SourceConfig
    """Where the images are, and which of their fields are kept."""
    output: Url = Field(min_length=1)
    """Folder of the index: a local path, s3:// or gs://."""
    hashes: Annotated[tuple[Hash, ...], AS_LIST] = (Hash.SHA256,)
    """What is hashed: `sha256` of the encoded bytes, `phash` of the decoded pixels."""
    images: ImagesConfig = ImagesConfig()
    """How headers are read and images are decoded."""
    cluster: ClusterConfig = ClusterConfig()
    """Which Ray cluster does the work."""

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        fault = _fault_of(self.source)
        if fault:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _selects_all(self) -> Self:
        refuse_repeats("hashes", self.hashes)
        chosen = sorted(self.source.selection())
        if chosen:
            raise ValueError(
                f"source: found {', '.join(chosen)}; an index has a row for every image of the source, leave them out"
            )
        return self


def _fault_of(source: SourceConfig) -> str | None:
    """Why a source has no images to index; None if it has."""
    if source.captions is not None:
        return (
            f"source.captions: {source.captions}: an index has the images of shards, not the captions of an output; "
            "index the source of that output"
        )
    return "source.texts: true; an index has images, and these rows are texts" if source.texts else None


def index_of_job(job: JobConfig, output: str, hashes: tuple[Hash, ...]) -> IndexConfig:
    """Return the index of the source of a job: of all its images, with the fields that decide about rows.

    These are the fields that `source.where` tests, and with `source.duplicates` those that prompts use.

    Raises:
        ConfigError: the source has no images.
    """
    fault = _fault_of(job.source)
    if fault:
        raise ConfigError(fault)
    tested = job.source.where.field_names() if job.source.where else ()
    if job.source.duplicates is not None:
        paths = [path.split(".") for path in job.field_policies]
        tested = (*tested, *(".".join(path[:number]) for path in paths for number in range(1, len(path) + 1)))
    source = job.source.model_copy(update={**dict.fromkeys(SELECTION_KEYS), "index": None})
    cluster = {name: getattr(job.cluster, name) for name in ClusterConfig.model_fields}
    return IndexConfig(
        source=source.with_optional_fields(tested),
        output=output,
        hashes=hashes,
        images=job.images,
        cluster=ClusterConfig(**cluster),
    )
