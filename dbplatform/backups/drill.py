"""The proof: the backup is restored into a scratch database, every table compared with the manifest, and checked.

Only this sets ``proven_at``. A drill that could not be carried out has errored: it neither proves nor disproves.
"""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import func, select

from dbplatform import progress
from dbplatform.backups.catalogue import Backup, find_backup, load_manifest, mark_damaged, mark_proven, reading
from dbplatform.backups.checked import CheckProof, Examine, no_checks
from dbplatform.backups.compare import TableProof, compare
from dbplatform.backups.destination import default_work
from dbplatform.backups.errors import BackupDamaged, RestoreFailed
from dbplatform.backups.files import unpacked
from dbplatform.backups.holding import held
from dbplatform.backups.kept import drop_proof, keep_proof
from dbplatform.backups.loading import check_server, load
from dbplatform.backups.manifest import DUMP
from dbplatform.backups.restore import finish as finish_database
from dbplatform.backups.scratch import maintained, scratch_database
from dbplatform.ledger.backups import DrillRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.client_programs import ENDED_BY_SIGNAL, WORKER_DIED
from dbplatform.postgres.connection import ServerRefused, Target
from dbplatform.postgres.programs import Programs

#: A restore that failed with these words says nothing of the backup: the scratch server was in trouble.
_OF_THE_SERVER = (
    "No space left on device",
    "Disk quota exceeded",
    "connection to server",
    "server closed the connection",
    "terminating connection",
    "the database system is",
    "out of memory",
    "out of shared memory",
    WORKER_DIED,
    ENDED_BY_SIGNAL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillReport:
    """What a drill found. ``proven`` only when every file, every count and every hash was right, and no check says that
    the copy is not what the source was."""

    id: str
    backup_id: str
    database: str
    proven: bool
    rto_seconds: float | None
    """From the start of the restore until all was compared; none where it did not come so far."""
    rpo_seconds: float | None
    """How old the data was when the drill began; none where the manifest cannot be read."""
    tables: tuple[TableProof, ...]
    checks: tuple[CheckProof, ...] = ()
    errors: tuple[str, ...]
    """One sentence for each file, table or check that is wrong."""

    def as_json(self) -> dict[str, Any]:
        """The contract's ``drill``."""
        return {
            "backup_id": self.backup_id,
            "proven": self.proven,
            "rto_seconds": self.rto_seconds,
            "rpo_seconds": self.rpo_seconds,
            "tables": [table.as_json() for table in self.tables],
            "checks": [check.as_json() for check in self.checks],
            "errors": list(self.errors),
        }


def drill(
    backup: Backup,
    ledger: Ledger,
    scratch_server: Target,
    *,
    programs: Programs,
    jobs: int = 2,
    room: Path | None = None,
    work: Path | None = None,
    run_id: str | None = None,
    now: datetime | None = None,
    examine: Examine = no_checks,
) -> DrillReport:
    """Restore a complete backup into a scratch database of ``scratch_server``, compare it, drop it, record the result.

    ``scratch_server`` is any database of a server that is at least as new as the source. Owners, grants and policies
    are left out, because a scratch server lacks the roles. A mismatch, a damaged file, or a dump that pg_restore
    refuses gives ``proven`` false, and takes away an earlier proof. What keeps the drill from being carried out
    (``ServerTooOld``, ``ServerLacks``, ``NoRoom``, ``BackupUnreadable``, ``StorageFailed``, a missing or wrong key, a
    lost connection) is raised and recorded as ``errored``; the earlier proof stays. What does not lie plain in a folder
    is unpacked below ``work`` meanwhile. A proof is kept beside the backup, too, where that can be written. ``examine``
    is asked of a copy whose every table matches; its time is not recovery.

    Reports ``restore <database>`` in bytes and the facts ``drill <database>: started, read, created, loaded, compared,
    checked, dropped, recorded``.
    """
    record = DrillRecord(
        id=uuid.uuid4(),
        backup_id=backup.id,
        database=backup.database,
        run_id=run_id,
        status="running",
        started_at=now or datetime.now(UTC),
        tables=[],
        errors=[],
    )
    with held(ledger, _lock(record.id)), reading(ledger, backup):
        _close_killed(ledger, backup.database)
        with ledger.session() as session:
            session.add(record)
        _step(backup, "started")
        try:
            report = _carry_out(backup, record, scratch_server, programs, jobs, room, work or default_work(), examine)
        except BaseException as error:
            finish(ledger, record, status="errored", errors=(str(error) or type(error).__name__,))
            raise
        if report.proven:
            mark_proven(ledger, backup.id)
            keep_proof(find_backup(ledger, backup.database, backup.id))
        else:
            mark_damaged(ledger, backup.id, report.errors)
            drop_proof(backup)
        finish(
            ledger,
            record,
            status="proven" if report.proven else "not proven",
            errors=report.errors,
            report=report,
        )
    _step(backup, "recorded")
    return report


def _carry_out(
    backup: Backup,
    record: DrillRecord,
    server: Target,
    programs: Programs,
    jobs: int,
    room: Path | None,
    work: Path,
    examine: Examine,
) -> DrillReport:
    started = time.monotonic()
    rto_seconds: float | None = None
    rpo_seconds: float | None = None
    tables: tuple[TableProof, ...] = ()
    checks: tuple[CheckProof, ...] = ()
    try:
        manifest = load_manifest(backup)
        rpo_seconds = (record.started_at - manifest.source.taken_at).total_seconds()
        with unpacked(backup, manifest, work=work) as folder:
            _step(backup, "read")
            with maintained(server) as (connection, token):
                check_server(connection, server, backup, manifest, roles=False, room=room)
                with scratch_database(connection, token, server, manifest.source.locale, purpose="drill") as scratch:
                    _step(backup, "created")
                    task = f"restore {backup.database}"
                    dump = folder / DUMP
                    load(
                        backup,
                        manifest,
                        dump,
                        scratch,
                        programs=programs,
                        jobs=jobs,
                        roles=False,
                        # The scratch server need not have those of the source, whatever others it has.
                        options=["--no-tablespaces"],
                        task=task,
                    )
                    _step(backup, "loaded")
                    tables = compare(scratch.target, manifest, jobs=jobs, task=f"compare {backup.database}")
                    rto_seconds = time.monotonic() - started
                    _step(backup, "compared")
                    if examine is not no_checks and all(table.match for table in tables):
                        # Statistics and settings are what the checks are used to; a scratch user may not set them all.
                        with suppress(ServerRefused):
                            finish_database(scratch, manifest, owners=False)
                        checks = examine(scratch.target)
                    _step(backup, "checked")
                _step(backup, "dropped")
        errors = [table.difference for table in tables if table.difference is not None]
        errors += [check.difference for check in checks if check.difference is not None]
    except BackupDamaged as error:
        errors = [str(error.fields["problems"])]
    except RestoreFailed as error:
        if any(words in error.message for words in _OF_THE_SERVER):
            raise
        errors = [error.message]
    return DrillReport(
        id=str(record.id),
        backup_id=backup.id,
        database=backup.database,
        proven=not errors,
        rto_seconds=rto_seconds,
        rpo_seconds=rpo_seconds,
        tables=tables,
        checks=checks,
        errors=tuple(errors),
    )


def list_drills(ledger: Ledger, database: str) -> tuple[DrillRecord, ...]:
    """Every drill of a database, the newest first."""
    query = select(DrillRecord).where(DrillRecord.database == database)
    with ledger.session() as session:
        return tuple(session.scalars(query.order_by(DrillRecord.started_at.desc(), DrillRecord.id)))


def _close_killed(ledger: Ledger, database: str) -> None:
    """Drills whose process was killed have errored; what they left on the scratch server goes by ``maintained``."""
    for record in list_drills(ledger, database):
        if record.status == "running":
            with held(ledger, _lock(record.id)) as mine:
                if mine:
                    finish(ledger, record, status="errored", errors=("its process was ended before it had finished",))


class Measured(Protocol):
    """What a drill has measured, of whatever kind of backup."""

    @property
    def rto_seconds(self) -> float | None: ...
    @property
    def rpo_seconds(self) -> float | None: ...
    @property
    def tables(self) -> tuple[TableProof, ...]: ...
    @property
    def checks(self) -> tuple[CheckProof, ...]: ...


def finish(
    ledger: Ledger, record: DrillRecord, *, status: str, errors: tuple[str, ...], report: Measured | None = None
) -> None:
    """Write down how a drill ended, and what it measured where it came so far."""
    with ledger.session() as session:
        stored = session.get_one(DrillRecord, record.id)
        stored.status, stored.errors, stored.finished_at = status, list(errors), func.now()
        if report is not None:
            stored.rto_seconds, stored.rpo_seconds = report.rto_seconds, report.rpo_seconds
            stored.tables = [table.as_json() for table in report.tables]
            stored.checks = [check.as_json() for check in report.checks]


def _lock(id: uuid.UUID) -> str:
    return f"drill {id}"


def _step(backup: Backup, fact: str) -> None:
    progress.report(f"drill {backup.database}: {fact}", done=1, total=1, unit="step")
