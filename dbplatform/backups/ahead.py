"""Works on a dump while pg_dump is still at it: each file is summed or encrypted, and uploaded, while it grows.

So the largest table, which is the last to be finished, is not sent alone when all others are. Where nobody can tell
that a file is finished (``growing``) its end is waited for until pg_dump has ended.

An upload ahead is a try. What it did not bring is left to ``publish``, so that a bucket in trouble ends no dump.
"""

from __future__ import annotations

import contextvars
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from dbplatform import progress
from dbplatform.backups.catalogue import Backup
from dbplatform.backups.destination import Destination
from dbplatform.backups.files import STREAMS, describe_file
from dbplatform.backups.growing import Growing, Reading, is_finished, whole
from dbplatform.backups.keys import recipients
from dbplatform.backups.manifest import DUMP, SEALED, FileEntry, files_in, sync_folder
from dbplatform.backups.sealing import seal_file
from dbplatform.storage.place import StorageFailed
from dbplatform.storage.store import Store

#: Finished files that are read at the same time, besides those that grow.
_READ_AT_ONCE = 2
#: How long nobody looks whether a file has grown.
_LOOK_S = 0.05
#: What pg_dump writes from its opening to its end, and never again.
_DATA = re.compile(r"(blob_)?\d+\.dat(\.(gz|lz4|zst))?")


class _Stopped(Exception):
    """The backup has failed: nothing more is to be sent."""


@contextmanager
def working_ahead(
    made: Path, backup: Backup, destination: Destination, to: Sequence[str], *, jobs: int
) -> Iterator[Ahead]:
    """Let the files of a backup that is made in the folder ``made`` be worked on by threads, which end with the block.

    ``to`` are age recipients; ``jobs`` is how many files pg_dump writes at the same time. After an error in the block
    nothing is on its way any more.
    """
    with (
        ThreadPoolExecutor(STREAMS + jobs, thread_name_prefix="backup-send") as sending,
        ThreadPoolExecutor(_READ_AT_ONCE + jobs, thread_name_prefix="backup-sum") as reading,
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
        self._nothing_grows = Event()

    def look(self) -> None:
        """Take the data files that pg_dump has begun by now; raises what went wrong with one that was taken before."""
        for future in self._described.values():
            if future.done():
                future.result()
        folder = self._made / DUMP
        if folder.is_dir():
            for path in folder.iterdir():
                if path not in self._described and _DATA.fullmatch(path.name):
                    self._take(path, self._grows(path))

    def rest(self, *, task: str) -> tuple[FileEntry, ...]:
        """Take every other file, pg_dump having ended; the sizes and SHA-256 of all, as they are to be stored.

        Each is on disk then. Reports ``task`` in files.
        """
        self._nothing_grows.set()
        known = {self._made / future.result().name for future in self._described.values()}
        for path in list(files_in(self._made)):
            if path not in known:
                self._take(path, whole)
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
        self._nothing_grows.set()
        waiting: list[Future[Any]] = [*self._described.values(), *self._on_their_way]
        for future in waiting:
            future.cancel()

    def _take(self, path: Path, read: Reading) -> None:
        described = self._reading.submit(contextvars.copy_context().run, self._describe, path, read)
        self._described[path] = described
        if self._store is not None:
            context = contextvars.copy_context()
            self._on_their_way.append(self._sending.submit(context.run, self._send, self._store, path, described))

    def _grows(self, path: Path) -> Reading:
        def finished() -> bool:
            return self._nothing_grows.is_set() or is_finished(path)

        def wait() -> None:
            self._nothing_grows.wait(_LOOK_S)
            if self._stopped:
                raise _Stopped

        return lambda file: Growing(file, finished=finished, wait=wait)

    def _describe(self, path: Path, read: Reading) -> FileEntry:
        if self._public:
            return seal_file(path, self._made, self._public, read=read)
        return describe_file(path, self._made, read=read)

    def _send(self, store: Store, path: Path, described: Future[FileEntry]) -> None:
        """Send the file as it is stored; what goes wrong with its description is told by ``look`` and ``rest``."""
        if self._stopped or self._in_trouble:
            return
        stored = path.with_name(path.name + SEALED) if self._public else path
        try:
            store.put_begun(str(stored.relative_to(self._made)), stored, ended=self._ended(described))
            if described.cancelled() or described.exception() is not None:
                return
            entry = described.result()
            store.put(entry.name, stored, sha256=entry.sha256, heard=self._heard)
        except (StorageFailed, OSError, _Stopped):
            self._in_trouble = True
        else:
            self._sent.add(entry.name)
            progress.report(f"{self._task}: sent ahead", done=1, total=1, unit="step")

    def _ended(self, described: Future[FileEntry]) -> Callable[[], bool]:
        def ended() -> bool:
            if not described.done():
                wait_for([described], timeout=_LOOK_S)
            self._heard(0)
            return described.done()

        return ended

    def _heard(self, sent: int) -> None:
        if self._stopped:
            raise _Stopped
