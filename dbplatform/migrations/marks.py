"""How far a file that runs without a transaction has come: one row in the managed database while it is under way.

A statement that can have a transaction commits with its mark. One that cannot is announced before it runs, with what
the catalog said then (see ``reconcile``), and marked as done behind it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from dbplatform.migrations.errors import FileChangedHalfWay
from dbplatform.migrations.plan import PendingMigration
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.state import ensure_state

TABLE = "migration_progress"

_DDL = """
    create table dbplatform.migration_progress (
        history_table text not null,
        script text not null,
        done integer not null,
        digest text not null,
        announced text,
        before jsonb,
        changed_at timestamptz not null default now(),
        primary key (history_table, script)
    );
    comment on table dbplatform.migration_progress is
        'How many statements of a migration that runs without a transaction are done; no row: none is under way.';
"""
_READ = """
    select done, digest, announced is not null, before from dbplatform.migration_progress
    where history_table = %s and script = %s
"""
_WRITE = """
    insert into dbplatform.migration_progress (history_table, script, done, digest, announced, before)
    values (%s, %s, %s, %s, %s, %s)
    on conflict (history_table, script) do update
    set done = excluded.done, digest = excluded.digest, announced = excluded.announced,
        before = excluded.before, changed_at = now()
"""
_DID = """
    update dbplatform.migration_progress set done = done + 1, digest = announced, announced = null, before = null
    where history_table = %s and script = %s and announced is not null
"""
_DID_NOT = """
    update dbplatform.migration_progress set announced = null, before = null
    where history_table = %s and script = %s and announced is not null
"""
_CLEAR = "delete from dbplatform.migration_progress where history_table = %s and script = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far an earlier run came: its first ``done`` statements, and whether it had announced the one after them."""

    done: int = 0
    announced: bool = False
    before: dict[str, Any] | None = None
    """What the catalog said when it was announced."""


class Marks:
    """The marks of one file; making it creates the table where it is missing."""

    def __init__(self, connection: AutocommitConnection, table: Relation, migration: PendingMigration) -> None:
        ensure_state(connection, TABLE, _DDL)
        self._connection = connection
        self._migration = migration
        self._key = (str(table), migration.script)

    def read(self) -> Mark:
        """Raises ``FileChangedHalfWay`` when what ran is not what the file says now."""
        row = self._connection.execute(_READ, self._key).fetchone()
        if row is None:
            return Mark()
        done, digest, announced, before = row
        if done > len(self._migration.statements) or digest != self._digest(done):
            raise FileChangedHalfWay(
                done=done,
                script=self._migration.script,
                hint="Put those statements back as they were; what comes after them may change.",
                file=self._migration.path,
            )
        return Mark(done=done, announced=announced, before=before)

    def announce(self, number: int, before: dict[str, Any]) -> None:
        """The statement is about to run outside of a transaction."""
        self._write(number - 1, self._digest(number), json.dumps(before))

    def done(self, number: int) -> None:
        """All statements up to this one have done their work."""
        self._write(number, None, None)

    def clear(self) -> None:
        """The file is recorded in the history, in the same transaction."""
        self._connection.execute(_CLEAR, self._key)

    def _write(self, done: int, announced: str | None, before: str | None) -> None:
        self._connection.execute(_WRITE, (*self._key, done, self._digest(done), announced, before))

    def _digest(self, done: int) -> str:
        statements = self._migration.statements[:done]
        text = "\0".join(f"{statement.sql}\0{statement.copy_data or ''}" for statement in statements)
        return hashlib.sha256(text.encode()).hexdigest()


def in_doubt(connection: AnyConnection, table: Relation, script: str) -> bool:
    """Whether a statement of the file was announced and is not marked as done."""
    row = connection.execute("select to_regclass('dbplatform.migration_progress') is not null").fetchone()
    if row is None or not row[0]:
        return False
    found = connection.execute(_READ, (str(table), script)).fetchone()
    return found is not None and bool(found[2])


def resolve(connection: AnyConnection, table: Relation, script: str, *, did_its_work: bool) -> None:
    """Mark the announced statement of a file as done, or as never begun."""
    connection.execute(_DID if did_its_work else _DID_NOT, (str(table), script))
