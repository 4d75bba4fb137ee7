"""What a managed database remembers of the partitions that were retired: ``dbplatform.retired_partition``.

A row is made before its partition is detached, so that a killed run finds the table again: by its identity (oid) and
its name together, and only while it is no partition. One that somebody renamed, attached again or restored from a dump
is left alone. The ranges are remembered for good, so that ``partition apply`` does not make again what was retired.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dbplatform.partitioning.bounds import FIRST, HIGHEST, LAST, LOWEST, Bounds, Point, point_text
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.state import ensure_state

_DDL = """
    create table dbplatform.retired_partition (
        partition_id oid not null,
        parent text not null,
        schema_name text not null,
        name text not null,
        lower text,
        upper text,
        numbers boolean not null,
        retired_at timestamptz not null default now(),
        dropped_at timestamptz,
        primary key (parent, schema_name, name, partition_id)
    )
"""

_READ = """
    select r.schema_name, r.name, r.lower, r.upper, r.numbers, r.partition_id,
           c.oid is not null and not c.relispartition
    from dbplatform.retired_partition r
    left join pg_namespace n on n.nspname = r.schema_name
    left join pg_class c on c.oid = r.partition_id and c.relnamespace = n.oid and c.relname = r.name
    where r.parent = %s and (r.dropped_at is not null or c.oid is null or not c.relispartition)
    order by r.retired_at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetiredPartition:
    """A partition that was detached, or dropped; ``is_there``: its table is, and is no partition."""

    relation: Relation
    bounds: Bounds
    oid: int
    is_there: bool


def read_retired(connection: AnyConnection, table: Relation) -> list[RetiredPartition]:
    """The retired partitions of a table, in the order in which they were."""
    if not _exists(connection):
        return []
    return [
        RetiredPartition(
            relation=Relation(schema, name),
            bounds=Bounds(
                _point(lower, LOWEST if numbers else FIRST, numbers=numbers),
                _point(upper, HIGHEST if numbers else LAST, numbers=numbers),
            ),
            oid=oid,
            is_there=is_there,
        )
        for schema, name, lower, upper, numbers, oid, is_there in connection.execute(_READ, (str(table),)).fetchall()
    ]


def remember(connection: AutocommitConnection, table: Relation, partition: Relation, oid: int, bounds: Bounds) -> None:
    """Record, in a transaction of its own, that a partition is about to be detached; a no-op when that is known."""
    ensure_state(connection, "retired_partition", _DDL)
    connection.execute(
        "insert into dbplatform.retired_partition (partition_id, parent, schema_name, name, lower, upper, numbers)"
        " values (%s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
        (
            oid,
            str(table),
            partition.schema,
            partition.name,
            point_text(bounds.lower) if bounds.has_lower else None,
            point_text(bounds.upper) if bounds.has_upper else None,
            not isinstance(bounds.upper, datetime),
        ),
    )


def forget_attached(connection: AutocommitConnection, table: Relation) -> None:
    """Forget what was about to be detached and was not: whoever detaches it later may want to keep it."""
    if _exists(connection):
        connection.execute(
            "delete from dbplatform.retired_partition r using pg_class c"
            " where r.parent = %s and r.dropped_at is null and c.oid = r.partition_id and c.relispartition",
            (str(table),),
        )


def mark_dropped(connection: AutocommitConnection, table: Relation, retired: RetiredPartition) -> None:
    """Record, in the transaction that drops it, that the table is gone."""
    connection.execute(
        "update dbplatform.retired_partition set dropped_at = now()"
        " where parent = %s and schema_name = %s and name = %s and partition_id = %s",
        (str(table), retired.relation.schema, retired.relation.name, retired.oid),
    )


def _exists(connection: AnyConnection) -> bool:
    row = connection.execute("select to_regclass('dbplatform.retired_partition') is not null").fetchone()
    return row == (True,)


def _point(text: str | None, unlimited: Point, *, numbers: bool) -> Point:
    if text is None:
        return unlimited
    return int(text) if numbers else datetime.fromisoformat(text)
