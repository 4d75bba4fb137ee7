"""What archiving must know of a table: columns and their storage, its key, who refers to it. Only reads the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from dbplatform.archiving.content import same_columns
from dbplatform.archiving.errors import CannotKeepType, NoKey, UnsuitableTable
from dbplatform.archiving.storage import REFUSED, Storage, storage_of
from dbplatform.postgres.catalog import require_table
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation

_OID = """
    select c.oid::bigint from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %s and c.relname = %s
"""

_COLUMNS = """
    with recursive base (attnum, oid) as (
        select a.attnum, a.atttypid from pg_attribute a
        where a.attrelid = %(oid)s::oid and a.attnum > 0 and not a.attisdropped
        union all
        select b.attnum, t.typbasetype from base b join pg_type t on t.oid = b.oid where t.typtype = 'd'
    )
    select a.attname, format_type(a.atttypid, a.atttypmod),
           case when t.typnamespace = 'pg_catalog'::regnamespace then t.typname::text end, a.attgenerated <> ''
    from base b
    join pg_type t on t.oid = b.oid and t.typtype <> 'd'
    join pg_attribute a on a.attrelid = %(oid)s::oid and a.attnum = b.attnum
    order by a.attnum
"""

# Every type inside a column's type: of domains, arrays, composites, ranges and multiranges.
_TYPES_INSIDE = """
    with recursive inside (attnum, oid) as (
        select a.attnum, a.atttypid from pg_attribute a
        where a.attrelid = %(oid)s::oid and a.attnum > 0 and not a.attisdropped
        union
        select i.attnum, part.oid
        from inside i
        join pg_type t on t.oid = i.oid
        cross join lateral (
            select t.typbasetype where t.typtype = 'd'
            union all
            select t.typelem where t.typelem <> 0 and t.typlen = -1
            union all
            select a.atttypid from pg_attribute a
            where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
            union all
            select r.rngsubtype from pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)
        ) part (oid)
    )
    select a.attname, format_type(a.atttypid, a.atttypmod), t.typname::text
    from inside i
    join pg_type t on t.oid = i.oid and t.typnamespace = 'pg_catalog'::regnamespace
    join pg_attribute a on a.attrelid = %(oid)s::oid and a.attnum = i.attnum
    where t.typname = any(%(refused)s)
    order by a.attnum limit 1
"""

_KEYS = """
    select array(select a.attname::text from unnest(i.indkey::int2[]) with ordinality k (attnum, n)
                 join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                 where k.n <= i.indnkeyatts order by k.n)
    from pg_index i
    where i.indrelid = %(oid)s::oid and i.indisunique and i.indisvalid and i.indisready and i.indimmediate
      and not i.indisexclusion and i.indpred is null and i.indexprs is null
      and not exists (select from unnest(i.indkey::int2[]) with ordinality k (attnum, n)
                      join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                      where k.n <= i.indnkeyatts and not a.attnotnull)
    order by i.indisprimary desc, i.indnkeyatts, i.indexrelid limit 1
"""

_INHERITED = """
    select count(*) from pg_inherits h join pg_class c on c.oid = h.inhrelid
    where h.inhparent = %(oid)s::oid and not c.relispartition
"""
_FOREIGN = """
    select c.relname from pg_partition_tree(%(oid)s::oid::regclass) p join pg_class c on c.oid = p.relid
    where c.relkind = 'f' order by 1 limit 1
