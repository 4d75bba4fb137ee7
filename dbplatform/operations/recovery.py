"""Physical backups of a declared database: of its server, restored to a moment by a recovery aside."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dbplatform.backups.catalogue import Backup, list_backups
from dbplatform.backups.physical import base, recover, targets
from dbplatform.backups.physical import drill as drills
from dbplatform.backups.physical import prune as pruning
from dbplatform.backups.physical.archive import WalArchive
from dbplatform.backups.physical.drill import RecoveryProof
from dbplatform.backups.physical.errors import BaseBackupRunning, NoPhysicalBackup, TargetOutside
from dbplatform.backups.physical.known import RestorePoint, remember
from dbplatform.backups.physical.points import create_restore_point
from dbplatform.backups.physical.prune import PhysicalPrunePlan
from dbplatform.backups.physical.server import Server, key_of, read_server
from dbplatform.backups.physical.targets import RecoveryPlan
from dbplatform.backups.physical.wal import parse_lsn
from dbplatform.backups.physical.witness import TableState, quiet_tables, witnesses
from dbplatform.backups.verify import Verification
from dbplatform.declaration.loading import Declared
from dbplatform.operations.backups import beside, destination_of, erase_again, policy_of
from dbplatform.operations.platform import Platform
from dbplatform.operations.wal import archive_of, catch_up, keep_wal, known, physical_of, rebuild, remember_seat
from dbplatform.postgres.clock import agreed_now
from dbplatform.postgres.connection import connect
from dbplatform.postgres.programs import find_programs
from dbplatform.postgres.standbys import answered

#: A base backup of so long ago is as good as a new one.
SHARED_FOR = timedelta(hours=1)
_WAIT_S = 5.0


def plan_take(platform: Platform, declared: Declared) -> tuple[Server, Backup | None]:
    """The server, and the parent of the base backup where it would be an incremental one. Only reads."""
    physical = physical_of(declared)
    return base.plan_base(
        platform.target(declared), platform.ledger, programs=find_programs(), incremental=physical.incremental
    )


def take(platform: Platform, declared: Declared, *, full: bool = False, run_id: str | None = None) -> Backup:
    """Take a base backup of the server, which serves every database on it; then bring its WAL into the archive."""
    physical, policy = physical_of(declared), policy_of(declared)
    target = platform.target(declared)
    with platform.ledger.operation(declared.name, "base backup", run_id=run_id) as summary:
        backup = base.create_base(
            target,
            destination_of(platform, declared),
            platform.ledger,
            database=declared.name,
            programs=find_programs(),
            incremental=0 if full else physical.incremental,
            encrypt_to=policy.encrypt_to,
            run_id=run_id,
            begins=lambda: keep_wal(platform, declared),
        )
        summary.update(backup.as_json())
    catch_up(platform, declared)
    return backup


def take_shared(platform: Platform, declared: Declared, *, run_id: str | None = None) -> Backup:
    """Take a base backup, unless one of the last hour serves as well: for schedules of several databases of a server.

    Where one is being taken now, it is waited for.
    """
    while True:
        server, _ = plan_take(platform, declared)
        remember_seat(platform, declared)
        for backup in list_backups(platform.ledger, server.key):
            age = datetime.now(UTC) - backup.started_at
            if backup.status == "complete" and backup.damage is None and age < SHARED_FOR:
                catch_up(platform, declared)
                return backup
        try:
            return take(platform, declared, run_id=run_id)
        except BaseBackupRunning:
            time.sleep(_WAIT_S)


def newest(platform: Platform, declared: Declared) -> Backup:
    """The newest complete base backup; raises ``NoPhysicalBackup``."""
    for backup in known(platform, declared):
        if backup.status == "complete":
            return backup
    raise NoPhysicalBackup(
        database=declared.name, hint=f"Take one: dbplatform backup create {declared.name} --kind physical"
    )


def examine(platform: Platform, declared: Declared, backup_id: str) -> Verification:
    """Read every file of a base backup, and of those on which it rests; a damaged one is marked so in the ledger."""
    backup = next(backup for backup in known(platform, declared) if backup.id == backup_id)
    return base.verify_base(backup, platform.ledger)


def is_physical(platform: Platform, declared: Declared, backup_id: str) -> bool:
    """Whether a base backup has that id."""
    return any(backup.id == backup_id for backup in known(platform, declared))


def plan_restore(
    platform: Platform,
    declared: Declared,
    *,
    into: str,
    replace: str | None,
    time: datetime | None = None,
    lsn: int | None = None,
    restore_point: str | None = None,
    backup_id: str | None = None,
    latest: bool = False,
    only_look: bool = False,
) -> RecoveryPlan:
    """Look at all that a restore to that moment needs, within seconds; ``latest`` is the end of the archived WAL.

    Where only newer WAL is lacking, a witness is committed and the server's WAL brought into the archive first, unless
    ``only_look``. What the ledger does not know is looked for at the destination. Raises what ``plan_recovery`` and
    ``check_recovery`` raise.
    """
    if not known(platform, declared):
        rebuild(platform, declared)

    def archives(system: str) -> WalArchive:
        return archive_of(platform, declared, system)

    def plan() -> RecoveryPlan:
        if latest:
            return targets.plan_end(platform.ledger, declared.name, archives, programs=find_programs())[0]
        return targets.plan_recovery(
            platform.ledger,
            declared.name,
            archives,
            programs=find_programs(),
            time=time,
            lsn=lsn,
            restore_point=restore_point,
            backup_id=backup_id,
        )

    if latest and not only_look:
        catch_up(platform, declared)
    try:
        found = plan()
    except TargetOutside as outside:
        if not outside.fields["behind"]:
            raise
        if only_look:
            outside.hint = "Without --dry-run the newest WAL would be brought into the archive first."
            raise
        if not catch_up(platform, declared, to=lsn):
            raise
        found = plan()
    recover.check_recovery(
        found, beside(platform.target(declared), into), into, replace=replace, room=_room(platform, declared)
    )
    return found


def bring_back(
    platform: Platform,
    declared: Declared,
    plan: RecoveryPlan,
    *,
    into: str,
    replace: str | None,
    run_id: str | None = None,
    before_renamed: Callable[[], None] = lambda: None,
) -> recover.RecoveryReport:
    """Recover the server aside, and copy the database out of it into ``into`` on the declared one's server.

    Rows that were erased on purpose since then are erased again before the copy gets its name.
    """
    with platform.ledger.operation(declared.name, "restore", run_id=run_id) as summary:
        report = recover.recover_database(
            plan,
            beside(platform.target(declared), into),
            into,
            platform.ledger,
            place=platform.home.recoveries,
            programs=find_programs(),
            replace=replace,
            room=_room(platform, declared),
            before_named=lambda restored: erase_again(platform, declared, restored),
            before_renamed=before_renamed,
        )
        summary.update(report.as_json())
        return report


def prove(
    platform: Platform,
    declared: Declared,
    *,
    run_id: str | None = None,
    choose: Callable[[datetime, datetime], datetime] = drills.between,
) -> RecoveryProof:
    """Recover the newest base backup to a moment in between and to the end of its WAL, aside; look; tear it down."""
    from dbplatform.operations import drill_checks

    physical_of(declared)
    programs, ledger = find_programs(), platform.ledger
    started_at = datetime.now(UTC)

    def archives(system: str) -> WalArchive:
        return archive_of(platform, declared, system)

    archived = targets.newest_archived_commit(ledger, declared.name, archives, programs=programs)
    catch_up(platform, declared)
    plan, newest = targets.plan_end(ledger, declared.name, archives, programs=programs)
    return drills.drill(
        plan,
        ledger,
        newest_commit=newest,
        rpo_seconds=max(0.0, (started_at - archived).total_seconds()),
        quiet=lambda: _quiet(platform, declared, plan),
        place=platform.home.recoveries,
        programs=programs,
        run_id=run_id,
        now=started_at,
        choose=choose,
        examine=drill_checks.examination(platform, declared, at=newest),
    )


def _quiet(platform: Platform, declared: Declared, plan: RecoveryPlan) -> dict[str, TableState]:
    """The tables of the live database that nobody has written to since before the base backup; none where it is gone.

    Those that were hashed for another declared database of the server tell nothing of this one.
    """
    before = parse_lsn(plan.manifest.source.start_lsn)
    known = [
        witness
        for witness in witnesses(platform.ledger, plan.archive.system)
        if witness.tables and witness.database == declared.name and parse_lsn(witness.lsn) <= before
    ]
    target = platform.existing_target(declared)
    if not known or target is None:
        return {}
    with connect(target, work="drill") as connection:
        if read_server(connection, target).system != plan.archive.system:
            return {}
        return quiet_tables(connection, known[-1])


def plan_prune(platform: Platform, declared: Declared) -> PhysicalPrunePlan:
    """What the retention and the recovery window no longer want of the newest server; only reads.

    Raises ``NoPhysicalBackup``.
    """
    physical_of(declared)
    system = newest(platform, declared).database.removeprefix(key_of(""))
    archive = archive_of(platform, declared, system)
    return pruning.plan_prune(platform.ledger, system, archive, policy_of(declared), now=datetime.now(UTC))


def apply_prune(platform: Platform, declared: Declared, planned: PhysicalPrunePlan) -> PhysicalPrunePlan:
    """Remove what is planned, each looked at again; what was removed.

    Raises ``ClocksApart`` where the ledger's server contradicts this machine's clock.
    """
    with connect(platform.ledger.target, work="prune") as connection:
        now = agreed_now(connection)
    archive = archive_of(platform, declared, planned.system)
    with platform.ledger.operation(declared.name, "prune") as summary:
        report = pruning.apply_prune(platform.ledger, planned, archive, policy_of(declared), now=now)
        summary.update(report.as_json())
        return report


def name_point(platform: Platform, declared: Declared, name: str) -> RestorePoint:
    """Make a named restore point on the server of the database; it can be restored once its WAL is archived."""
    target = platform.target(declared)
    with platform.ledger.operation(declared.name, "restore point") as summary:
        with answered(target), connect(target, work="restore point") as connection:
            server = read_server(connection, target)
            remember(platform.ledger, declared.name, system=server.system, on_server=connection.info.dbname)
            point = create_restore_point(connection, platform.ledger, server, database=declared.name, name=name)
        summary.update(name=name, lsn=point.lsn)
    return point


def _room(platform: Platform, declared: Declared) -> Path | None:
    """The folder of the target server's data, where that is known."""
    return platform.server.status().data_directory if declared.database.connection.url_env is None else None
