"""A folder: a file gets its name by a rename, and is on the disk with the folders that hold it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dbplatform.storage.place import StorageFailed


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """The files below ``folder``, which is absolute; it is made with the first file."""

    folder: Path

    def location(self, name: str) -> str:
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
