"""A corpus: where captions, tags and metadata come from, and how they become training text."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import AS_LIST, ConfigPart, Url, refuse_repeats
from pipeline.config.cluster_config import ClusterConfig
from pipeline.config.corpus_filters import FilterConfig, ScheduleConfig, weight_in
from pipeline.config.corpus_presets import PRESETS, Preset
from pipeline.config.recipe_form import added
from pipeline.config.render_config import ConfidenceConfig, RecordTagsConfig, RenderConfig, WordsConfig
from pipeline.config.suggestions import did_you_mean

NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$"


class FactField(StrEnum):
    """Facts about an image (`schemas.image_facts`) for which a config may name a column."""

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
    LANGUAGE = "language"
    """ISO 639 code of the captions; read only if its column is named."""


class TagField(StrEnum):
    """The fields of `FactField` that are lists of tags."""

    TAGS = "tags"
    GENERAL = "general"
    CHARACTER = "character"
    COPYRIGHT = "copyright"
    ARTIST = "artist"
    META = "meta"


Columns = dict[FactField, str | None]
"""Field to column; null leaves the field unknown. Fields that are not listed are found by well-known column names."""


class FeedConfig(ConfigPart):
    """Caption rows of a slot, or of some of its modes. A string is short for `{slot: ...}`."""

    short_form = "slot"

    slot: str
    """Name of the slot."""
    modes: tuple[str, ...] = ()
    """Modes of a mixed slot; by default all."""


Feeds = Annotated[tuple[FeedConfig, ...], AS_LIST]

Confidences = dict[TagField, str]
"""Field to the column with the confidences of its tags."""


def check_confidences(columns: Columns, confidences: Confidences) -> None:
    """Raise ValueError if the tags of some confidences are in no named column."""
    unnamed = sorted(str(field) for field in confidences if not columns.get(FactField(field)))
    if unnamed:
        raise ValueError(
            f"confidences: found {', '.join(unnamed)}, whose tags are in no named column; allowed: fields of `columns`"
        )


class CaptionsConfig(ConfigPart):
    """Captions that JoyFleet made for one source of images."""

    name: str = Field(pattern=NAME)
    """Name of the data set: the `source` of its records, which styles refer to."""
    outputs: Annotated[tuple[Url, ...], AS_LIST] = Field(min_length=1)
    """URLs of outputs. Several outputs caption the same shards, with different slots; they are joined by image."""
    long: Feeds = ()
    """Rows of the long caption; the first one with status ok is used."""
    short: Feeds = ()
    """Rows of the short caption; the first one with status ok is used."""
    tags: Feeds = ()
    """Rows of tag modes. The tags of all rows with status ok are general tags, in addition to those of the source."""
    columns: Columns = Field(default_factory=dict)
    """Field to key of the caption row's `source`; null leaves the field unknown. Fields that are not listed are found
    by well-known names."""
    confidences: Confidences = added(default_factory=dict)
    """Field to key of the confidences of its tags, where they are a list of their own; the field is in `columns`."""
    min_confidence: ConfidenceConfig | None = added(default=None)
    """Smallest confidence of the tags in `source`; by default that of `tags.min_confidence`."""
    duplicates: bool = added(default=False)
    """Give images that were skipped as duplicates (`source.duplicates`) the captions of their leader. Their other facts
    stay their own."""

    @model_validator(mode="after")
    def _feeds_something(self) -> Self:
        check_confidences(self.columns, self.confidences)
        if not (self.long or self.short or self.tags):
            raise ValueError("found none of long, short and tags; allowed: at least one of them, with a slot's name")
        return self


class JoinBy(StrEnum):
    """The property by which two entries identify an image."""

    ID = "id"
    """A number: the last part of a key or a path, without suffix and leading zeros, as in `0123/7000000.webp`."""
    KEY = "key"
    """The unchanged key."""
    NAME = "name"
    """The name of the file: the last part of a key or a path, without suffix, as in `photos/cat.webp`."""
    URL = "url"
    """The published URL, without scheme and fragment, and with the host in lower case."""
    SHA256 = "sha256"
    """Hash of the encoded image."""
    MD5 = "md5"
    """Of the encoded image, as the source row has it."""


class JoinConfig(ConfigPart):
    """How a table's rows are matched with the images of other entries. A string is short for `{by: ...}`."""

    short_form = "by"

    by: JoinBy
    """The property that is compared."""
    to: tuple[str, ...] = ()
    """Names of entries; by default all that are not joined themselves."""
    required: bool = False
    """Whether an image without a row in this table is dropped."""


