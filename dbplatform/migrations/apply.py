"""Apply what is pending, one writer at a time: a killed run leaves each file applied and recorded, or neither."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors

from dbplatform import progress
from dbplatform.migrations import concurrent
from dbplatform.migrations.compare import compare
from dbplatform.migrations.errors import MigrationFailed
from dbplatform.migrations.files import Version
from dbplatform.migrations.history import ensure_history, record
from dbplatform.migrations.plan import MigrationPlan, PendingMigration, plan_migrations
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.migrations.statements import Statement
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.locks import advisory_lock

LOCK = "migrations"
TRIES = 5
#: Another session was in the way; the transaction is rolled back and the same work may succeed in a moment.
RETRIED = (errors.LockNotAvailable, errors.DeadlockDetected)

# The order matters: RESET SESSION AUTHORIZATION sets the role to none, RESET ROLE then gives back the session's own.
_RESET_USER = "reset session authorization; reset role"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementRun:
    """One statement that ran, and how long it took in the try that counted."""

    sql: str
    line: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedMigration:
    """One file that was applied."""

    version: Version | None
    description: str
    script: str
    seconds: float
    statements: tuple[StatementRun, ...]
    tries: int
    """1, or more where a lock could not be had at first."""
    found_done: bool = False
    """An earlier run did its work and was killed before it could record it."""

    def as_json(self) -> dict[str, Any]:
        """One of ``migrations`` in the contract. Locks and rewrites are not known yet: null."""
        return {
            "version": str(self.version) if self.version else None,
            "description": self.description,
            "script": self.script,
            "status": "applied",
            "seconds": self.seconds,
            "statements": [
                {"sql": s.sql, "lock": None, "rewrites": None, "seconds": s.seconds} for s in self.statements
            ],
            "findings": [],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationReport:
    """What this run applied: nothing, where all was applied before."""

    database: str
    current: Version | None
    """The newest applied version, now."""
    target: Version | None
    migrations: tuple[AppliedMigration, ...]

    def as_json(self) -> dict[str, Any]:
        """The shape of ``migrate apply --json``."""
        return {
            "database": self.database,
            "current": str(self.current) if self.current else None,
            "target": str(self.target) if self.target else None,
            "migrations": [migration.as_json() for migration in self.migrations],
        }


def apply_migrations(
    connection: AutocommitConnection,
    directory: Path,
    policy: MigrationPolicy,
    *,
    target: str | None = None,
    database: str | None = None,
    lock_wait_ms: int = 600_000,
    sleep: Callable[[float], None] = time.sleep,
) -> MigrationReport:
    """Apply the pending migrations of ``directory``, in order. With nothing pending it costs one query and no lock.

    The arguments are those of ``plan_migrations``. Holds the advisory lock ``migrations`` of the database, polled
    without a transaction, and plans under it: what somebody else has applied meanwhile is left out. Each file is
    one transaction together with its history row; its statements wait for a lock at most ``policy.lock_timeout``, then
    the whole transaction is tried again, five times in all. A statement that PostgreSQL refuses in a transaction runs
    by itself, see ``concurrent``. What a file sets for its session is undone before the next.

    Raises ``MigrationFailed`` (the files before it stay applied), ``LockNotAcquired`` after ``lock_wait_ms``, and
    whatever ``plan_migrations`` raises: then nothing was changed.
    """
    found = compare(connection, directory, policy, target=target)
    if not found.pending:
        name = database or connection.info.dbname
        return MigrationReport(database=name, current=found.current, target=found.target, migrations=())
    with advisory_lock(connection, LOCK, wait_ms=lock_wait_ms), _watched(connection):
        plan = plan_migrations(connection, directory, policy, target=target, database=database)
        applied = tuple(_apply_all(connection, plan, sleep))
    return MigrationReport(database=plan.database, current=plan.target, target=plan.target, migrations=applied)


def _apply_all(
    connection: AutocommitConnection, plan: MigrationPlan, sleep: Callable[[float], None]
) -> Iterator[AppliedMigration]:
    if not plan.pending:
        return
    ensure_history(connection, plan.policy.history_table)
    task, total = f"migrate {plan.database}", len(plan.pending)
    progress.report(task, done=0, total=total, unit="migrations")
    with _restored(connection) as restore:
        for done, migration in enumerate(plan.pending, start=1):
            yield _with_retries(connection, plan, migration, sleep)
            restore()
            progress.report(task, done=done, total=total, unit="migrations")


def _with_retries(
    connection: AutocommitConnection, plan: MigrationPlan, migration: PendingMigration, sleep: Callable[[float], None]
) -> AppliedMigration:
    apply = _in_transaction if migration.in_transaction else _by_itself
    attempt = 1
    while True:
        running = _Running(migration)
        started = time.monotonic()
        try:
            found_done = apply(connection, plan, migration, running)
        except psycopg.Error as error:
            if isinstance(error, RETRIED) and attempt < TRIES:
                # 0.1 s doubling to 0.8 s, with jitter so that two who met do not meet again.
                sleep(0.1 * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
                attempt += 1
                continue
            raise _failed(error, running, plan, attempt) from error
        return AppliedMigration(
            version=migration.version,
            description=migration.description,
            script=migration.script,
            seconds=time.monotonic() - started,
            statements=tuple(running.finished),
            tries=attempt,
            found_done=found_done,
        )


class _Running:
    """Which statement is under way, for the report and for the error."""

    def __init__(self, migration: PendingMigration) -> None:
        self.migration = migration
        self.statement: Statement | None = None
        self.finished: list[StatementRun] = []
        self.started = time.monotonic()

    def execute(self, connection: AutocommitConnection, statement: Statement) -> None:
        self.statement = statement
        started = time.monotonic()
        if statement.copy_data is None:
            connection.execute(statement.sql.encode(), prepare=False)
        else:
            with connection.cursor().copy(statement.sql.encode()) as copy:
                copy.write(statement.copy_data)
        self.finished.append(StatementRun(sql=statement.sql, line=statement.line, seconds=time.monotonic() - started))
        self.statement = None

    @property
    def milliseconds(self) -> int:
        return round((time.monotonic() - self.started) * 1000)


def _in_transaction(
    connection: AutocommitConnection, plan: MigrationPlan, migration: PendingMigration, running: _Running
) -> bool:
    with connection.transaction():
        timeout = str(plan.policy.lock_timeout.milliseconds)
        connection.execute("select set_config('lock_timeout', %s, true)", (timeout,))
        for statement in migration.statements:
            running.execute(connection, statement)
        # The script may have taken another role, which need not have the right to write the history.
        connection.execute(_RESET_USER)
        _record(connection, plan, migration, running)
    return False


def _by_itself(
    connection: AutocommitConnection, plan: MigrationPlan, migration: PendingMigration, running: _Running
) -> bool:
    """Run the only statement without a transaction, then record it; what a run killed in between left is found."""
    connection.execute("select set_config('lock_timeout', '0', false), set_config('statement_timeout', '0', false)")
    found_done = False
    for statement in migration.statements:
        running.statement = statement
        found_done = concurrent.prepare(connection, statement, migration.path)
        if not found_done:
            running.execute(connection, statement)
    running.statement = None
    _record(connection, plan, migration, running)
    return found_done


def _record(
    connection: AutocommitConnection, plan: MigrationPlan, migration: PendingMigration, running: _Running
) -> None:
    record(
        connection,
        plan.policy.history_table,
        version=migration.version,
        description=migration.description,
        script=migration.script,
        checksum=migration.checksum,
        milliseconds=running.milliseconds,
    )


def _failed(error: psycopg.Error, running: _Running, plan: MigrationPlan, attempt: int) -> MigrationFailed:
    migration, statement = running.migration, running.statement
    line = statement.line if statement else None
    position = error.diag.statement_position
    if statement and position and error.diag.message_primary:
        line = statement.line_of(int(position) - 1)
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
        hint=_hint(error, migration, plan, attempt),
        file=migration.path,
        line=line,
    )


def _hint(error: psycopg.Error, migration: PendingMigration, plan: MigrationPlan, attempt: int) -> str:
    if isinstance(error, errors.LockNotAvailable):
        return (
            f"In each of {attempt} tries another session held a lock for longer than lock_timeout "
            f"({plan.policy.lock_timeout}): find it in pg_stat_activity, let it end, and apply again."
        )
    if isinstance(error, errors.ActiveSqlTransaction) and migration.in_transaction:
        return f"Write executeInTransaction=false into {migration.path.name}.conf."
    server = f"{error.diag.message_hint} " if error.diag.message_hint else ""
    if not migration.in_transaction:
        return (
            f"{server}It ran without a transaction and is not recorded: mend the cause and apply again. If an earlier "
            "run had done its work already, IF EXISTS or IF NOT EXISTS lets it pass."
        )
    return f"{server}Nothing of this file was applied: mend it and apply again."


@contextmanager
def _watched(connection: AutocommitConnection) -> Iterator[None]:
    """Let the server notice within seconds that this client was killed, so that its statement and its locks end.

    It can from PostgreSQL 14 on, on Linux and some other systems.
    """
    setting = "client_connection_check_interval"
    before = connection.execute("select current_setting(%s, true)", (setting,)).fetchone()
    if before is None or before[0] is None:
        yield
        return
    try:
        connection.execute("select set_config(%s, '2s', false)", (setting,))
    except errors.InvalidParameterValue:
        # The server's platform cannot do it.
        yield
        return
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("select set_config(%s, %s, false)", (setting, before[0]))


@contextmanager
def _restored(connection: AutocommitConnection) -> Iterator[Callable[[], None]]:
    """Undo what a script did to the session (SET, SET ROLE), after each and at the end.

    A dump, for example, empties ``search_path``; the next file must not depend on that.
    """
    settings = connection.execute("select name, setting from pg_settings where source = 'session'").fetchall()

    def restore() -> None:
        connection.execute(_RESET_USER)
        connection.execute("reset all")
        for name, value in settings:
            connection.execute("select set_config(%s, %s, false)", (name, value))

    try:
        yield restore
    finally:
        if not connection.closed:
            restore()
