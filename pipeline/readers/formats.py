"""The table of shard formats. A shard's format follows from its name: a tar named `.parquet` is unreadable."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager

from fsspec.core import url_to_fs

from pipeline.config import SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.readers.folder import FOLDER
from pipeline.readers.format import Format, ShardCount
from pipeline.readers.parent import ParentShard, count_rows, images_source
from pipeline.readers.parquet import PARQUET
from pipeline.readers.source_row import ShardReader
from pipeline.readers.tar import TAR, TAR_GZ
from pipeline.readers.transport import is_local, store_errors
from pipeline.readers.zip import ZIP
from schemas.shard import Shard

FORMATS: dict[str, Format] = {form.name: form for form in (TAR, TAR_GZ, ZIP, PARQUET, FOLDER)}


@contextmanager
def _open_parent(shard: Shard, source: SourceConfig, max_bytes: int) -> Generator[ShardReader]:
    with ExitStack() as stack:

        def open_images() -> ShardReader:
            images = images_source(source.captions or "")
            return stack.enter_context(open_shard(shard.origin or shard, images, max_bytes))

        yield ParentShard(shard, source, open_images)


@contextmanager
def _open_parent_head(
    shard: Shard,
    source: SourceConfig,
    max_bytes: int,
    num_images: int,
    fields: Sequence[str],  # noqa: ARG001 - see `OpenHead`
) -> Generator[ShardReader]:
    with ExitStack() as stack:

        def open_images() -> ShardReader:
            images = images_source(source.captions or "")
            return stack.enter_context(open_head(shard.origin or shard, images, max_bytes, num_images))

        yield ParentShard(shard, source, open_images)


def _count_parent(shard: Shard, source: SourceConfig) -> ShardCount:
    return ShardCount(count_rows(shard, source), exact=True)


PARENT = Format(
    name="output", suffixes=(), open=_open_parent, open_head=_open_parent_head, count=_count_parent
)  # fmt: skip
"""A committed file of an output. It is recognised by its `origin`, not by its name, which is that of the origin."""


def format_of(shard: Shard) -> Format:
    """Return the format of a shard: that of an output, or what its name says."""
    return PARENT if shard.origin is not None else format_of_path(shard.path)


def format_of_path(path: str) -> Format:
    """Return the format of a shard by its name; one without a known suffix is a part of a folder of images."""
    return next((form for form in FORMATS.values() if path.lower().endswith(form.suffixes)), FOLDER)


def shard_suffixes() -> tuple[str, ...]:
    """Return the suffixes of all formats."""
    return tuple(suffix for form in FORMATS.values() for suffix in form.suffixes)


@contextmanager
def open_shard(shard: Shard, source: SourceConfig, max_bytes: int) -> Generator[ShardReader]:
    """Open a shard to read all of it; a local copy of it is removed when the context ends.

    Args:
        shard: as listed; a shard that has changed since is refused.
        source: which columns and fields to read.
        max_bytes: an image larger than this is not read, its row says TOO_MANY_BYTES.

    Raises:
        ShardUnreadable: names the shard, what was found and what to do.
    """
    with ExitStack() as stack:
        try:
            reader = stack.enter_context(format_of(shard).open(shard, source, max_bytes))
        except OSError as err:
            raise ShardUnreadable(f"{shard.url}: {err}; check the local disk and retry") from err
        yield reader


@contextmanager
def open_head(
    shard: Shard, source: SourceConfig, max_bytes: int, num_images: int, fields: Sequence[str] = ()
) -> Generator[ShardReader]:
    """Open a shard of which only the first images are read: for a sample a thousandth of its bytes is enough.

    A local shard, and one of a format without `open_head`, is opened whole. Else the rows are those of `open_shard` if
    the files of each sample are adjacent; if not, a row may lack texts or be another one, so a caller that must be
    sure compares the hash of the image.

    Args:
        shard: as listed.
        source: which columns and fields to read.
        max_bytes: an image larger than this is not read, its row says TOO_MANY_BYTES.
        num_images: how many are needed; the shard may have fewer.
        fields: metadata fields to read where each costs a request, as the texts of a tar in a store.

    Raises:
        ShardUnreadable: names the shard, what was found and what to do.
    """
    head = format_of(shard).open_head
    if head is None or (shard.origin is None and is_local(url_to_fs(shard.url)[0])):
        with open_shard(shard, source, max_bytes) as reader:
            yield reader
        return
    try:
        with head(shard, source, max_bytes, num_images, fields) as reader:
            yield reader
    except store_errors() as err:
        raise ShardUnreadable(f"{shard.url}: cannot be read ({type(err).__name__}: {err}); check the store") from err


def count_images(shard: Shard, source: SourceConfig) -> ShardCount:
    """Count the images of a shard, or estimate their number.

    Raises:
        ShardUnreadable: names the shard, what was found and what to do.
    """
    count = format_of(shard).count
    try:
        if count is not None:
            return count(shard, source)
    except store_errors() as err:
        raise ShardUnreadable(f"{shard.url}: cannot be read ({type(err).__name__}: {err})") from err
    with open_shard(shard, source, max_bytes=0) as reader:
        return ShardCount(reader.num_images, exact=True, left_out=reader.left_out)
