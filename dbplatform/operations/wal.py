"""The past of a declared database's server: which base backups and WAL there are, and what can be restored of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from dbplatform.backups import rebuild as rebuilding
from dbplatform.backups.catalogue import Backup, list_backups
from dbplatform.backups.errors import BackupDamaged
from dbplatform.backups.holding import held
from dbplatform.backups.manifest import MANIFEST
from dbplatform.backups.physical import base, slot, targets
from dbplatform.backups.physical.archive import WalArchive
from dbplatform.backups.physical.errors import NoPhysicalBackup
from dbplatform.backups.physical.known import RestorePoint, remember, restore_points, seats
from dbplatform.backups.physical.manifest import load_physical
from dbplatform.backups.physical.past import read_pasts
from dbplatform.backups.physical.server import Server, key_of, read_server
from dbplatform.backups.physical.spool import ship, waiting
from dbplatform.backups.physical.targets import Window
from dbplatform.backups.physical.wal import parse_lsn
from dbplatform.backups.physical.witness import testify
from dbplatform.backups.policy import PhysicalPolicy
from dbplatform.declaration.loading import Declared
from dbplatform.errors import WorkError
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.backups import destination_of, policy_of
from dbplatform.operations.gates import not_declared
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import AutocommitConnection, connect
from dbplatform.postgres.programs import find_programs
from dbplatform.postgres.standbys import answered

#: How long a restore waits for the newest WAL to reach the archive before it answers without it.
CATCH_UP_S = 3.0
_LOOK_S = 0.05
#: No file is begun later than that when WAL is brought beside other work; what is left comes the next time.
BRING_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WalStatus:
    """What can be restored, and how the WAL comes into the archive."""

    database: str
    system: str | None
    windows: tuple[Window, ...]
    restore_points: tuple[RestorePoint, ...]
    waiting: int
    """Files in the spool that the archive does not have yet."""
    archiving: str
    slot: slot.Slot | None
    findings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "database": self.database,
            "system_identifier": self.system,
            "windows": [window.as_json() for window in self.windows],
            "restore_points": [
                {"name": point.name, "lsn": point.lsn, "made_at": point.made_at.isoformat()}
                for point in self.restore_points
            ],
            "waiting": self.waiting,
            "archiving": self.archiving,
            "slot": self.slot.as_json() if self.slot else None,
            "findings": list(self.findings),
        }


def physical_of(declared: Declared) -> PhysicalPolicy:
    """What is declared of physical backups; raises ``NotDeclared``."""
    physical = policy_of(declared).physical
    if physical is None:
        raise not_declared(declared, "physical backups", "backups: {physical: {wal_archive: true}}")
    return physical


def remember_seat(platform: Platform, declared: Declared) -> Server:
    """Look at the server of the database, and write down that it lies there."""
    target = platform.target(declared)
    with connect(target, work="look at the server") as connection:
        server = read_server(connection, target)
        remember(platform.ledger, declared.name, system=server.system, on_server=connection.info.dbname)
    return server


def known(platform: Platform, declared: Declared) -> tuple[Backup, ...]:
    """Every base backup, of every server on which the database was seen, the newest first."""
    found = [
        backup
        for seat in seats(platform.ledger, declared.name)
        for backup in list_backups(platform.ledger, key_of(seat.system))
    ]
    return tuple(sorted(found, key=lambda backup: backup.started_at, reverse=True))


def rebuild(platform: Platform, declared: Declared) -> tuple[str, ...]:
    """Take up every base backup at the destination that the ledger does not know; their ids.

    Witnesses and named restore points are the ledger's alone: without it a drill hears fewer, and a point is restored
    by its time. Raises ``StorageFailed``.
    """
    destination, ledger = destination_of(platform, declared), platform.ledger
    keys = {file.name.partition("/")[0] for file in destination.store().files() if file.name.startswith(key_of(""))}
    found: list[str] = []
    for key in sorted(keys):
        found += rebuilding.rebuild(ledger, destination, key)
        for backup in list_backups(ledger, key):
            with suppress(BackupDamaged):
                manifest = load_physical(backup)
                if declared.name in manifest.declared:
                    remember(
                        ledger,
                        declared.name,
                        system=manifest.source.system_identifier,
                        on_server=manifest.declared[declared.name],
                        seen_at=manifest.source.taken_at,
                    )
    return tuple(found)


def status(platform: Platform, declared: Declared) -> WalStatus:
    """What can be restored now; only reads. A server that cannot be reached is a finding, its past is still told."""
    physical = physical_of(declared)
    ledger = platform.ledger
    findings = []
    if not known(platform, declared):
        rebuild(platform, declared)
    found_slot, archiving, spooled = None, "not known", 0
    system = next((seat.system for seat in seats(ledger, declared.name)), None)
    target = platform.existing_target(declared)
    if target is None:
        findings.append("The server does not run, or has no such database.")
    else:
        try:
            with connect(target, work="wal status") as connection:
                system = read_server(connection, target).system
                archiving = _archiving(connection)
                found_slot = slot.read_slot(connection, system)
        except WorkError as error:
            findings.append(error.message)
    if physical.wal_archive and target is not None and archiving == "off" and found_slot is None:
        findings.append(f"No WAL is archived: {_how_to_archive(declared)}")
    if found_slot is not None and (finding := found_slot.finding(physical.max_slot_wal_mb << 20)):
        findings.append(finding)
    found: tuple[Window, ...] = ()
    try:
        pasts = read_pasts(ledger, declared.name, lambda one: archive_of(platform, declared, one))
        found = targets.windows(ledger, pasts, find_programs())
        if system is not None:
            past = next((past for past in pasts if past.seat.system == system), None)
            files = past.files if past is not None else {}
            spooled = sum(path.name not in files for path in waiting(spool_of(platform, declared, system)))
    except NoPhysicalBackup as error:
        findings.append(error.message)
        if archiving == "on" and _lets_go(platform, declared):
            findings.append("Until it begins, the server lets its WAL go.")
    findings += [f"The WAL file {window.broken_at} is missing." for window in found if window.broken_at]
    return WalStatus(
        database=declared.name,
        system=system,
        windows=found,
        restore_points=restore_points(ledger, [seat.system for seat in seats(ledger, declared.name)]),
        waiting=spooled,
        archiving=archiving,
        slot=found_slot,
        findings=tuple(findings),
    )


def catch_up(
    platform: Platform,
    declared: Declared,
    *,
    to: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Bring all WAL of the live server into the archive; whether all came within seconds.

    Where the server can be reached and archives, a witness is committed and a new segment begun, so that every moment
    until now can be restored. Not where the server itself has not come ``to`` that position yet.
    """
    target = platform.existing_target(declared)
    if target is None:
        return False
    with answered(target), connect(target, work="catch up") as connection:
        server = read_server(connection, target)
        archive, spool = archive_of(platform, declared, server.system), spool_of(platform, declared, server.system)
        ship(spool, archive)
        if _archiving(connection) == "off" and not slot.is_active(connection, server.system):
            return False
        keeps = not _lets_go(platform, declared)
        if not keeps and not (archives_wal(declared) and _keeps_what_is_of_use(platform, declared, server.system)):
            return False
        if to is not None and to > _position(connection):
            return False
        testify(connection, platform.ledger, system=server.system, database=declared.name, hashes=False)
        try:
            row = connection.execute("select pg_walfile_name(pg_switch_wal())").fetchone()
        except psycopg.errors.InsufficientPrivilege:
            return False
    assert row is not None
    deadline = clock() + CATCH_UP_S
    while row[0] not in archive.files():
        if clock() > deadline:
            return False
        sleep(_LOOK_S)
        ship(spool, archive)
    return True


