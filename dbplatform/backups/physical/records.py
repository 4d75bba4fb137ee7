"""What is in archived WAL, read by pg_waldump: the time of its last commit, whether it goes on behind a position."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from dbplatform.backups.physical.archive import WalArchive, WalFile
from dbplatform.backups.physical.wal import lsn_words
from dbplatform.backups.programs import same_major
from dbplatform.postgres.client_programs import ProgramFailed, run
from dbplatform.postgres.programs import Programs

#: How many segments are looked through for a commit: more would take longer than a person waits for an answer.
MOST_SEGMENTS = 8

_COMMIT = re.compile(rb"desc: COMMIT(?:_PREPARED)? .*?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC")


def newest_commit(
    archive: WalArchive, newest_first: Sequence[WalFile], *, programs: Programs, major: int
) -> datetime | None:
    """The time of the last commit in these segments; None where the newest few have none.

    Raises ``WalDamaged`` and ``NoSameProgram``.
    """
    for file in newest_first[:MOST_SEGMENTS]:
        said = _dump(archive, file, ["--rmgr=Transaction"], programs=programs, major=major)
        found = _COMMIT.findall(said)
        if found:
            return max(datetime.fromisoformat(text.decode()).replace(tzinfo=UTC) for text in found)
    return None


def record_at_or_behind(archive: WalArchive, file: WalFile, lsn: int, *, programs: Programs, major: int) -> bool:
    """Whether a record begins at or behind the position, in the segment that holds it."""
    return b"lsn: " in _dump(archive, file, [f"--start={lsn_words(lsn)}", "--limit=1"], programs=programs, major=major)


def _dump(archive: WalArchive, file: WalFile, options: list[str], *, programs: Programs, major: int) -> bytes:
    """What pg_waldump says of one segment; that it comes to the end of the WAL in there is no error."""
    program = same_major(programs, "pg_waldump", major=major).path("pg_waldump")
    said: list[bytes] = []
    with tempfile.TemporaryDirectory(prefix="dbplatform-wal-") as folder:
        segment = Path(folder) / file.name
        archive.fetch(file, segment)
        try:
            run([program, *options, segment], output=said.append, tolerated=lambda line: True)
        except ProgramFailed:
            return b"".join(said)
    return b"".join(said)
