"""The migration engine as the rest of the platform calls it: plan, apply, history. No code of its own lives here."""

from dbplatform.migrations.apply import AppliedMigration, MigrationReport, StatementRun, apply_migrations
from dbplatform.migrations.files import Migration, Version, discover
from dbplatform.migrations.history import HistoryRow, history
from dbplatform.migrations.plan import MigrationPlan, PendingMigration, plan_migrations
from dbplatform.migrations.policy import MigrationPolicy

__all__ = [
    "AppliedMigration",
    "HistoryRow",
    "Migration",
    "MigrationPlan",
    "MigrationPolicy",
    "MigrationReport",
    "PendingMigration",
    "StatementRun",
    "Version",
    "apply_migrations",
    "discover",
    "history",
    "plan_migrations",
]
