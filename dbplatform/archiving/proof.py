"""Which rows a proven backup holds: asked of every row at the moment it is deleted.

A backup that sees the snapshot S holds every row version whose inserting transaction had ended when S was taken.
``pg_visible_in_snapshot`` would answer that for top-level transactions only: a subtransaction's id is not in the
snapshot's list, so that a row of a savepoint of an open transaction looks visible (manual: 9.27 "Transaction ID and
Snapshot Information Functions"). Hence the stricter question: is the inserting transaction older than *every*
transaction that was open then (the snapshot's xmin)? A row in doubt is not covered and stays.

A row's xmin has 32 bits and is kept when the row is frozen. It is widened to the largest id with these bits that is
not in the future; the true one is that or older by whole rounds of 2^32, so the answer can only err towards staying.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from dbplatform.archiving.errors import NotProven
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation

_HINT = "Take a backup and prove it: dbplatform backup create {database}, then dbplatform drill {database}."

_IDENTITY = """
    select (select system_identifier from pg_control_system()),
           (select oid::bigint from pg_database where datname = current_database()),
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
           ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer
"""

#: A row newer than this many transactions ahead of now cannot be; one that looks so is a round older.
_AHEAD = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenSnapshot:
    """What one backup, proven by a restore, has seen of one database: all of its tables at one moment.

    ``snapshot`` is ``pg_current_snapshot()`` as text, from the transaction whose snapshot the dump used.
    ``timeline_id`` (of the WAL at that time; None: not known) tells a server that was set back since, where other rows
    may have got the same transaction ids.
    """

    backup_id: str
    snapshot: str
    system_identifier: int
    database_oid: int
    taken_at: datetime
    timeline_id: int | None = None
    tables: frozenset[str] | None = None
    """The tables that the backup holds; None: all of them."""

    @property
    def oldest_open(self) -> int:
        """The snapshot's xmin: every transaction before it had ended."""
        return int(self.snapshot.split(":")[0])

    @property
    def next_id(self) -> int:
        """The snapshot's xmax: the first id that was not yet in use."""
        return int(self.snapshot.split(":")[1])


#: Asks again for the proof, right before rows are deleted; None: there is none any more.
Recheck = Callable[[], ProvenSnapshot | None]


def require_proof(
    connection: AnyConnection, proof: ProvenSnapshot | None, *, table: Relation, database: str
) -> ProvenSnapshot:
    """The proof, if it speaks of the connected database; raises ``NotProven`` otherwise."""

    def refuse(reason: str) -> NotProven:
        return NotProven(table=str(table), reason=reason, hint=_HINT.format(database=database))

    if proof is None:
        raise refuse("no backup that holds them is proven by a restore")
    row = connection.execute(_IDENTITY).fetchone()
    assert row is not None
    system_identifier, database_oid, next_id, timeline_id = row
    if (proof.system_identifier, proof.database_oid) != (system_identifier, database_oid):
        raise refuse(f"the proven backup {proof.backup_id} is of another database or server")
    if proof.timeline_id not in (None, timeline_id):
        raise refuse(
            f"the proven backup {proof.backup_id} was taken on timeline {proof.timeline_id}, and the server is on "
            f"timeline {timeline_id} since a recovery or failover"
        )
    try:
        ahead = proof.next_id > next_id
    except (ValueError, IndexError):
        raise refuse(f"the snapshot of the proven backup {proof.backup_id} cannot be read") from None
    if ahead:
        raise refuse(
            f"the proven backup {proof.backup_id} has seen transactions that this database has not made yet, "
            "so the database was set back since"
        )
    return proof


def covered(proof: ProvenSnapshot, alias: str, table: Relation) -> sql.Composed:
    """Whether the backup holds the version of the row ``alias`` of ``table``: a boolean expression, never null."""
    if proof.tables is not None and str(table) not in proof.tables:
        return sql.Composed([sql.SQL("false")])
    xmin = sql.SQL("{}.xmin::text::bigint").format(sql.Identifier(alias))
    next_id = sql.SQL("(select pg_snapshot_xmax(pg_current_snapshot())::text::bigint)")
    return sql.SQL("({} < {})").format(widened(xmin, next_id), sql.Literal(proof.oldest_open))


def widened(xmin: sql.Composable, next_id: sql.Composable) -> sql.Composed:
    """The 64-bit id of the 32-bit ``xmin`` when ``next_id`` is the next to be given out."""
    return sql.SQL("({next_id} + {ahead} - mod({next_id} + {ahead} - {xmin}, 4294967296))").format(
        next_id=next_id, ahead=sql.Literal(_AHEAD), xmin=xmin
    )
