"""The folders of backups on disk: room for them, their removal, and whether their files are what was written."""

from __future__ import annotations

import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from dbplatform import progress
from dbplatform.backups.catalogue import Backup, damaged, unreadable
from dbplatform.backups.errors import NoRoom
from dbplatform.backups.manifest import DUMP, MANIFEST, FileEntry, Manifest, files_in, sum_file

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with one file."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file} {self.what}"


def describe_files(partial: Path, *, task: str) -> tuple[FileEntry, ...]:
    """Size and SHA-256 of every file of a finished dump."""
    total = size_of(partial / DUMP)
    done = 0
    entries = []
    for path in files_in(partial / DUMP):
        size = path.stat().st_size
        entries.append(FileEntry(name=str(path.relative_to(partial)), bytes=size, sha256=sum_file(path)))
        done += size
        progress.report(task, done=done, total=total, unit="bytes")
    return tuple(entries)


def check_files(backup: Backup, manifest: Manifest) -> tuple[Problem, ...]:
    """Compare every file with the manifest: there, of that size, of that SHA-256, and no other file beside them.

    Reads all of them. Raises ``BackupUnreadable`` where one cannot be read: then nothing is known.
    """
    task = f"read backup {backup.database}"
    problems = []
    done = 0
    for entry in manifest.files:
        try:
            what = _difference(backup.location / entry.name, entry)
        except OSError as error:
            raise unreadable(backup, entry.name, error) from error
        if what is not None:
            problems.append(Problem(file=entry.name, what=what))
        done += entry.bytes
        progress.report(task, done=done, total=manifest.bytes, unit="bytes")
    known = {MANIFEST, *(entry.name for entry in manifest.files)}
    names = (str(path.relative_to(backup.location)) for path in files_in(backup.location))
    problems += [Problem(file=name, what="does not belong to it") for name in names if name not in known]
    return tuple(problems)


def require_files(backup: Backup, manifest: Manifest) -> None:
    """Raise ``BackupDamaged``, naming the files, unless all are what was written."""
    problems = check_files(backup, manifest)
    if problems:
        raise damaged(backup, "; ".join(map(str, problems)))


def remove_backup(backup: Backup) -> None:
    """Delete whatever there is of a backup, under hidden names only, so that half of it never looks like one.

    Can be called again after a kill at any point.
    """
    removing = backup.location.with_name(f".{backup.id}.removing")
    for folder in (backup.partial, backup.location):
        if removing.exists():
            shutil.rmtree(removing)
        if folder.exists():
            folder.rename(removing)
    if removing.exists():
        shutil.rmtree(removing)


def remains(backup: Backup) -> bool:
    """Whether there is anything of it on disk, under any of its names."""
    removing = backup.location.with_name(f".{backup.id}.removing")
    return any(folder.exists() for folder in (backup.partial, backup.location, removing))


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


def _difference(path: Path, entry: FileEntry) -> str | None:
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if not stat.S_ISREG(status.st_mode):
        return "is no plain file"
    if status.st_size != entry.bytes:
        return f"has {status.st_size} bytes, not {entry.bytes}"
    return None if sum_file(path) == entry.sha256 else "has another SHA-256 than the manifest"
