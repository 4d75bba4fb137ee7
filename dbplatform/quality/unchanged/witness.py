"""What is compared before the answers of an earlier run are taken over, and what it proves.

A row version is never changed in place: a change of a row is a new version, with the transaction that made it
(``xmin``). Every transaction below the ``xmin`` of the earlier snapshot had ended then. So, where all rows that are
seen now were made by such transactions, each of them was seen then, too; and where there are as many as then, none
of those has gone. No counter, clock or hash is believed. The server reads the rows' headers for it and sends nothing.

That holds in one file of rows of one server: a table that was truncated or rewritten has another file, one that was
put in its place another identity, a server that was recovered to an earlier moment another timeline. All of that, and
what the meaning of the rows depends on (columns, collations, settings), is the identity; where it differs, the rows
are read. A row whose transaction is more than 2**31 transactions away cannot be compared, and counts as new.

The counters of the statistics (``n_tup_ins`` and its like) prove nothing: they come late, are lost in a crash, and can
be reset or switched off. They serve to doubt: what is promised to be immutable is not looked at, unless they differ.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from psycopg import sql

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.unchanged.words import Unchanged

_COMPARABLE = 2**31 - 1

_SERVER = sql.SQL("""
    select jsonb_build_object(
        'server', (select system_identifier::text from pg_control_system()),
        'timeline', left(pg_walfile_name(pg_current_wal_lsn()), 8),
        'version', current_setting('server_version_num'),
        'settings', array[current_setting('TimeZone'), current_setting('DateStyle'), current_setting('search_path')],
        'database', array[d.oid::text, d.encoding::text, d.datcollate, d.datctype, {library}]
    )
    from pg_database d where d.datname = current_database()
""")

_TABLES = """
    with recursive family(oid) as (
        select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %(schema)s and c.relname = %(name)s
        union select i.inhrelid from pg_inherits i join family on family.oid = i.inhparent
    )
    select n.nspname::text, c.relname::text, c.relkind = 'p', m.amname = 'heap' and c.relkind = 'r',
           c.relpersistence = 'p', row_security_active(c.oid), has_table_privilege(c.oid, 'select'),
           exists (select from pg_inherits i where i.inhrelid = c.oid and i.inhdetachpending),
           array(
               select a.attname::text
               from pg_partitioned_table p cross join unnest(p.partattrs::int2[]) as k(attnum)
               left join pg_attribute a on a.attrelid = p.partrelid and a.attnum = k.attnum
               where p.partrelid = c.oid
           ),
           coalesce((
               select substring(pg_get_expr(c.relpartbound, c.oid) from $$ TO \\('([^']+)'\\)$$)::timestamptz
                      <= now() - %(after)s::interval
               from pg_inherits i
               join pg_partitioned_table p on p.partrelid = i.inhparent and p.partstrat = 'r' and p.partnatts = 1
               join pg_attribute a on a.attrelid = p.partrelid and a.attnum = p.partattrs[0]
               where i.inhrelid = c.oid
                 and a.atttypid in ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
           ), false),
           jsonb_build_object(
               'table', c.oid::text, 'file', c.relfilenode::text, 'bound', pg_get_expr(c.relpartbound, c.oid),
               'columns', (
                   select jsonb_agg(jsonb_build_array(
                       a.attnum, a.attname, a.atttypid::text, a.atttypmod, a.atthasmissing, a.attgenerated,
                       a.attcollation::text,
                       case when a.attcollation > 0 then pg_collation_actual_version(a.attcollation) end
                   ) order by a.attnum)
                   from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
               )
           ),
           array[
               pg_stat_get_tuples_inserted(c.oid), pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid)
           ]
    from family join pg_class c using (oid) join pg_namespace n on n.oid = c.relnamespace
    left join pg_am m on m.oid = c.relam
    order by n.nspname, c.relname
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server at the moment of a snapshot: who it is, and the transactions that had ended."""

    identity: dict[str, Any]
    oldest: int
    """Every transaction below had ended."""
    newest: int
    """No transaction from here on had ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of rows as the catalog describes it now."""

    relation: Relation
    refused: str | None
    """Why its rows cannot be compared with those of another moment."""
    immutable: bool
    """It is promised that nothing changes in it any more."""
    identity: dict[str, Any]
    counters: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A partitioned table: its partitions that hold rows, and the columns that decide where a row lies."""

    leaves: tuple[Table, ...]
    keys: frozenset[str]
    """Of all levels."""
    keys_are_columns: bool
    refused: str | None
    """Why it can only be read as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A table of rows as it was when it was read; all that a later run compares."""

    server: dict[str, Any]
    table: dict[str, Any]
    oldest: int
    rows: int
    immutable: bool
    counters: list[int]

    @classmethod
    def of(cls, server: Server, table: Table, rows: int) -> Witness:
        """What was seen in this snapshot."""
        return cls(
            server=server.identity,
            table=table.identity,
            oldest=server.oldest,
            rows=rows,
            immutable=table.immutable,
            counters=table.counters,
        )

    def as_json(self) -> dict[str, Any]:
        """For the ledger."""
        return asdict(self)


