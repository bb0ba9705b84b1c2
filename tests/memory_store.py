"""A store in memory with the guarantees of a `Store`, for unit tests that need no disk."""

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.errors import StoreError
from pipeline.storage.store import Entry, checked

_FILES: dict[tuple[str, str], bytes] = {}
_WRITTEN_S: dict[tuple[str, str], float] = {}
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class MemoryStore:
    """`memory://<name>`: all stores of one name in one process are one store."""

    url: str

    def get(self, path: str) -> bytes:
        with _LOCK:
            result = _FILES.get((self.url, checked(path)))
        if result is None:
            raise FileNotFoundError(f"{self.url}/{path}")
        return result

    def put(self, path: str, data: bytes) -> None:
        with _LOCK:
            self._write(checked(path), data)

    def create(self, path: str, data: bytes) -> None:
        with _LOCK:
            if (self.url, checked(path)) in _FILES:
                raise FileExistsError(f"{self.url}/{path}")
            self._write(path, data)

    def get_versioned(self, path: str) -> tuple[bytes, str]:
        data = self.get(path)
        return data, hashlib.sha256(data).hexdigest()

    def replace(self, path: str, data: bytes, version: str) -> None:
        with _LOCK:
            result = _FILES.get((self.url, checked(path)))
            if result is None:
                raise StoreError(f"{self.url}/{path}: the file is gone, so it cannot be replaced; restore it")
            if hashlib.sha256(result).hexdigest() != version:
                raise FileExistsError(f"{self.url}/{path}")
            self._write(path, data)

    def list(self, folder: str) -> Iterator[Entry]:
        below = f"{checked(folder)}/" if folder else ""
        with _LOCK:
            files = [
                Entry(path, len(data), _WRITTEN_S[url, path]) for (url, path), data in _FILES.items() if url == self.url
            ]
        return (entry for entry in files if entry.path.startswith(below))

    def delete(self, paths: Iterable[str]) -> None:
        with _LOCK:
            for path in paths:
                _FILES.pop((self.url, checked(path)), None)

    def exists(self, path: str) -> bool:
        with _LOCK:
            return (self.url, checked(path)) in _FILES

    def _write(self, path: str, data: bytes) -> None:
        _FILES[self.url, path] = bytes(data)
        _WRITTEN_S[self.url, path] = time.time()
