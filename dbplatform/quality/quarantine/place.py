"""Where the failing rows of a table are moved: a table with the same columns and a few words on each row.

It is made when rows are moved for the first time, and follows the table when that gets another column. It has no
constraint, trigger or default of the table. ``dbplatform.quarantine_place`` remembers whose rows lie where, so that
they are found when nobody declares the quarantine any more.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import psycopg
from psycopg import sql

from dbplatform.errors import WorkError
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.state import SCHEMA, ensure_state

ID, CHECKS, RUN, MOVED_AT = "quarantine_id", "quarantine_checks", "quarantine_run", "quarantined_at"
OURS = (ID, CHECKS, RUN, MOVED_AT)

_REGISTRY = "quarantine_place"
_REGISTRY_DDL = """
    create table dbplatform.quarantine_place (
        place_schema text not null,
        place_name text not null,
        source_schema text not null,
        source_name text not null,
        made_at timestamptz not null default now(),
        primary key (place_schema, place_name)
    )
"""
_COLUMNS = """
    select a.attname::text, format_type(a.atttypid, a.atttypmod), a.attgenerated <> '',
           case when a.attidentity <> '' then format('nextval(%%L::regclass)',
                   pg_get_serial_sequence(format('%%I.%%I', n.nspname, c.relname), a.attname))
                when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end
    from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where n.nspname = %s and c.relname = %s and a.attnum > 0 and not a.attisdropped
    order by a.attnum
"""
_OTHERS = """
    select p.relname::text, p.relkind::text
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    cross join lateral (
        select m.relname, m.relkind from pg_inherits h join pg_class m on m.oid = h.inhrelid
        where h.inhparent = c.oid and not m.relispartition
        union all
        select m.relname, m.relkind from pg_partition_tree(c.oid) t join pg_class m on m.oid = t.relid
        where m.relkind = 'f'
    ) as p
    where n.nspname = %s and c.relname = %s
    limit 1
"""
_NAME_BYTES = 63


class TableLocked(Exception):
    """Another session holds a whole table: no row of it can be had, however few are asked for."""

    words = "another session holds a lock on a whole table"


class CannotQuarantine(WorkError):
    """Rows of {table} cannot be moved aside: {reason}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of either table. What is generated is kept as it was, and made again on the way back."""

    name: str
    type: str
    generated: bool
    default: str | None = None
    """An expression, as the catalog tells it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the rows of a table lie, and the columns that the table has now."""

    source: Relation
    table: Relation
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


def place_of(source: Relation, declared: Relation | None) -> Relation:
    """The declared table, else ``dbplatform.quarantine_<table>``."""
    if declared is not None:
        return declared
    name = f"quarantine_{source.word}"
    if len(name.encode()) > _NAME_BYTES:
        name = f"{name[:50]}_{hashlib.sha256(str(source).encode()).hexdigest()[:12]}"
    return Relation(SCHEMA, name)


def read_place(connection: AnyConnection, source: Relation, declared: Relation | None) -> Place:
    """The place of a table's rows; only reads. Raises ``CannotQuarantine``."""
    other = connection.execute(_OTHERS, (source.schema, source.name)).fetchone()
    if other is not None:
        reason = f"its partition {other[0]} is a foreign table" if other[1] == "f" else f"{other[0]} inherits from it"
        raise CannotQuarantine(table=source.words, reason=reason, hint="Leave quarantine out.")
    columns = columns_of(connection, source)
    if taken := [column.name for column in columns if column.name in OURS]:
        raise CannotQuarantine(
            table=source.words, reason=f"its column {taken[0]} has a name that the quarantine needs", hint="Rename it."
        )
    return Place(source=source, table=place_of(source, declared), columns=columns)


def columns_of(connection: AnyConnection, table: Relation) -> tuple[Column, ...]:
    """The columns of a table in their order; none where it is not there."""
    return tuple(
        Column(name=name, type=type_, generated=generated, default=default)
        for name, type_, generated, default in connection.execute(_COLUMNS, (table.schema, table.name))
    )


