"""Take over a database that was not made by these files: a row says up to which version it counts as migrated.

Flyway's ``internal/command/DbBaseline`` and ``schemahistory/SchemaHistory.addBaselineMarker``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dbplatform.migrations.apply import one_writer
from dbplatform.migrations.errors import BaselineImpossible
from dbplatform.migrations.files import Version
from dbplatform.migrations.foreign import ForeignHistory, foreign_histories
from dbplatform.migrations.history import HistoryRow, ensure_history, history, insertion
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection

DESCRIPTION = "<< Flyway Baseline >>"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselinePlan:
    """The row that would be written, and what was here before."""

    database: str
    version: Version
    description: str
    written: bool
    """Whether the row is there already: then there is nothing to do."""
    taken_over: tuple[ForeignHistory, ...]
    """Histories of other tools. Their tables stay as they are."""

    def as_json(self) -> dict[str, Any]:
        """The shape of ``migrate baseline --json``."""
        return {
            "database": self.database,
            "version": str(self.version),
            "description": self.description,
            "status": "applied" if self.written else "pending",
            "taken_over": [
                {"tool": found.tool, "table": str(found.table), "rows": found.rows} for found in self.taken_over
            ],
        }


def plan_baseline(
    connection: AnyConnection,
    policy: MigrationPolicy,
    *,
    version: str = "1",
    description: str = DESCRIPTION,
    database: str | None = None,
) -> BaselinePlan:
    """What ``apply_baseline`` would write. Only reads.

    Raises ``BaselineImpossible`` where the history holds migrations, or another baseline.
    """
    try:
        wanted = Version.parse(version)
    except ValueError as error:
        raise BaselineImpossible(f"The version {error}.", hint="For example: --version 1") from error
    rows = [row for row in history(connection, policy) if row.type != "SCHEMA"]
    written = _written(rows, wanted, description, str(policy.history_table))
    return BaselinePlan(
        database=database or connection.info.dbname,
        version=wanted,
        description=description,
        written=written,
        taken_over=foreign_histories(connection),
    )


def apply_baseline(
    connection: AutocommitConnection,
    policy: MigrationPolicy,
    *,
    version: str = "1",
    description: str = DESCRIPTION,
    database: str | None = None,
) -> BaselinePlan:
    """Write the baseline row, under the lock ``migrations``: versions up to it count as applied. Run twice, a no-op."""
    with one_writer(connection):
        plan = plan_baseline(connection, policy, version=version, description=description, database=database)
        if plan.written:
            return plan
        ensure_history(connection, policy.history_table)
        with connection.transaction():
            connection.execute(
                insertion(
                    policy.history_table,
                    version=plan.version,
                    description=description,
                    type="BASELINE",
                    script=description,
                    checksum=None,
                    milliseconds=0,
                )
            )
        return plan_baseline(connection, policy, version=version, description=description, database=database)


def _written(rows: list[HistoryRow], wanted: Version, description: str, table: str) -> bool:
    if not rows:
        return False
    first = rows[0]
    if first.type == "BASELINE" and first.version is not None:
        if Version.parse(first.version) == wanted and first.description == description:
            return True
        raise BaselineImpossible(
            f"The baseline of {table} is version {first.version} ({first.description}) already.",
            hint="It can be set only once; apply what comes after it.",
        )
    raise BaselineImpossible(
        f"{table} holds migrations already: the first is {first.script}.",
        hint="A baseline takes over a database that was not migrated by these files.",
    )