def server_of(connection: SnapshotConnection) -> Server | str:
    """The server now; why nothing can be compared on it, where that is so. Raises ``psycopg.Error``."""
    row = connection.execute("select pg_is_in_recovery()").fetchone()
    if row is not None and row[0]:
        return "this is a replica, whose moments have no order that a later run could rely on"
    library = (
        sql.SQL("pg_database_collation_actual_version(d.oid)")
        if connection.info.server_version >= 150000
        else sql.SQL("null::text")
    )
    identity = connection.execute(_SERVER.format(library=library)).fetchone()
    ends = connection.execute(
        "select pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint from pg_current_snapshot() as s"
    ).fetchone()
    assert identity is not None
    assert ends is not None
    return Server(identity=identity[0], oldest=ends[0], newest=ends[1])


def tree_of(connection: SnapshotConnection, relation: Relation, unchanged: Unchanged) -> Tree:
    """The partitions of a table. Raises ``psycopg.Error``."""
    rows = _tables(connection, relation, unchanged)
    leaves = tuple(table for table, _, is_parent in rows if not is_parent)
    keys = [key for _, names, is_parent in rows if is_parent for key in names]
    parents = [table for table, _, is_parent in rows if is_parent]
    if not parents:
        refused: str | None = "the table is not partitioned"
    else:
        refused = next((table.refused for table in (*parents, *leaves) if table.refused), None)
    return Tree(
        leaves=leaves,
        keys=frozenset(key for key in keys if key is not None),
        keys_are_columns=None not in keys,
        refused=refused,
    )


def table_of(connection: SnapshotConnection, relation: Relation) -> Table | str:
    """A plain table; why its rows cannot be compared, where that is so. Raises ``psycopg.Error``."""
    rows = _tables(connection, relation, Unchanged())
    if len(rows) != 1 or rows[0][2]:
        return "it is not one plain table"
    return rows[0][0].refused or rows[0][0]


def promised(table: Table, witness: Witness) -> bool:
    """Whether the promise is enough: it held when the rows were read, and no counter contradicts it."""
    return table.immutable and witness.immutable and table.counters == witness.counters


def changed(connection: SnapshotConnection, server: Server, table: Table, witness: Witness) -> str | None:
    """Why the rows must be read again; none where they are proven, or promised, to be those of the witness.

    Reads the rows' headers, unless the promise is enough. ACCESS SHARE. Raises ``psycopg.Error``.
    """
    if server.identity != witness.server:
        return "the server, its version or its settings are others"
    if table.identity != witness.table:
        return "it was truncated, rewritten, altered or exchanged"
    if not 0 <= server.newest - witness.oldest < _COMPARABLE:
        return "the last run is too many transactions ago"
    if promised(table, witness):
        return None
    row = connection.execute(
        sql.SQL("select count(*), count(*) filter (where age(xmin) <= age({}::xid8::xid)) from only {}").format(
            sql.Literal(str(witness.oldest)), table.relation.identifier
        )
    ).fetchone()
    assert row is not None
    rows, new = row
    if new:
        return f"{new:,} of its rows are new"
    return None if rows == witness.rows else f"it has {rows:,} rows, and had {witness.rows:,}"


def _tables(
    connection: SnapshotConnection, relation: Relation, unchanged: Unchanged
) -> list[tuple[Table, list[str | None], bool]]:
    """Every table of the family, with the columns of its partition key and whether it is a partitioned one."""
    after = unchanged.after
    interval = None if after is None else f"{after.months} months {after.days} days {after.microseconds} microseconds"
    values = {"schema": relation.schema, "name": relation.name, "after": interval}
    found = []
    for row in connection.execute(_TABLES, values).fetchall():
        schema, name, parent, heap, permanent, secured, readable, leaving, keys, immutable, identity, counters = row
        this = Relation(schema, name)
        refused = None
        if not (parent or (heap and permanent)):
            refused = f"{this.words} is foreign, unlogged, or not a heap"
        elif secured:
            refused = f"row-level security hides rows of {this.words}"
        elif not readable:
            refused = f"{this.words} may not be read by its own name"
        elif leaving:
            refused = f"{this.words} is being detached"
        table = Table(relation=this, refused=refused, immutable=immutable, identity=identity, counters=counters)
        found.append((table, keys, parent))
    return found
