"""Keys that are equal if two rows describe the same image, or two captions have the same words.

Every function is pure and returns one normal form, so that keys of different tables, runs and machines compare.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from pipeline.config.corpus_config import JoinBy
from pipeline.corpus.tables.column_mapping import SourceFacts

_PLAIN_URL = re.compile(r"https?://([a-z0-9.-]+)(/[!-\"$->@-~]*)?(\?[!-\"$-~]+)?")
"""The URLs for which host, path and query are what `urlsplit` returns, without its cost."""
_SUFFIX = re.compile(r"(?<=.)\.[A-Za-z][A-Za-z0-9]{1,4}$")
_NOT_WORD = re.compile(r"[\W_]+")
_WORDS_ONLY = bytes(ord(chr(byte).lower()) if chr(byte).isalnum() else 32 for byte in range(128)) + bytes(128)
"""For `bytes.translate` of ASCII text, which is the faster way: lower case, and blanks for what is no word."""


def join_key(facts: SourceFacts, by: JoinBy) -> str | None:
    """Return the join key of an image, or None if it has no key of this kind."""
    match by:
        case JoinBy.ID:
            return _number(facts.get("id")) or _number(facts.get("key"))
        case JoinBy.KEY:
            return facts.get("key") or None
        case JoinBy.NAME:
            return _file_name(facts.get("key") or facts.get("id"))
        case JoinBy.URL:
            return normal_url(facts.get("url"))
        case JoinBy.SHA256 | JoinBy.MD5:
            digest = facts.get(by.value)
            return digest.strip().lower() if digest else None


def _number(text: str | None) -> str | None:
    """Return the number in `0123/7000000.webp` or `7000000`; None if the last part is not a number."""
    if not text:
        return None
    stem = text.rpartition("/")[2].partition(".")[0]
    return str(int(stem)) if stem.isdecimal() and stem.isascii() else None


def _file_name(path: str | None) -> str | None:
    """Return `cat` for `photos/cat.webp`, also with the folders of Windows; `v1.2` keeps its dot."""
    name = re.split(r"[/\\]", path.strip())[-1] if path else ""
    return _SUFFIX.sub("", name) or None


@functools.lru_cache(maxsize=1024)
def normal_url(url: str | None) -> str | None:
    """Return host, path and query. Scheme, fragment and the case of the host do not identify an image.

    A text that is not a URL is returned unchanged.
    """
    text = url.strip() if url else ""
    if not text:
        return None
    plain = _PLAIN_URL.fullmatch(text)
    if plain:
        host, path, query = plain.groups("")
        return f"{host}{path or '/'}{query}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return text
    if not host:
        return text
    default = port in (None, 443 if parts.scheme == "https" else 80)
    query = f"?{parts.query}" if parts.query else ""
    return f"{host}{'' if default else f':{port}'}{parts.path or '/'}{query}"


def fingerprint(text: str | None) -> str | None:
    """Return 32 hex digits of a caption, which ignore case, blanks and punctuation; None if it has no words."""
    if text and text.isascii():
        words = b" ".join(text.encode().translate(_WORDS_ONLY).split())
    else:
        words = _NOT_WORD.sub(" ", text).strip().lower().encode() if text else b""
    return hashlib.blake2b(words, digest_size=16).hexdigest() if words else None


def image_identity(facts: SourceFacts, record_id: str) -> str:
    """Return the best identity of the image: SHA-256, else MD5, else URL, else the id of the record."""
    for name in ("sha256", "md5"):
        digest = facts.get(name)
        if digest:
            return f"{name}:{digest.strip().lower()}"
    url = normal_url(facts.get("url"))
    return f"url:{url}" if url else f"record:{record_id}"


def content_digest(facts: SourceFacts) -> str:
    """Return 16 hex digits of a row without an id: of its best identity, else of everything known about it.

    Neither the name of its file nor its place is part of it, so a renamed or divided file gives the same digests. A key
    is no identity: the keys of two files may both begin at 0.
    """
    identity = image_identity(facts, "")
    known = {name: value for name, value in facts.items() if value is not None}
    text = json.dumps(known, sort_keys=True) if identity == "record:" else identity
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def listed_identities(lines: Iterable[str]) -> list[str]:
    """Return the lines of a list of ids, keys, digests or URLs in their normal forms, each once."""
    identities: dict[str, None] = {}
    for line in lines:
        text = line.strip()
        if text:
            identities[text.lower() if re.fullmatch(r"[0-9a-fA-F]{32,64}", text) else (normal_url(text) or text)] = None
    return list(identities)
