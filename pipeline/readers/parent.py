"""An output of JoyFleet as a source: its committed files are the shards, its caption rows are the rows.

What the parent says about an image (key, metadata, captions, size) is read from its committed file alone, in one GET.
The images are a second reading, of the parent's own source, and only of rows for which a request may be sent. A model
without images therefore reads no byte of them.
"""

import functools
import itertools
import json
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, cast

from pipeline.config import SourceConfig
from pipeline.config.load import read_stored
from pipeline.config.prompt_fields_config import PARENT, PARENT_PREFIX, no_caption
from pipeline.config.renamed_keys import with_new_names
from pipeline.config.trust import refuse_foreign_sources
from pipeline.errors import ConfigError, ShardUnreadable
from pipeline.ledger.footer import Footer, read_footer
from pipeline.ledger.layout import CAPTIONS, RUN, committed_path, shard_of_committed
from pipeline.ledger.run_record import RunRecord, read_run
from pipeline.ledger.shard_plan import compare_with_source, read_plan
from pipeline.readers.metadata_fields import EVERYTHING, split_fields
from pipeline.readers.sample_reader import field_names
from pipeline.readers.source_row import JSON, LeftOut, ParentImage, Screen, ShardReader, SourceRow
from pipeline.storage import Store, open_store
from pipeline.storage.parquet import iter_parquet
from schemas.caption_row import CAPTION_ROW
from schemas.shard import Shard
from schemas.status import Reason, Status

BATCH_ROWS = 2048

# fmt: off
COLUMNS = (
    "row", "key", "slot", "status", "caption", "image_sha256", "image_bytes", "image_format", "width", "height",
    "source", "recipe",
)
# fmt: on

ListSource = Callable[[SourceConfig], Sequence[Shard]]
"""Lists the shards of a source that is no output."""
OpenImages = Callable[[], ShardReader]
"""Opens the shard of the images; it stays open as long as the shard of captions."""

_SAY_URLS = "To read its images, name their source beside it: source.urls"


def list_parent(source: SourceConfig, list_source: ListSource) -> tuple[list[Shard], list[str]]:
    """List the committed files of an output as shards, sorted by path, with remarks for people.

    A shard has the size and the etag of the shard that it captions: what `retry --rows` and `amend` change in the file
    does not make it another shard.

    Raises:
        ConfigError: `source.captions` is no output of captions, has no committed file, lacks a slot, or its images
            would be fetched from a place that needs the caller's consent.
        OutputMismatch: a shard of its own source has changed, if `source.urls` says where that is now.
    """
    store = open_store(source.captions or "")
    record = _record(store)
    _check_slots(store, record, source)
    plan = read_plan(store)
    committed = {shard_of_committed(entry.path) for entry in store.list(CAPTIONS)}
    paths = sorted(path for path in plan.shards if path in committed)
    if not paths:
        raise ConfigError(f"source.captions: {store.url} has no committed shard yet; caption its images first")
    origins = _origins(store, record, source, plan.shards, list_source) if source.reads_images else plan.shards
    shards = [_shard(store, record, plan.shards[path], origins[path]) for path in paths]
    missing = len(plan.shards) - len(shards)
    remark = (
        f"source.captions: {missing:,} of {len(plan.shards):,} shards of {store.url} are not committed; "
        "`joyfleet caption JOB --extend` adds them when they are"
    )
    return shards, [remark] if missing else []


def _record(store: Store) -> RunRecord:
    record = read_run(store)
    if "job" not in record.about or "slots" not in record.about:
        raise ConfigError(f"source.captions: {store.url} is a corpus; give an output of `joyfleet caption`")
    return record


def _check_slots(store: Store, record: RunRecord, source: SourceConfig) -> None:
    slots = [str(slot) for slot in record.about["slots"]]
    unknown = sorted({*(source.parent_slots or ()), *(slot for _, slot in _tested(source))} - set(slots))
    if unknown:
        raise ConfigError(
            f"source.captions: {store.url} has no slot {unknown[0]!r}, and this job uses {{{unknown[0]}}}; its slots: "
            f"{', '.join(slots)}"
        )


