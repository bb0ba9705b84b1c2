"""Google Cloud Storage: exclusive creation is one upload with `ifGenerationMatch=0`.

Run with gcsfs 2026.10.1 against Google's own test bench (googleapis/storage-testbench; `tests/storage` does
so where STORAGE_EMULATOR_HOST names one), not yet against Google's servers. `probe` refuses it at start-up
if the condition does not hold.
Credentials are Google's defaults: GOOGLE_APPLICATION_CREDENTIALS or the instance's account.
"""

import functools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import aiohttp
import gcsfs  # pyright: ignore[reportMissingImports] - an optional extra
from gcsfs.retry import ChecksumError, HttpError  # pyright: ignore[reportMissingImports] - an optional extra
from google.auth.exceptions import GoogleAuthError  # pyright: ignore[reportMissingImports] - comes with gcsfs

from pipeline.errors import StoreError
from pipeline.storage.store import Entry, checked

DELETE_THREADS = 16
"""gcsfs deletes one object per request of some 30 ms: 300 fragments of a shard take less than a second."""

CLIENT_ERRORS = (OSError, HttpError, ChecksumError, GoogleAuthError, aiohttp.ClientError, ValueError, RuntimeError)
"""gcsfs raises ValueError for a 400 and RuntimeError for an answer without a body."""


@dataclass(frozen=True, slots=True)
class GcsStore:
    """`gs://bucket/folder`."""

    url: str

    def get(self, path: str) -> bytes:
        try:
            return self._client().cat_file(self._at(path))
        except FileNotFoundError:
            raise
        except CLIENT_ERRORS as err:
            raise self._failed(path, err) from err

    def put(self, path: str, data: bytes) -> None:
        try:
            self._upload(path, data)
        except CLIENT_ERRORS as err:
            raise self._failed(path, err) from err

    def create(self, path: str, data: bytes) -> None:
        self._upload_if(path, data, "0")

    def get_versioned(self, path: str) -> tuple[bytes, str]:
        """One GET, whose answer has both: two requests might see two versions."""
        client = self._client()
        try:
            headers, data = client.call("GET", client.url(self._at(path)))
            return data, str(headers["x-goog-generation"])
        except FileNotFoundError:
            raise
        except CLIENT_ERRORS as err:
            raise self._failed(path, err) from err

    def replace(self, path: str, data: bytes, version: str) -> None:
        self._upload_if(path, data, version)

    def list(self, folder: str) -> Iterator[Entry]:
        root = self.url.removeprefix("gs://")
        top = self._at(folder) if folder else root
        try:
            files: dict[str, dict[str, Any]] = self._client().find(top, detail=True, update_cache=False)
        except FileNotFoundError:
            return
        except CLIENT_ERRORS as err:
            raise self._failed(folder, err) from err
        for name, facts in files.items():
            if name.startswith(f"{top}/") and not name.endswith("/"):
                modified = datetime.fromisoformat(facts["updated"])
                yield Entry(name.removeprefix(f"{root}/"), int(facts["size"]), modified.timestamp())

    def delete(self, paths: Iterable[str]) -> None:
        with ThreadPoolExecutor(DELETE_THREADS) as pool:
            list(pool.map(self._delete, paths))

    def exists(self, path: str) -> bool:
        try:
            return bool(self._client().isfile(self._at(path)))
        except CLIENT_ERRORS as err:
            raise self._failed(path, err) from err

    def _upload_if(self, path: str, data: bytes, generation: str) -> None:
        """Upload if the file has this generation; 0 means that it does not exist."""
        try:
            self._upload(path, data, ifGenerationMatch=generation)
        except FileExistsError:
            raise
        except CLIENT_ERRORS as err:
            if isinstance(err, FileNotFoundError | GoogleAuthError | ValueError):
                raise self._failed(path, err) from err
            raise OSError(f"{self.url}/{path}: {type(err).__name__}: {err}") from err

    def _upload(self, path: str, data: bytes, **condition: str) -> None:
        """Send one request with only the data in its body.

        gcsfs's own upload sends a second part with line ends that Google's test bench refuses as malformed.
        """
        client, (bucket, _, key) = self._client(), self._at(path).partition("/")
        client.call(
            "POST",
            f"{client._location}/upload/storage/v1/b/{quote(bucket, safe='')}/o",
            uploadType="media",
            name=key,
            headers={"Content-Type": "application/octet-stream"},
            data=data,
            json_out=True,
            **condition,
        )

    def _delete(self, path: str) -> None:
        try:
            self._client().rm_file(self._at(path))
        except FileNotFoundError:
            return
        except CLIENT_ERRORS as err:
            raise self._failed(path, err) from err

    def _client(self) -> gcsfs.GCSFileSystem:
        return _client(os.getpid())

    def _at(self, path: str) -> str:
        return f"{self.url.removeprefix('gs://')}/{checked(path)}"

    def _failed(self, path: str, err: Exception) -> StoreError:
        return StoreError(
            f"{self.url}/{path}: GCS failed ({type(err).__name__}: {err}); "
            "check the bucket, its policy, and the credentials in the environment"
        )


@functools.lru_cache(maxsize=2)
def _client(pid: int) -> gcsfs.GCSFileSystem:  # noqa: ARG001 - the cache's key
    """One client per process: a client created before a fork hangs in the child."""
    return gcsfs.GCSFileSystem(use_listings_cache=False, skip_instance_cache=True)