class TableConfig(ConfigPart):
    """A table of tags, metadata or captions. With `join` it adds to other entries, else it is a source of records."""

    name: str = Field(pattern=NAME)
    """Name of the table."""
    urls: Annotated[tuple[Url, ...], AS_LIST] = Field(min_length=1)
    """Folders, globs or files: .parquet, .csv, .tsv, .json (an array or lines), .jsonl (also .gz, .zst), .tar
    (img2dataset's side-cars), .sqlite or .db of the danbooru2023 metadata, or a folder with its post.parquet,
    tag.parquet and posttagrelation.parquet."""
    columns: Columns = Field(default_factory=dict)
    """Field to column; null leaves the field unknown. Fields that are not listed are found by well-known names."""
    confidences: Confidences = added(default_factory=dict)
    """Field to column of the confidences of its tags, where they are a list of their own; the field is in `columns`."""
    min_confidence: ConfidenceConfig | None = added(default=None)
    """Smallest confidence of the tags in this table; by default that of `tags.min_confidence`."""
    join: JoinConfig | None = None
    """How rows are matched with images of other entries."""

    @model_validator(mode="after")
    def _confidences(self) -> Self:
        check_confidences(self.columns, self.confidences)
        return self


class Duplicate(StrEnum):
    """What makes two records duplicates."""

    ID = "id"
    IMAGE = "image"
    URL = "url"
    CAPTION = "caption"
    """The same long caption, or the same short one if there is no long one; ignores case, spaces and punctuation."""


class SplitConfig(ConfigPart):
    """Which images are held out for validation; all records of an image are in the same split."""

    validation: float = Field(default=0.01, ge=0, lt=1)
    """Share of the images that are held out."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the split. It differs from `seed`, so that a corpus with another `seed` has the same split."""


class DecontaminateConfig(ConfigPart):
    """What must not be in the corpus, such as the images of a benchmark. Text files, local or any fsspec URL."""

    identities: Annotated[tuple[Url, ...], AS_LIST] = ()
    """Files of ids, keys, SHA-256, MD5 or URLs, one a line."""
    texts: Annotated[tuple[Url, ...], AS_LIST] = ()
    """Files of captions, one a line, compared as in `dedupe: [caption]`."""


class TokenizerConfig(ConfigPart):
    """The tokenizer that counts tokens and plans packed sequences. A string is short for `{path: ...}`."""

    short_form = "path"

    path: str
    """A tokenizer.json of Hugging Face, or a folder with one. It must exist on every machine of the cluster with the
    same content. The content is part of the recipe, the path is not."""
    context: int = Field(default=1024, ge=16)
    """Tokens of a text that a model sees. Longer texts are counted, not cut."""
    bos: str | None = None
    """Token at the start of a text; by default it is found by its usual names."""
    eos: str | None = None
    """Token at the end of a text; by default it is found by its usual names."""
    pack: int | None = Field(default=None, ge=16)
    """Length in tokens of packed sequences of whole texts, planned for each file of texts. By default none are
    planned."""


class Detector(StrEnum):
    """What detects the language of captions."""

    PY3LANGID = "py3langid"
    """139 languages, with a model in the package. Needs the extra `languages`."""


class LanguagesConfig(ConfigPart):
    """How the language of a record is detected: from its long caption, else from the short one.

    A name is short for `{detector: ...}`.
    """

    short_form = "detector"

    detector: Detector = Detector.PY3LANGID
    """What detects it."""
    candidates: Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...], AS_LIST] = ()
    """The only languages that are considered, as ISO 639 codes; by default all that the detector knows. Fewer
    candidates make fewer errors in short captions."""
    min_confidence: float = Field(default=0.3, ge=0, le=1)
    """Smallest probability with which a language is accepted; below it, the language of the record is unknown. Short
    captions have low probabilities among many candidates."""

    @field_validator("candidates")
    @classmethod
    def _several(cls, candidates: tuple[str, ...]) -> tuple[str, ...]:
        refuse_repeats("candidates", candidates)
        if len(candidates) == 1:
            raise ValueError("allowed: at least two languages, or none for all")
        return candidates


