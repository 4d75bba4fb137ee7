"""Pending migrations, run in a scratch database that looks like the real one: what each statement did, and what fails.

Nothing here makes that database; see ``operations.rehearsal``.
"""

from __future__ import annotations

from dataclasses import dataclass

from dbplatform.errors import PlatformError
from dbplatform.migrations.callbacks import run_with_callbacks
from dbplatform.migrations.compare import Files
from dbplatform.migrations.files import Folders
from dbplatform.migrations.observe import observing
from dbplatform.migrations.plan import plan_migrations
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.migrations.run import AppliedMigration
from dbplatform.postgres.connection import AutocommitConnection, watched


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRun:
    """What ran, and what did not."""

    migrations: tuple[AppliedMigration, ...]
    failed: PlatformError | None
    """Why the next one did not run to its end."""
    not_run: tuple[str, ...]
    """Scripts that did not, the failed one first."""

    @property
    def unseen(self) -> tuple[str, ...]:
        """Statements that ran, and of which nobody could see what they did."""
        return tuple(s.sql for run in self.migrations for s in run.statements if s.effect is None)

    def of(self, script: str) -> AppliedMigration | None:
        """The run of a file."""
        return next((run for run in self.migrations if run.script == script), None)


def try_out(
    connection: AutocommitConnection,
    folders: Folders | Files,
    policy: MigrationPolicy,
    *,
    target: str | None = None,
    database: str,
    server_wide: bool,
) -> TrialRun:
    """Run what is pending in the connected scratch database, which is used up by it.

    Unless ``server_wide``, what would change more than this database (a role, a setting of the server) is undone and
    ends the trial: the server is a real one. Reports ``try <database>`` in migrations. Raises what
    ``plan_migrations`` raises.
    """
    plan = plan_migrations(connection, folders, policy, target=target, database=database)
    runs: list[AppliedMigration] = []
    failed: PlatformError | None = None
    with watched(connection), observing(connection, trial=True, server_wide=server_wide) as observer:
        try:
            for run in run_with_callbacks(
                connection,
                plan.pending,
                plan.callbacks,
                policy,
                verb="Migrate",
                task=f"try {database}",
                observer=observer,
            ):
                runs.append(run)
        except PlatformError as error:
            failed = error
    return TrialRun(migrations=tuple(runs), failed=failed, not_run=tuple(p.script for p in plan.pending[len(runs) :]))
