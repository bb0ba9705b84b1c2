"""Which shards a job reads, and which of their fields it keeps."""

from collections.abc import Iterable
from typing import Any, Self

from pydantic import Field, PrivateAttr, model_validator

from pipeline.config.base import ConfigPart, Url


class SourceConfig(ConfigPart):
    """Which shards to read, and which of their fields to keep. A string or a list is short for `{urls: ...}`."""

    urls: tuple[Url, ...] = Field(min_length=1)
    """Folders, globs or shards: local paths or any fsspec URL. A shard is a tar (plain or gzip), a zip or a Parquet
    file. A folder without any of these is a folder of loose images."""
    split: str | None = None
    """Read only the shards of this split, as Hugging Face data sets name them: `data/train-00000-of-00004.parquet`."""
    images_per_shard: int = Field(default=1000, ge=1, le=100_000)
    """Folders of loose images: number of images in a shard, in the order of their sorted names."""
    image_column: str | None = None
    """Parquet: column of the encoded images. By default it is detected by name and type."""
    key_column: str | None = None
    """Parquet: column that becomes `key`. By default `key`, `__key__`, `id` or the image's path."""
    metadata_fields: tuple[str, ...] = ()
    """Fields of the source row to keep in the caption row's `source`: columns, keys of the `.json`
    member, or extensions of text members such as `txt`. `*` keeps all fields except image bytes."""

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