class Format(StrEnum):
    """File format of the texts. Records are always Parquet."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    """JSON Lines, zstd."""


class ShuffleConfig(ConfigPart):
    """Mixes the texts of all sources, for trainers that stream: each split and epoch becomes files of one size."""

    rows: int | None = Field(default=None, ge=1)
    """Texts of a file at most; the files of a split and epoch differ by one text. Give this or `mb`."""
    mb: float | None = Field(default=None, ge=0.001, le=1000)
    """Size of a file, about: MB (10^6 bytes) of user + output in UTF-8, before compression. Give this or `rows`."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the order. Another seed gives another order of the same texts."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.rows is None) == (self.mb is None):
            raise ValueError("found none or both of rows and mb; allowed: one of them, the size of a file")
        return self


class TagFilesConfig(ConfigPart):
    """Aliases and implications of tags; files, local or any fsspec URL, also .gz.

    Danbooru's dumps as JSON Lines or CSV, of which the active lines are used, or lines of `from,to`.
    """

    aliases: Url | None = None
    """Old names of tags and the current ones. Chains are followed to their end, circles are refused."""
    implications: Url | None = None
    """Tags and the tags that they imply directly; used with `tags.add_implied` or `tags.prune_implied`. Circles are
    refused."""


class CorpusConfig(ConfigPart):
    """A corpus. `load_corpus` builds it."""

    preset: Preset = Preset.TIPO_V2_1
    """Preset of `render` and `words`, unless they have their own."""
    captions: Annotated[tuple[CaptionsConfig, ...], AS_LIST] = ()
    """Outputs of JoyFleet; each entry is a source of records."""
    tables: Annotated[tuple[TableConfig, ...], AS_LIST] = ()
    """Tables that are joined to other entries, or are sources of records."""
    output: Url = Field(min_length=1)
    """Folder of the corpus: a local path, s3:// or gs://."""
    epochs: int = Field(default=1, ge=1, le=1000)
    """Number of texts for each record; each is drawn independently."""
    schedule: Annotated[tuple[ScheduleConfig, ...], AS_LIST] = added(default=())
    """Repeats, weights and tasks of sources by epoch; by default every record has one text in every epoch."""
    filters: Annotated[tuple[FilterConfig, ...], AS_LIST] = added(default=())
    """Which records are kept; by default all. Filters come before `dedupe`."""
    languages: LanguagesConfig | None = added(default=None)
    """Detection of the language of each record; by default it is known only from a column `language`."""
    dedupe: tuple[Duplicate, ...] = (Duplicate.ID, Duplicate.IMAGE, Duplicate.URL)
    """What makes two records duplicates, in the order in which it is compared."""
    split: SplitConfig = SplitConfig()
    """Which images are held out for validation."""
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    """What must not be in the corpus."""
    tokenizer: TokenizerConfig | None = None
    """The tokenizer that counts tokens; by default they are not counted."""
    formats: tuple[Format, ...] = Field(default=(Format.PARQUET,), min_length=1)
    """File formats of the texts."""
    shuffle: ShuffleConfig | None = added(default=None)
    """Files of mixed texts; by default each work unit has its own files, in the order of its source."""
    license: str | None = None
    """For the data set card: an SPDX identifier, as Hugging Face lists them."""
    memory_gib: float = Field(default=4, gt=0)
    """GiB of memory for the driver's joins and comparisons; beyond it they use the disk."""
    cluster: ClusterConfig = ClusterConfig()
    """Which Ray cluster does the work."""
    render: RenderConfig
    """How a record becomes a text. By default as the preset does it."""
    words: WordsConfig
    """Rating, quality and era words. By default those of the preset."""
    tags: RecordTagsConfig = RecordTagsConfig()
    """Which tags a record keeps."""
    tag_files: TagFilesConfig = TagFilesConfig()
    """Aliases and implications of tags."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of all random draws, except for the split."""

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
        refuse_repeats("entries", values)
        return values

    @model_validator(mode="after")
    def _entries(self) -> Self:
        refuse_repeats("names in captions and tables", [entry.name for entry in (*self.captions, *self.tables)])
        if not self.sources:
            raise ValueError("found no source of records; allowed: captions, or a table without join")
        self._check_styles()
        self._check_sources("filters", [entry.sources for entry in self.filters])
        self._check_sources("schedule", [entry.sources for entry in self.schedule])
        self._check_epochs()
        self._check_confidences()
        self._check_language()
        for table in self.tables:
            unknown = sorted(set(table.join.to).difference(self.sources)) if table.join else []
            if unknown:
                raise ValueError(
                    f"tables {table.name}: join.to names {', '.join(unknown)}; allowed: {', '.join(self.sources)}"
                )
        return self

    def _check_styles(self) -> None:
        """Refuse a style that no source has. The styles of a preset may be without sources."""
        of_preset = PRESETS[self.render.preset]["styles"]
        unused = [
            name
            for name in self.render.styles
            if name not in of_preset and not any(source.startswith(name) for source in self.sources)
        ]
        if unused:
            allowed = [*self.sources, *of_preset]
            raise ValueError(
                f"render.styles: no source begins with {', '.join(unused)}; allowed: the beginning of a source "
                f"({', '.join(self.sources)}), or a style of the preset ({', '.join(of_preset)})"
                f"{did_you_mean(unused, allowed)}"
            )

    def _check_sources(self, key: str, entries: Sequence[Sequence[str]]) -> None:
        for number, names in enumerate(entries):
            unknown = sorted(set(names).difference(self.sources))
            if unknown:
                raise ValueError(
                    f"{key}.{number}.sources: found {', '.join(unknown)}; allowed: {', '.join(self.sources)}"
                    f"{did_you_mean(unknown, self.sources)}"
                )

    def _check_language(self) -> None:
        asked = [number for number, entry in enumerate(self.filters) if entry.language]
        if asked and not self.knows_language:
            raise ValueError(
                f"filters.{asked[0]}.language: no record has a language; set languages, or name the column of the "
                "field language in columns"
            )

    @property
    def names_language(self) -> bool:
        """Whether a column with languages is named."""
        return any(entry.columns.get(FactField.LANGUAGE) for entry in (*self.captions, *self.tables))

    @property
    def knows_language(self) -> bool:
        """Whether records may have a language: detected, or from a column."""
        return self.names_language or self.languages is not None

    def _check_confidences(self) -> None:
        for entry in (*self.captions, *self.tables):
            if entry.confidences and not (entry.min_confidence or self.tags.min_confidence):
                raise ValueError(
                    f"{entry.name}: confidences without a threshold; set tags.min_confidence, or min_confidence of "
                    f"{entry.name}"
                )

    def _check_epochs(self) -> None:
        """Refuse entries of the schedule for epochs that the corpus does not have, and epochs without a text."""
        for number, entry in enumerate(self.schedule):
            beyond = [epoch for epoch in (entry.first_epoch, entry.last_epoch or 0) if epoch >= self.epochs]
            if beyond:
                raise ValueError(
                    f"schedule.{number}: names epoch {beyond[0]}; allowed: 0 to {self.epochs - 1}, since epochs is "
                    f"{self.epochs}"
                )
        epoch = self.empty_epoch(self.epochs)
        if epoch is not None:
            raise ValueError(
                f"schedule: no source has a weight above 0 in epoch {epoch}; allowed: at least one in every epoch"
            )

    def empty_epoch(self, epochs: int) -> int | None:
        """Return the first of so many epochs in which the schedule gives no source a text."""
        weights = (
            (epoch, any(weight_in(self.schedule, source, epoch) for source in self.sources)) for epoch in range(epochs)
        )
        return next((epoch for epoch, drawn in weights if not drawn), None)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the entries whose images become records; of duplicates, the earlier entry's record is kept."""
        return tuple(entry.name for entry in (*self.captions, *(table for table in self.tables if table.join is None)))

    @property
    def joins(self) -> tuple[TableConfig, ...]:
        """Tables that are joined to other entries; if several have a value for a field, the first one is used."""
        return tuple(table for table in self.tables if table.join is not None)
