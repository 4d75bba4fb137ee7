"""A folder: a file gets its name by a rename, and is on the disk with the folders that hold it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dbplatform.storage.place import StorageFailed
from dbplatform.storage.store import StoredFile, ignore

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """The files below ``folder``, which is absolute; it is made with the first file. A place and a store."""

    folder: Path

    def location(self, name: str = "") -> str:
        return str(self.folder / name)

    def partial(self, name: str) -> Path:
        final = self.folder / name
        return final.with_name(f".{final.stem}.partial{final.suffix}")

    def complete(self, name: str) -> None:
        final = self.folder / name
        try:
            self.partial(name).rename(final)
            _sync(final.parent)
            # Any of these may be new as well; one that cannot be opened was not made by us.
            with suppress(PermissionError):
                for folder in final.parent.parents:
                    _sync(folder)
        except OSError as error:
            raise _failed(final, error) from error

    def discard(self, name: str) -> None:
        try:
            self.partial(name).unlink(missing_ok=True)
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise _failed(self.folder / name, error) from error

    def put(self, name: str, source: Path, *, sha256: str | None = None, heard: Callable[[int], None] = ignore) -> None:
        partial = self.partial(name)
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            with source.open("rb") as file, partial.open("wb") as copy:
                while piece := file.read(_PIECE):
                    copy.write(piece)
                    heard(len(piece))
                copy.flush()
                os.fsync(copy.fileno())
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise _failed(self.folder / name, error) from error
        self.complete(name)

    def put_begun(self, name: str, source: Path, *, ended: Callable[[], bool]) -> None:
        """Nothing: a copy on the same machine takes no time worth it."""

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        with (self.folder / name).open("rb") as file:
            yield file

    def files(self, below: str = "") -> Iterator[StoredFile]:
        for root, folders, names in os.walk(self.folder / below):
            folders.sort()
            for path in (Path(root) / name for name in sorted(names)):
                with suppress(FileNotFoundError):
                    yield StoredFile(name=str(path.relative_to(self.folder)), bytes=path.lstat().st_size)

    def remove(self, name: str) -> None:
        self.discard(name)

    def clear(self) -> None:
        try:
            shutil.rmtree(self.folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed(self.folder, error) from error


def _failed(path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(
        location=str(path), reason=error.strerror or str(error), hint="Correct its rights, then try again."
    )


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
