"""A place that keeps whole files, and how a file is found again by its location alone.

A file is written aside, at a local path, and gets its name once it is complete: nothing half-written can be taken for
a file of the place. What a file must contain, and which SHA-256 it must have, is for its owner to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from dbplatform.errors import WorkError

S3_SCHEME = "s3://"


class StorageFailed(WorkError):
    """The storage of {location} failed: {reason}."""


def destination(value: str) -> str:
    """What a person wrote, when it can be a folder or ``s3://bucket/prefix``; else ``ValueError``."""
    if value.startswith(S3_SCHEME):
        if not value.removeprefix(S3_SCHEME).partition("/")[0]:
            raise ValueError(f"{value!r} names no bucket; write s3://bucket/prefix")
    elif "://" in value:
        raise ValueError(f"{value!r} is no destination; name a folder, or s3://bucket/prefix")
    return value


class Place(Protocol):
    """A folder, or a prefix of a bucket. A ``name`` may have slashes."""

    def location(self, name: str) -> str:
        """Where the file of that name is found: an absolute path, or ``s3://bucket/key``."""

    def partial(self, name: str) -> Path:
        """The local path at which the file is written first; its folder may have to be made."""

    def complete(self, name: str) -> None:
        """Give the file that lies at ``partial`` its name, durably, whole or not at all. Raises ``StorageFailed``.

        Whoever it failed for calls ``discard`` before the next try.
        """

    def discard(self, name: str) -> None:
        """Remove the file of that name and whatever a killed writer has left of it; none is no error.

        Raises ``StorageFailed``.
        """


def place_at(to: str, *, work: Path) -> Place:
    """The place ``to``: an absolute folder, or ``s3://bucket/prefix``, whose files are written first below ``work``."""
    if to.startswith(S3_SCHEME):
        from dbplatform.storage.s3 import S3Place  # boto3 is slow to import

        return S3Place.at(to, work=work)
    from dbplatform.storage.folder import FolderPlace

    return FolderPlace(Path(to))


@contextmanager
def opened(location: str) -> Iterator[BinaryIO]:
    """The file at a location, for reading; one in a bucket is copied first, to a local file without a name.

    Raises ``FileNotFoundError``, other ``OSError`` for a file that the disk does not give back, and ``StorageFailed``
    where the storage does not answer.
    """
    if location.startswith(S3_SCHEME):
        from dbplatform.storage.s3 import fetched

        with fetched(location) as file:
            yield file
    else:
        with Path(location).open("rb") as file:
            yield file


def exists(location: str) -> bool:
    """Whether there is a file. Raises ``StorageFailed`` where nobody can tell."""
    if location.startswith(S3_SCHEME):
        from dbplatform.storage.s3 import is_there

        return is_there(location)
    return Path(location).exists()
