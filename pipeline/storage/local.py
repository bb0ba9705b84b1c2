"""Whole files and exclusive creation on a local disk, by hard link.

fsspec's local create is not exclusive (15 of 60 races had 2-4 winners). `open("xb")` is, but leaves half a file
after a crash. A temporary file, fsync and link are exclusive and atomic: 60 of 60.

A file system has no compare-and-swap. So a replacement holds a lock (`flock`) on the file that it replaces: the
kernel releases it with the process, and the next holder sees that the name now belongs to another file.
"""

import fcntl
import hashlib
import os
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.storage.store import Entry, checked

TEMPORARY = ".tmp"
"""Folder at the root for files being written: readers of captions/ never see one, and `clean` finds those of killed
writers. Hard links work only within one file system, so the folder is below the same root."""

TRIES = 5
"""Tries, since another process may remove the emptied folder or the temporary file in between."""


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A local folder; the URL is its absolute path."""

    url: str

    def get(self, path: str) -> bytes:
        try:
            return self._at(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as err:
            raise FileNotFoundError(f"{self.url}/{path}") from err
        except OSError as err:
            raise StoreError(f"{self.url}/{path}: cannot be read ({err.strerror})") from err

    def put(self, path: str, data: bytes) -> None:
        self._publish(path, data, lambda temporary, target: temporary.replace(target))

    def create(self, path: str, data: bytes) -> None:
        self._publish(path, data, lambda temporary, target: target.hardlink_to(temporary))

    def get_versioned(self, path: str) -> tuple[bytes, str]:
        data = self.get(path)
        return data, hashlib.sha256(data).hexdigest()

    def replace(self, path: str, data: bytes, version: str) -> None:
        target = self._at(path)
        try:
            with target.open("rb") as file:
                # BlockingIOError if another process holds it: no clear answer, so the caller tries again.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                renamed = not os.path.samestat(os.fstat(file.fileno()), target.stat())
                if renamed or hashlib.sha256(file.read()).hexdigest() != version:
                    raise FileExistsError(f"{self.url}/{path}")
                self.put(path, data)
        except FileNotFoundError as err:
            raise StoreError(f"{target}: the file is gone, so it cannot be replaced; restore it") from err

    def list(self, folder: str) -> Iterator[Entry]:
        top = self._at(folder) if folder else Path(self.url)
        # A walk follows a link at its top, and none below.
        linked = any(Path(self.url, part).is_symlink() for part in _prefixes(folder))
        for parent, _, names in os.walk(top, onerror=_refuse_unless_absent):
            for name in names:
                file = Path(parent, name)
                try:
                    stat_result = file.stat()
                    is_link = linked or file.is_symlink()
                except FileNotFoundError:
                    continue
                yield Entry(file.relative_to(self.url).as_posix(), stat_result.st_size, stat_result.st_mtime, is_link)

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            file = self._at(path)
            try:
                self._unlink(path)
            except FileNotFoundError:
                continue
            except OSError as err:
                raise StoreError(f"{file}: cannot be removed ({err.strerror})") from err
            self._prune(file.parent)

    def exists(self, path: str) -> bool:
        return self._at(path).is_file()

    def _at(self, path: str) -> Path:
        return Path(self.url, checked(path))

    def _publish(self, path: str, data: bytes, give_name: Callable[[Path, Path], object]) -> None:
        target = self._at(path)
        try:
            for num_try in range(TRIES):
                try:
                    return self._write_then(data, target, give_name)
                except FileNotFoundError:
                    if num_try == TRIES - 1:
                        raise
        except FileExistsError:
            raise
        except OSError as err:
            raise StoreError(
                f"{target}: cannot be written ({err.strerror}); the output needs a writable file system with hard links"
            ) from err

    def _write_then(self, data: bytes, target: Path, give_name: Callable[[Path, Path], object]) -> None:
        temporary = Path(self.url, TEMPORARY, uuid.uuid4().hex)  # `pipeline.ledger.layout` matches such names
        _make_folder(temporary.parent)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _make_folder(target.parent)
            give_name(temporary, target)
            _sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def _unlink(self, path: str) -> None:
        """Remove a file through open folders, so that none of them can be replaced by a link in between.

        Raises:
            FileNotFoundError: it, or a folder on the way, is absent.
            StoreError: a folder on the way is a link.
        """
        *folders, name = checked(path).split("/")
        handle = os.open(self.url, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for folder in folders:
                handle = self._enter(handle, folder, path)
            os.unlink(name, dir_fd=handle)
        finally:
            os.close(handle)

    def _enter(self, handle: int, folder: str, path: str) -> int:
        """Open a folder inside an open folder; on success the outer one is closed."""
        try:
            inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
        except OSError as err:
            if stat.S_ISLNK(os.stat(folder, dir_fd=handle, follow_symlinks=False).st_mode):
                raise StoreError(
                    f"{self.url}/{path}: its folder {folder} is a link, and nothing is removed through a link; "
                    "remove the link, or the file by hand"
                ) from err
            if isinstance(err, NotADirectoryError):
                raise FileNotFoundError(path) from err
            raise
        os.close(handle)
        return inner

    def _prune(self, folder: Path) -> None:
        """Remove folders that a delete has emptied, since an object store would not list them either."""
        while folder != Path(self.url):
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone: nothing more to do
                return
            folder = folder.parent


def _prefixes(folder: str) -> Iterator[str]:
    """`a`, `a/b` and `a/b/c` for `a/b/c`; nothing for the root."""
    names = folder.split("/") if folder else []
    return ("/".join(names[: number + 1]) for number in range(len(names)))


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:  # another process was faster; if it is a file, the next step fails
        return
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power cut: on Linux this needs an fsync of the folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refuse_unless_absent(err: OSError) -> None:
    if not isinstance(err, FileNotFoundError | NotADirectoryError):
        raise StoreError(f"{err.filename}: cannot be listed ({err.strerror})") from err
