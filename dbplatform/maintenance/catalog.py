"""What is known of every table and index before it is judged. Only reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from psycopg.errors import LockNotAvailable
from psycopg.rows import dict_row

from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.exact import ExtensionMissing, NoSuchRelation, measure
from dbplatform.postgres.identifiers import Relation

#: Larger ones are not read for their bloat where no estimate says that they may be bloated.
EXACT_BYTES = 256 << 20

_FACTS = """
    select pg_is_in_recovery(), current_setting('server_version_num')::int,
           (select extversion from pg_extension where extname = 'pg_repack'),
           exists (select from pg_available_extensions where name = 'pg_repack'),
           exists (select from pg_extension where extname = 'pgstattuple')
               and (select pg_has_role('pg_stat_scan_tables', 'usage')
                    or (select rolsuper from pg_roles where rolname = current_user)),
           (select rolsuper from pg_roles where rolname = current_user), extract(epoch from now())::float8
"""
_OIDS = """
    select c.oid::bigint from pg_class c where c.oid = to_regclass(%s)
    union
    select t.relid::oid::bigint from pg_partition_tree(to_regclass(%s)) t
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One row of ``postgres/sql/maintenance_tables.sql``; ages are in transactions, times in seconds since 1970."""

    oid: int
    relation: Relation
    kind: str
    """``r``, ``m`` or ``p``, as in pg_class."""
    system: bool
    shared: bool
    options: Mapping[str, str]
    rows: float
    counted_rows: float
    """As of the last vacuum or ANALYZE; -1: there was none."""
    live: float
    dead: float
    changed: float
    inserted: float
    rewritten: float
    vacuumed_at: float | None
    analyzed_at: float | None
    ever_analyzed: bool
    xid_age: float | None
    multixact_age: float | None
    freeze_max: float
    multixact_max: float
    insert_limit: float
    vacuum_limit: float
    analyze_limit: float
    not_visible: float
    """The share of its pages whose rows are not all visible to everybody."""
    bytes: int
    """Of the heap alone."""
    fillfactor: float
    needed_bytes: float | None
    """What its rows need, by statistics; none: they are not known."""
    ancestors: tuple[int, ...]
    leaves: tuple[int, ...]
    owned: bool
    may_vacuum: bool
    has_key: bool
    repack_remains: bool
    repacking: bool

    @property
    def dead_share(self) -> float:
        """Of all rows, those that are dead."""
        return self.dead / (self.dead + self.live) if self.dead else 0.0

    @property
    def freeze_share(self) -> float:
        """How far the oldest row has come towards a vacuum that cannot be put off."""
        xids = (self.xid_age or 0) / self.freeze_max
        return max(xids, (self.multixact_age or 0) / self.multixact_max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """One row of ``postgres/sql/maintenance_indexes.sql``."""

    oid: int
    relation: Relation
    table: Relation
    table_oid: int
    of_toast: bool
    system: bool
    exclusion: bool
    is_unique: bool
    valid: bool
    method: str
    bytes: int
    fillfactor: float
    needed_bytes: float | None
    may_reindex: bool
    owned: bool
    being_built: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """One look at the database."""

    database: str
    in_recovery: bool
    version: int
    """As server_version_num."""
    repack_version: str | None
    """Of the extension in this database."""
    repack_available: bool
    counts_exactly: bool
    """Whether pgstattuple is there and may be called."""
    superuser: bool
    now: float
    tables: Mapping[int, Table]
    indexes: Mapping[int, Index]
    may_count: Callable[[], bool]
    """Asked before each table or index is read to be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused:
    """How much of a table or index holds nothing, beyond what its fillfactor leaves free."""

    share: float
    exact: bool

    @property
    def words(self) -> str:
        """How it was found."""
        return "counted" if self.exact else "an estimate"


def read_catalog(
    connection: AutocommitConnection,
    *,
    database: str,
    min_bytes: int,
    only: Collection[int] | None = None,
    exclude: Collection[Relation] = (),
    may_count: Callable[[], bool] = lambda: True,
) -> Catalog:
    """All tables and indexes, or those of the tables ``only``; without ``exclude`` and their partitions."""
    row = connection.execute(_FACTS).fetchone()
    assert row is not None
    in_recovery, version, repack, available, exact, superuser, now = row
    given = {"only": list(only) if only is not None else None, "min_bytes": min_bytes}
    tables = {one.oid: one for one in map(_table, _rows(connection, "maintenance_tables", given))}
    without = {oid for relation in exclude for oid in oids_of(connection, relation)}
    indexes = {one.oid: one for one in map(_index, _rows(connection, "maintenance_indexes", given))}
    return Catalog(
        database=database,
        in_recovery=in_recovery,
        version=version,
        repack_version=repack,
        repack_available=available,
        counts_exactly=exact,
        superuser=superuser,
        now=now,
        tables={oid: one for oid, one in tables.items() if oid not in without},
        indexes={oid: one for oid, one in indexes.items() if one.table_oid not in without},
        may_count=may_count,
    )


def oids_of(connection: AutocommitConnection, relation: Relation) -> set[int]:
    """A table and all of its partitions; none where it is not there."""
    return {row[0] for row in connection.execute(_OIDS, (str(relation), str(relation))).fetchall()}


def unused_of(connection: AutocommitConnection, catalog: Catalog, one: Table | Index, *, least: float) -> Unused | None:
    """The share of a table or B-tree that holds nothing; none where it can be neither counted nor estimated.

    Counted where pgstattuple and ``may_count`` allow it and the estimate is at least ``least``; of what is not large
    also where there is no estimate, or one that may be too low, as that of an index that deduplicates. Reads the
    relation then; lock: ACCESS SHARE.
    """
    estimate = None
    if one.needed_bytes is not None and one.bytes:
        estimate = Unused(share=max(0.0, 1 - one.needed_bytes / one.bytes), exact=False)
    suspect = estimate is not None and estimate.share >= least
    unsure = estimate is None or (isinstance(one, Index) and not one.is_unique)
    if not catalog.counts_exactly or not (suspect or (unsure and one.bytes <= EXACT_BYTES)):
        return estimate
    if not catalog.may_count():
        return estimate
    try:
        counted = measure(connection, one.relation)
    except (ExtensionMissing, NoSuchRelation, LockNotAvailable):
        return estimate
    # What the fillfactor leaves free is meant; of the rest that is needed, the whole.
    needed = counted.bytes - counted.unused_bytes
    return Unused(share=max(0.0, 1 - needed / one.fillfactor / counted.bytes) if counted.bytes else 0.0, exact=True)


def _table(row: dict[str, Any]) -> Table:
    relation = Relation(row.pop("schema"), row.pop("name"))
    leaves, ancestors = tuple(row.pop("leaves") or ()), tuple(row.pop("ancestors") or ())
    return Table(relation=relation, leaves=leaves, ancestors=ancestors, **row)


def _index(row: dict[str, Any]) -> Index:
    relation = Relation(row.pop("schema"), row.pop("name"))
    table = Relation(row.pop("table_schema"), row.pop("table_name"))
    return Index(relation=relation, table=table, table_oid=row.pop("of_table"), **row)


def _rows(connection: AutocommitConnection, name: str, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_sql(name).encode(), given).fetchall()


@cache
def _sql(name: str) -> str:
    return (files("dbplatform.postgres") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
