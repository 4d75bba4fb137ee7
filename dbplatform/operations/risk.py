"""Migrations that destroy data wait for a proven backup: what they take away must be there to come back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from dbplatform.backups.proof import is_fresh
from dbplatform.declaration.loading import Declared
from dbplatform.errors import WorkError
from dbplatform.migrations import classify, rewrites
from dbplatform.migrations.plan import PendingMigration
from dbplatform.operations import backups
from dbplatform.operations.platform import Platform
from dbplatform.postgres.catalog import has_tables
from dbplatform.postgres.connection import AnyConnection


class ProofNeeded(WorkError):
    """{script} destroys data of {database} ({what}), and {reason}."""


def require_proof(
    platform: Platform, declared: Declared, pending: Iterable[PendingMigration], connection: AnyConnection
) -> None:
    """Raise ``ProofNeeded`` when one of the files, callbacks too, destroys data and no proof is younger than
    ``drill.max_age``.

    Asked only where backups are declared and the database has a table of anybody. Judged by the words of the files
    (``classify.destructive``): what a function does that they call is not seen. A change of type that rewrites its
    table counts, too. Reads the proven backup's files.
    """
    policy = declared.database.backups
    if policy is None or not has_tables(connection):
        return
    risk = next(_risks(pending, connection), None)
    if risk is None:
        return
    proof = backups.newest_proof(platform, declared)
    if proof is not None and is_fresh(proof.proven_at, policy.drill.max_age, now=datetime.now(UTC)):
        return
    script, what = risk
    raise ProofNeeded(
        script=script,
        database=declared.name,
        what=what,
        reason="no restore has proven a backup yet"
        if proof is None
        else f"the newest proof of a backup is older than {policy.drill.max_age}, or of the future",
        hint=f"Run: dbplatform backup create {declared.name}, then dbplatform drill {declared.name}",
    )


def _risks(pending: Iterable[PendingMigration], connection: AnyConnection) -> Iterator[tuple[str, str]]:
    """Each statement that destroys data, or casts it to another type: its file, and what it does."""
    for file in (file for migration in pending for file in migration.files):
        for statement in file.statements:
            for kind in classify.destructive(statement):
                yield file.script, kind
            if classify.retyped(statement) and rewrites.rewrites(connection, statement):
                yield file.script, classify.RETYPE