def archives_wal(declared: Declared) -> bool:
    """Whether the WAL of the database's server is declared to be kept."""
    backups = declared.database.backups
    return backups is not None and backups.physical is not None and backups.physical.wal_archive


def bring(platform: Platform, declared: Declared, *, clock: Callable[[], float] = time.monotonic) -> tuple[str, ...]:
    """Bring into the archive what has come into the spool of the server; the names of the files that are new.

    At least one file, and no other one is begun after 10 s. The database is not asked. Where there is no base backup,
    the embedded server lets its WAL go. Raises ``WalConflict``, ``StorageFailed`` and ``OSError``; what was not brought
    stays in the spool.
    """
    seat = next(iter(seats(platform.ledger, declared.name)), None) if archives_wal(declared) else None
    if seat is None:
        return ()
    if not _keeps_what_is_of_use(platform, declared, seat.system):
        return ()
    spool, archive = spool_of(platform, declared, seat.system), archive_of(platform, declared, seat.system)
    until = clock() + BRING_S
    return ship(spool, archive, goes_on=lambda: clock() < until)


def keep_wal(platform: Platform, declared: Declared) -> None:
    """Let the server of the database keep its WAL from now on, where it is the embedded one."""
    if declared.database.connection.url_env is None:
        platform.server.keep_wal()


