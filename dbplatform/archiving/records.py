"""What a managed database remembers of its archives: which rows have left, and which of the exported ones stayed.

``dbplatform.archive_progress`` commits in the transaction that deletes rows, so it is never ahead of or behind them.
A row of it is made before the file is, so that the files of a killed export can be told from all others.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg import sql

from dbplatform.archiving.errors import ArchiveMovedOn
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.state import ensure_state

_PROGRESS_DDL = """
    create table dbplatform.archive_progress (
        archive_id uuid primary key,
        name text not null,
        table_name text not null,
        position bigint not null default 0,
        deleted bigint not null default 0,
        parent_id uuid,
        started_at timestamptz not null default now(),
        updated_at timestamptz not null default now()
    )
"""
_KEPT_DDL = """
    create table dbplatform.archive_kept (
        archive_id uuid not null references dbplatform.archive_progress on delete cascade,
        place bigint not null,
        reason text not null,
        primary key (archive_id, place)
    )
"""
#: Tables of an earlier version.
_MENDED = """
    alter table dbplatform.archive_progress add column if not exists parent_id uuid;
    alter table dbplatform.archive_kept drop constraint if exists archive_kept_reason_check;
"""
_TO_MEND = """
    select not exists (select from pg_attribute where attrelid = 'dbplatform.archive_progress'::regclass
                       and attname = 'parent_id' and not attisdropped)
