"""The one way by which finished files become a backup, of whatever kind: the manifest, which makes them count, is last.

Whoever made the files has described them, and written their manifest, in the folder they were made in. Publishing can
be called again after a failure or a kill at any point, and goes on with what is not there yet.
"""

from __future__ import annotations

import contextvars
import hashlib
import os
import shutil
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Lock
from typing import Any, cast

from dbplatform import progress
from dbplatform.backups.catalogue import Backup
from dbplatform.backups.destination import Destination
from dbplatform.backups.files import STREAMS
from dbplatform.backups.manifest import MANIFEST, FileEntry, sum_file, sync_folder
from dbplatform.storage.store import Store


def publish(
    made: Path, backup: Backup, destination: Destination, files: Sequence[FileEntry], *, sent: Container[str] = ()
) -> None:
    """Bring ``files`` and their manifest from the folder ``made`` to where the backup lies; ``made`` is gone then.

    In a folder they get the final name by one rename; in a bucket every object is read back, and the manifest goes up
    when all are there. ``sent``: the names of those that were put there, and read back, before. Reports ``upload
    <database>`` in bytes. Raises ``StorageFailed`` or ``OSError``.
    """
    if backup.in_bucket:
        _upload(made, destination.store(backup.database, backup.id), files, sent, task=f"upload {backup.database}")
    else:
        _move(made, backup, files)
    if made.exists():
        shutil.rmtree(made)


def _upload(made: Path, store: Store, files: Sequence[FileEntry], sent: Container[str], *, task: str) -> None:
    total = sum(entry.bytes for entry in files)
    there = {file.name: file.bytes for file in store.files()}
    missing = [
        entry
        for entry in files
        if there.get(entry.name) != entry.bytes or not (entry.name in sent or _same(store, entry))
    ]
    done = total - sum(entry.bytes for entry in missing)
    progress.report(task, done=done, total=total, unit="bytes")
    counting = Lock()

    def heard(bytes: int) -> None:
        nonlocal done
        with counting:
            done += bytes
            progress.report(task, done=min(done, total), total=total, unit="bytes")

    def send(entry: FileEntry) -> None:
        store.put(entry.name, made / entry.name, sha256=entry.sha256, heard=heard)

    # The largest first, so that none is sent alone at the end; while one is read back, others go up.
    with ThreadPoolExecutor(STREAMS, thread_name_prefix="backup-upload") as pool:
        uploads = [
            pool.submit(contextvars.copy_context().run, send, entry)
            for entry in sorted(missing, key=lambda entry: -entry.bytes)
        ]
        try:
            for future in as_completed(uploads):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    store.put(MANIFEST, made / MANIFEST, sha256=sum_file(made / MANIFEST))


def _same(store: Store, entry: FileEntry) -> bool:
    with store.reading(entry.name) as file:
        return hashlib.file_digest(cast("Any", file), "sha256").hexdigest() == entry.sha256


def _move(made: Path, backup: Backup, files: Sequence[FileEntry]) -> None:
    partial = backup.partial
    if made != partial and not backup.folder.exists():
        partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (*(entry.name for entry in files), MANIFEST):
            if (made / name).exists():
                (partial / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _move_file(made / name, partial / name)
        for folder in {partial, *((partial / entry.name).parent for entry in files)}:
            sync_folder(folder)
    if partial.exists():
        partial.rename(backup.folder)
    sync_folder(backup.folder.parent)


def _move_file(source: Path, target: Path) -> None:
    """By a rename, or by a copy to another file system, on disk before its source goes."""
    try:
        source.rename(target)
    except OSError:
        with source.open("rb") as file, target.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        source.unlink()
