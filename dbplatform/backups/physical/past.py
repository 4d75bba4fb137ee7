"""What is known of a server's past: its base backups, and the unbroken WAL behind each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from dbplatform.backups.catalogue import Backup, list_backups
from dbplatform.backups.errors import BackupDamaged
from dbplatform.backups.physical.archive import WalArchive, WalFile
from dbplatform.backups.physical.errors import (
    NoPhysicalBackup,
    WalKeyMissing,
)
from dbplatform.backups.physical.known import Seat, seats
from dbplatform.backups.physical.manifest import PhysicalManifest, load_physical
from dbplatform.backups.physical.records import newest_commit, record_at_or_behind
from dbplatform.backups.physical.server import key_of
from dbplatform.backups.physical.wal import SEGMENT, Segments, Timeline, contiguous_end, parse_lsn
from dbplatform.backups.physical.witness import witnesses
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.programs import Programs

#: Where the WAL archive of a server is, by its system identifier.
Archives = Callable[[str], WalArchive]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A base backup and the unbroken WAL behind it."""

    backup: Backup
    manifest: PhysicalManifest
    way: Timeline
    first: int
    """The segment in which the base backup ends."""
    end: int
    """The first segment that is missing."""

    @property
    def segments(self) -> Segments:
        return Segments(self.manifest.source.segment_bytes)

    @property
    def start_lsn(self) -> int:
        return parse_lsn(self.manifest.source.stop_lsn)

    @property
    def end_lsn(self) -> int:
        return max(self.start_lsn, self.segments.start(self.end)) if self.end > self.first else self.start_lsn

    @property
    def missing(self) -> str:
        """The file that is not there."""
        return self.way.segment(self.segments, self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """All that is known of one server's past."""

    seat: Seat
    archive: WalArchive
    files: dict[str, WalFile]
    runs: tuple[Run, ...]
    """The newest base backup first."""


def read_past(ledger: Ledger, seat: Seat, archive: WalArchive) -> Past:
    """The base backups of a server and the WAL behind each. Reads the ledger, manifests, and names in the archive."""
    files = archive.files()
    manifests = []
    for backup in list_backups(ledger, key_of(seat.system)):
        if backup.status == "complete" and backup.damage is None:
            try:
                manifests.append((backup, load_physical(backup)))
            except BackupDamaged:
                continue  # it is no place to begin from; the next verification or drill says what it has
    ways = archive.timelines(files, also={manifest.source.timeline_id for _, manifest in manifests})
    runs = []
    for backup, manifest in manifests:
        stop = parse_lsn(manifest.source.stop_lsn)
        way = next((way for way in ways if way.holds(manifest.source.timeline_id, stop)), None)
        if way is not None:
            segments = Segments(manifest.source.segment_bytes)
            first = segments.number(stop - 1)
            end = contiguous_end(way, segments, first, files)
            runs.append(Run(backup=backup, manifest=manifest, way=way, first=first, end=end))
    return Past(seat=seat, archive=archive, files=files, runs=tuple(runs))


def read_pasts(ledger: Ledger, database: str, archives: Archives) -> tuple[Past, ...]:
    """The pasts of all servers on which the database was seen, the newest first; raises ``NoPhysicalBackup``."""
    pasts = tuple(read_past(ledger, seat, archives(seat.system)) for seat in seats(ledger, database))
    if not any(past.runs for past in pasts):
        raise NoPhysicalBackup(database=database, hint=f"Take one: dbplatform backup create {database} --kind physical")
    return pasts


def goes_on(past: Past, run: Run, lsn: int, programs: Programs) -> bool:
    """Whether a record begins at or behind the position: whole segments behind it have some, the last one may not."""
    number = run.segments.number(lsn)
    if number < run.end - 1:
        return True
    file = past.files[run.way.segment(run.segments, number)]
    return record_at_or_behind(past.archive, file, lsn, programs=programs, major=run.manifest.source.server_major)


def end_time(ledger: Ledger, past: Past, run: Run, programs: Programs) -> datetime:
    """A commit of this time or later is in the unbroken WAL behind the base backup."""
    known = [run.manifest.source.taken_at]
    if run.end > run.first:
        known += [
            witness.began_at
            for witness in witnesses(ledger, past.seat.system)
            if run.way.holds(witness.timeline_id, parse_lsn(witness.lsn)) and parse_lsn(witness.lsn) <= run.end_lsn
        ]
        known += [at for at in [_last_commit(past, run, programs)] if at is not None]
    return max(known)


def _last_commit(past: Past, run: Run, programs: Programs) -> datetime | None:
    """As the newest segments tell; None where they tell of none, or no key is here to read them."""
    names = [run.way.segment(run.segments, number) for number in range(run.end - 1, run.first - 1, -1)]
    major = run.manifest.source.server_major
    with suppress(WalKeyMissing):
        return newest_commit(past.archive, [past.files[name] for name in names], programs=programs, major=major)
    return None


def has_gap(past: Past, run: Run) -> bool:
    """Whether the archive holds segments behind the first one that is missing and before it, on the same way.

    Where there are none before it, the archive began later, or was pruned up to there.
    """
    on_way = {id_ for id_, _ in run.way.begins}
    found = [run.segments.parse(name) for name in past.files if SEGMENT.fullmatch(name)]
    numbers = [number for timeline, number in found if timeline in on_way]
    return any(number > run.end for number in numbers) and any(number < run.end for number in numbers)
