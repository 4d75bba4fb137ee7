"""Run files one after the other: each in a transaction with its history row, or statement by statement (``resume``)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors

from dbplatform import progress
from dbplatform.migrations import classify, resume
from dbplatform.migrations.errors import MigrationFailed
from dbplatform.migrations.files import Version
from dbplatform.migrations.history import ensure_history
from dbplatform.migrations.observe import Observer
from dbplatform.migrations.plan import PendingMigration
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.migrations.running import Running, StatementRun
from dbplatform.migrations.session import MigrationSession
from dbplatform.postgres.connection import AutocommitConnection

TRIES = 10
#: Another session was in the way; the transaction is rolled back and the same work may succeed in a moment.
RETRIED = (errors.LockNotAvailable, errors.DeadlockDetected)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedMigration:
    """One file that ran."""

    version: Version | None
    description: str
    script: str
    type: str
    """As the history names it: ``SQL``, ``SQL_BASELINE``, ``UNDO_SQL``."""
    seconds: float
    statements: tuple[StatementRun, ...]
    tries: int
    """1, or more where a lock could not be had at first."""
    found_done: bool = False
    """An earlier run did work of it and was killed before it could record it."""

    def as_json(self) -> dict[str, Any]:
        """One of ``migrations`` in the contract."""
        return {
            "version": str(self.version) if self.version else None,
            "description": self.description,
            "script": self.script,
            "status": "undone" if self.type == "UNDO_SQL" else "applied",
            "seconds": self.seconds,
            "statements": [statement.as_json() for statement in self.statements],
            "findings": [],
        }


def run_files(
    connection: AutocommitConnection,
    files: Sequence[PendingMigration],
    policy: MigrationPolicy,
    *,
    task: str,
    observer: Observer | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[AppliedMigration]:
    """Run the files in their order, under the caller's lock; each is recorded with its work.

    A file is one transaction together with its history row. Its statements wait for a lock at most
    ``policy.lock_timeout``, and no longer than half of ``deadlock_timeout`` once it holds locks itself: then, if it and
    somebody else wait for each other, it is this one that gives way, before the server chooses. The whole transaction
    is then tried again, ten times in all, with pauses in which the traffic behind it goes on. A file that cannot have a
    transaction runs by ``resume``. What a file sets for its session is undone before the next. All are on disk when
    the last one is yielded.

    Raises ``MigrationFailed``; the files before it stay applied.
    """
    if not files:
        return
    ensure_history(connection, policy.history_table)
    total = len(files)
    progress.report(task, done=0, total=total, unit="migrations")
    session = MigrationSession(connection, observed=observer is not None)
    for done, migration in enumerate(files, start=1):
        yield run_file(Running(session, migration, policy, observer), sleep, last=done == total)
        progress.report(task, done=done, total=total, unit="migrations")


def run_file(running: Running, sleep: Callable[[float], None], *, last: bool) -> AppliedMigration:
    """Run one file to its end, as ``run_files`` tells; ``last``: it is on disk when this returns."""
    attempt, migration = 1, running.migration
    while True:
        try:
            running.in_transaction(at_once=last) if migration.in_transaction else resume.by_itself(running)
        except psycopg.Error as error:
            if isinstance(error, errors.InsufficientPrivilege) and running.may_go_unseen:
                # Perhaps it was the role that the file has taken that may not look at its own locks.
                running.observer = None
                continue
            if isinstance(error, RETRIED) and attempt < TRIES:
                sleep(_pause(attempt))
                attempt += 1
                continue
            raise _failed(error, running, attempt) from error
        return AppliedMigration(
            version=migration.version,
            description=migration.description,
            script=migration.script,
            type=migration.type,
            seconds=running.milliseconds / 1000,
            statements=tuple(running.finished),
            tries=attempt,
            found_done=running.found_done,
        )


def _pause(attempt: int) -> float:
    """0.25 s doubling to 8 s, with jitter so that two who met do not meet again; 45 s in all, about."""
    return float(min(0.25 * 2 ** (attempt - 1), 8.0) * random.uniform(0.5, 1.5))


def _failed(error: psycopg.Error, running: Running, attempt: int) -> MigrationFailed:
    migration, statement = running.file, running.statement
    line = statement.line if statement else None
    position = error.diag.statement_position
    if statement and position and error.diag.message_primary:
        line = statement.line_of(int(position) - 1 - running.head)
    reason = error.diag.message_primary or str(error).strip()
    if error.diag.message_detail:
        reason = f"{reason}: {error.diag.message_detail}"
    if statement and statement.copy_data is not None and error.diag.context:
        reason = f"{reason} ({error.diag.context})"
    return MigrationFailed(
        script=migration.script,
        reason=reason.rstrip("."),
        sqlstate=error.sqlstate or "none",
        statement=statement.summary if statement else "the commit with its history row",
        hint=_hint(error, running, attempt),
        file=migration.path,
        line=line,
    )


def _hint(error: psycopg.Error, running: Running, attempt: int) -> str:
    migration = running.migration
    if isinstance(error, errors.LockNotAvailable):
        return (
            f"In each of {attempt} tries another session held a lock for longer than lock_timeout "
            f"({running.policy.lock_timeout}): find it in pg_stat_activity, let it end, and apply again."
        )
    if isinstance(error, errors.ActiveSqlTransaction) and migration.in_transaction:
        return f"Write executeInTransaction=false into {migration.path.name}.conf."
    server = f"{error.diag.message_hint} " if error.diag.message_hint else ""
    if not migration.in_transaction:
        if (
            running.statement is not None
            and classify.may_commit(running.statement)
            and not error.diag.statement_position
        ):
            return (
                f"{server}What it committed itself stays. Mend the cause; apply then asks whether it is to run again."
            )
        if running.marked:
            return f"{server}The statements before it are done and marked: mend the cause, and apply goes on from here."
        return f"{server}It ran without a transaction and is not recorded: mend the cause and apply again."
    return f"{server}Nothing of this file was applied: mend it and apply again."
