"""The history table: Flyway's layout, read in one query, written together with each migration.

Layout: ``internal/database/postgresql/PostgreSQLDatabase.getRawCreateScript`` of github.com/flyway/flyway.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row

from dbplatform.migrations.errors import HistoryTableError
from dbplatform.migrations.files import Version
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation, quoted

_READ = sql.SQL("""
    select installed_rank, version, description, type, script, checksum, installed_by,
           installed_on at time zone 'UTC' as installed_on, execution_time, success
    from {} order by installed_rank
""")

_CREATE = sql.SQL("""
    create table if not exists {table} (
        installed_rank integer not null,
        version varchar(50),
        description varchar(200) not null,
        type varchar(20) not null,
        script varchar(1000) not null,
        checksum integer,
        installed_by varchar(100) not null,
        installed_on timestamp not null default now(),
        execution_time integer not null,
        success boolean not null,
        constraint {key} primary key (installed_rank)
    )
""")
_INDEX = sql.SQL("create index if not exists {index} on {table} (success)")

_INSERT = sql.SQL("""
    insert into {table} (installed_rank, version, description, type, script, checksum, installed_by, execution_time,
                         success)
    select coalesce(max(installed_rank), 0) + 1, {version}, {description}, {type}, {script}, {checksum}, current_user,
           {milliseconds}, true from {table}
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """One row of the history table; ``execution_time`` is in milliseconds."""

    installed_rank: int
    version: str | None
    description: str
    type: str
    script: str
    checksum: int | None
    installed_by: str
    installed_on: datetime
    """Aware. The column has no zone: this platform writes UTC, Flyway the zone of its own session."""
    execution_time: int
    success: bool

    def as_json(self) -> dict[str, Any]:
        """The row as ``migrate history --json`` shows it."""
        return {**asdict(self), "installed_on": self.installed_on.isoformat()}


def history(connection: AnyConnection, policy: MigrationPolicy) -> list[HistoryRow]:
    """All rows in the order in which they were installed; none where the table does not exist. Only reads.

    Raises ``HistoryTableError`` when the table is not Flyway's or may not be read.
    """
    in_transaction = connection.info.transaction_status != TransactionStatus.IDLE
    try:
        # A missing table must not spoil a transaction of the caller: then the query gets a savepoint.
        with (
            connection.transaction() if in_transaction else nullcontext(),
            connection.cursor(row_factory=class_row(HistoryRow)) as cursor,
        ):
            return cursor.execute(_READ.format(policy.history_table.identifier)).fetchall()
    except errors.UndefinedTable:
        return []
    except (errors.InsufficientPrivilege, errors.UndefinedColumn) as error:
        raise _unusable(policy.history_table, "read", error) from error


def as_stored(description: str) -> str:
    """A description as the table holds it: at most 200 characters, as Flyway's ``AbbreviationUtils`` cuts it."""
    return description if len(description) <= 200 else description[:197] + "..."


def ensure_history(connection: AutocommitConnection, table: Relation) -> None:
    """Create the history table and its schema where they are missing, in one transaction; called under the lock.

    Somebody without the lock, such as Flyway, may create them at the same moment: whoever comes second finds them.
    Raises ``HistoryTableError``.
    """
    for attempt in (1, 2):
        try:
            with connection.transaction():
                # CREATE SCHEMA IF NOT EXISTS needs the right to create schemas even where the schema exists.
                row = connection.execute("select 1 from pg_namespace where nspname = %s", (table.schema,)).fetchone()
                if row is None:
                    connection.execute(sql.SQL("create schema {}").format(sql.Identifier(table.schema)))
                connection.execute(_CREATE.format(table=table.identifier, key=sql.Identifier(f"{table.name}_pk")))
                connection.execute(_INDEX.format(table=table.identifier, index=sql.Identifier(f"{table.name}_s_idx")))
            return
        except (errors.UniqueViolation, errors.DuplicateSchema, errors.DuplicateTable):
            if attempt == 2:
                raise
        except psycopg.Error as error:
            raise _unusable(table, "made", error) from error


def _unusable(table: Relation, verb: str, error: psycopg.Error) -> HistoryTableError:
    return HistoryTableError(
        table=table,
        verb=verb,
        reason=error.diag.message_primary or str(error).strip(),
        hint=f"Grant this user the rights on the schema {quoted(table.schema)}, or declare another history_table.",
    )


def insertion(
    table: Relation,
    *,
    version: Version | None,
    description: str,
    type: str,
    script: str,
    checksum: int | None,
    milliseconds: int,
) -> sql.Composed:
    """The statement that writes the row of what succeeded, for the transaction of the caller.

    ``type`` is one of Flyway's: ``SQL``, ``UNDO_SQL``, ``SQL_BASELINE``, ``BASELINE``, ``DELETE``.
    """
    return _INSERT.format(
        table=table.identifier,
        version=sql.Literal(str(version) if version else None),
        description=sql.Literal(as_stored(description)),
        type=sql.Literal(type),
        script=sql.Literal(script if len(script) <= 1000 else "..." + script[3:1000]),
        checksum=sql.Literal(checksum),
        milliseconds=sql.Literal(milliseconds),
    )
