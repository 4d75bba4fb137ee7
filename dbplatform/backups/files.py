"""The files of backups: whether they are what was written, how they are read, and their removal; room for new ones."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from dbplatform import progress
from dbplatform.backups.catalogue import Backup, Described, damaged, unreadable
from dbplatform.backups.destination import temporary_folder
from dbplatform.backups.errors import KeyMissing, NoRoom, NotUnpacked, WrongKey
from dbplatform.backups.growing import Reading, whole
from dbplatform.backups.keys import IDENTITY, IDENTITY_FILE, Keys, given_keys
from dbplatform.backups.manifest import DUMP, MANIFEST, PROOF, SEALED, FileEntry, Manifest, files_in, sum_file
from dbplatform.backups.sealing import NoMatchingKey, NotKept, copy_out, opens
from dbplatform.storage.store import Store

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
#: Files of a bucket that are on their way at the same time.
STREAMS = 4
#: Written beside a backup, and no part of it.
_BESIDE = (MANIFEST, PROOF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with one file."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file} {self.what}"


def describe_files(folder: Path, *, task: str) -> tuple[FileEntry, ...]:
    """Size and SHA-256 of every file of a finished dump, and of what lies beside it."""
    paths = [path for path in files_in(folder) if str(path.relative_to(folder)) not in _BESIDE]
    total = sum(path.stat().st_size for path in paths)
    done = 0
    entries = []
    for path in paths:
        entries.append(describe_file(path, folder))
        done += entries[-1].bytes
        progress.report(task, done=done, total=total, unit="bytes")
    return tuple(entries)


def describe_file(path: Path, folder: Path, *, read: Reading = whole) -> FileEntry:
    """Size and SHA-256 of a file below ``folder``, which is on disk then."""
    with path.open("rb", buffering=0) as file:
        sha256 = hashlib.file_digest(read(file), "sha256").hexdigest()
        os.fsync(file.fileno())
        return FileEntry(name=str(path.relative_to(folder)), bytes=file.tell(), sha256=sha256)


def check_files(backup: Backup, manifest: Described) -> tuple[Problem, ...]:
    """Compare every file with the manifest: there, of that size, of that SHA-256, and no other file beside them.

    Reads all of them as they are stored, and so needs no key. Raises ``BackupUnreadable`` or ``StorageFailed`` where
    one cannot be read: then nothing is known.
    """
    store = backup.store
    task = f"read backup {backup.database}"
    problems = []
    done = 0

    def look(entry: FileEntry) -> str | None:
        try:
            if not backup.in_bucket:
                return _difference(backup.folder / entry.name, entry)
            with store.reading(entry.name) as file:
                return _other(entry, hashlib.file_digest(cast("Any", file), "sha256").hexdigest())
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            raise unreadable(backup, entry.name, error) from error

    for entry, what in _side_by_side(backup, look, manifest.files):
        if what is not None:
            problems.append(Problem(file=entry.name, what=what))
        done += entry.bytes
        progress.report(task, done=done, total=manifest.bytes, unit="bytes")
    return (*problems, *_strangers(backup, manifest))


def require_files(backup: Backup, manifest: Described) -> None:
    """Raise ``BackupDamaged``, naming the files, unless all are what was written."""
    problems = check_files(backup, manifest)
    if problems:
        raise damaged(backup, "; ".join(map(str, problems)))


@contextmanager
def unpacked(backup: Backup, manifest: Manifest, *, work: Path, compared: bool = False) -> Iterator[Path]:
    """The folder with the dump that pg_restore reads, every file of the backup compared with the manifest before.

    That is the backup's own where it lies plain in a folder. Any other is fetched, and decrypted by the given keys,
    into a folder below ``work`` that goes with the block. ``compared``: whoever asks has just compared them. Raises
    ``BackupDamaged`` with the files, ``BackupUnreadable`` or ``StorageFailed``, ``NoRoom``, ``KeyMissing``,
    ``KeyUnreadable`` and ``WrongKey``.
    """
    if not (backup.in_bucket or manifest.sealed):
        if not compared:
            require_files(backup, manifest)
        yield backup.folder
        return
    keys = require_key(backup, manifest)
    with temporary_folder(work) as folder:
        require_room(folder, manifest.bytes, work=f"the files of backup {backup.id}")
        problems = [*_fetch(backup, manifest, folder, keys), *_strangers(backup, manifest)]
        if problems:
            raise damaged(backup, "; ".join(map(str, problems)))
        yield folder


def require_key(backup: Backup, manifest: Manifest) -> Keys | None:
    """The given keys, one of which opens the backup; None where it is not encrypted.

    Reads its smallest file. Raises ``KeyMissing``, ``KeyUnreadable`` or ``WrongKey``.
    """
    if not manifest.sealed:
        return None
    keys = given_keys()
    if keys is None:
        raise KeyMissing(
            id=backup.id,
            hint=f"Let {IDENTITY_FILE} name the file of the key (or put the key into {IDENTITY}); it is encrypted to "
            f"{', '.join(manifest.encrypted_to)}.",
        )
    smallest = min(manifest.files, key=lambda entry: entry.bytes)
    try:
        with backup.store.reading(smallest.name) as file:
            if opens(file, keys):
                return keys
    except FileNotFoundError:
        raise damaged(backup, f"{smallest.name} is missing") from None
    except OSError as error:
        raise unreadable(backup, smallest.name, error) from error
    raise _wrong_key(backup, manifest, keys)


def remove_backup(backup: Backup) -> None:
    """Delete whatever there is of a backup at its destination, so that half of it never looks like one.

    Can be called again after a kill at any point. Raises ``StorageFailed`` or ``OSError``.
    """
    if backup.in_bucket:
        store = backup.store
        store.remove(MANIFEST)
        store.clear()
        return
    removing = backup.folder.with_name(f".{backup.id}.removing")
    for folder in (backup.partial, backup.folder):
        if removing.exists():
            shutil.rmtree(removing)
        if folder.exists():
            folder.rename(removing)
    if removing.exists():
        shutil.rmtree(removing)


def require_room(folder: Path, needed: int, *, work: str) -> None:
    """Raise ``NoRoom`` unless the file system of an existing folder has that many bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NoRoom(
            folder=str(folder),
            free=size_words(free),
            work=work,
            needed=size_words(needed),
            hint="Make room there, or choose another place.",
        )


