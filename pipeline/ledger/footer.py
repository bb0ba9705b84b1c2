"""The metadata of a file of captions/ or staging/: which run and which shard it belongs to, checked on every read."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipeline.storage.parquet import read_metadata
from schemas.caption_row import SCHEMA_VERSION
from schemas.footer import PREFIX, FooterKey
from schemas.shard import Shard

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """What all files of one run share."""

    recipe: str
    """Fingerprint."""
    slots: tuple[str, ...]
    """In the order in which a file lists the captions of an image."""
    versions: Mapping[str, str]
    """Program to version: a record only, no part of any check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """The footer of a committed file (`statuses`) or of a fragment (`rows`)."""

    run: RunIdentity
    shard: str
    size: int
    etag: str
    num_images: int
    """Of the whole shard, not of this file."""
    attempt: str
    statuses: Mapping[str, int] | None = None
    skipped: Mapping[str, int] | None = None
    """Of a committed file with skipped rows: condition to number of caption rows."""
    captions_sha256: str | None = None
    """Of a committed file; None in those of versions that did not write it."""
    rows: tuple[tuple[int, int], ...] | None = None
    """First row and number of rows of each stretch, ascending."""
    later_keys: Mapping[str, str] = field(default_factory=dict[str, str])
    """Keys of a later release, kept where the file is written again."""

    def mismatch(self, run: RunIdentity, shard: Shard) -> str | None:
        """Say in what the file differs from the expected run and shard, or None."""
        pairs = {
            "recipe": (self.run.recipe, run.recipe),
            "slots": (list(self.run.slots), list(run.slots)),
            "shard": (self.shard, shard.path),
            "size": (self.size, shard.size),
            "etag": (self.etag, shard.etag),
        }
        differing = [
            f"{name} is {own!r}, expected {wanted!r}" for name, (own, wanted) in pairs.items() if own != wanted
        ]
        return "; ".join(differing) or None


def encode_footer(footer: Footer) -> dict[str, str]:
    """Return the key-value metadata; a field that is None has no key."""
    fields: dict[FooterKey, str] = {
        FooterKey.SCHEMA_VERSION: SCHEMA_VERSION,
        FooterKey.ATTEMPT: footer.attempt,
        FooterKey.RECIPE: footer.run.recipe,
        FooterKey.SHARD: footer.shard,
        FooterKey.SIZE: str(footer.size),
        FooterKey.ETAG: footer.etag,
        FooterKey.NUM_IMAGES: str(footer.num_images),
        FooterKey.SLOTS: json.dumps(footer.run.slots),
        FooterKey.VERSIONS: json.dumps(dict(footer.run.versions), sort_keys=True),
    }
    if footer.statuses is not None:
        fields[FooterKey.STATUSES] = json.dumps(dict(footer.statuses), sort_keys=True)
    if footer.skipped is not None:
        fields[FooterKey.SKIPPED] = json.dumps(dict(footer.skipped), sort_keys=True, ensure_ascii=False)
    if footer.captions_sha256 is not None:
        fields[FooterKey.CAPTIONS_SHA256] = footer.captions_sha256
    if footer.rows is not None:
        fields[FooterKey.ROWS] = json.dumps(footer.rows)
    return {**footer.later_keys, **{str(key): value for key, value in fields.items()}}


def read_footer(data: bytes) -> tuple[Footer, int]:
    """Return the footer of a whole Parquet file, and its number of caption rows.

    Raises:
        ValueError: the file is cut, of another schema version, or was not written by JoyFleet; says which.
    """
    metadata, num_rows = read_metadata(data)
    return decode_footer(metadata), num_rows


def decode_footer(metadata: Mapping[bytes, bytes]) -> Footer:
    """Raise ValueError for another schema version, and for a field that is missing or malformed."""
    version = _field(metadata, FooterKey.SCHEMA_VERSION, str)
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema version {version!r}; this JoyFleet reads only {SCHEMA_VERSION!r}")
    return Footer(
        run=RunIdentity(
            recipe=_field(metadata, FooterKey.RECIPE, str),
            slots=_field(metadata, FooterKey.SLOTS, _names),
            versions=_field(metadata, FooterKey.VERSIONS, _mapping(str)),
        ),
        shard=_field(metadata, FooterKey.SHARD, str),
        size=_field(metadata, FooterKey.SIZE, int),
        etag=_field(metadata, FooterKey.ETAG, str),
        num_images=_field(metadata, FooterKey.NUM_IMAGES, int),
        attempt=_field(metadata, FooterKey.ATTEMPT, str),
        statuses=_optional(metadata, FooterKey.STATUSES, _mapping(int)),
        skipped=_optional(metadata, FooterKey.SKIPPED, _mapping(int)),
        captions_sha256=_optional(metadata, FooterKey.CAPTIONS_SHA256, str),
        rows=_optional(metadata, FooterKey.ROWS, _stretches),
        later_keys=_later_keys(metadata),
    )


def _later_keys(metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    names = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in metadata.items()}
    return {name: value for name, value in names.items() if name.startswith(PREFIX) and name not in set(FooterKey)}


def _field(metadata: Mapping[bytes, bytes], key: FooterKey, parse: Callable[[str], T]) -> T:
    value = metadata.get(key.encode())
    if value is None:
        raise ValueError(f"no {key} in the footer")
    try:
        return parse(value.decode())
    except (ValueError, TypeError, AttributeError) as err:
        raise ValueError(f"{key} in the footer is malformed: {value[:80]!r}") from err


def _optional(metadata: Mapping[bytes, bytes], key: FooterKey, parse: Callable[[str], T]) -> T | None:
    return _field(metadata, key, parse) if key.encode() in metadata else None


def _names(text: str) -> tuple[str, ...]:
    return tuple(str(name) for name in json.loads(text))


def _mapping(of: Callable[[Any], T]) -> Callable[[str], dict[str, T]]:
    return lambda text: {str(key): of(value) for key, value in json.loads(text).items()}


def _stretches(text: str) -> tuple[tuple[int, int], ...]:
    return tuple((int(first), int(count)) for first, count in json.loads(text))