def _shard(store: Store, record: RunRecord, planned: Shard, origin: Shard) -> Shard:
    url = f"{store.url}/{committed_path(planned.path)}"
    return Shard(planned.path, url, planned.size, f"{record.fingerprint}:{planned.etag}", origin)


def _origins(
    store: Store, record: RunRecord, source: SourceConfig, planned: Mapping[str, Shard], list_source: ListSource
) -> Mapping[str, Shard]:
    """The shards of the images, by path: as the parent planned them, or where `source.urls` says that they are now."""
    own = _source_of(store, record)
    if own.captions is not None:
        refuse_foreign_sources((own.captions,), f"{store.url}/{RUN}", "Copy that output to one of these")
        shards, _ = list_parent(own.model_copy(update={"urls": source.urls}), list_source)
        return {shard.path: shard.origin or shard for shard in shards}
    if source.urls:
        listed = list_source(own.model_copy(update={"urls": source.urls}))
        return compare_with_source(store.url, read_plan(store), listed).shards
    refuse_foreign_sources([shard.url for shard in planned.values()], f"{store.url}: its plan", _SAY_URLS)
    return planned


def _source_of(store: Store, record: RunRecord) -> SourceConfig:
    described = with_new_names(record.about["job"])
    return read_stored(SourceConfig, described.get("source"), f"{store.url}/{RUN}", "source.")


@functools.lru_cache(maxsize=16)
def images_source(captions: str) -> SourceConfig:
    """Return how the shards of the images behind an output are read; one GET for each process."""
    store = open_store(captions)
    own = _source_of(store, _record(store))
    if own.captions is not None:
        return images_source(own.captions)
    return own.model_copy(update={"metadata_fields": ()})


class ParentShard:
    """A `ShardReader` of a committed file of an output."""

    def __init__(self, shard: Shard, source: SourceConfig, open_images: OpenImages) -> None:
        """Read the file.

        Args:
            shard: as `list_parent` lists it.
            source: which slots and fields to read, and whether images.
            open_images: called at the first row whose image is read.

        Raises:
            ShardUnreadable: it is gone, damaged, or of another recipe or shard.
            StoreError: the store does not answer.
        """
        self._shard = shard
        self._source = source
        self._fields = field_names(source)
        self._open_images = open_images
        self._images: ShardReader | None = None
        self._data = _get(shard, source)
        footer = _footer(shard, self._data)
        self._slots = footer.run.slots
        self.num_images = footer.num_images

    def check(self) -> None:
        """See `ShardReader.check`. The captions were read whole, in one request."""
        if self._images is not None:
            self._images.check()

    @property
    def layout(self) -> str:
        """See `ShardReader.layout`."""
        return f"captions in the slots {', '.join(self._slots)}"

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        return ()

    def rows(self, wanted: Container[int] | None, screen: Screen | None = None) -> Iterator[SourceRow]:
        """See `ShardReader.rows`."""
        try:
            rows = [self._row(captions, screen) for captions in self._captions(wanted)]
        except ValueError as err:
            raise ShardUnreadable(f"{self._shard.url}: {err}; restore the file") from err
        needed = {row.row for row in rows if row.reason is None} if self._source.reads_images else set[int]()
        images = self._read_images(needed)
        for row in rows:
            yield self._with_image(row, next(images, None)) if row.row in needed else row

    def _read_images(self, rows: Collection[int]) -> Iterator[SourceRow]:
        if not rows:
            return iter(())
        if self._images is None:
            self._images = self._open_images()
        return iter(self._images.rows(rows))

    def _with_image(self, row: SourceRow, image: SourceRow | None) -> SourceRow:
        if image is None or image.row != row.row:
            raise ShardUnreadable(
                f"{self._shard.url}: has captions of row {row.row}, and the shard of its images has no such row; "
                "restore that shard"
            )
        return replace(row, data=image.data, reason=image.reason, message=image.message)

    def _captions(self, wanted: Container[int] | None) -> Iterator[list[dict[str, Any]]]:
        """The caption rows of each wanted image; raises ValueError for a damaged file."""
        batches = iter_parquet(self._data, CAPTION_ROW, COLUMNS, BATCH_ROWS)
        rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
        num_images = 0
        for row, captions in itertools.groupby(rows, key=itemgetter("row")):
            if row != num_images:
                raise ValueError(f"holds row {row} where row {num_images} belongs")
            num_images += 1
            if wanted is None or row in wanted:
                yield list(captions)
        if num_images != self.num_images:
            raise ValueError(f"holds captions of {num_images} images, its footer says {self.num_images}")

    def _row(self, captions: Sequence[Mapping[str, Any]], screen: Screen | None) -> SourceRow:
        first, source = captions[0], self._source
        ok = {row["slot"]: row["caption"] for row in captions if row["status"] == Status.OK}
        fields = _kept(_fields_of(first), source)
        if source.parent_slots != ():
            fields[PARENT] = _of_slots(ok, source.parent_slots)
        fields |= {name: ok[slot] for name, slot in _tested(source) if slot in ok}
        parent = ParentImage(
            recipe=first["recipe"],
            sha256=first["image_sha256"],
            num_bytes=first["image_bytes"],
            format=first["image_format"],
            width=first["width"],
            height=first["height"],
        )
        answer = (screen(first["row"], fields, parent.num_bytes) if screen else None) or _without_caption(ok, source)
        reason, message = answer or (None, None)
        metadata, tested = split_fields(fields, self._fields)
        return SourceRow(first["row"], first["key"], None, metadata, reason, message, tested, parent)


