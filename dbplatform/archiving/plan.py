"""What an archive would take out of its table. Only reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from dbplatform.archiving.content import be_exact
from dbplatform.archiving.errors import (
    ArchiveColumnMissing,
    CutoffOutOfCalendar,
    RowsReferenced,
    UnsuitableArchiveColumn,
    UnsuitablePredicate,
)
from dbplatform.archiving.parquet import first_line
from dbplatform.archiving.policy import ArchivePolicy
from dbplatform.archiving.proof import ProvenSnapshot, covered
from dbplatform.archiving.shape import Column, TableShape, read_shape
from dbplatform.archiving.storage import TIMES
from dbplatform.postgres.connection import AutocommitConnection, SnapshotConnection, snapshot
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivePlan:
    """The rows that match: how many, about how many bytes in the table, and how they would be stored."""

    policy: ArchivePolicy
    shape: TableShape
    cutoff: datetime | None
    """Rows before it are old enough; None: their age does not matter."""
    rows: int
    bytes: int
    covered_rows: int | None
    """How many of them a proven backup holds, where the plan was made with one; only these can leave."""

    @property
    def matches(self) -> sql.Composed:
        """Whether the row ``t`` is what the policy declares: a boolean expression."""
        return matches(self.policy, self.shape, self.cutoff)

    @property
    def rule(self) -> str:
        """Which rows match, in words."""
        before = f"before {self.cutoff:%Y-%m-%d}" if self.cutoff is not None else None
        where = f"where {self.policy.where}" if self.policy.where is not None else None
        return " ".join(words for words in (before, where) if words is not None)

    def as_json(self) -> dict[str, Any]:
        """One entry of ``archives`` of ``archive plan --json``."""
        return {
            "name": self.policy.name,
            "table": str(self.policy.table),
            "column": self.policy.column,
            "cutoff": self.cutoff.isoformat() if self.cutoff is not None else None,
            "where": self.policy.where,
            "rows": self.rows,
            "bytes": self.bytes,
            "covered_rows": self.covered_rows,
            "key": list(self.shape.key),
            "columns": [column.as_json() for column in self.shape.columns],
        }


def plan_archive(
    connection: AutocommitConnection,
    policy: ArchivePolicy,
    *,
    now: datetime,
    proof: ProvenSnapshot | None = None,
) -> ArchivePlan:
    """What is as declared at the time ``now`` (aware).

    Reads the matching rows in one snapshot, under ACCESS SHARE. Raises what ``read_shape`` raises,
    ``ArchiveColumnMissing``, ``UnsuitableArchiveColumn``, ``UnsuitablePredicate``, ``CutoffOutOfCalendar``, and
    ``RowsReferenced`` when another row refers to one of them by a foreign key.
    """
    cutoff = _cutoff(policy.older_than, now) if policy.older_than is not None else None
    with snapshot(connection) as reading:
        be_exact(reading)
        shape = read_shape(reading, policy.table)
        _require_predicate(reading, policy, shape, cutoff)
        return _counted(reading, policy, shape, cutoff, proof)


def matches(policy: ArchivePolicy, shape: TableShape, cutoff: datetime | None) -> sql.Composed:
    """Whether the row ``t`` is older than the cutoff and fulfils the condition: a boolean expression.

    It chooses what is exported, and is never asked again: what leaves the table is what lies in the file.
    """
    parts = []
    if policy.column is not None and cutoff is not None:
        parts.append(_older_than(policy.table, policy.column, shape, cutoff))
    if policy.where is not None:
        # The bracket closes on a line of its own, because the condition may end with a comment.
        parts.append(sql.SQL("({}\n)").format(sql.SQL(policy.where)))
    return sql.SQL(" and ").join(parts)


def _older_than(table: Relation, column: str, shape: TableShape, cutoff: datetime) -> sql.Composed:
    """Whether the row ``t`` is older than the cutoff; a date counts once its whole day is, in UTC."""
    storage = _time_column(table, column, shape).storage
    if storage == "date":
        # The day of the cutoff is not wholly before it, so its rows stay.
        value, type_ = cutoff.date().isoformat(), "date"
    elif storage == "timestamp":
        value, type_ = cutoff.replace(tzinfo=None).isoformat(sep=" "), "timestamp"
    else:
        value, type_ = cutoff.isoformat(sep=" "), "timestamptz"
    return sql.SQL("t.{} < {}::{}").format(sql.Identifier(column), sql.Literal(value), sql.SQL(type_))


def _require_predicate(
    connection: SnapshotConnection, policy: ArchivePolicy, shape: TableShape, cutoff: datetime | None
) -> None:
    """Let the server judge the condition before anything is read by it."""
    statement = sql.SQL("select from {} as t where {} limit 0").format(
        policy.table.identifier, matches(policy, shape, cutoff)
    )
    try:
        connection.execute(statement)
    except (psycopg.ProgrammingError, psycopg.DataError) as error:
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            raise
        raise UnsuitablePredicate(
            name=policy.name,
            table=str(policy.table),
            reason=first_line(error),
            hint=f"It has: {', '.join(shape.names)}.",
        ) from error


def _cutoff(older_than: Interval, now: datetime) -> datetime:
    try:
        return now.astimezone(UTC) - older_than.relativedelta
    except (ValueError, OverflowError) as error:
        raise CutoffOutOfCalendar(
            older_than=str(older_than), now=now.isoformat(), hint="Write a shorter older_than."
        ) from error


def _time_column(table: Relation, name: str, shape: TableShape) -> Column:
    for column in shape.columns:
        if column.name == name:
            if column.storage not in TIMES:
                raise UnsuitableArchiveColumn(
                    column=name,
                    table=str(table),
                    type=column.type,
                    hint="Name a column that holds the time of the row.",
                )
            return column
    raise ArchiveColumnMissing(column=name, table=str(table), hint=f"It has: {', '.join(shape.names)}.")


def _counted(
    connection: SnapshotConnection,
    policy: ArchivePolicy,
    shape: TableShape,
    cutoff: datetime | None,
    proof: ProvenSnapshot | None,
) -> ArchivePlan:
    statement = sql.SQL(
        "select count(*), coalesce(sum(pg_column_size(t.*)), 0), count(*) filter (where {held}){referred}"
        " from {table} as t where {matches}"
    ).format(
        held=covered(proof, "t") if proof is not None else sql.SQL("false"),
        referred=sql.SQL("").join(
            sql.SQL(", count(*) filter (where {})").format(reference.refers_to("t")) for reference in shape.references
        ),
        table=policy.table.identifier,
        matches=matches(policy, shape, cutoff),
    )
    row = connection.execute(statement).fetchone()
    assert row is not None
    rows, bytes_, held, *referred = row
    for reference, count in zip(shape.references, referred, strict=True):
        if count:
            raise RowsReferenced(
                rows=count,
                table=str(policy.table),
                child=str(reference.child),
                constraint=reference.constraint,
                hint=f"Archive or delete the rows of {reference.child} first.",
            )
    return ArchivePlan(
        policy=policy,
        shape=shape,
        cutoff=cutoff,
        rows=int(rows),
        bytes=int(bytes_),
        covered_rows=int(held) if proof is not None else None,
    )
