"""Works on a dump while pg_dump is still at it: each finished file is summed or encrypted, and uploaded.

Whether a file is finished is asked of the kernel: a read lease is given only on a file that nobody has open for writing
(Linux manual: fcntl(2), F_SETLEASE), and pg_dump opens each data file once; an empty one may have been made just now.
Where there are no leases (other systems, network file systems) all files are worked on when pg_dump has ended.

An upload ahead is a try. What it did not bring is left to ``publish``, so that a bucket in trouble ends no dump.
"""

from __future__ import annotations

import contextvars
import fcntl
import os
import re
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dbplatform import progress
from dbplatform.backups.catalogue import Backup
from dbplatform.backups.destination import Destination
from dbplatform.backups.files import STREAMS, describe_file
from dbplatform.backups.keys import recipients
from dbplatform.backups.manifest import DUMP, FileEntry, files_in, sync_folder
from dbplatform.backups.sealing import seal_file
from dbplatform.storage.place import StorageFailed
from dbplatform.storage.store import Store

#: Files that are read at the same time: one thread reads faster than a dump is packed.
_READ_AT_ONCE = 2
#: What pg_dump writes from its opening to its end, and never again.
_DATA = re.compile(r"(blob_)?\d+\.dat(\.(gz|lz4|zst))?")


class _Stopped(Exception):
    """The backup has failed: nothing more is to be sent."""


@contextmanager
def working_ahead(made: Path, backup: Backup, destination: Destination, to: Sequence[str]) -> Iterator[Ahead]:
    """Let the files of a backup that is made in the folder ``made`` be worked on by threads, which end with the block.

    ``to`` are age recipients. After an error in the block nothing is on its way any more.
    """
    with (
        ThreadPoolExecutor(STREAMS, thread_name_prefix="backup-send") as sending,
        ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="backup-sum") as reading,
    ):
        store = destination.store(backup.database, backup.id) if backup.in_bucket else None
        ahead = Ahead(made, to, store, reading, sending, task=f"backup {backup.database}")
        try:
            yield ahead
        except BaseException:
            ahead.stop()
            raise


class Ahead:
    """The files below ``made``: which are described, and which are on their way."""

    def __init__(
        self,
        made: Path,
        to: Sequence[str],
        store: Store | None,
        reading: ThreadPoolExecutor,
        sending: ThreadPoolExecutor,
        *,
        task: str,
    ) -> None:
        self._made = made
        self._public = recipients(to)
        self._store = store
        self._reading, self._sending = reading, sending
        self._task = task
        self._described: dict[Path, Future[FileEntry]] = {}
        self._on_their_way: list[Future[None]] = []
        self._sent: set[str] = set()
        self._in_trouble = self._stopped = False

    def look(self) -> None:
        """Take the data files that are finished by now; raises what went wrong with one that was taken before."""
        for future in self._described.values():
            if future.done():
                future.result()
        folder = self._made / DUMP
        if folder.is_dir():
            for path in folder.iterdir():
                if path not in self._described and _DATA.fullmatch(path.name) and is_finished(path):
                    self._take(path)

    def rest(self, *, task: str) -> tuple[FileEntry, ...]:
        """Take every other file, pg_dump having ended; the sizes and SHA-256 of all, as they are to be stored.

        Each is on disk then. Reports ``task`` in files.
        """
        known = {self._made / future.result().name for future in self._described.values()}
        for path in list(files_in(self._made)):
            if path not in known:
                self._take(path)
        entries = []
        for future in as_completed(self._described.values()):
            entries.append(future.result())
            progress.report(task, done=len(entries), total=len(self._described), unit="files")
        for folder in {(self._made / entry.name).parent for entry in entries}:
            sync_folder(folder)
        return tuple(sorted(entries, key=lambda entry: entry.name))

    def sent(self) -> frozenset[str]:
        """Wait for what is on its way; the names of the files that are at the destination, read back there."""
        for future in self._on_their_way:
            future.result()
        return frozenset(self._sent)

    def stop(self) -> None:
        """Let nothing more begin, and what is being sent end with its next part."""
        self._stopped = True
        waiting: list[Future[Any]] = [*self._described.values(), *self._on_their_way]
        for future in waiting:
            future.cancel()

    def _take(self, path: Path) -> None:
        context = contextvars.copy_context()
        self._described[path] = self._reading.submit(context.run, self._describe, path)

    def _describe(self, path: Path) -> FileEntry:
        folder = self._made
        entry = seal_file(path, folder, self._public) if self._public else describe_file(path, folder)
        if self._store is not None and not self._stopped:
            context = contextvars.copy_context()
            self._on_their_way.append(self._sending.submit(context.run, self._send, self._store, entry))
        return entry

    def _send(self, store: Store, entry: FileEntry) -> None:
        if self._stopped or self._in_trouble:
            return
        try:
            store.put(entry.name, self._made / entry.name, sha256=entry.sha256, heard=self._heard)
        except (StorageFailed, OSError, _Stopped):
            self._in_trouble = True
        else:
            self._sent.add(entry.name)
            progress.report(f"{self._task}: sent ahead", done=1, total=1, unit="step")

    def _heard(self, sent: int) -> None:
        if self._stopped:
            raise _Stopped


def is_finished(path: Path) -> bool:
    """Whether something was written to the file and nobody has it open for writing; not where nobody can tell."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Who opens it for writing now is kept waiting, and we are told: by SIGIO, which would end this process, unless
        # another signal is named. This one is ignored by default, and does no harm where it has a handler.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        return os.fstat(descriptor).st_size > 0
    except OSError:
        return False
    finally:
        os.close(descriptor)  # the lease goes with it
