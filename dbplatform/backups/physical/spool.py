"""The spool: the local folder into which a server's WAL comes first, and from which it goes into the archive.

The server's ``archive_command`` or ``pg_receivewal`` must be quick and need nothing but the disk; packing, encrypting
and uploading are done from here, by a process that may be killed at any point and run twice.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dbplatform import progress
from dbplatform.backups.physical.archive import WalArchive
from dbplatform.backups.physical.wal import FINISHED, SEGMENT


def waiting(spool: Path) -> list[Path]:
    """The finished files in the spool, the oldest first."""
    if not spool.is_dir():
        return []
    return sorted(path for path in spool.iterdir() if FINISHED.fullmatch(path.name))


def ship(spool: Path, archive: WalArchive, *, goes_on: Callable[[], bool] = lambda: True) -> tuple[str, ...]:
    """Bring every finished file of the spool into the archive, then remove it from the spool; the names that are new.

    The oldest come first; ``goes_on`` is asked before each but the first, and what is left then is for the next call.

    The newest segment stays in the spool, because pg_receivewal reads from the folder where to go on. Reports ``ship``
    in files. Raises ``WalConflict``, ``StorageFailed`` and ``OSError``; what was not shipped stays where it is.
    """
    files = waiting(spool)
    if not files:
        return ()
    known = archive.files()
    newest = max((path.name for path in files if SEGMENT.fullmatch(path.name)), default=None)
    new: list[str] = []
    for done, path in enumerate(files):
        if done and not goes_on():
            return tuple(new)
        progress.report("ship WAL", done=done, total=len(files), unit="files")
        # Another process may have shipped it meanwhile.
        with suppress(FileNotFoundError):
            if archive.add(path, known):
                new.append(path.name)
            if path.name != newest:
                path.unlink()
    progress.report("ship WAL", done=len(files), total=len(files), unit="files")
    return tuple(new)
