"""Whether a table may be streamed, and whether that could pay: asked first, before what streams is even imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation

# Nanoseconds: for the start of a stream, and for a row of the table of benchmarks/quality.
START = 250_000_000
SCAN, AGGREGATE, REGEX, UNIQUE, LOOKUP = 100, 15, 700, 1_200, 150
STREAMED_ROW, STREAMED_FIELD, STREAMED_REGEX, STREAMED_KEY, STREAMED_AGGREGATE = 330, 75, 120, 60, 4
REMOTE_BYTE = 10  # a network of 100 MB/s

_TABLE = """
    with recursive family(oid) as (
        select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %(schema)s and c.relname = %(name)s
        union select i.inhrelid from pg_inherits i join family on family.oid = i.inhparent
    )
    select bool_and(c.relkind in ('r', 'p') and (c.relam = 0 or m.amname = 'heap')),
           coalesce(max(pg_relation_size(c.oid)) filter (where c.relkind = 'r'), 0)
               / current_setting('block_size')::bigint,
           sum(case when c.relkind <> 'r' then 0 when c.reltuples >= 0 then c.reltuples
                    else pg_relation_size(c.oid) / 100 end)::bigint,
           bool_or(row_security_active(c.oid)),
           session_user = %(user)s,
           coalesce(inet_server_addr() is null or inet_server_addr() = inet_client_addr(), false)
    from family join pg_class c using (oid) left join pg_am m on m.oid = c.relam
"""


_SIZES = """
    select case when c.reltuples >= 0 then c.reltuples else pg_relation_size(c.oid) / 100 end::bigint,
           pg_relation_size(c.oid) / current_setting('block_size')::bigint
    from unnest(%(schemas)s::text[], %(names)s::text[]) with ordinality as wanted(schema, name, place)
    left join pg_namespace n on n.nspname = wanted.schema
    left join pg_class c on c.relnamespace = n.oid and c.relname = wanted.name
    order by wanted.place
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a table is: its rows by the statistics, else by its size, and its blocks."""

    rows: int
    blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What the catalog says of the table and all that belongs to it."""

    relation: Relation
    rows: int
    """By the statistics, else by the size."""
    blocks: int
    """Of its largest part."""
    secured: bool
    """Row-level security hides rows from this role."""
    local: bool
    """The server is on this machine."""
    refused: str | None
    """Why it cannot be streamed."""

    def may_pay(self, checks: int) -> bool:
        """Whether the dearest that so many checks could be in the server is more than the start of a stream."""
        return self.rows * (SCAN + UNIQUE * checks) > START


def table_of(connection: SnapshotConnection, relation: Relation) -> Table:
    """Read the catalog."""
    row = connection.execute(
        _TABLE, {"schema": relation.schema, "name": relation.name, "user": connection.info.user}
    ).fetchone()
    assert row is not None
    heap, blocks, rows, secured, same_user, local = row
    refused = None
    if not heap:
        refused = "a part of the table is foreign, or not a heap"
    elif not same_user:
        refused = "the session speaks for another user than it was opened for"
    return Table(relation=relation, rows=rows or 0, blocks=blocks, secured=bool(secured), local=local, refused=refused)


def sizes_of(connection: SnapshotConnection, relations: Sequence[Relation]) -> list[Size]:
    """Those of tables without partitions, in their order. Reads the catalog."""
    names = {"schemas": [one.schema for one in relations], "names": [one.name for one in relations]}
    return [Size(rows or 0, blocks or 0) for rows, blocks in connection.execute(_SIZES, names).fetchall()]
