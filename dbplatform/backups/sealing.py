"""Encryption of a backup's files with age, as streams: memory does not grow with the file.

A file that was cut short still gives a part of its text before age notices (age-encryption.org/v1: the payload is a
stream of 64 KiB chunks, each authenticated): what is decrypted counts when all of it came through.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from dbplatform import progress
from dbplatform.backups.growing import Reading, whole
from dbplatform.backups.keys import Keys, recipients
from dbplatform.backups.manifest import SEALED, FileEntry, files_in

_PIECE = 1 << 20


class NoMatchingKey(Exception):
    """None of the keys opens it."""


class NotKept(Exception):
    """What was read cannot be written here."""


class NotDecrypted(Exception):
    """The bytes are no whole file of age."""


def seal_files(folder: Path, to: Sequence[str], *, task: str) -> tuple[FileEntry, ...]:
    """Put an encrypted file in the place of every file below ``folder``; their sizes and SHA-256.

    Reports ``task`` in bytes.
    """
    public = recipients(to)
    paths = list(files_in(folder))
    total = sum(path.stat().st_size for path in paths)
    done = 0
    entries = []
    for path in paths:
        done += path.stat().st_size
        entries.append(seal_file(path, folder, public))
        progress.report(task, done=done, total=total, unit="bytes")
    return tuple(entries)


def seal_file(path: Path, folder: Path, public: Sequence[Any], *, read: Reading = whole) -> FileEntry:
    """Put an encrypted file in the place of one below ``folder``; it is on disk before the readable one is removed."""
    import pyrage

    sealed = path.with_name(path.name + SEALED)
    with path.open("rb", buffering=0) as source, sealed.open("xb") as file:
        summing = _Summing(file)
        try:
            pyrage.encrypt_io(read(source), summing, list(public))
        except (pyrage.EncryptError, OSError) as error:
            raise summing.error or error from None
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    return FileEntry(name=str(sealed.relative_to(folder)), bytes=summing.bytes, sha256=summing.digest.hexdigest())


def copy_out(source: BinaryIO, target: BinaryIO, keys: Keys | None) -> tuple[int, str, Exception | None]:
    """Copy a stored file to ``target``, decrypted where ``keys`` are given.

    Returns the size and SHA-256 of what was stored, read to its end, and ``NoMatchingKey`` or ``NotDecrypted`` where
    that could not be decrypted. What ``source`` raises comes through; raises ``NotKept`` for trouble with ``target``.
    """
    reading, writing = _Summing(source), _Careful(target)
    failure = None
    if keys is None:
        while piece := reading.read(_PIECE):
            writing.write(piece)
    else:
        failure = _decrypt(reading, writing, keys)
        while reading.read(_PIECE):
            pass
    writing.flush()
    return reading.bytes, reading.digest.hexdigest(), failure


def opens(source: BinaryIO, keys: Keys) -> bool:
    """Whether one of the keys opens the file; what is wrong with its bytes beyond that is not looked at."""
    return not isinstance(_decrypt(_Summing(source), _Careful(io.BytesIO()), keys), NoMatchingKey)


def _decrypt(source: _Summing, target: _Careful, keys: Keys) -> Exception | None:
    import pyrage

    try:
        pyrage.decrypt_io(source, target, list(keys.identities))
    except (pyrage.DecryptError, OSError, NotKept) as error:
        if trouble := source.error or target.error:
            raise trouble from None
        return NoMatchingKey() if "matching keys" in str(error) else NotDecrypted(str(error))
    return None


class _Summing(io.RawIOBase):
    """Sums what goes through, in either direction; keeps the error of the file below, which pyrage words anew."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.bytes = 0
        self.error: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            piece = self._file.read(size)
        except BaseException as error:
            self.error = error
            raise
        self._count(piece)
        return piece

    def write(self, piece: Any) -> int:
        try:
            self._file.write(piece)
        except BaseException as error:
            self.error = error
            raise
        self._count(piece)
        return len(piece)

    def _count(self, piece: bytes) -> None:
        self.digest.update(piece)
        self.bytes += len(piece)


class _Careful(io.RawIOBase):
    """Writes to a buffered file, which takes all or raises, and keeps its error."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: NotKept | None = None

    def write(self, piece: Any) -> int:
        with self._careful():
            return self._file.write(piece)

    def flush(self) -> None:
        with self._careful():
            self._file.flush()

    @contextmanager
    def _careful(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = NotKept(error.strerror or str(error))
            raise self.error from error
