"""Migrations of a declared database, recorded in the ledger: plan, apply, history. The rarer verbs: ``schema_care``.

What only a run with something to do needs is imported by it: one with nothing to do is run by every start of a service.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dbplatform.declaration.loading import Declared
from dbplatform.migrations import history as histories
from dbplatform.migrations.compare import Files, compare
from dbplatform.migrations.errors import FilesChanged
from dbplatform.migrations.history import HistoryRow
from dbplatform.migrations.plan import MigrationPlan, plan_migrations
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.operations.gates import not_declared
from dbplatform.operations.platform import Platform
from dbplatform.postgres.catalog import has_tables
from dbplatform.postgres.connection import connect

if TYPE_CHECKING:
    from dbplatform.migrations.apply import MigrationReport


def read(declared: Declared, *, digest: str | None = None) -> Files:
    """The files, read once: what is planned with them is what is applied with them.

    Raises ``MigrationFileError``, and ``FilesChanged`` where they are not those of the ``digest``.
    """
    files = Files.of(policy_of(declared)[1])
    if digest is not None and files.digest != digest:
        raise FilesChanged(
            database=declared.name,
            hint="See what would be applied now by --dry-run; the same command goes on with it, the canaries first.",
        )
    return files


def plan(
    platform: Platform, declared: Declared, *, target: str | None = None, files: Files | None = None
) -> MigrationPlan:
    """What would be applied, of ``files`` or what the folders hold now; only reads."""
    policy, folders = policy_of(declared)
    with connect(platform.target(declared), work="migrate plan") as connection:
        return plan_migrations(connection, files or folders, policy, target=target, database=declared.name)


def apply(
    platform: Platform,
    declared: Declared,
    *,
    target: str | None = None,
    files: Files | None = None,
    run_id: str | None = None,
) -> MigrationReport:
    """Apply what is pending, under the writer lock; recorded in the ledger when there was something to do.

    ``files`` are those that were shown as a plan, by default what the folders hold now. Callbacks are something to do,
    on every run. Raises ``RehearsalNeeded`` where ``require_rehearsal`` is declared, ``SchemaDrifted`` where
    ``block_on_drift`` is and the schema is not what its migrations made, and ``ProofNeeded`` where data is to be
    destroyed, backups are declared, and no fresh proof holds it.
    """
    from dbplatform.migrations.apply import apply_migrations

    policy, folders = policy_of(declared)
    files = files or Files.of(folders)
    with platform.writer(declared, "migrate") as connection:
        callbacks = files.callbacks_of("Migrate")
        if not callbacks and not compare(connection, files, policy, target=target).pending:
            return apply_migrations(connection, files, policy, target=target, database=declared.name)
        if policy.block_on_drift:
            from dbplatform.operations import schema_drift

            schema_drift.refuse_drift(platform, declared, connection)
        if policy.require_rehearsal or declared.database.backups is not None:
            from dbplatform.operations import rehearsal, risk

            planned = plan_migrations(connection, files, policy, target=target, database=declared.name)
            if policy.require_rehearsal:
                rehearsal.require(platform, declared, planned, connection)
            risk.require_proof(platform, declared, (*planned.pending, *planned.callbacks), connection)
        with platform.ledger.operation(declared.name, "migrate", run_id=run_id) as summary:
            report = apply_migrations(connection, files, policy, target=target, database=declared.name)
            summary.update(report.as_json())
            return report


def is_made(platform: Platform, declared: Declared) -> bool:
    """Whether there is a table of anybody in the database; only reads."""
    with connect(platform.target(declared), work="migrate plan") as connection:
        return has_tables(connection)


def history(platform: Platform, declared: Declared) -> list[HistoryRow]:
    """The rows of the history table; none when it does not exist."""
    policy, _ = policy_of(declared)
    with connect(platform.target(declared), work="migrate history") as connection:
        return histories.history(connection, policy)


def policy_of(declared: Declared) -> tuple[MigrationPolicy, tuple[Path, ...]]:
    """What is declared of migrations, and the folders of their files; raises ``NotDeclared``."""
    policy = declared.database.migrations
    if policy is None:
        raise not_declared(declared, "migrations", "migrations")
    return policy, policy.folders(declared.folder)