def size_of(folder: Path) -> int:
    """The bytes of all files below; a file that vanishes meanwhile counts nothing."""
    total = 0
    for path in files_in(folder):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:
            continue
    return total


def size_words(number: int) -> str:
    """``1.5 GB``, in steps of 1024 as PostgreSQL does."""
    value = float(number)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def _fetch(backup: Backup, manifest: Manifest, folder: Path, keys: Keys | None) -> Iterator[Problem]:
    """Bring every file into ``folder``, readable; yields what is wrong with any."""
    store = backup.store
    task = f"fetch backup {backup.database}"
    done = 0
    for entry in manifest.files:
        (folder / entry.name).parent.mkdir(parents=True, exist_ok=True)
    (folder / DUMP).mkdir(exist_ok=True)
    for entry, what in _side_by_side(
        backup, lambda e: fetch_one(backup, manifest, store, e, folder / _readable(manifest, e), keys), manifest.files
    ):
        if what is not None:
            yield Problem(file=entry.name, what=what)
        done += entry.bytes
        progress.report(task, done=done, total=manifest.bytes, unit="bytes")


def _readable(manifest: Manifest, entry: FileEntry) -> str:
    return entry.name.removesuffix(SEALED) if manifest.sealed else entry.name


def fetch_one(
    backup: Backup, manifest: Manifest, store: Store, entry: FileEntry, to: Path, keys: Keys | None
) -> str | None:
    """Bring one file of a backup to a local path, readable; what is wrong with it, and then nothing there counts."""
    try:
        with store.reading(entry.name) as source, _written(to) as target:
            size, sha256, failure = copy_out(source, target, keys)
    except FileNotFoundError:
        return "is missing"
    except NotKept as error:
        raise NotUnpacked(
            id=backup.id, folder=to.parent, reason=error, hint="Make room there; DBPLATFORM_HOME moves it elsewhere."
        ) from error
    except OSError as error:
        raise unreadable(backup, entry.name, error) from error
    if size != entry.bytes:
        return f"has {size} bytes, not {entry.bytes}"
    if what := _other(entry, sha256):
        return what
    if isinstance(failure, NoMatchingKey) and keys is not None:
        raise _wrong_key(backup, manifest, keys)
    return "cannot be decrypted" if failure else None


@contextmanager
def _written(to: Path) -> Iterator[BinaryIO]:
    """A file that was flushed by whoever wrote it; where that failed, closing it only says so again."""
    file = to.open("wb")
    try:
        yield file
    finally:
        with suppress(OSError):
            file.close()


def _side_by_side(backup: Backup, look: Any, entries: Sequence[FileEntry]) -> Iterator[tuple[FileEntry, str | None]]:
    """Ask ``look`` for each file, in their order; in a bucket a few at a time, because each is waited for."""
    if not backup.in_bucket:
        yield from ((entry, look(entry)) for entry in entries)
        return
    with ThreadPoolExecutor(STREAMS, thread_name_prefix="backup-read") as pool:
        try:
            yield from zip(entries, pool.map(look, entries), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _strangers(backup: Backup, manifest: Described) -> Iterator[Problem]:
    """Files that are no part of it."""
    known = {*_BESIDE, *(entry.name for entry in manifest.files)}
    if backup.in_bucket:
        names = [file.name for file in backup.store.files()]
    else:
        names = [str(path.relative_to(backup.folder)) for path in files_in(backup.folder)]
    yield from (Problem(file=name, what="does not belong to it") for name in names if name not in known)


def _difference(path: Path, entry: FileEntry) -> str | None:
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if not stat.S_ISREG(status.st_mode):
        return "is no plain file"
    if status.st_size != entry.bytes:
        return f"has {status.st_size} bytes, not {entry.bytes}"
    return _other(entry, sum_file(path))


def _other(entry: FileEntry, sha256: str) -> str | None:
    return None if sha256 == entry.sha256 else "has another SHA-256 than the manifest"


def _wrong_key(backup: Backup, manifest: Manifest, keys: Keys) -> WrongKey:
    return WrongKey(
        id=backup.id,
        recipients=", ".join(manifest.encrypted_to),
        count=len(keys.identities),
        source=keys.source,
        hint=f"Name the file with the right one in {IDENTITY_FILE}.",
    )