"""

#: Why an exported row was not deleted: its contents changed, it was deleted by somebody else, another row refers to
#: it by now, the proven backup does not hold this version, or a trigger held it back. Of rows that leave together: a
#: row that refers to it is no longer as it was exported, or the row that it refers to has stayed.
Reason = Literal["changed", "gone", "referenced", "uncovered", "held", "children", "parent"]


def reason_to_stay(same: bool | None, held: bool | None, referred: bool | None) -> Reason | None:
    """Why a row may not leave: it is not what was exported (None: it is gone), or not held, or referred to."""
    if same is None:
        return "gone"
    if not same:
        return "changed"
    if not held:
        return "uncovered"
    return "referenced" if referred else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveProgress:
    """The rows of the file before ``position`` are dealt with; ``deleted`` of them were deleted."""

    position: int
    deleted: int


def ensure_records(connection: AutocommitConnection) -> None:
    """Create both tables where they are missing."""
    ensure_state(connection, "archive_progress", _PROGRESS_DDL)
    ensure_state(connection, "archive_kept", _KEPT_DDL)
    to_mend = connection.execute(_TO_MEND).fetchone()
    if to_mend is not None and to_mend[0]:
        with connection.transaction():
            connection.execute(_MENDED)


def begin(
    connection: AutocommitConnection, archive_id: uuid.UUID, name: str, table: str, parent_id: uuid.UUID | None = None
) -> None:
    """Remember that rows of an archive are about to be written or to leave; a no-op when it is remembered.

    ``parent_id``: they refer to the rows of that archive, and leave along with them.
    """
    connection.execute(
        "insert into dbplatform.archive_progress (archive_id, name, table_name, parent_id) values (%s, %s, %s, %s)"
        " on conflict do nothing",
        (archive_id, name, table, parent_id),
    )


def untouched(connection: AutocommitConnection, name: str) -> list[tuple[uuid.UUID, str | None]]:
    """The archives of that name that were begun and have not dealt with any row; the table of those with a parent."""
    return connection.execute(
        "select archive_id, case when parent_id is not null then table_name end from dbplatform.archive_progress"
        " where name = %s and position = 0",
        (name,),
    ).fetchall()


def forget(connection: AutocommitConnection, archive_id: uuid.UUID) -> None:
    """Forget an archive that never came to be."""
    connection.execute("delete from dbplatform.archive_progress where archive_id = %s and position = 0", (archive_id,))


def settle(connection: AutocommitConnection, archive_id: uuid.UUID, replaced_by: uuid.UUID | None, rows: int) -> None:
    """The archive was replaced by one of ``rows`` rows, all of which have left, or by none; can be run again."""
    with connection.transaction():
        gone = connection.execute("delete from dbplatform.archive_progress where archive_id = %s", (archive_id,))
        if gone.rowcount and replaced_by is not None:
            connection.execute(
                "update dbplatform.archive_progress set position = %(rows)s, deleted = %(rows)s, updated_at = now()"
                " where archive_id = %(id)s",
                {"rows": rows, "id": replaced_by},
            )


def read_progress(connection: AnyConnection, archive_id: uuid.UUID) -> ArchiveProgress | None:
    """How far the archive is; None: this database does not know it."""
    if not _exists(connection):
        return None
    row = connection.execute(
        "select position, deleted from dbplatform.archive_progress where archive_id = %s", (archive_id,)
    ).fetchone()
    return None if row is None else ArchiveProgress(position=row[0], deleted=row[1])


def advance(connection: AutocommitConnection, archive_id: uuid.UUID, first: int, end: int, deleted: int) -> None:
    """Record, in the transaction that deletes them, that the rows ``[first, end)`` are dealt with.

    Raises ``ArchiveMovedOn`` when row ``first`` is not the next one: then the transaction must be rolled back.
    """
    done = connection.execute(
        "update dbplatform.archive_progress set position = %s, deleted = deleted + %s, updated_at = now()"
        " where archive_id = %s and position = %s",
        (end, deleted, archive_id, first),
    )
    if done.rowcount != 1:
        actual = read_progress(connection, archive_id)
        raise ArchiveMovedOn(
            archive=str(archive_id),
            expected=first,
            actual=actual.position if actual else "none",
            hint="Wait for it, then archive again.",
        )


def deleted_rows(connection: AnyConnection) -> list[tuple[uuid.UUID, str, int]]:
    """Every archive by which rows have left this database: its id, its table, how many; restored ones too."""
    if not _exists(connection):
        return []
    return connection.execute(
        "select archive_id, table_name, deleted from dbplatform.archive_progress where deleted > 0"
    ).fetchall()


def kept_counts(connection: AnyConnection, archive_id: uuid.UUID) -> dict[str, int]:
    """How many exported rows stayed, by reason."""
    rows = connection.execute(
        "select reason, count(*) from dbplatform.archive_kept where archive_id = %s group by 1 order by 1",
        (archive_id,),
    ).fetchall()
    return dict(rows)


def not_kept(connection: AnyConnection, archive_id: uuid.UUID, place: sql.Composable) -> sql.Composed:
    """Whether the exported row at ``place`` has left the table, or still will: a boolean expression."""
    if not _exists(connection):
        return sql.Composed([sql.SQL("true")])
    return sql.SQL(
        "not exists (select from dbplatform.archive_kept as k where k.archive_id = {id}::uuid and k.place = {place})"
    ).format(id=sql.Literal(str(archive_id)), place=place)


def keep(
    connection: AutocommitConnection, archive_id: uuid.UUID, places: Sequence[int], reasons: Sequence[Reason]
) -> None:
    """Remember which rows stayed, in the transaction that advances past them."""
    connection.execute(
        "insert into dbplatform.archive_kept (archive_id, place, reason)"
        " select %s, * from unnest(%s::bigint[], %s::text[])",
        (archive_id, list(places), list(reasons)),
    )


def keep_all_but(
    connection: AutocommitConnection, archive_id: uuid.UUID, rows: int, found: sql.Identifier | None
) -> int:
    """Remember as changed every row of an archive of which ``found`` has no place; the number of the others.

    ``found``: a table of ``dbplatform_archive`` and ``dbplatform_place``; None: no row was found.
    """
    was_found: sql.Composable = sql.SQL("false")
    if found is not None:
        was_found = sql.SQL(
            "exists (select from {} as f where f.dbplatform_archive = k.id and f.dbplatform_place = k.place)"
        ).format(found)
    kept = connection.execute(
        sql.SQL(
            "insert into dbplatform.archive_kept (archive_id, place, reason) select k.id, k.place, 'changed'"
            " from (select %s::uuid as id, place from generate_series(0, %s - 1) as place) as k where not {}"
        ).format(was_found),
        (archive_id, rows),
    )
    return rows - kept.rowcount


def _exists(connection: AnyConnection) -> bool:
    row = connection.execute("select to_regclass('dbplatform.archive_kept') is not null").fetchone()
    return row is not None and bool(row[0])
