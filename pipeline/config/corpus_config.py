"""A corpus as one checked record: where captions, tags and metadata come from, and what is made of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.config.base import ConfigPart, Url
from pipeline.config.cluster_config import ClusterConfig
from pipeline.config.corpus_presets import Preset
from pipeline.config.render_config import RecordTagsConfig, RenderConfig, WordsConfig

NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$"


def _listed(value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
    return [value] if isinstance(value, str | dict) else value


class FactField(StrEnum):
    """What can be known of an image (`schemas.image_facts`), as far as a config may name a column for it."""

    ID = "id"
    KEY = "key"
    URL = "url"
    SHA256 = "sha256"
    MD5 = "md5"
    TAGS = "tags"
    GENERAL = "general"
    CHARACTER = "character"
    COPYRIGHT = "copyright"
    ARTIST = "artist"
    META = "meta"
    RATING = "rating"
    QUALITY = "quality"
    WIDTH = "width"
    HEIGHT = "height"
    SHORT = "short"
    LONG = "long"
    TITLE = "title"
    SCORE = "score"
    FAVORITES = "favorites"
    YEAR = "year"


Columns = dict[FactField, str | None]
"""Field to column; null leaves the field unknown. Fields that are not named are found by well-known column names."""


class FeedConfig(ConfigPart):
    """Caption rows that feed one field: those of a slot, or of some of its modes."""

    slot: str
    modes: tuple[str, ...] = ()
    """Modes of a mixed slot; none stands for all."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        return {"slot": value} if isinstance(value, str) else value


Feeds = Annotated[tuple[FeedConfig, ...], BeforeValidator(_listed)]


class CaptionsConfig(ConfigPart):
    """Captions that JoyFleet made of one source of images."""

    name: str = Field(pattern=NAME)
    """The data set's name: `source` of its records, and what styles go by."""
    outputs: Annotated[tuple[Url, ...], BeforeValidator(_listed)] = Field(min_length=1)
    """URLs of outputs. Several are captions of the same shards, joined image by image; their slots differ."""
    long: Feeds = ()
    """Where the long caption comes from: of several, the first that is ok."""
    short: Feeds = ()
    tags: Feeds = ()
    """Tag modes; all that are ok are general tags, beside those of the source."""
    columns: Columns = Field(default_factory=dict)
    """Fields of the caption row's `source`, where their names do not tell."""

    @model_validator(mode="after")
    def _feeds_something(self) -> Self:
        if not (self.long or self.short or self.tags):
            raise ValueError("found none of long, short and tags; allowed: at least one of them, with a slot's name")
        return self


class JoinBy(StrEnum):
    """What two places know an image by."""

    ID = "id"
    """A number. Of a key or a path, the last part without suffix and leading zeros: `0123/7000000.webp`."""
    KEY = "key"
    """The key as it stands."""
    URL = "url"
    """The published URL, normalised: scheme, fragment and the host's case do not count."""
    SHA256 = "sha256"
    """Of the encoded image."""
    MD5 = "md5"
    """Of the encoded image, as the source row tells it."""


