"""Which shards a job reads, which of their rows it captions, and which of their fields it keeps."""

from collections.abc import Iterable
from typing import Any, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from pipeline.config.base import ConfigPart, Url
from pipeline.config.prompt_fields_config import PARENT, slot_of
from pipeline.config.recipe_form import added
from pipeline.config.where_config import Condition

SELECTION_KEYS = ("where", "sample", "limit", "duplicates")
"""The keys that select rows. They are no part of the recipe: an output records them beside it."""


PHASH = "phash:"
MAX_DISTANCE = 8
"""Bits of 64 in which perceptual hashes may differ. Beyond it, images that have little in common are called similar,
and finding them among millions takes hours."""


class DuplicatesConfig(ConfigPart):
    """Which images count as the same, by an index of the source."""

    index: Url = Field(min_length=1)
    """The output of `joyfleet index` over the same source."""
    by: str = "sha256"
    """`sha256`: the encoded images are equal. `phash:N`, N from 0 to 8: their perceptual hashes differ in at most N of
    64 bits, as they do after a change of size or of compression."""

    @property
    def max_distance(self) -> int | None:
        """Bits in which perceptual hashes may differ; None: the encoded images are equal."""
        return int(self.by.removeprefix(PHASH)) if self.by.startswith(PHASH) else None

    @field_validator("by")
    @classmethod
    def _known(cls, by: str) -> str:
        allowed = ("sha256", *(f"{PHASH}{distance}" for distance in range(MAX_DISTANCE + 1)))
        if by not in allowed:
            raise ValueError(f"found {by!r}; allowed: sha256, or {allowed[1]} to {allowed[-1]}")
        return by


