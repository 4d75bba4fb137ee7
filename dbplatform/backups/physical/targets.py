"""Which moments can be restored, told from the catalogue and the names in the archive before anything is started.

A moment can be reached from a base backup that ended before it, when no segment is missing between the two and the WAL
goes on behind it: a recovery stops at the first commit that lies at or behind its time, and where there is none it
would come to the end of the WAL without having stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dbplatform.backups.catalogue import Backup
from dbplatform.backups.physical.archive import WalArchive, WalFile
from dbplatform.backups.physical.base import chain_of
from dbplatform.backups.physical.errors import (
    TargetOutside,
    UnknownRestorePoint,
)
from dbplatform.backups.physical.known import restore_points
from dbplatform.backups.physical.manifest import PhysicalManifest
from dbplatform.backups.physical.past import (
    Archives,
    Past,
    Run,
    end_time,
    goes_on,
    has_gap,
    read_pasts,
)
from dbplatform.backups.physical.wal import HISTORY, Timeline, lsn_words, parse_lsn
from dbplatform.backups.physical.witness import witnesses
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.programs import Programs


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where a recovery is to stop: before the first commit at or behind ``time``, or before the first record at or
    behind ``lsn``; with neither, at the end of the base backup."""

    time: datetime | None = None
    lsn: int | None = None
    words: str

    @classmethod
    def at_time(cls, time: datetime) -> Moment:
        return cls(time=time, words=time_words(time))

    @classmethod
    def at_lsn(cls, lsn: int) -> Moment:
        return cls(lsn=lsn, words=lsn_words(lsn))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """An unbroken stretch of moments: every one of them can be restored."""

    system: str
    timeline_id: int
    start: datetime
    end: datetime
    """The newest commit whose WAL is archived; the same as ``start`` where only the base backup itself is there."""
    start_lsn: int
    end_lsn: int
    broken_at: str | None
    """The WAL file whose absence ends it, where later WAL is archived: a gap."""

    def as_json(self) -> dict[str, Any]:
        return {
            "system_identifier": self.system,
            "timeline": self.timeline_id,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "start_lsn": lsn_words(self.start_lsn),
            "end_lsn": lsn_words(self.end_lsn),
            "missing": self.broken_at,
        }

    def __str__(self) -> str:
        return f"{time_words(self.start)} to {time_words(self.end)} (WAL {lsn_words(self.start_lsn)} to " + (
            f"{lsn_words(self.end_lsn)})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPlan:
    """A moment that can be reached, and what is needed for it."""

    database: str
    on_server: str
    moment: Moment
    chain: tuple[tuple[Backup, PhysicalManifest], ...]
    way: Timeline
    wal: tuple[WalFile, ...]
    """In the order in which they are replayed."""
    histories: tuple[WalFile, ...]
    archive: WalArchive

    @property
    def base(self) -> Backup:
        return self.chain[-1][0]

    @property
    def manifest(self) -> PhysicalManifest:
        return self.chain[-1][1]

    def as_json(self) -> dict[str, Any]:
        return {
            "database": self.database,
            "target": self.moment.words,
            "backup_id": self.base.id,
            "backups": [backup.id for backup, _ in self.chain],
            "timeline": self.way.id,
            "wal_files": len(self.wal),
        }


def windows(ledger: Ledger, pasts: Sequence[Past], programs: Programs) -> tuple[Window, ...]:
    """Every unbroken stretch of moments, the newest first. Reads the last few WAL files of each."""
    found = []
    for past in pasts:
        stretches: dict[tuple[int, int], list[Run]] = {}
        for run in past.runs:
            stretches.setdefault((run.way.id, run.end), []).append(run)
        for runs in stretches.values():
            oldest = min(runs, key=lambda run: run.start_lsn)
            found.append(
                Window(
                    system=past.seat.system,
                    timeline_id=oldest.way.id,
                    start=oldest.manifest.source.taken_at,
                    end=end_time(ledger, past, max(runs, key=lambda run: run.start_lsn), programs),
                    start_lsn=oldest.start_lsn,
                    end_lsn=oldest.end_lsn,
                    broken_at=oldest.missing if has_gap(past, oldest) else None,
                )
            )
    return tuple(found)


def plan_recovery(
    ledger: Ledger,
    database: str,
    archives: Archives,
    *,
    programs: Programs,
    time: datetime | None = None,
    lsn: int | None = None,
    restore_point: str | None = None,
    backup_id: str | None = None,
    now: datetime | None = None,
) -> RecoveryPlan:
    """What is needed to come to one moment, given in one of four ways; only reads, and needs no server.

    Raises ``TargetOutside``, which names the moments that can be reached and whose field ``behind`` tells whether newer
    WAL would help, ``UnknownRestorePoint``, ``NoPhysicalBackup`` and ``BackupDamaged``.
    """
    pasts = read_pasts(ledger, database, archives)
    if backup_id is not None:
        return _to_backup(ledger, database, pasts, backup_id)
    if restore_point is not None:
        moment, pasts = _named(ledger, database, pasts, restore_point)
    elif time is not None:
        moment = Moment.at_time(time)
    else:
        assert lsn is not None
        moment = Moment.at_lsn(lsn)

    def outside(reason: str, *, behind: bool = False) -> TargetOutside:
        known = windows(ledger, pasts, programs)
        words = " or ".join(map(str, known))
        return TargetOutside(
            database=database,
            target=moment.words,
            reason=reason,
            windows=f"it can be restored to any moment from {words}",
            hint=f"See what there is: dbplatform wal status {database}",
            behind=behind,
        )

    if moment.time is not None and moment.time > (now or datetime.now(UTC)):
        raise outside("that lies in the future")
    reason, behind = "that lies before the first base backup had ended", False
    for past in pasts:
        for run in past.runs:
            if not _ended_before(run, moment):
                continue
            broken = _out_of_reach(ledger, past, run, moment, programs)
            if broken is None:
                return _plan(ledger, database, past, run, moment)
            if reason.startswith("that lies before"):
                reason, behind = broken, not has_gap(past, run)
    raise outside(reason, behind=behind)


def plan_end(ledger: Ledger, database: str, archives: Archives, *, programs: Programs) -> tuple[RecoveryPlan, datetime]:
    """From the newest base backup to the newest moment that can be reached from it; and the newest archived commit.

    Raises ``NoPhysicalBackup`` and ``BackupDamaged``.
    """
    past = next(past for past in read_pasts(ledger, database, archives) if past.runs)
    run = past.runs[0]
    newest = end_time(ledger, past, run, programs)
    if run.end == run.first:
        return _to_backup(ledger, database, [past], run.backup.id), newest
    # The end by a witness's position: behind the last commit, while a time is before the commit that it names.
    for witness in reversed(witnesses(ledger, past.seat.system)):
        lsn = parse_lsn(witness.lsn)
        on_way = run.way.holds(witness.timeline_id, lsn)
        if on_way and run.start_lsn <= lsn < run.end_lsn and goes_on(past, run, lsn, programs):
            return _plan(ledger, database, past, run, Moment.at_lsn(lsn)), newest
    return _plan(ledger, database, past, run, Moment.at_time(newest)), newest


def newest_archived_commit(ledger: Ledger, database: str, archives: Archives, *, programs: Programs) -> datetime:
    """The time of the newest commit that can be restored now. Raises ``NoPhysicalBackup``."""
    return max(window.end for window in windows(ledger, read_pasts(ledger, database, archives), programs))


def time_words(moment: datetime) -> str:
    """A moment to the microsecond, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}".rstrip("0").rstrip(".") + " UTC"


def _ended_before(run: Run, moment: Moment) -> bool:
    if moment.time is not None:
        return run.manifest.source.taken_at <= moment.time
    return moment.lsn is None or run.start_lsn <= moment.lsn


def _out_of_reach(ledger: Ledger, past: Past, run: Run, moment: Moment, programs: Programs) -> str | None:
    """Why the unbroken WAL behind a base backup does not come to the moment; None where it does."""
    gap = has_gap(past, run)
    if moment.lsn is not None:
        if moment.lsn < run.end_lsn and goes_on(past, run, moment.lsn, programs):
            return None
        missing = f"the WAL file {run.missing} is missing" if gap else "no WAL behind it is archived"
        return f"{missing}, and the archived WAL ends at {lsn_words(run.end_lsn)}"
    assert moment.time is not None
    end = end_time(ledger, past, run, programs)
    if moment.time <= end and run.end > run.first:
        return None
    if gap:
        return f"the WAL file {run.missing} is missing, and the last commit before it is of {time_words(end)}"
    return f"no commit behind it is archived, the last one is of {time_words(end)}"


def _plan(ledger: Ledger, database: str, past: Past, run: Run, moment: Moment) -> RecoveryPlan:
    last = run.end
    if moment.lsn is not None:
        # One more: the record that stops it may begin there.
        last = min(run.end, run.segments.number(moment.lsn) + 2)
    names = [run.way.segment(run.segments, number) for number in range(run.first, last)]
    return RecoveryPlan(
        database=database,
        on_server=past.seat.on_server,
        moment=moment,
        chain=chain_of(ledger, run.backup),
        way=run.way,
        wal=tuple(past.files[name] for name in names),
        histories=tuple(file for name, file in past.files.items() if HISTORY.fullmatch(name)),
        archive=past.archive,
    )


def _to_backup(ledger: Ledger, database: str, pasts: Sequence[Past], backup_id: str) -> RecoveryPlan:
    """The end of one base backup, which needs no WAL but its own."""
    for past in pasts:
        for run in past.runs:
            if run.backup.id == backup_id:
                moment = Moment(words=f"the end of the base backup {backup_id}")
                plan = _plan(ledger, database, past, run, moment)
                way = Timeline(begins=((run.manifest.source.timeline_id, 0),))
                return RecoveryPlan(
                    database=plan.database, on_server=plan.on_server, moment=moment, chain=plan.chain, way=way, wal=(),
                    histories=(), archive=plan.archive,
                )  # fmt: skip
    raise AssertionError(backup_id)


def _named(ledger: Ledger, database: str, pasts: Sequence[Past], name: str) -> tuple[Moment, tuple[Past, ...]]:
    """The position of a restore point, and the past of its server."""
    points = restore_points(ledger, [past.seat.system for past in pasts])
    for point in points:
        if point.name == name:
            moment = Moment(lsn=parse_lsn(point.lsn), words=f"the restore point {name}")
            return moment, tuple(past for past in pasts if past.seat.system == point.system)
    raise UnknownRestorePoint(
        name=name,
        database=database,
        hint=f"Known are: {', '.join(point.name for point in points)}."
        if points
        else f"Make one before a change: dbplatform backup restore-point {database} NAME",
    )
