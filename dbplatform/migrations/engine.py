"""The migration engine as the rest of the platform calls it. No code of its own lives here.

What only some verbs need is imported from its own module (``undo``, ``baseline``, ``repair``) or folder (``drift``,
``lint``, ``trials``): a run with nothing to do does not pay for it.
"""

from dbplatform.migrations.apply import MigrationReport, apply_migrations
from dbplatform.migrations.compare import Files, compare
from dbplatform.migrations.files import Folders, Migration, Version, discover
from dbplatform.migrations.history import HistoryRow, history
from dbplatform.migrations.plan import MigrationPlan, PendingMigration, plan_migrations
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.migrations.run import AppliedMigration
from dbplatform.migrations.running import StatementRun

__all__ = [
    "AppliedMigration",
    "Files",
    "Folders",
    "HistoryRow",
    "Migration",
    "MigrationPlan",
    "MigrationPolicy",
    "MigrationReport",
    "PendingMigration",
    "StatementRun",
    "Version",
    "apply_migrations",
    "compare",
    "discover",
    "history",
    "plan_migrations",
]