class JoinConfig(ConfigPart):
    """How a table's rows find the images of other entries."""

    by: JoinBy
    to: tuple[str, ...] = ()
    """Names of entries; none stands for all that are not joined themselves."""
    required: bool = False
    """Whether an image without a row in this table is dropped."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        return {"by": value} if isinstance(value, str) else value


class TableConfig(ConfigPart):
    """A table of tags, metadata or captions: a side of a join, or without `join` a source of records itself."""

    name: str = Field(pattern=NAME)
    urls: Annotated[tuple[Url, ...], BeforeValidator(_listed)] = Field(min_length=1)
    """Folders, globs or files: .parquet, .csv, .tsv, .json (an array or lines), .jsonl (also .gz, .zst), .tar
    (img2dataset's side-cars), .sqlite or .db of the danbooru2023 metadata, or a folder with its post.parquet,
    tag.parquet and posttagrelation.parquet."""
    columns: Columns = Field(default_factory=dict)
    join: JoinConfig | None = None


class Duplicate(StrEnum):
    """What makes two records one, in the order in which they are compared."""

    ID = "id"
    IMAGE = "image"
    URL = "url"
    CAPTION = "caption"
    """The same long caption, or short one where there is no long: case, blanks and punctuation do not count."""


class SplitConfig(ConfigPart):
    """What is held out, by image: all records of an image are on one side."""

    validation: float = Field(default=0.01, ge=0, lt=1)
    """Share of the images."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Apart from the corpus's own, so that a corpus drawn anew keeps its split."""


class DecontaminateConfig(ConfigPart):
    """What must not be in the corpus, such as a benchmark's images. Files of lines, local or any fsspec URL."""

    identities: Annotated[tuple[Url, ...], BeforeValidator(_listed)] = ()
    """Ids, keys, SHA-256, MD5 or URLs, one a line."""
    texts: Annotated[tuple[Url, ...], BeforeValidator(_listed)] = ()
    """Captions, one a line, compared as for `caption` duplicates."""


class TokenizerConfig(ConfigPart):
    """Counts tokens, and plans packs."""

    path: str
    """A tokenizer.json of Hugging Face, or a folder that holds one; on every machine of the cluster."""
    context: int = Field(default=1024, ge=16)
    """Tokens that a model sees of one text: longer ones are counted, and are not cut."""
    bos: str | None = None
    """The token that opens a text; by default found by its usual names."""
    eos: str | None = None
    pack: int | None = Field(default=None, ge=16)
    """Tokens of a sequence into which whole texts are planned, for each file of texts. By default no plan is made."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        return {"path": value} if isinstance(value, str) else value


class Format(StrEnum):
    """How texts are written. Records are Parquet always."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    """JSON Lines, zstd."""


class TagFilesConfig(ConfigPart):
    """What a booru says of its tags. Files of `from,to` lines, local or any fsspec URL."""

    aliases: Url | None = None
    """Renamed tags and what they are called today."""
    implications: Url | None = None
    """Tags and what they imply directly; used with `tags.prune_implied`."""


class CorpusConfig(ConfigPart):
    """A whole corpus. Built by `load_corpus`; every field is final."""

    preset: Preset = Preset.TIPO_V2_1
    """Of `render` and `words` both, where they name none themselves."""
    captions: Annotated[tuple[CaptionsConfig, ...], BeforeValidator(_listed)] = ()
    tables: Annotated[tuple[TableConfig, ...], BeforeValidator(_listed)] = ()
    output: Url = Field(min_length=1)
    epochs: int = Field(default=1, ge=1, le=1000)
    """Each epoch draws every record anew."""
    dedupe: tuple[Duplicate, ...] = (Duplicate.ID, Duplicate.IMAGE, Duplicate.URL)
    split: SplitConfig = SplitConfig()
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    tokenizer: TokenizerConfig | None = None
    formats: tuple[Format, ...] = (Format.PARQUET,)
    license: str | None = None
    """For the data set card: an SPDX identifier, as Hugging Face lists them."""
    memory_gib: float = Field(default=4, gt=0)
    """Of the driver's joins and comparisons; beyond it they use the disk."""
    cluster: ClusterConfig = ClusterConfig()
    render: RenderConfig
    """How a record becomes a text; the preset's where nothing is given."""
    words: WordsConfig
    """Rating, quality and era words."""
    tags: RecordTagsConfig = RecordTagsConfig()
    tag_files: TagFilesConfig = TagFilesConfig()
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="before")
    @classmethod
    def _one_preset(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        if not isinstance(value, dict):
            return value
        preset = {"preset": value.get("preset", Preset.TIPO_V2_1)}
        given = {name: value.get(name, {}) for name in ("render", "words")}
        return {**value, **{name: {**preset, **own} if isinstance(own, dict) else own for name, own in given.items()}}

    @field_validator("dedupe", "formats")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError(f"found {', '.join(values)}; allowed: each once")
        return values

    @field_validator("formats")
    @classmethod
    def _some(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        if not formats:
            raise ValueError(f"found none; allowed: {', '.join(Format)}")
        return formats

    @model_validator(mode="after")
    def _entries(self) -> Self:
        names = [entry.name for entry in (*self.captions, *self.tables)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names {', '.join(twice)} repeat in captions and tables; allowed: each name once")
        if not self.sources:
            raise ValueError("found no source of records; allowed: captions, or a table without join")
        for table in self.tables:
            unknown = sorted(set(table.join.to).difference(self.sources)) if table.join else []
            if unknown:
                raise ValueError(
                    f"tables {table.name}: join.to names {', '.join(unknown)}; allowed: {', '.join(self.sources)}"
                )
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the entries whose images become records, in the order in which duplicates are won."""
        return tuple(entry.name for entry in (*self.captions, *(table for table in self.tables if table.join is None)))

    @property
    def joins(self) -> tuple[TableConfig, ...]:
        """Tables that are sides of a join; where two know a thing, the first one's word holds."""
        return tuple(table for table in self.tables if table.join is not None)
