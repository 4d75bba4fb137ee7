"""Witnesses: transactions of our own that a recovery must have, or must not have, and what quiet tables held then.

A witness writes no row: it is a message in the WAL (``pg_logical_emit_message``) with a transaction around it, whose
commit a recovered server knows by ``pg_xact_status``. When it was committed and where stands in the ledger alone.
Beside it stand the content hashes of the tables; a table whose change counters have not moved since is quiet, and must
have that content in every recovery in between. See docs/adr/0010.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import psycopg
from sqlalchemy import select

from dbplatform import progress
from dbplatform.backups.contents import list_tables, read_content, ready_to_read
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.physical import WitnessRecord
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection, snapshot
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.patience import Patience

#: A table that somebody locks for longer says nothing: a backup does not wait for it.
LOCK_WAIT_MS = 2_000
#: Larger tables are not hashed: a witness is to cost seconds.
LARGEST_TABLE_BYTES = 256 << 20

_EMIT = "select pg_current_xact_id()::text, pg_logical_emit_message(true, 'dbplatform', 'witness')::text"
_COMMITTED = """
    select pg_current_wal_lsn()::text, ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer,
           clock_timestamp()
"""
_COMMIT_TIME = "select pg_xact_commit_timestamp(%s::xid8::xid)"
_TRACKED = "select current_setting('track_commit_timestamp')::boolean"

# The file of a table changes with TRUNCATE and with every rewrite; the counters with every row.
_STATE = """
    with part as (
        select relid from pg_partition_tree(%(table)s::regclass)
        union select %(table)s::regclass
    )
    select md5(string_agg(concat_ws(':', relid, pg_relation_filenode(relid), pg_stat_get_tuples_inserted(relid),
                                    pg_stat_get_tuples_updated(relid), pg_stat_get_tuples_deleted(relid)),
                          ' ' order by relid)),
           sum(pg_table_size(relid))::bigint
    from part
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableState:
    """One table at the moment of a witness; ``state`` changes with every write."""

    state: str
    rows: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A transaction of our own: committed between ``began_at`` and ``ended_at``, by the server's clock."""

    id: uuid.UUID
    system: str
    database: str
    xid: str
    lsn: str
    """Right behind its commit."""
    timeline_id: int
    began_at: datetime
    ended_at: datetime
    tables: dict[str, TableState]


def testify(connection: AutocommitConnection, ledger: Ledger, *, system: str, database: str, hashes: bool) -> Witness:
    """Commit a witness on the server and write it down; with ``hashes``, read every table that is not too large.

    Takes no lock but ACCESS SHARE on the tables that it reads, one after the other, and leaves out those that it does
    not get within seconds; holds back vacuum meanwhile.
    """
    began = connection.execute("select clock_timestamp()").fetchone()
    with connection.transaction():
        emitted = connection.execute(_EMIT).fetchone()
    assert began is not None
    assert emitted is not None
    committed = connection.execute(_COMMITTED).fetchone()
    assert committed is not None
    (began_at,), (xid, _), (lsn, timeline_id, ended_at) = began, emitted, committed
    tracked = connection.execute(_TRACKED).fetchone()
    if tracked is not None and tracked[0]:
        row = connection.execute(_COMMIT_TIME, (xid,)).fetchone()
        if row is not None and row[0] is not None:
            began_at = ended_at = row[0]
    witness = Witness(
        id=uuid.uuid4(),
        system=system,
        database=database,
        xid=xid,
        lsn=lsn,
        timeline_id=timeline_id,
        began_at=began_at,
        ended_at=ended_at,
        tables=_briefly(connection, lambda: _tables(connection, database)) if hashes else {},
    )
    with ledger.session() as session:
        session.add(
            WitnessRecord(
                id=witness.id,
                system_identifier=system,
                database=database,
                xid=xid,
                lsn=lsn,
                timeline_id=timeline_id,
                began_at=began_at,
                ended_at=ended_at,
                tables={name: [t.state, t.rows, t.hash] for name, t in witness.tables.items()},
            )
        )
    return witness


def witnesses(ledger: Ledger, system: str) -> tuple[Witness, ...]:
    """All of a server, the oldest first."""
    query = select(WitnessRecord).where(WitnessRecord.system_identifier == system).order_by(WitnessRecord.ended_at)
    with ledger.session() as session:
        return tuple(
            Witness(
                id=row.id,
                system=system,
                database=row.database,
                xid=row.xid,
                lsn=row.lsn,
                timeline_id=row.timeline_id,
                began_at=row.began_at,
                ended_at=row.ended_at,
                tables={
                    name: TableState(state=state, rows=rows, hash=hash_)
                    for name, (state, rows, hash_) in row.tables.items()
                },
            )
            for row in session.scalars(query)
        )


def is_there(connection: AnyConnection, witness: Witness) -> bool | None:
    """Whether the server has the witness; None where it is so old that the server does not remember."""
    try:
        row = connection.execute("select pg_xact_status(%s::xid8)", (witness.xid,)).fetchone()
    except psycopg.errors.InvalidParameterValue:
        return False  # a transaction of the future
    assert row is not None
    return None if row[0] is None else bool(row[0] == "committed")


def quiet_tables(connection: AutocommitConnection, witness: Witness) -> dict[str, TableState]:
    """The tables of the witness that nobody has written to since, asked on the live server.

    One that is locked for longer than seconds is none of them.
    """

    def quiet() -> dict[str, TableState]:
        found = {}
        for table in list_tables(connection):
            known = witness.tables.get(str(table))
            with suppress(psycopg.errors.LockNotAvailable):
                if known is not None and _state(connection, table)[0] == known.state:
                    found[str(table)] = known
        return found

    return _briefly(connection, quiet)


def _briefly(connection: AutocommitConnection, read: Callable[[], dict[str, TableState]]) -> dict[str, TableState]:
    return Patience(connection=connection, lock_timeout_ms=LOCK_WAIT_MS, sleep=time.sleep).once_outside(read)


def _tables(connection: AutocommitConnection, database: str) -> dict[str, TableState]:
    ready_to_read(connection)
    tables = list_tables(connection)
    found = {}
    for done, table in enumerate(tables):
        progress.report(f"witness {database}", done=done, total=len(tables), unit="tables")
        # The state first: what is written meanwhile makes the table unquiet.
        with suppress(psycopg.errors.UndefinedTable, psycopg.errors.LockNotAvailable):
            state, size = _state(connection, table)
            if size <= LARGEST_TABLE_BYTES:
                with snapshot(connection) as moment:
                    content = read_content(moment, table)
                found[content.table] = TableState(state=state, rows=content.rows, hash=content.hash)
    progress.report(f"witness {database}", done=len(tables), total=len(tables), unit="tables")
    return found


def _state(connection: AnyConnection, table: Relation) -> tuple[str, int]:
    row = connection.execute(_STATE, {"table": str(table)}).fetchone()
    assert row is not None
    return str(row[0]), int(row[1])
