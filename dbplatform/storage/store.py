"""A store: many files below one location, put there from the local disk and listed again.

A ``Place`` is for a writer that makes one file at a time; a store takes files that are finished. Whoever puts several
files that belong together puts the one last that makes them count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from dbplatform.storage.place import S3_SCHEME


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file of a store, by its name below the store's location."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSideEncryption:
    """How a bucket is asked to encrypt what is put there: ``AES256``, ``aws:kms`` or ``aws:kms:dsse``."""

    method: str
    kms_key_id: str | None = None
    """Left out: the account's own key."""


def ignore(done: int) -> None:
    """For whoever does not care how many bytes went."""


class Store(Protocol):
    """A folder, or a prefix of a bucket. A ``name`` may have slashes. Every method raises ``StorageFailed``."""

    def location(self, name: str = "") -> str:
        """Where a file is found, or the whole store: an absolute path, or ``s3://bucket/key``."""

    def put(self, name: str, source: Path, *, sha256: str | None = None, heard: Callable[[int], None] = ignore) -> None:
        """Keep a copy of a local file under that name, durably, whole or not at all; replaces what has it.

        ``sha256`` is that of the file, where it is known. ``heard`` is told of every piece that went, in bytes.
        """

    def put_begun(self, name: str, source: Path, *, ended: Callable[[], bool]) -> None:
        """Begin with a local file that still grows, by what is only added to its end; ``put`` goes on with it.

        Asks ``ended``, which waits a little, between one look at the file and the next, and returns when that is true.
        ``source`` need not exist yet. A store that takes only whole files does nothing.
        """

    def reading(self, name: str) -> AbstractContextManager[BinaryIO]:
        """The file as a stream, for one pass. Raises ``FileNotFoundError``, and other ``OSError`` of a disk."""

    def files(self, below: str = "") -> Iterator[StoredFile]:
        """Every file, or those whose name begins with the folder ``below``; nothing where there is no such folder."""

    def remove(self, name: str) -> None:
        """Remove a file, and whatever a killed writer has left of it; none is no error."""

    def clear(self) -> None:
        """Remove every file, and whatever killed writers have left."""


def store_at(location: str, *, encryption: ServerSideEncryption | None = None) -> Store:
    """The store at an absolute folder, or at ``s3://bucket/prefix``, where ``encryption`` is asked for."""
    if location.startswith(S3_SCHEME):
        from dbplatform.storage.s3 import S3Store  # boto3 is slow to import

        return S3Store.below(location, encryption=encryption)
    from dbplatform.storage.folder import FolderPlace

    return FolderPlace(Path(location))