"""

# A constraint of a partitioned child is listed once, not for each of its partitions.
_REFERENCES = """
    select c.conname, n.nspname, r.relname,
           array(select a.attname::text from unnest(c.conkey) with ordinality k (attnum, i)
                 join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.attnum order by k.i),
           array(select a.attname::text from unnest(c.confkey) with ordinality k (attnum, i)
                 join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.attnum order by k.i),
           c.confdeltype in ('n', 'd')
    from pg_constraint c
    join pg_class r on r.oid = c.conrelid
    join pg_namespace n on n.oid = r.relnamespace
    where c.contype = 'f'
      and (c.confrelid = %(oid)s::oid
           or c.conparentid = 0
              and c.confrelid in (select p.relid from pg_partition_tree(%(oid)s::oid::regclass) p))
      and not exists (select from pg_constraint p where p.oid = c.conparentid and p.confrelid = c.confrelid)
    order by n.nspname, r.relname, c.conname
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its type as ``format_type`` writes it, and its form in the file."""

    name: str
    type: str
    storage: Storage
    generated: bool

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "type": self.type, "storage": self.storage, "generated": self.generated}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A foreign key of another table (or of the same) that refers to the table."""

    constraint: str
    child: Relation
    columns: tuple[tuple[str, str], ...]
    """Pairs: the column of the child, the column that it refers to."""
    lets_go: bool
    """Whether its rows outlive what they refer to: ON DELETE SET NULL or SET DEFAULT."""

    def joins(self, child: str, parent: str) -> sql.Composed:
        """Whether the row ``child`` refers to the row ``parent``: a boolean expression."""
        return same_columns(self.columns, child, parent)

    def refers_to(self, alias: str) -> sql.Composed:
        """Whether any row of the child refers to the row ``alias``: a boolean expression."""
        return sql.SQL("exists (select from {} as referring where {})").format(
            self.child.identifier, self.joins("referring", alias)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableShape:
    """A table that can be archived."""

    table: Relation
    oid: int
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    references: tuple[Reference, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


def read_shape(connection: AnyConnection, table: Relation) -> TableShape:
    """The shape of ``table``.

    Raises ``TableMissing``, ``NoKey``, ``UnsuitableTable`` (children by inheritance, foreign partitions, a database
    in SQL_ASCII) and ``CannotKeepType``.
    """
    require_table(connection, table)
    row = connection.execute(_OID, (table.schema, table.name)).fetchone()
    assert row is not None
    oid = {"oid": int(row[0])}
    _refuse_unsuitable(connection, table, oid)
    key = connection.execute(_KEYS, oid).fetchone()
    if key is None:
        raise NoKey(table=str(table), hint="Add a primary key, then archive again.")
    return TableShape(
        table=table,
        oid=oid["oid"],
        columns=read_columns(connection, table),
        key=tuple(key[0]),
        references=read_references(connection, oid["oid"]),
    )


def read_columns(connection: AnyConnection, table: Relation) -> tuple[Column, ...]:
    """The columns in their order, each with its form in a file. Raises ``CannotKeepType``."""
    row = connection.execute(_OID, (table.schema, table.name)).fetchone()
    assert row is not None
    oid = {"oid": int(row[0])}
    refused = connection.execute(_TYPES_INSIDE, {**oid, "refused": list(REFUSED)}).fetchone()
    if refused is not None:
        column, type_, inside = refused
        raise CannotKeepType(
            column=column,
            table=str(table),
            type=type_,
            reason=f"{inside}: {REFUSED[inside]}" if inside != type_ else REFUSED[inside],
            hint="Change the column's type (to text, say), then archive again.",
        )
    return tuple(
        Column(name=name, type=type_, storage=storage_of(base), generated=generated)
        for name, type_, base, generated in connection.execute(_COLUMNS, oid).fetchall()
    )


def read_references(connection: AnyConnection, oid: int) -> tuple[Reference, ...]:
    """The foreign keys that refer to the table, or to a partition of it."""
    return tuple(
        Reference(
            constraint=name,
            child=Relation(schema, child),
            columns=tuple(zip(own, its, strict=True)),
            lets_go=lets_go,
        )
        for name, schema, child, own, its, lets_go in connection.execute(_REFERENCES, {"oid": oid}).fetchall()
    )


def with_storage(columns: Iterable[Column], names: Sequence[str], storage: Storage) -> tuple[Column, ...]:
    """The same columns, those in ``names`` stored in another form."""
    return tuple(replace(column, storage=storage) if column.name in names else column for column in columns)


def in_order(shape: TableShape, names: Sequence[str]) -> TableShape:
    """The same table, its columns in that order, others last: a partition may have another one than its parent."""
    place = {name: number for number, name in enumerate(names)}
    return replace(shape, columns=tuple(sorted(shape.columns, key=lambda one: place.get(one.name, len(place)))))


def _refuse_unsuitable(connection: AnyConnection, table: Relation, oid: dict[str, int]) -> None:
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        raise UnsuitableTable(
            table=str(table),
            reason="the database has the encoding SQL_ASCII, so the bytes of its texts have no known meaning",
            hint="Move the database to UTF8 first.",
        )
    inherited = connection.execute(_INHERITED, oid).fetchone()
    if inherited is not None and inherited[0]:
        raise UnsuitableTable(
            table=str(table),
            reason="other tables inherit from it, so its key does not tell all of its rows apart",
            hint="Archive the inheriting tables one by one.",
        )
    foreign = connection.execute(_FOREIGN, oid).fetchone()
    if foreign is not None:
        raise UnsuitableTable(
            table=str(table),
            reason=f"its partition {foreign[0]} is a foreign table",
            hint="Archive the other partitions one by one.",
        )
