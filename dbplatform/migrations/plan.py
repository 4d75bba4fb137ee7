"""What would be applied, each pending file read and judged. Nothing here writes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbplatform.migrations import classify, rewrites
from dbplatform.migrations.compare import Files, compare
from dbplatform.migrations.errors import MigrationFileError, ScriptError
from dbplatform.migrations.files import Folders, Migration, Version
from dbplatform.migrations.history import HistoryRow
from dbplatform.migrations.observe import UNSEEN
from dbplatform.migrations.placeholders import Placeholders
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.migrations.statements import Script, Statement, split
from dbplatform.postgres.connection import AnyConnection

#: What the history calls a file of each kind (``api/CoreMigrationType``).
TYPES = {"versioned": "SQL", "repeatable": "SQL", "baseline": "SQL_BASELINE", "undo": "UNDO_SQL", "callback": "none"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingMigration:
    """A file that is to run, in the form in which it will."""

    migration: Migration
    checksum: int
    statements: tuple[Statement, ...]
    in_transaction: bool
    may_rewrite: bool
    """Whether an ALTER COLUMN TYPE in it may rewrite its table."""
    placeholders: tuple[tuple[str, str], ...] = ()
    """The declared ones."""
    before: tuple[PendingMigration, ...] = ()
    """Callbacks that run in its transaction, before its own statements."""
    after: tuple[PendingMigration, ...] = ()

    @property
    def files(self) -> tuple[PendingMigration, ...]:
        """The file, with the callbacks that run in its transaction."""
        return (*self.before, self, *self.after)

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

    @property
    def digest(self) -> str:
        """SHA-256 of what will run, with the declared placeholders and the callbacks in its transaction.

        Not of the values that differ from run to run, such as ``${flyway:timestamp}``.
        """
        words = (self.script, self.in_transaction, self.placeholders, [file.migration.text for file in self.files])
        return hashlib.sha256(repr(words).encode()).hexdigest()

    @property
    def type(self) -> str:
        """As the history names it."""
        return TYPES[self.migration.kind]

    def as_json(self, status: str) -> dict[str, Any]:
        """One of ``migrations`` in the contract, before it ran: what it will lock is not known."""
        return {
            "version": str(self.version) if self.version else None,
            "description": self.description,
            "script": self.script,
            "status": status,
            "seconds": None,
            "statements": [{"sql": s.shown, **UNSEEN, "seconds": None} for s in self.statements],
            "findings": [],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationPlan:
    """What is applied, what is pending, in the order in which it would run."""

    database: str
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
    future: tuple[HistoryRow, ...]
    """Versions that were applied from files newer than any that are here."""
    callbacks: tuple[PendingMigration, ...] = ()
    """What runs around them, see ``callbacks``."""

    @property
    def in_force(self) -> str:
        """SHA-256 of what is applied, in whatever order: the same again once something was applied and undone."""
        rows = sorted((row.version or "", row.description, row.checksum or 0) for row in self.applied)
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """The shape of ``migrate plan --json``: pending ones, and those above the target as skipped."""
        return {
            "database": self.database,
            "current": str(self.current) if self.current else None,
            "target": str(self.target) if self.target else None,
            "migrations": [p.as_json("pending") for p in self.pending] + [_skipped_json(m) for m in self.skipped],
            "future": [row.script for row in self.future],
            "callbacks": [callback.script for callback in self.callbacks],
        }


def plan_migrations(
    connection: AnyConnection,
    folders: Folders | Files,
    policy: MigrationPolicy,
    *,
    target: str | None = None,
    database: str | None = None,
    repeatables: bool = True,
) -> MigrationPlan:
    """Compare the files with the history, and read what is pending. Only reads, takes no lock.

    ``target`` is the last version to apply (none or ``latest``: all); repeatable migrations run whatever it is, as in
    Flyway, unless ``repeatables`` is false. ``database`` is the declared name, by default the connected database's.
    The history is read in one query; a missing history table means that nothing is applied.

    Raises ``MigrationFileError`` for the files, ``HistoryMismatch`` where they do not fit the history (changed,
    missing, failed, out of order), ``DestructiveStatement``, ``TargetUnknown``, and ``NotBuiltYet``.
    """
    files = Files.of(folders)
    found = compare(connection, files, policy, target=target, repeatables=repeatables)
    callbacks = read_callbacks(connection, files.callbacks_of("Migrate"), policy, found.placeholders)
    return MigrationPlan(
        database=database or connection.info.dbname,
        policy=policy,
        current=found.current,
        target=found.target,
        pending=tuple(
            read_pending(
                connection,
                migration,
                number,
                found.placeholders,
                destructive=policy.allow_destructive,
                before=at_event("beforeEachMigrate", callbacks),
                after=at_event("afterEachMigrate", callbacks),
            )
            for migration, number in found.pending
        ),
        skipped=found.skipped,
        applied=found.applied,
        superseded=found.superseded,
        future=found.future,
        callbacks=callbacks,
    )


def read_pending(
    connection: AnyConnection,
    migration: Migration,
    checksum: int,
    placeholders: Placeholders,
    *,
    destructive: bool,
    before: tuple[PendingMigration, ...] = (),
    after: tuple[PendingMigration, ...] = (),
) -> PendingMigration:
    """Split a file that is to run, and refuse what must not; ``destructive``: it may destroy data without a comment."""
    backslashes = connection.info.parameter_status("standard_conforming_strings") == "off"
    script = split(placeholders.replaced(migration), file=migration.path, backslashes=backslashes)
    classify.refuse_transaction_control(script, file=migration.path)
    may_rewrite = destructive or classify.RETYPE in classify.allowances(script, file=migration.path)
    if not destructive:
        classify.refuse_destructive(script, file=migration.path)
    if not may_rewrite:
        _refuse_rewrites(connection, script, migration)
    return PendingMigration(
        migration=migration,
        checksum=checksum,
        statements=script.statements,
        in_transaction=runs_in_transaction(migration, script.statements),
        may_rewrite=may_rewrite,
        placeholders=placeholders.declared,
        before=before,
        after=after,
    )


def read_callbacks(
    connection: AnyConnection, callbacks: Sequence[Migration], policy: MigrationPolicy, placeholders: Placeholders
) -> tuple[PendingMigration, ...]:
    """Callbacks in the form in which they run; what must not is refused as in a migration."""
    return tuple(
        read_pending(connection, callback, callback.checksum, placeholders, destructive=policy.allow_destructive)
        for callback in callbacks
    )


def at_event(event: str, callbacks: Sequence[PendingMigration]) -> tuple[PendingMigration, ...]:
    """The callbacks of one event, in their order."""
    return tuple(callback for callback in callbacks if callback.migration.event == event)


def _refuse_rewrites(connection: AnyConnection, script: Script, migration: Migration) -> None:
    """What shows nothing yet, because a file before it makes the table, is looked at again when it is about to run."""
    for statement in script.statements:
        if classify.retyped(statement) and rewrites.rewrites(connection, statement):
            raise classify.refused(classify.RETYPE, statement, file=migration.path)


def runs_in_transaction(migration: Migration, statements: tuple[Statement, ...]) -> bool:
    """Whether the file is one transaction; raises for a file that can run neither in one nor without."""
    alone = [(s, words) for s in statements if (words := classify.needs_no_transaction(s))]
    if not alone:
        return migration.execute_in_transaction is not False
    statement, words = alone[0]
    if migration.execute_in_transaction is True:
        raise MigrationFileError(
            f"{words} cannot run in a transaction, but {migration.path.name}.conf says executeInTransaction=true.",
            hint="Remove the setting.",
            file=migration.path,
            line=statement.line,
        )
    for statement, words in alone:
        if words == "DISCARD ALL":
            raise ScriptError(
                "DISCARD ALL would give up the lock that keeps a second run away.",
                hint="Remove it: what a file sets for its session is undone after it.",
                file=migration.path,
                line=statement.line,
            )
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
