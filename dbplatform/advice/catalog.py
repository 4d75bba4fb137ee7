"""What the catalog and the statistics say of tables and indexes, read once for all advice. It only reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """One index of a table. ``columns`` are the names of its key columns; expressions have none."""

    oid: int
    schema: str
    name: str
    table_oid: int
    table_schema: str
    table: str
    method: str
    unique: bool
    valid: bool
    replica_identity: bool
    clustered: bool
    partial: bool
    expression: bool
    constraint: bool
    exclusive: bool
    """Of an exclusion constraint or a primary key."""
    partitioned: bool
    """It belongs to a partitioned table, or is attached to the index of one."""
    builder: int | None
    """The backend that builds it now."""
    keys: list[int]
    included: list[int]
    columns: list[str]
    classes: str
    collations: str
    options: str
    expressions: str
    predicate: str
    definition: str
    scans: int
    bytes: int
    age_s: float | None
    """How long ago it was made; none where the server does not keep that."""

    @property
    def relation(self) -> Relation:
        """Its name with its schema."""
        return Relation(self.schema, self.name)

    @property
    def owner(self) -> Relation:
        """The table."""
        return Relation(self.table_schema, self.table)

    @property
    def protected(self) -> bool:
        """Whether something other than reading needs it, so that it is never dropped: a constraint, replication."""
        return self.constraint or self.exclusive or self.replica_identity or self.clustered or self.partitioned

    @property
    def plain(self) -> bool:
        """Whether it holds every row of the table by columns alone, and is ready to be read."""
        return self.valid and not self.partial and not self.expression

    def part(self, count: int) -> tuple[object, ...]:
        """The first key columns with what orders them: equal parts can be read in place of each other."""
        return (
            self.keys[:count],
            self.classes.split()[:count],
            self.collations.split()[:count],
            self.options.split()[:count],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table: its rows, its pages, and what was written since the statistics began."""

    oid: int
    schema: str
    name: str
    partitioned: bool
    partition: bool
    root: int | None
    """The partitioned table at the top, of a partition."""
    planned_rows: float
    pages: int
    live: float
    dead: float
    inserted: float
    updated: float
    deleted: float
    hot_updated: float
    options: Mapping[str, str]

    @property
    def relation(self) -> Relation:
        """Its name with its schema."""
        return Relation(self.schema, self.name)

    @property
    def rows(self) -> float:
        """As many rows as it has, as well as that is known."""
        return self.live or self.planned_rows

    @property
    def index_writes(self) -> float:
        """Rows that made an entry in every index: inserts, and updates that were not HOT."""
        return self.inserted + max(0.0, self.updated - self.hot_updated)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """One foreign key, by its columns in the referencing table."""

    name: str
    table_oid: int
    keys: list[int]
    columns: list[str]
    parent: str
    parent_oid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStatistics:
    """What ANALYZE found in one column; a negative ``distinct`` is a share of the rows."""

    distinct: float
    correlation: float
    width: int
    type: str

    def values(self, rows: float) -> float:
        """How many different values there are."""
        return max(1.0, -self.distinct * rows if self.distinct < 0 else self.distinct or 200.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """One reading of it all."""

    database: str
    in_recovery: bool
    counting_s: float
    """How far back the statistics reach, in seconds."""
    tables: Mapping[int, Table]
    indexes: tuple[Index, ...]
    foreign_keys: tuple[ForeignKey, ...]
    settings: Mapping[str, float]
    """The planner's costs."""
    hypopg: str | None
    """The schema of the extension, where it is in the database."""

    def indexes_of(self, table_oid: int) -> list[Index]:
        """The indexes of a table."""
        return [index for index in self.indexes if index.table_oid == table_oid]

    def table_named(self, schema: str, name: str) -> Table | None:
        """A table by its name."""
        return next((one for one in self.tables.values() if (one.schema, one.name) == (schema, name)), None)


_FACTS = """
    select pg_is_in_recovery() as in_recovery,
           extract(epoch from clock_timestamp() - coalesce(d.stats_reset, pg_postmaster_start_time()))::float8
               as counting_s,
           (select n.nspname::text from pg_extension e join pg_namespace n on n.oid = e.extnamespace
            where e.extname = 'hypopg') as hypopg
    from pg_stat_database d where d.datname = current_database()
"""
_COSTS = (
    "seq_page_cost",
    "random_page_cost",
    "cpu_tuple_cost",
    "cpu_index_tuple_cost",
    "cpu_operator_cost",
)
_SETTINGS = "select name, setting::float8 as value from pg_settings where name = any (%s)"
_FOREIGN_KEYS = """
    select k.conname::text as name, k.conrelid::bigint as table_oid, k.conkey::int[] as keys,
           (select array_agg(a.attname::text order by u.at) from unnest(k.conkey) with ordinality u (attnum, at)
            join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.attnum) as columns,
           format('%I.%I', n.nspname, c.relname) as parent, c.oid::bigint as parent_oid
    from pg_constraint k
    join pg_class c on c.oid = k.confrelid join pg_namespace n on n.oid = c.relnamespace
    where k.contype = 'f' and k.conparentid = 0
    order by k.conrelid, k.conname
"""
_COLUMN = """
    select n_distinct::float8 as distinct, coalesce(correlation, 0)::float8 as correlation, avg_width as width,
           (select a.atttypid::regtype::text from pg_attribute a
            where a.attrelid = to_regclass(format('%%I.%%I', schemaname, tablename)) and a.attname = s.attname) as type
    from pg_stats s where schemaname = %s and tablename = %s and attname = %s order by inherited limit 1
"""
_USED_ON_REPLICA = """
    select format('%I.%I', schemaname, indexrelname) from pg_stat_user_indexes where idx_scan > 0
"""


def read_catalog(connection: AnyConnection, *, database: str) -> Catalog:
    """Read it: five statements, no lock but for the size of each index."""
    (facts,) = _rows(connection, _FACTS)
    return Catalog(
        database=database,
        in_recovery=facts["in_recovery"],
        counting_s=max(0.0, facts["counting_s"]),
        tables={row["oid"]: Table(**row) for row in _rows(connection, _file("advice_tables"))},
        indexes=tuple(Index(**row) for row in _rows(connection, _file("advice_indexes"))),
        foreign_keys=tuple(ForeignKey(**row) for row in _rows(connection, _FOREIGN_KEYS)),
        settings={row["name"]: row["value"] for row in _rows(connection, _SETTINGS, list(_COSTS))},
        hypopg=facts["hypopg"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaUse:
    """What a replica reads by: the names of the indexes, and how far back its statistics reach."""

    used: frozenset[str]
    counting_s: float


def read_replica(connection: AnyConnection) -> ReplicaUse:
    """Ask a replica which indexes it has read by: an index may be unused on the primary and needed there."""
    (facts,) = _rows(connection, _FACTS)
    names = connection.execute(_USED_ON_REPLICA).fetchall()
    return ReplicaUse(used=frozenset(name for (name,) in names), counting_s=max(0.0, facts["counting_s"]))


def column_statistics(connection: AnyConnection, table: Relation, column: str) -> ColumnStatistics | None:
    """What ANALYZE found in a column; none where it has not looked, or the user may not see it."""
    found = _rows(connection, _COLUMN, table.schema, table.name, column)
    return ColumnStatistics(**found[0]) if found else None


@cache
def _file(name: str) -> str:
    return (files("dbplatform.postgres") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def _rows(connection: AnyConnection, query: str, *values: Any) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), values or None).fetchall()


def index_name(connection: AnyConnection, table: Relation, columns: tuple[str, ...]) -> str:
    """The name that PostgreSQL itself would give an index, one that is free now."""
    stem = "_".join((table.name, *columns)).encode()[:54].decode(errors="ignore")
    for number in range(1, 100):
        name = f"{stem}_idx{number if number > 1 else ''}"
        full = sql.Identifier(table.schema, name).as_string()
        row = connection.execute("select to_regclass(%s) is null", (full,)).fetchone()
        if row is not None and row[0]:
            return name
    raise AssertionError("a hundred indexes of that name")