def ensure_place(connection: AutocommitConnection, place: Place) -> None:
    """Make the table where it is missing, and add the columns that it lacks. ACCESS EXCLUSIVE on that table alone,
    waited for as long as the session's ``lock_timeout`` says.

    Raises ``CannotQuarantine`` where it holds the rows of another table, is no table of ours, or has a column of
    another type, or where it is locked all that time.
    """
    try:
        _ensure(connection, place)
    except psycopg.errors.LockNotAvailable:
        hint = "Its rows are moved when the lock is gone, by the next run of the checks."
        raise CannotQuarantine(
            table=place.source.words, reason=f"another session holds a lock on {place.table}", hint=hint
        ) from None


def _ensure(connection: AutocommitConnection, place: Place) -> None:
    ensure_state(connection, _REGISTRY, _REGISTRY_DDL)
    with connection.transaction():
        if columns_of(connection, place.table):
            _require_ours(connection, place)
            _follow(connection, place)
            return
        ours = sql.SQL(
            "{} bigint generated always as identity primary key, {} text[] not null, {} text, "
            "{} timestamptz not null default now()"
        ).format(*map(sql.Identifier, OURS))
        columns = [ours, *(_definition(column) for column in place.columns)]
        connection.execute(sql.SQL("create table {} ({})").format(place.table.identifier, sql.SQL(", ").join(columns)))
        connection.execute(
            "insert into dbplatform.quarantine_place (place_schema, place_name, source_schema, source_name) "
            "values (%s, %s, %s, %s) on conflict (place_schema, place_name) do update "
            "set source_schema = excluded.source_schema, source_name = excluded.source_name",
            (place.table.schema, place.table.name, place.source.schema, place.source.name),
        )


def lock_for_rows(connection: AutocommitConnection, *tables: Relation) -> None:
    """ROW EXCLUSIVE on the tables until the transaction ends. Raises ``TableLocked`` after the ``lock_timeout``."""
    names = sql.SQL(", ").join(table.identifier for table in tables)
    try:
        connection.execute(sql.SQL("lock table {} in row exclusive mode").format(names))
    except psycopg.errors.LockNotAvailable:
        raise TableLocked from None


def known_places(connection: AnyConnection) -> dict[Relation, Relation]:
    """Where rows lie, and whose they are; places that somebody has dropped are left out."""
    there = connection.execute("select to_regclass(%s) is not null", (f"{SCHEMA}.{_REGISTRY}",)).fetchone()
    if there is None or not there[0]:
        return {}
    rows = connection.execute(
        "select place_schema, place_name, source_schema, source_name from dbplatform.quarantine_place "
        "where to_regclass(format('%I.%I', place_schema, place_name)) is not null order by 3, 4, 1, 2"
    )
    return {Relation(*row[:2]): Relation(*row[2:]) for row in rows}


def _require_ours(connection: AutocommitConnection, place: Place) -> None:
    source = known_places(connection).get(place.table)
    if source == place.source:
        return
    reason = f"{place.table} holds rows of {source.words}" if source else f"{place.table} is a table of its own"
    raise CannotQuarantine(table=place.source.words, reason=reason, hint="Declare another one: quarantine: {to: ...}.")


def _follow(connection: AutocommitConnection, place: Place) -> None:
    """Rows that lie there already get what those of the table got: the default of the column that came."""
    types = {column.name: column.type for column in columns_of(connection, place.table)}
    for column in place.columns:
        if column.name not in types:
            altered, name = place.table.identifier, sql.Identifier(column.name)
            # The default, too, is what the catalog wrote.
            default = sql.SQL("" if column.default is None else f" default {column.default}")
            connection.execute(sql.SQL("alter table {} add column {}{}").format(altered, _definition(column), default))
            connection.execute(sql.SQL("alter table {} alter column {} drop default").format(altered, name))
        elif types[column.name] != column.type:
            raise CannotQuarantine(
                table=place.source.words,
                reason=f"{column.name} is {column.type} now, and {types[column.name]} in {place.table}",
                hint=f"Change the type there, or return its rows and drop it: drop table {place.table}.",
            )


def _definition(column: Column) -> sql.Composable:
    # The type is what format_type wrote.
    return sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.type))