def _get(shard: Shard, source: SourceConfig) -> bytes:
    try:
        return open_store(source.captions or "").get(committed_path(shard.path))
    except FileNotFoundError as err:
        raise ShardUnreadable(f"{shard.url}: is gone; restore it") from err


def _footer(shard: Shard, data: bytes) -> Footer:
    try:
        footer, _ = read_footer(data)
    except ValueError as err:
        raise ShardUnreadable(f"{shard.url}: {err}; restore the file") from err
    actual = (footer.shard, footer.size, f"{footer.run.recipe}:{footer.etag}")
    if actual != (shard.path, shard.size, shard.etag):
        raise ShardUnreadable(
            f"{shard.url}: holds captions of {footer.shard} ({footer.size} bytes, {footer.run.recipe}:{footer.etag}), "
            f"expected {shard.path} ({shard.size} bytes, {shard.etag}); restore the file"
        )
    return footer


def count_rows(shard: Shard, source: SourceConfig) -> int:
    """Return the number of images of a committed file, by its footer; raises as `ParentShard`."""
    return _footer(shard, _get(shard, source)).num_images


def _fields_of(row: Mapping[str, Any]) -> Mapping[str, JSON]:
    fields: Any = json.loads(row["source"])
    if not isinstance(fields, dict):
        raise ValueError(f"the metadata of row {row['row']} are no JSON object")
    return cast("Mapping[str, JSON]", fields)


def _kept(fields: Mapping[str, JSON], source: SourceConfig) -> dict[str, JSON]:
    """The metadata fields of the parent that are read; the names of its captions are not theirs."""
    everything = EVERYTHING in source.metadata_fields
    read = {*source.metadata_fields, *source.tested_fields}
    return {
        name: value
        for name, value in fields.items()
        if (everything or name in read) and name != PARENT and not name.startswith(PARENT_PREFIX)
    }


def _of_slots(ok: Mapping[str, str], slots: Sequence[str] | None) -> dict[str, JSON]:
    """The captions of a row's field `captions`."""
    return {slot: text for slot, text in ok.items() if slots is None or slot in slots}


def _tested(source: SourceConfig) -> list[tuple[str, str]]:
    """The fields `captions.SLOT` that conditions and `existing` name, with their slots."""
    return [(name, name.removeprefix(PARENT_PREFIX)) for name in source.tested_fields if name.startswith(PARENT_PREFIX)]


def _without_caption(ok: Mapping[str, str], source: SourceConfig) -> tuple[Reason, str] | None:
    """Why no request can be sent for a row; None if all slots of one of them have a caption."""
    needs = source.parent_needs
    if not needs or any(need <= ok.keys() for need in needs):
        return None
    missing = min(needs[0] - ok.keys())
    return Reason.NO_PARENT_CAPTION, no_caption(missing)