def _keeps_what_is_of_use(platform: Platform, declared: Declared, system: str) -> bool:
    """Whether the WAL of the server is kept; that of the embedded one is exactly where a base backup could use it.

    Without one it would fill the disk and bring nothing back. A catalogue that knows none is made again from the
    destination before that is believed.
    """
    if declared.database.connection.url_env is not None:
        return True
    ledger, server = platform.ledger, platform.server
    if server.keeps_wal != _has_base(ledger, system):
        with held(ledger, base.taking(system)) as mine:
            if mine and not _has_base(ledger, system):
                rebuild(platform, declared)
            # One that is being taken has said that WAL is kept.
            if mine and not _has_base(ledger, system):
                server.let_wal_go()
            else:
                server.keep_wal()
    return server.keeps_wal


def _lets_go(platform: Platform, declared: Declared) -> bool:
    return declared.database.connection.url_env is None and not platform.server.keeps_wal


def _has_base(ledger: Ledger, system: str) -> bool:
    """Whether there is a base backup, which may lie there whole although its row was never completed.

    The next one takes up such a killed attempt, and what was written behind it must still be there then.
    """
    return any(
        backup.status == "complete" or (backup.status == "running" and _is_published(backup))
        for backup in list_backups(ledger, key_of(system))
    )


def _is_published(backup: Backup) -> bool:
    try:
        with backup.store.reading(MANIFEST):
            return True
    except FileNotFoundError:
        return False


def archive_of(platform: Platform, declared: Declared, system: str) -> WalArchive:
    """Where the WAL of a server is kept: beside its base backups."""
    store = destination_of(platform, declared).store(key_of(system), "wal")
    return WalArchive(system, store, encrypt_to=policy_of(declared).encrypt_to)


def spool_of(platform: Platform, declared: Declared, system: str) -> Path:
    """Where WAL comes first: beside the embedded server's data, else into a folder of this home."""
    if declared.database.connection.url_env is None:
        return platform.server.wal_spool
    return platform.home.wal / system


def _position(connection: AutocommitConnection) -> int:
    row = connection.execute("select pg_current_wal_lsn()::text").fetchone()
    assert row is not None
    return parse_lsn(row[0])


def _archiving(connection: AutocommitConnection) -> str:
    row = connection.execute("select current_setting('archive_mode')").fetchone()
    return str(row[0]) if row else "off"


def _how_to_archive(declared: Declared) -> str:
    if declared.database.connection.url_env is None:
        return "start the embedded server anew, dbplatform server stop and dbplatform server start."
    return f"let this run as a service: dbplatform wal receive {declared.name}"
