"""The proof of a base backup and of the WAL behind it: recovered aside, to a moment in between and then to its end.

At both the witnesses committed before must be there and those after must not; at the end, tables that nobody has
written to since before the base backup must hold what they held then, ``pg_amcheck`` reads every table and index, and
the data-quality checks run. ``pg_verifybackup`` has read the files before. A drill that could not be carried out has
errored: it proves nothing.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbplatform import progress
from dbplatform.backups.catalogue import Backup, list_backups, mark_proven
from dbplatform.backups.checked import CheckProof, Examine, no_checks
from dbplatform.backups.compare import TableProof
from dbplatform.backups.contents import list_tables, read_content, ready_to_read
from dbplatform.backups.drill import finish
from dbplatform.backups.errors import BackupDamaged
from dbplatform.backups.holding import held
from dbplatform.backups.kept import drop_proof, keep_proof
from dbplatform.backups.physical.base import reading_chain
from dbplatform.backups.physical.cluster import Cluster, recovering
from dbplatform.backups.physical.errors import NotLookedAt, RecoveryFailed, WalDamaged
from dbplatform.backups.physical.targets import Moment, RecoveryPlan, time_words
from dbplatform.backups.physical.wal import parse_lsn
from dbplatform.backups.physical.witness import TableState, Witness, is_there, witnesses
from dbplatform.ledger.backups import BackupRecord, DrillRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.client_programs import ENDED_BY_SIGNAL
from dbplatform.postgres.connection import AnyConnection, connect
from dbplatform.postgres.programs import Programs

#: A recovery that failed with these words says nothing of the backup: the machine was in trouble.
_OF_THE_MACHINE = (
    "No space left on device",
    "Disk quota exceeded",
    "Cannot allocate memory",
    "out of memory",
    ENDED_BY_SIGNAL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryProof:
    """What a drill found. ``proven`` only when nothing was wrong at either moment."""

    id: str
    backup_id: str
    database: str
    proven: bool
    moment: str | None
    """The moment in between; none where there is no WAL behind the base backup."""
    end: str
    rto_seconds: float | None
    """From the start until the server answered at the end of its WAL; none where it did not come so far."""
    rpo_seconds: float | None
    """How old the newest archived commit was when the drill began."""
    witnesses: int
    """How many were looked for."""
    tables: tuple[TableProof, ...]
    checks: tuple[CheckProof, ...] = ()
    errors: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The contract's ``drill``."""
        return {
            "backup_id": self.backup_id,
            "kind": "physical",
            "proven": self.proven,
            "moment": self.moment,
            "end": self.end,
            "rto_seconds": self.rto_seconds,
            "rpo_seconds": self.rpo_seconds,
            "witnesses": self.witnesses,
            "tables": [table.as_json() for table in self.tables],
            "checks": [check.as_json() for check in self.checks],
            "errors": list(self.errors),
        }


def between(start: datetime, end: datetime) -> datetime:
    """Any moment of the stretch, each as likely as the other."""
    return start + random.random() * (end - start)


def drill(
    plan: RecoveryPlan,
    ledger: Ledger,
    *,
    newest_commit: datetime,
    rpo_seconds: float,
    quiet: Callable[[], dict[str, TableState]],
    place: Path,
    programs: Programs,
    run_id: str | None = None,
    now: datetime | None = None,
    choose: Callable[[datetime, datetime], datetime] = between,
    examine: Examine = no_checks,
) -> RecoveryProof:
    """Recover the plan's server twice in one go, look, tear it down, and record what was found.

    ``plan`` leads to the end of the archived WAL, whose newest commit is of ``newest_commit``; ``rpo_seconds`` was
    measured before anything was done for the drill. ``quiet`` is asked at the end for the tables that must be as they
    were before the base backup, and ``examine`` of the database as of the end, where nothing else was wrong.

    Reports ``recover <database>`` in WAL files and the facts ``drill <database>: started, moment, end, looked, removed,
    recorded``. What is wrong with the backup or the WAL gives ``proven`` false; what keeps the drill from being carried
    out (``NoRoom``, ``NoSameProgram``, ``NotLookedAt``, ``BackupUnreadable``) is raised and recorded as ``errored``.
    """
    record = DrillRecord(
        id=uuid.uuid4(),
        backup_id=plan.base.id,
        database=plan.database,
        run_id=run_id,
        status="running",
        started_at=now or datetime.now(UTC),
        tables=[],
        errors=[],
        target=plan.moment.words,
    )
    # The lock's name is that of every drill: the next one on the database closes those that were killed.
    with held(ledger, f"drill {record.id}"), reading_chain(ledger, (link for link, _ in plan.chain)):
        with ledger.session() as session:
            session.add(record)
        _step(plan, "started")
        try:
            proof = _carry_out(
                plan, record, ledger, rpo_seconds, newest_commit, quiet, place, programs, choose, examine
            )
        except BaseException as error:
            finish(ledger, record, status="errored", errors=(str(error) or type(error).__name__,))
            raise
        if proof.proven:
            mark_proven(ledger, plan.base.id)
            keep_proof(_now(ledger, plan.base))
        else:
            _take_proof_away(ledger, plan.base.id)
            drop_proof(plan.base)
        finish(ledger, record, status="proven" if proof.proven else "not proven", errors=proof.errors, report=proof)
    _step(plan, "recorded")
    return proof


