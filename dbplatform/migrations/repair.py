"""Mend the history: what failed goes, what is missing is marked, a named file's row gets the file's checksum.

Flyway's ``internal/command/DbRepair``, with two differences: it rewrites no checksum unasked, and it leaves alone what
newer files applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from dbplatform.migrations import marks
from dbplatform.migrations.apply import one_writer
from dbplatform.migrations.compare import Files, InForce, missing
from dbplatform.migrations.errors import RepairImpossible
from dbplatform.migrations.files import Folders, Migration, Version, checksum
from dbplatform.migrations.history import HistoryRow, as_stored, history, insertion
from dbplatform.migrations.placeholders import Placeholders
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection

_REMOVE = sql.SQL("delete from {table} where installed_rank = any (%s) and not success")
_REALIGN = sql.SQL("""
    update {table} set description = %s, type = %s, checksum = %s
    where installed_rank = %s and checksum is not distinct from %s
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Realigned:
    """A row that gets the checksum, the type and the words of its file."""

    row: HistoryRow
    migration: Migration
    checksum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairPlan:
    """What would be mended."""

    database: str
    failed: tuple[HistoryRow, ...]
    """Rows that say that a migration failed: they are removed."""
    missing: tuple[HistoryRow, ...]
    """Rows whose file is gone: each gets a row of the type ``DELETE``."""
    realigned: tuple[Realigned, ...]
    did: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    """Files in doubt, for which a person has decided that the statement did its work, or is to run again."""

    @property
    def empty(self) -> bool:
        return not (self.failed or self.missing or self.realigned or self.did or self.again)

    def as_json(self) -> dict[str, Any]:
        """The shape of ``migrate repair --json``."""
        return {
            "database": self.database,
            "removed": [row.script for row in self.failed],
            "deleted": [row.script for row in self.missing],
            "realigned": [
                {"script": r.migration.script, "checksum": r.row.checksum, "becomes": r.checksum}
                for r in self.realigned
            ],
            "did": list(self.did),
            "again": list(self.again),
        }


def plan_repair(
    connection: AnyConnection,
    folders: Folders | Files,
    policy: MigrationPolicy,
    *,
    checksums: Sequence[str] = (),
    did: Sequence[str] = (),
    again: Sequence[str] = (),
    database: str | None = None,
) -> RepairPlan:
    """What there is to mend. Only reads.

    ``checksums`` names the files, as the history does, whose row is to get their checksum; ``did`` and ``again`` name
    files in doubt (``InDoubt``). Raises ``RepairImpossible`` for a name that fits nothing.
    """
    files = Files.of(folders)
    rows = history(connection, policy)
    failed = tuple(row for row in rows if not row.success)
    state = InForce.of([row for row in rows if row.success])
    placeholders = Placeholders(connection, policy.placeholders, policy.history_table)
    realigned = [_realigned(name, state, files, placeholders) for name in dict.fromkeys(checksums)]
    for name in (*did, *again):
        if not marks.in_doubt(connection, policy.history_table, name):
            raise RepairImpossible(
                f"Nothing of {name} is in doubt.", hint="Only a file whose apply says so needs the decision."
            )
    return RepairPlan(
        database=database or connection.info.dbname,
        failed=failed,
        missing=tuple(missing(state, files)),
        realigned=tuple(change for change in realigned if change is not None),
        did=tuple(did),
        again=tuple(again),
    )


def apply_repair(
    connection: AutocommitConnection,
    folders: Folders | Files,
    policy: MigrationPolicy,
    *,
    checksums: Sequence[str] = (),
    did: Sequence[str] = (),
    again: Sequence[str] = (),
    database: str | None = None,
) -> RepairPlan:
    """Mend what ``plan_repair`` finds under the lock ``migrations``, in one transaction. Run twice, a no-op."""
    with one_writer(connection):
        plan = plan_repair(connection, folders, policy, checksums=checksums, did=did, again=again, database=database)
        if plan.empty:
            return plan
        table = policy.history_table
        with connection.transaction():
            connection.execute(_REMOVE.format(table=table.identifier), ([row.installed_rank for row in plan.failed],))
            for row in plan.missing:
                _delete(connection, policy, row)
            for change in plan.realigned:
                words = (as_stored(change.migration.description), "SQL", change.checksum)
                connection.execute(
                    _REALIGN.format(table=table.identifier), (*words, change.row.installed_rank, change.row.checksum)
                )
            for names, did_its_work in ((plan.did, True), (plan.again, False)):
                for name in names:
                    marks.resolve(connection, table, name, did_its_work=did_its_work)
    return plan


def _delete(connection: AutocommitConnection, policy: MigrationPolicy, row: HistoryRow) -> None:
    connection.execute(
        insertion(
            policy.history_table,
            version=Version.parse(row.version) if row.version is not None else None,
            description=row.description,
            type="DELETE",
            script=row.script,
            checksum=row.checksum,
            milliseconds=0,
        )
    )


def _realigned(name: str, state: InForce, files: Files, placeholders: Placeholders) -> Realigned | None:
    """The change for one named file; None where its row has its checksum already."""
    for migration in (*files.versioned.values(), *files.repeatable.values()):
        if migration.script != name:
            continue
        if migration.version is not None:
            row, now = state.versions.get(migration.version), migration.checksum
        else:
            row, now = (
                state.repeatables.get(as_stored(migration.description)),
                checksum(placeholders.replaced(migration)),
            )
        if row is None:
            raise RepairImpossible(f"{name} is not applied.", hint="Apply it; there is no checksum to rewrite.")
        same = row.checksum == now and row.description == as_stored(migration.description)
        return None if same else Realigned(row=row, migration=migration, checksum=now)
    raise RepairImpossible(
        f"There is no file {name}.", hint="Name it as `dbplatform migrate history` does, with the folder below its own."
    )