class SourceConfig(ConfigPart):
    """Which shards to read, and which of their fields to keep. A string or a list is short for `{urls: ...}`."""

    urls: tuple[Url, ...] = ()
    """Folders, globs or shards: local paths or any fsspec URL. A shard is a tar (plain or gzip), a zip or a Parquet
    file. A folder without any of these is a folder of loose images. Beside `captions`: where the parent's images are
    now; by default where its `run.json` says."""
    captions: Url | None = added(default=None)
    """An output whose captions are the source (docs/chained.md): its committed files are the shards, and `{SLOT}` in a
    prompt is its caption of this slot."""
    split: str | None = None
    """Read only the shards of this split, as Hugging Face data sets name them: `data/train-00000-of-00004.parquet`."""
    images_per_shard: int = Field(default=1000, ge=1, le=100_000)
    """Folders of loose images: number of images in a shard, in the order of their sorted names."""
    image_column: str | None = None
    """Parquet: column of the encoded images. By default it is detected by name and type."""
    texts: bool = added(default=False)
    """The rows are texts, for a model without images: the shards are Parquet, and no image in them is read."""
    key_column: str | None = None
    """Parquet: column that becomes `key`. By default `key`, `__key__`, `id` or the image's path."""
    metadata_fields: tuple[str, ...] = ()
    """Fields of the source row to keep in the caption row's `source`: columns, keys of the `.json`
    member, or extensions of text members such as `txt`. `*` keeps all fields except image bytes."""
    where: Condition | None = added(default=None)
    """Caption only the images that meet this condition; the rows of all others are `skipped`."""
    sample: float | None = added(default=None, gt=0, le=1)
    """Caption only this share of the images, chosen by the hash of shard and row: a smaller sample is part of a larger
    one. 0.01 is one in a hundred."""
    limit: int | None = added(default=None, ge=1)
    """Caption exactly this number of images: the first that `where` and `sample` select, in the order of the shards.
    Shards behind the last of them are neither read nor planned."""
    index: Url | None = added(default=None)
    """An index of these shards, made by `joyfleet index`. Conditions on images are then decided by it, so that an image
    that is not selected is not read, and `joyfleet plan` counts instead of estimating. It changes no row. By default
    the index of `duplicates`, if there is one."""
    duplicates: DuplicatesConfig | None = added(default=None)
    """Caption only the first of equal or similar images; the rows of the others are `skipped` and name it."""

    @model_validator(mode="after")
    def _has_shards(self) -> Self:
        if not self.urls and self.captions is None:
            raise ValueError("found neither urls nor captions; allowed: urls, or captions with an output's URL")
        if self.captions is not None:
            of_the_parent = ("split", "images_per_shard", "image_column", "key_column")
            beside = [key for key in of_the_parent if getattr(self, key) != type(self).model_fields[key].default]
            if beside:
                raise ValueError(
                    f"found {', '.join(beside)} beside captions; the shards are those of the parent output: remove them"
                )
        return self

    @model_validator(mode="after")
    def _indexed_images(self) -> Self:
        if self.captions is not None and self.duplicates is not None:
            raise ValueError(
                "found duplicates beside captions; allowed: duplicates in the job of the parent output, whose skipped "
                "rows have no caption and are skipped here too"
            )
        if self.captions is not None and self.index is not None:
            raise ValueError(
                "found index beside captions; the rows of the parent output have the sizes of its images: remove index"
            )
        beside = [key for key in ("index", "duplicates") if getattr(self, key) is not None]
        if self.texts and beside:
            raise ValueError(
                f"found {beside[0]} beside texts: true; an index has images, and no image is read: remove it"
            )
        return self

    @property
    def read_from(self) -> tuple[str, ...]:
        """All URLs that the source names."""
        return (*((self.captions,) if self.captions else ()), *self.urls)

    _parent_needs: tuple[frozenset[str], ...] = PrivateAttr(default=())

    @property
    def parent_needs(self) -> tuple[frozenset[str], ...]:
        """As `JobConfig.parent_needs`: a row of the parent that meets none of them is skipped. Empty: none is."""
        return self._parent_needs

    def with_parent_needs(self, needs: Iterable[frozenset[str]]) -> Self:
        """Return a copy whose readers skip the rows of the parent for which no request could be sent."""
        copy = self.model_copy()
        copy._parent_needs = tuple(needs)
        return copy

    _reads_images: bool = PrivateAttr(default=True)

    @property
    def reads_images(self) -> bool:
        """Whether the images of an output that is the source are read, from its own source."""
        return self._reads_images

    def without_images(self) -> Self:
        """Return a copy whose readers read the captions of an output, and no byte of its images."""
        copy = self.model_copy()
        copy._reads_images = False
        return copy

    @property
    def parent_slots(self) -> tuple[str, ...] | None:
        """The parent's slots whose captions a row gets as its field `captions`; None: all of them."""
        if {PARENT, "*"} & set(self.metadata_fields) - set(self.optional_fields):
            return None
        slots = map(slot_of, self.metadata_fields)
        return tuple(dict.fromkeys(slot for slot in slots if slot is not None))

    _tested_fields: tuple[str, ...] = PrivateAttr(default=())

    @property
    def tested_fields(self) -> tuple[str, ...]:
        """Metadata fields that are read to decide about a row; the caption row keeps only `metadata_fields`."""
        return self._tested_fields

    def with_tested_fields(self, names: Iterable[str]) -> Self:
        """Return a copy whose readers read these fields too; a row may lack them."""
        copy = self.model_copy()
        copy._tested_fields = tuple(dict.fromkeys(names))
        return copy

    def selection(self) -> dict[str, Any]:
        """Return the keys that select rows as JSON, without those that are not set: what an output records."""
        return self.model_dump(mode="json", include=set(SELECTION_KEYS), exclude_defaults=True)

    @model_validator(mode="after")
    def _texts_have_no_images(self) -> Self:
        if self.texts and self.captions is not None:
            raise ValueError("found texts: true beside captions; allowed: one of them")
        if self.texts and self.image_column is not None:
            raise ValueError(f"found image_column={self.image_column} beside texts: true, which reads no image")
        return self

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        if isinstance(value, str):
            return {"urls": [value]}
        return {"urls": value} if isinstance(value, list | tuple) else value

    _optional_fields: tuple[str, ...] = PrivateAttr(default=())

    @property
    def optional_fields(self) -> tuple[str, ...]:
        """Those of `metadata_fields` that a shard may lack: prompts use them, and say what happens without them."""
        return self._optional_fields

    def with_optional_fields(self, names: Iterable[str]) -> Self:
        """Return the source with more metadata fields, which a shard may lack."""
        more = tuple(dict.fromkeys(name for name in names if name not in self.metadata_fields))
        copy = self.model_copy(update={"metadata_fields": (*self.metadata_fields, *more)})
        copy._optional_fields = (*self._optional_fields, *more)
        return copy
