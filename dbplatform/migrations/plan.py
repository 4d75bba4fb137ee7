"""What would be applied, each pending file read and judged. Nothing here writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbplatform.errors import NotBuiltYet
from dbplatform.migrations import classify
from dbplatform.migrations.compare import compare
from dbplatform.migrations.errors import MigrationFileError, ScriptError
from dbplatform.migrations.files import Migration, Version
from dbplatform.migrations.history import HistoryRow
from dbplatform.migrations.placeholders import Placeholders
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.migrations.statements import Statement, split
from dbplatform.postgres.connection import AnyConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingMigration:
    """A file that is to be applied, in the form in which it will run."""

    migration: Migration
    checksum: int
    statements: tuple[Statement, ...]
    in_transaction: bool

    @property
    def version(self) -> Version | None:
        return self.migration.version

    @property
    def description(self) -> str:
        return self.migration.description

    @property
    def script(self) -> str:
        return self.migration.script

    @property
    def path(self) -> Path:
        return self.migration.path

    def as_json(self, status: str) -> dict[str, Any]:
        """One of ``migrations`` in the contract, before it ran. Locks and rewrites are not known yet: null."""
        return {
            "version": str(self.version) if self.version else None,
            "description": self.description,
            "script": self.script,
            "status": status,
            "seconds": None,
            "statements": [{"sql": s.sql, "lock": None, "rewrites": None, "seconds": None} for s in self.statements],
            "findings": [],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationPlan:
    """What is applied, what is pending, in the order in which it would run."""

    database: str
    directory: Path
    policy: MigrationPolicy
    current: Version | None
    """The newest applied version."""
    target: Version | None
    """The version after the plan is applied."""
    pending: tuple[PendingMigration, ...]
    skipped: tuple[Migration, ...]
    """Versions above the requested target."""
    applied: tuple[HistoryRow, ...]
    """What is in force: without rows that were undone, deleted, or superseded."""
    superseded: tuple[HistoryRow, ...]
    """Earlier runs of repeatable migrations."""

    def as_json(self) -> dict[str, Any]:
        """The shape of ``migrate plan --json``: pending ones, and those above the target as skipped."""
        return {
            "database": self.database,
            "current": str(self.current) if self.current else None,
            "target": str(self.target) if self.target else None,
            "migrations": [p.as_json("pending") for p in self.pending] + [_skipped_json(m) for m in self.skipped],
        }


def plan_migrations(
    connection: AnyConnection,
    directory: Path,
    policy: MigrationPolicy,
    *,
    target: str | None = None,
    database: str | None = None,
) -> MigrationPlan:
    """Compare the files in ``directory`` with the history, and read what is pending. Only reads, takes no lock.

    ``target`` is the last version to apply (none or ``latest``: all); repeatable migrations run whatever it is, as in
    Flyway. ``database`` is the declared name, by default the connected database's. The history is read in one query; a
    missing history table means that nothing is applied.

    Raises ``MigrationFileError`` for the files, ``HistoryMismatch`` where they do not fit the history (changed,
    missing, failed, out of order), ``DestructiveStatement``, ``TargetUnknown``, and ``NotBuiltYet``.
    """
    found = compare(connection, directory, policy, target=target)
    return MigrationPlan(
        database=database or connection.info.dbname,
        directory=directory,
        policy=policy,
        current=found.current,
        target=found.target,
        pending=tuple(_read(migration, number, found.placeholders, policy) for migration, number in found.pending),
        skipped=found.skipped,
        applied=found.applied,
        superseded=found.superseded,
    )


def _read(
    migration: Migration, file_checksum: int, placeholders: Placeholders, policy: MigrationPolicy
) -> PendingMigration:
    """Split a pending file, and refuse what must not run."""
    script = split(placeholders.replaced(migration), file=migration.path)
    classify.refuse_transaction_control(script, file=migration.path)
    if not policy.allow_destructive:
        classify.refuse_destructive(script, file=migration.path)
    return PendingMigration(
        migration=migration,
        checksum=file_checksum,
        statements=script.statements,
        in_transaction=_in_transaction(migration, script.statements),
    )


def _in_transaction(migration: Migration, statements: tuple[Statement, ...]) -> bool:
    alone = [(s, words) for s in statements if (words := classify.needs_no_transaction(s))]
    if not alone and migration.execute_in_transaction is not False:
        return True
    statement, words = alone[0] if alone else (statements[0] if statements else None, "executeInTransaction=false")
    if alone and migration.execute_in_transaction is True:
        raise MigrationFileError(
            f"{words} cannot run in a transaction, but {migration.path.name}.conf says executeInTransaction=true.",
            hint="Remove the setting.",
            file=migration.path,
            line=statement.line if statement else None,
        )
    if len(statements) > 1:
        raise NotBuiltYet(
            what=f"More than one statement in a file that runs without a transaction ({words})",
            hint=f"Split {migration.script}: that statement alone in one file, the others in files before or after it.",
            file=migration.path,
            line=statement.line if statement else None,
        )
    if statement is not None:
        index = classify.concurrent_index(statement)
        if index is not None and index.name is None:
            raise ScriptError(
                "The index that is built concurrently has no name, so that a half-built one could not be found again.",
                hint="Write CREATE INDEX CONCURRENTLY name ON ...",
                file=migration.path,
                line=statement.line,
            )
    return False


def _skipped_json(migration: Migration) -> dict[str, Any]:
    return {
        "version": str(migration.version),
        "description": migration.description,
        "script": migration.script,
        "status": "skipped",
        "seconds": None,
        "statements": [],
        "findings": [],
    }
