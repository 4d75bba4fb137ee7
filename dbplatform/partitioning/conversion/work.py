"""What both directions of a conversion do: build an index, look again, name the phase that failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from dbplatform.partitioning.conversion.errors import ConversionFailed
from dbplatform.partitioning.conversion.forward import drop_index, key_index
from dbplatform.partitioning.conversion.patience import Changed
from dbplatform.partitioning.conversion.shape import Shape, read_shape
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation

_INDEX = "select indisvalid from pg_index where indexrelid = to_regclass(%s) and indrelid = %s"

# Views, rules and functions that came while the names were exchanged, and hold on to the wrong table.
_LEFT_BEHIND = """
    select exists (select from pg_depend where refclassid = 'pg_class'::regclass and refobjid = %s
                   and classid in ('pg_rewrite'::regclass, 'pg_proc'::regclass))
"""


def shape_of(connection: AutocommitConnection, table: Relation, column: str) -> Shape:
    """The table as it is now, from a transaction of its own."""
    with connection.transaction():
        return read_shape(connection, table, column)


def relations_of(shape: Shape) -> str:
    """The tables that a swap locks, for a message."""
    others = [key.table for key in shape.incoming] + [key.references for key in shape.foreign_keys if key.references]
    return " or ".join(map(str, dict.fromkeys([shape.table, *others])))


def index_is_there(connection: AnyConnection, table: Relation, oid: int, name: str) -> bool | None:
    """Whether the index of that name on the table is valid; None where there is none."""
    row = connection.execute(_INDEX, (str(Relation(table.schema, name)), oid)).fetchone()
    return None if row is None else bool(row[0])


def build_index(
    connection: AutocommitConnection, table: Relation, oid: int, name: str, columns: tuple[str, ...]
) -> None:
    """A unique index, built concurrently unless it is there; what an interrupted build left goes first."""
    there = index_is_there(connection, table, oid, name)
    if there is False:
        connection.execute(drop_index(table, name).statement)
    if not there:
        connection.execute(key_index(table, name, columns).statement)


def require_nothing_left(connection: AnyConnection, oid: int) -> None:
    """Raise ``Changed`` where a view or function reads the table that has just lost its name."""
    row = connection.execute(_LEFT_BEHIND, (oid,)).fetchone()
    if row is None or row[0]:
        raise Changed


@contextmanager
def named(connection: AutocommitConnection, phase: str, table: Relation) -> Iterator[None]:
    """An error of PostgreSQL tells in which phase it came."""
    try:
        yield
    except psycopg.Error as error:
        if connection.closed:
            raise
        raise ConversionFailed(
            phase=phase,
            table=str(table),
            reason=error.diag.message_primary or str(error),
            hint=error.diag.message_detail or "Mend the cause and run it again, or take it back by --undo.",
        ) from error
