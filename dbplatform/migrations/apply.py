"""Apply what is pending, one writer at a time: a killed run leaves each file applied and recorded, or neither."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from dbplatform.migrations.callbacks import run_with_callbacks
from dbplatform.migrations.compare import Files, compare
from dbplatform.migrations.files import Folders, Version
from dbplatform.migrations.observe import observing
from dbplatform.migrations.plan import plan_migrations
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.migrations.run import AppliedMigration
from dbplatform.postgres.connection import AutocommitConnection, watched
from dbplatform.postgres.locks import advisory_lock

LOCK = "migrations"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationReport:
    """What this run applied or undid: nothing, where there was nothing to do."""

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
    folders: Folders | Files,
    policy: MigrationPolicy,
    *,
    target: str | None = None,
    database: str | None = None,
    repeatables: bool = True,
    server_wide: bool = True,
    whole: bool = True,
    lock_wait_ms: int = 600_000,
    sleep: Callable[[float], None] = time.sleep,
) -> MigrationReport:
    """Apply the pending migrations of the folders, in order. With nothing pending it costs one query and no lock.

    The arguments are those of ``plan_migrations``. Unless ``server_wide``, a file that changes more than the database
    (a role, a setting of the server) is rolled back and refused: so it is in a scratch database on a real server.
    Holds the advisory lock ``migrations`` of the database, polled without a transaction, and plans under it: what
    somebody else has applied meanwhile is left out. What the files lock is read (``observe``), unless they are the
    first of their database. How a file runs, and what it waits for, is told by ``run.run_files``. Where there are
    callbacks, they run though nothing is pending; unless it is the ``whole`` of a run, it has only those that belong to
    a file (``callbacks``).

    Raises ``MigrationFailed`` or ``ServerWide`` (the files before it stay applied), ``LockNotAcquired`` after
    ``lock_wait_ms``, and whatever ``plan_migrations`` raises: then nothing was changed.
    """
    name = database or connection.info.dbname
    files = Files.of(folders)
    found = compare(connection, files, policy, target=target, repeatables=repeatables)
    # What a callback does may be wanted though nothing is pending: Flyway, too, runs them on every run.
    if not found.pending and not (whole and files.callbacks_of("Migrate")):
        return MigrationReport(database=name, current=found.current, target=found.target, migrations=())
    with one_writer(connection, lock_wait_ms):
        plan = plan_migrations(connection, files, policy, target=target, database=name, repeatables=repeatables)
        # The first files of a database lock what nobody uses yet; to look at each would take as long as to run it.
        looked_at = bool(plan.applied) or not server_wide
        with observing(connection, server_wide=server_wide) if looked_at else nullcontext() as observer:
            runs = run_with_callbacks(
                connection,
                plan.pending,
                plan.callbacks,
                policy,
                verb="Migrate",
                task=f"migrate {name}",
                whole=whole,
                observer=observer,
                sleep=sleep,
            )
            applied = tuple(runs)
    return MigrationReport(database=name, current=plan.target, target=plan.target, migrations=applied)


@contextmanager
def one_writer(connection: AutocommitConnection, lock_wait_ms: int = 600_000) -> Iterator[None]:
    """Hold the lock ``migrations`` for the block, in a session that ends with its client."""
    with advisory_lock(connection, LOCK, wait_ms=lock_wait_ms), watched(connection):
        yield
