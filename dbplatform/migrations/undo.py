"""Undo applied versions by their ``U`` files, the newest applied first.

As Flyway's ``undo`` does it (documentation, "Undo migrations"): without a target the last version, with one every
version down to and including it; the history keeps what was applied and gets a row of the type ``UNDO_SQL``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dbplatform.migrations.apply import MigrationReport, one_writer
from dbplatform.migrations.callbacks import run_with_callbacks
from dbplatform.migrations.compare import Files, InForce, known_version, refuse_failed
from dbplatform.migrations.errors import UndoImpossible
from dbplatform.migrations.files import Folders, Version
from dbplatform.migrations.history import HistoryRow, history
from dbplatform.migrations.observe import observing
from dbplatform.migrations.placeholders import Placeholders
from dbplatform.migrations.plan import PendingMigration, at_event, read_callbacks, read_pending
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoPlan:
    """The undo files that would run, in their order."""

    database: str
    current: Version | None
    target: Version | None
    """The version afterwards."""
    pending: tuple[PendingMigration, ...]
    callbacks: tuple[PendingMigration, ...] = ()
    """What runs around them, see ``callbacks``."""

    def as_json(self) -> dict[str, Any]:
        """The shape of ``migrate undo --dry-run --json``."""
        return {
            "database": self.database,
            "current": str(self.current) if self.current else None,
            "target": str(self.target) if self.target else None,
            "migrations": [pending.as_json("pending") for pending in self.pending],
            "callbacks": [callback.script for callback in self.callbacks],
        }


def plan_undo(
    connection: AnyConnection,
    folders: Folders | Files,
    policy: MigrationPolicy,
    *,
    target: str | None = None,
    database: str | None = None,
) -> UndoPlan:
    """Which versions would be undone, and by what. Only reads.

    Undo files may destroy data without naming it: who calls ``undo`` is asked. Raises ``UndoImpossible`` for a version
    that has no undo file or came from a baseline, ``TargetUnknown``, ``HistoryMismatch``, and what a file that cannot
    run raises.
    """
    files, rows = Files.of(folders), history(connection, policy)
    refuse_failed(rows, str(policy.history_table))
    state = InForce.of(rows)
    chosen = _chosen(state, None if target is None else known_version(target, files, state))
    placeholders = Placeholders(connection, policy.placeholders, policy.history_table)
    callbacks = read_callbacks(connection, files.callbacks_of("Undo"), policy, placeholders)
    before, after = at_event("beforeEachUndo", callbacks), at_event("afterEachUndo", callbacks)
    pending = []
    for version, row in chosen:
        migration = files.undo.get(version)
        if migration is None or row.type in ("BASELINE", "SQL_BASELINE"):
            raise _impossible(version, row)
        pending.append(
            read_pending(
                connection, migration, migration.checksum, placeholders, destructive=True, before=before, after=after
            )
        )
    undone = {version for version, _ in chosen}
    return UndoPlan(
        database=database or connection.info.dbname,
        current=state.current,
        target=max((v for v in state.versions if v not in undone), default=None),
        pending=tuple(pending),
        callbacks=callbacks,
    )


def apply_undo(
    connection: AutocommitConnection,
    folders: Folders | Files,
    policy: MigrationPolicy,
    *,
    target: str | None = None,
    database: str | None = None,
    server_wide: bool = True,
    lock_wait_ms: int = 600_000,
    sleep: Callable[[float], None] = time.sleep,
) -> MigrationReport:
    """Undo what ``plan_undo`` names, planned again under the lock ``migrations``; each file as ``run.run_files`` does.

    Run twice without a target it undoes two versions. ``server_wide`` is that of ``apply_migrations``. Repeatable
    migrations stay as they are, as in Flyway.
    """
    with one_writer(connection, lock_wait_ms), observing(connection, server_wide=server_wide) as observer:
        plan = plan_undo(connection, folders, policy, target=target, database=database)
        runs = run_with_callbacks(
            connection,
            plan.pending,
            plan.callbacks if plan.pending else (),
            policy,
            verb="Undo",
            task=f"undo {plan.database}",
            observer=observer,
            sleep=sleep,
        )
        undone = tuple(runs)
    return MigrationReport(database=plan.database, current=plan.target, target=plan.target, migrations=undone)


def _chosen(state: InForce, target: Version | None) -> list[tuple[Version, HistoryRow]]:
    """The versions in force from the newest applied back to the target; only the newest without one."""
    applied = sorted(state.versions.items(), key=lambda item: item[1].installed_rank, reverse=True)
    if target is None:
        return applied[:1]
    return [(version, row) for version, row in applied if version >= target]


def _impossible(version: Version, row: HistoryRow) -> UndoImpossible:
    if row.type in ("BASELINE", "SQL_BASELINE"):
        return UndoImpossible(
            f"Version {version} is the baseline: what was there before it is not known.",
            hint=f"Undo what came after it: --target with a version above {version}.",
        )
    return UndoImpossible(
        f"Version {version} ({row.script}) has no undo file.",
        hint=f"Write U{version}__{row.description.replace(' ', '_')}.sql beside it, or undo only what came after it. "
        "Nothing was undone.",
    )
