"""Where backups go, and where on this host they are made first.

A plain backup for a folder is made there under a hidden name. Whatever is encrypted or goes into a bucket is made in a
working folder of ours, so that nothing readable or half-made comes near the destination.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dbplatform.backups.catalogue import Backup
from dbplatform.storage.place import S3_SCHEME
from dbplatform.storage.store import ServerSideEncryption, Store, store_at

_UNPACKED = "unpacked-"


def default_work() -> Path:
    """Below the folder for temporary files, for each user another."""
    return Path(tempfile.gettempdir()) / f"dbplatform-backups-{os.getuid()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The backups of all databases: ``root/<database>/<id>``."""

    root: str
    """An absolute folder, or ``s3://bucket/prefix``."""
    work: Path = field(default_factory=default_work)
    """A folder on this host, for what is on its way."""
    encryption: ServerSideEncryption | None = None

    @property
    def in_bucket(self) -> bool:
        return self.root.startswith(S3_SCHEME)

    def location(self, *names: str) -> str:
        """Of the backups of a database, or of one of them."""
        return "/".join((self.root.rstrip("/"), *names))

    def store(self, *names: str) -> Store:
        """The files there."""
        return store_at(self.location(*names), encryption=self.encryption)

    def made(self, backup: Backup, *, sealed: bool) -> Path:
        """The local folder in which a backup is made."""
        return self.waiting(backup) if sealed or self.in_bucket else backup.partial

    def waiting(self, backup: Backup) -> Path:
        """Where a backup is made that does not lie plain in a folder."""
        return self.work / backup.database / backup.id


@contextmanager
def temporary_folder(work: Path) -> Iterator[Path]:
    """A folder below ``work`` that only this user may read; removed at the end, or by the next one after a kill."""
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in work.glob(f"{_UNPACKED}*"):
        with suppress(OSError), _locked(left):
            shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=_UNPACKED, dir=work))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder; the lock goes with the process. Raises ``BlockingIOError``."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
