"""Flyway's SQL callbacks: files that run around migrations and are not recorded, such as ``afterMigrate__grants.sql``.

When each runs is read from Flyway's source (github.com/flyway/flyway, flyway-core/src/main/java/org/flywaydb/core):
``api/callback/Event``, ``internal/callback/SqlScriptCallbackFactory`` (names, order), ``DefaultCallbackExecutor``
(transactions) and ``internal/command/DbMigrate``. Its undo is not open; its callbacks are those of migrate by their
names (documentation, "Callback Events").

============================================  =========================================================================
beforeMigrate                                 on every run, also when nothing is pending; in a transaction of its own
beforeEachMigrate, afterEachMigrate           around each file, in its transaction; what the first sets, the file has
afterVersioned, beforeRepeatables             between the versions and the repeatables; the first on every run
afterMigrateApplied, afterMigrate             at the end: when something was applied, and always
afterEachMigrateError, afterMigrateError      when a file fails, and when anything does behind beforeMigrate
============================================  =========================================================================

In one thing this is not Flyway: a failed transaction of PostgreSQL runs nothing more, so that there an
``afterEachMigrateError`` fails itself. Here it runs behind the rollback.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import psycopg

from dbplatform import progress
from dbplatform.errors import PlatformError
from dbplatform.migrations.compare import Files
from dbplatform.migrations.errors import MigrationFailed
from dbplatform.migrations.history import ensure_history
from dbplatform.migrations.observe import Observer, observing
from dbplatform.migrations.placeholders import Placeholders
from dbplatform.migrations.plan import PendingMigration, at_event, read_callbacks
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.migrations.run import AppliedMigration, run_file, run_files
from dbplatform.migrations.running import Running
from dbplatform.migrations.session import MigrationSession
from dbplatform.postgres.connection import AutocommitConnection


def run_with_callbacks(
    connection: AutocommitConnection,
    files: Sequence[PendingMigration],
    callbacks: Sequence[PendingMigration],
    policy: MigrationPolicy,
    *,
    verb: Literal["Migrate", "Undo"],
    task: str,
    whole: bool = True,
    observer: Observer | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[AppliedMigration]:
    """Run the files as ``run.run_files`` does, and the callbacks at their events; unless ``whole``, only those that
    belong to a file.

    A callback waits for locks and is tried again as a migration is. One that fails stops the run with
    ``MigrationFailed``; one for errors that fails is told in the hint of the error that it was called for.
    """
    events = _Events(connection, callbacks, policy, observer, sleep)
    if not (callbacks and whole):
        yield from run_files(connection, files, policy, task=task, observer=observer, sleep=sleep)
        return
    ensure_history(connection, policy.history_table)
    events.fire(f"before{verb}")
    versions = [file for file in files if file.version is not None]
    repeatables = files[len(versions) :]
    try:
        yield from run_files(connection, versions, policy, task=task, observer=observer, sleep=sleep)
        if verb == "Migrate":
            events.fire("afterVersioned")
        if repeatables:
            events.fire("beforeRepeatables")
            yield from run_files(connection, repeatables, policy, task=task, observer=observer, sleep=sleep)
    except PlatformError as error:
        if not (isinstance(error, MigrationFailed) and error.fields["script"] in {c.script for c in callbacks}):
            events.fire_for(error, f"afterEach{verb}Error")
        events.fire_for(error, f"after{verb}Error")
        raise
    if files:
        events.fire(f"after{verb}Applied")
    events.fire(f"after{verb}")


#: What a run that goes well begins and ends with, for one that is made of parts (``apply_migrations(whole=False)``).
BEGINNING, END = ("beforeMigrate",), ("afterVersioned", "beforeRepeatables", "afterMigrateApplied", "afterMigrate")


def run_events(
    connection: AutocommitConnection,
    files: Files,
    policy: MigrationPolicy,
    events: Sequence[str],
    *,
    server_wide: bool,
) -> None:
    """Run the callbacks of these events alone; ``server_wide`` is that of ``apply_migrations``."""
    placeholders = Placeholders(connection, policy.placeholders, policy.history_table)
    callbacks = read_callbacks(connection, files.callbacks_of("Migrate"), policy, placeholders)
    if not callbacks:
        return
    with observing(connection, server_wide=server_wide) as observer:
        run = _Events(connection, callbacks, policy, observer, time.sleep)
        for event in events:
            run.fire(event)


@dataclass(frozen=True, slots=True)
class _Events:
    """The callbacks of one run, and how they are run."""

    connection: AutocommitConnection
    callbacks: Sequence[PendingMigration]
    policy: MigrationPolicy
    observer: Observer | None
    sleep: Callable[[float], None]

    def fire(self, event: str) -> None:
        """Run the callbacks of an event, each in a transaction of its own, or without one. Reports each by its name."""
        for callback in at_event(event, self.callbacks):
            progress.report(callback.script, done=0, total=1, unit="callbacks")
            session = MigrationSession(self.connection, observed=self.observer is not None)
            run_file(Running(session, callback, self.policy, self.observer), self.sleep, last=True)
            progress.report(callback.script, done=1, total=1, unit="callbacks")

    def fire_for(self, error: PlatformError, event: str) -> None:
        """Run the callbacks of an error, which stays the one that is raised."""
        try:
            self.fire(event)
        except (PlatformError, psycopg.Error) as second:
            reason = second.message if isinstance(second, PlatformError) else str(second)
            error.hint = f"{error.hint or ''} Its callback {event} failed, too: {reason}".strip()
