"""An S3 server whose listings are computed: a source of any number of shards, all but a few of them committed.

`python -m tests.listing_server PORT SHARDS LEFT LATENCY_S LOG`. The bucket `out` has the shards
`photos/0000/0000000.tar`, ..., a thousand in a folder, each an empty tar, and their committed files below
`captions/captions/`, all but the last LEFT. What is put is kept in memory. Each answer waits for LATENCY_S, and LOG
gets a line for each request: when it came (monotonic, s), method, path.
"""

import hashlib
import io
import sys
import tarfile
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "out"
SOURCE, OUTPUT = "photos/", "captions/"
FOLDER_SHARDS = 1000
PAGE_KEYS = 1000
WHEN = "2026-01-02T03:04:05.000Z"


def shard_name(number: int) -> str:
    return f"{number // FOLDER_SHARDS:04d}/{number:07d}.tar"


def _empty_tar() -> bytes:
    sink = io.BytesIO()
    tarfile.open(fileobj=sink, mode="w").close()
    return sink.getvalue()


class Family:
    """Keys that follow from a number, in ascending order."""

    def __init__(self, prefix: str, suffix: str, num_keys: int, data: bytes) -> None:
        self.prefix, self.suffix, self.num_keys, self.data = prefix, suffix, num_keys, data
        self.etag = hashlib.md5(data).hexdigest()

    def key(self, number: int) -> str:
        return f"{self.prefix}{shard_name(number)}{self.suffix}"

    def has(self, key: str) -> bool:
        number = key.removeprefix(self.prefix).removesuffix(self.suffix)[5:-4]
        return number.isdigit() and int(number) < self.num_keys and self.key(int(number)) == key

    def behind(self, after: str, prefix: str) -> Iterator[str]:
        """Keys behind one, as far as they begin with the prefix."""
        start = bisect_right(range(self.num_keys), after, key=self.key)
        start = max(start, bisect_right(range(self.num_keys), prefix, key=self.key))
        for number in range(start, self.num_keys):
            key = self.key(number)
            if not key.startswith(prefix):
                return
            yield key

    def folders_behind(self, after: str, prefix: str) -> Iterator[str]:
        """The folders right below the prefix, which is that of the family."""
        if prefix == self.prefix:
            for number in range(0, self.num_keys, FOLDER_SHARDS):
                folder = self.key(number).rpartition("/")[0] + "/"
                last = self.key(min(number + FOLDER_SHARDS, self.num_keys) - 1)
                if folder > after or (last > after and folder != after):
                    yield folder


class Bucket:
    def __init__(self, num_shards: int, num_left: int) -> None:
        self.families = [
            Family(SOURCE, "", num_shards, _empty_tar()),
            Family(f"{OUTPUT}captions/", ".parquet", num_shards - num_left, b""),
        ]
        self.objects: dict[str, bytes] = {}
        self.lock = threading.Lock()

    def find(self, key: str) -> tuple[bytes, str] | None:
        if key in self.objects:
            return self.objects[key], hashlib.md5(self.objects[key]).hexdigest()
        return next(((family.data, family.etag) for family in self.families if family.has(key)), None)

    def page(self, prefix: str, after: str, delimiter: str) -> tuple[list[str], list[str], bool]:
        """Return keys, folders and whether there are more; only the first `PAGE_KEYS` of them."""
        keys, folders = [], []
        family = next((family for family in self.families if prefix.startswith(family.prefix)), None)
        if family is not None and delimiter:
            folders = list(family.folders_behind(after, prefix))
            return keys, folders[:PAGE_KEYS], len(folders) > PAGE_KEYS
        if family is not None:
            for key in family.behind(after, prefix):
                if len(keys) == PAGE_KEYS:
                    return keys, folders, True
                keys.append(key)
        keys += sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        return keys[:PAGE_KEYS], folders, len(keys) > PAGE_KEYS


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket
    latency_s = 0.0
    log: io.TextIOWrapper

    def log_message(self, *_: object) -> None:
        pass

    def parse_request(self) -> bool:
        parsed = super().parse_request()
        if parsed:
            with self.bucket.lock:
                self.log.write(f"{time.monotonic()} {self.command} {self.path}\n")
                self.log.flush()
            time.sleep(self.latency_s)
        return parsed

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").removeprefix("/")

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if "list-type" in query:
            one = {name: values[0] for name, values in query.items()}
            after = one.get("continuation-token") or one.get("start-after", "")
            self._list(one.get("prefix", ""), after, one.get("delimiter", ""), int(one.get("max-keys", PAGE_KEYS)))
            return
        self._send_object(body=True)

    def do_HEAD(self) -> None:
        self._send_object(body=False)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.bucket.lock:
            if self.headers.get("If-None-Match") == "*" and self.bucket.find(self.key):
                self._answer(412, b"<Error><Code>PreconditionFailed</Code><Message>exists</Message></Error>")
                return
            self.bucket.objects[self.key] = data
        self._answer(200, b"", {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        for part in body.split("<Key>")[1:]:
            self.bucket.objects.pop(part.partition("</Key>")[0], None)
        self._answer(200, b'<?xml version="1.0"?><DeleteResult></DeleteResult>')

    def _list(self, prefix: str, after: str, delimiter: str, max_keys: int) -> None:
        keys, folders, more = self.bucket.page(prefix, after, delimiter)
        more, keys = more or len(keys) > max_keys, keys[:max_keys]
        parts = [f'<?xml version="1.0"?><ListBucketResult><Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix>']
        parts.append(f"<KeyCount>{len(keys) + len(folders)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>")
        if more:
            parts.append(f"<NextContinuationToken>{escape((keys or folders)[-1])}</NextContinuationToken>")
        for key in keys:
            data, etag = self.bucket.find(key) or (b"", "")
            parts.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>{WHEN}</LastModified><ETag>&quot;{etag}&quot;</ETag>"
                f"<Size>{len(data)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
        parts += [f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders]
        self._answer(200, "".join([*parts, "</ListBucketResult>"]).encode(), {"Content-Type": "application/xml"})

    def _send_object(self, *, body: bool) -> None:
        result = self.bucket.find(self.key)
        if result is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>" if body else b"")
            return
        data, etag = result
        headers = {"ETag": f'"{etag}"', "Last-Modified": formatdate(0, usegmt=True), "Accept-Ranges": "bytes"}
        self._answer(200, data, headers, send_body=body)

    def _answer(self, code: int, data: bytes, headers: dict[str, str] | None = None, *, send_body: bool = True) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if send_body and self.command != "HEAD":
            self.wfile.write(data)


def main() -> None:
    port, num_shards, num_left = map(int, sys.argv[1:4])
    Handler.bucket, Handler.latency_s = Bucket(num_shards, num_left), float(sys.argv[4])
    Handler.log = Path(sys.argv[5]).open("w")  # noqa: SIM115 - for the life of the process
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