def _carry_out(
    plan: RecoveryPlan,
    record: DrillRecord,
    ledger: Ledger,
    rpo_seconds: float,
    newest_commit: datetime,
    quiet: Callable[[], dict[str, TableState]],
    place: Path,
    programs: Programs,
    choose: Callable[[datetime, datetime], datetime],
    examine: Examine,
) -> RecoveryProof:
    started = time.monotonic()
    rto_seconds: float | None = None
    looked_for = 0
    tables: tuple[TableProof, ...] = ()
    checks: tuple[CheckProof, ...] = ()
    errors: list[str] = []
    moment: Moment | None = None
    taken_at = plan.manifest.source.taken_at
    if plan.wal and newest_commit > taken_at:
        moment = Moment.at_time(choose(taken_at, newest_commit))
    testimony = [
        witness
        for witness in witnesses(ledger, plan.archive.system)
        if plan.way.holds(witness.timeline_id, parse_lsn(witness.lsn))
    ]
    try:
        with recovering(plan, place, ledger, programs=programs) as cluster:
            aside = 0.0
            if moment is not None and moment.time is not None:
                cluster.recover(moment, pause=True)
                begun = time.monotonic()
                with connect(cluster.target("postgres"), work="drill") as connection:
                    count, wrong = _hear(connection, testimony, before=moment.time)
                looked_for, errors = looked_for + count, errors + wrong
                aside = time.monotonic() - begun
                _step(plan, "moment")
            cluster.recover(plan.moment)
            rto_seconds = time.monotonic() - started - aside
            _step(plan, "end")
            with connect(cluster.target(plan.on_server), work="drill") as connection:
                if plan.moment.lsn is not None:
                    count, wrong = _hear(connection, testimony, up_to=plan.moment.lsn)
                    looked_for, errors = looked_for + count, errors + wrong
                tables = _compare(connection, quiet())
            errors += [table.difference for table in tables if table.difference is not None]
            errors += _check_pages(cluster)
            if not errors:
                checks = examine(cluster.target(plan.on_server))
                errors += [check.difference for check in checks if check.difference is not None]
            _step(plan, "looked")
        _step(plan, "removed")
    except BackupDamaged as error:
        errors.append(str(error.fields["problems"]))
    except WalDamaged as error:
        errors.append(error.message)
    except RecoveryFailed as error:
        if any(words in error.message for words in _OF_THE_MACHINE):
            raise
        errors.append(error.message)
    return RecoveryProof(
        id=str(record.id),
        backup_id=plan.base.id,
        database=plan.database,
        proven=not errors,
        moment=moment.words if moment is not None else None,
        end=plan.moment.words,
        rto_seconds=rto_seconds,
        rpo_seconds=rpo_seconds,
        witnesses=looked_for,
        tables=tables,
        checks=checks,
        errors=tuple(errors),
    )


def _hear(
    connection: AnyConnection, testimony: Sequence[Witness], *, before: datetime | None = None, up_to: int | None = None
) -> tuple[int, list[str]]:
    """How many witnesses had to be there or not, and a sentence for each of which the contrary holds."""
    count, wrong = 0, []
    for witness in testimony:
        if before is not None:
            expected = True if witness.ended_at < before else False if witness.began_at >= before else None
        else:
            expected = up_to is not None and parse_lsn(witness.lsn) <= up_to
        found = is_there(connection, witness) if expected is not None else None
        if found is None:
            continue
        count += 1
        if found != expected:
            words = "is missing" if expected else "is there although it came later"
            wrong.append(f"the transaction {witness.xid} of {time_words(witness.ended_at)} {words}")
    return count, wrong


def _compare(connection: AnyConnection, expected: dict[str, TableState]) -> tuple[TableProof, ...]:
    """Read the quiet tables, and set each beside what it held."""
    ready_to_read(connection)
    found = {str(table): read_content(connection, table) for table in list_tables(connection) if str(table) in expected}
    return tuple(
        TableProof(
            table=name,
            rows=found[name].rows if name in found else None,
            expected_rows=state.rows,
            hash=found[name].hash if name in found else None,
            expected_hash=state.hash,
        )
        for name, state in sorted(expected.items())
    )


def _check_pages(cluster: Cluster) -> list[str]:
    """Let pg_amcheck read every table and index of the database; what it finds, a sentence for each."""
    command: list[str | Path] = [
        cluster.programs.path("pg_amcheck"),
        "--install-missing",
        "--heapallindexed",
        "--no-password",
        f"--host={cluster.socket}",
        f"--username={cluster.plan.manifest.source.superuser}",
        f"--database={cluster.plan.on_server}",
    ]
    answer = cluster.account.run(command, programs=cluster.programs)
    if answer.returncode == 0:
        return []
    said = " ".join((answer.stdout + " " + answer.stderr).split())
    if answer.returncode == 2:
        return [f"pg_amcheck finds corruption: {said[:600]}"]
    raise NotLookedAt(
        database=cluster.plan.database,
        reason=f"pg_amcheck says {said[:600].rstrip('.')}",
        hint="Install the contrib modules (amcheck) of that version of PostgreSQL.",
    )


def _now(ledger: Ledger, backup: Backup) -> Backup:
    return next(known for known in list_backups(ledger, backup.database) if known.id == backup.id)


def _take_proof_away(ledger: Ledger, backup_id: str) -> None:
    with ledger.session() as session:
        session.get_one(BackupRecord, backup_id).proven_at = None


def _step(plan: RecoveryPlan, fact: str) -> None:
    progress.report(f"drill {plan.database}: {fact}", done=1, total=1, unit="step")
