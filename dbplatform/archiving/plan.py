"""What an archive would take out of its table. Only reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import sql

from dbplatform.archiving.content import be_exact
from dbplatform.archiving.errors import (
    ArchiveColumnMissing,
    CutoffOutOfCalendar,
    RowsReferenced,
    UnsuitableArchiveColumn,
)
from dbplatform.archiving.policy import ArchivePolicy
from dbplatform.archiving.proof import ProvenSnapshot, covered
from dbplatform.archiving.shape import Column, TableShape, read_shape
from dbplatform.archiving.storage import TIMES
from dbplatform.postgres.connection import AutocommitConnection, SnapshotConnection, snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivePlan:
    """The rows older than ``cutoff``: how many, about how many bytes in the table, and how they would be stored."""

    policy: ArchivePolicy
    shape: TableShape
    cutoff: datetime
    rows: int
    bytes: int
    covered_rows: int | None
    """How many of them a proven backup holds, where the plan was made with one; only these can leave."""

    @property
    def older(self) -> sql.Composed:
        """Whether the row ``t`` is older than the cutoff: a boolean expression."""
        return older_than(self.policy, self.shape, self.cutoff)

    def as_json(self) -> dict[str, Any]:
        """One entry of ``archives`` of ``archive plan --json``."""
        return {
            "name": self.policy.name,
            "table": str(self.policy.table),
            "column": self.policy.column,
            "cutoff": self.cutoff.isoformat(),
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
    """What is older than declared at the time ``now`` (aware).

    Reads the old rows in one snapshot, under ACCESS SHARE. Raises what ``read_shape`` raises,
    ``ArchiveColumnMissing``, ``UnsuitableArchiveColumn``, ``CutoffOutOfCalendar``, and ``RowsReferenced`` when another
    row refers to one of them by a foreign key.
    """
    cutoff = _cutoff(policy, now)
    with snapshot(connection) as reading:
        be_exact(reading)
        shape = read_shape(reading, policy.table)
        _time_column(policy, shape)
        return _counted(reading, policy, shape, cutoff, proof)


def older_than(policy: ArchivePolicy, shape: TableShape, cutoff: datetime) -> sql.Composed:
    """Whether the row ``t`` is older than the cutoff; a date counts once its whole day is, in UTC."""
    storage = _time_column(policy, shape).storage
    if storage == "date":
        # The day of the cutoff is not wholly before it, so its rows stay.
        value, type_ = cutoff.date().isoformat(), "date"
    elif storage == "timestamp":
        value, type_ = cutoff.replace(tzinfo=None).isoformat(sep=" "), "timestamp"
    else:
        value, type_ = cutoff.isoformat(sep=" "), "timestamptz"
    return sql.SQL("t.{} < {}::{}").format(sql.Identifier(policy.column), sql.Literal(value), sql.SQL(type_))


def _cutoff(policy: ArchivePolicy, now: datetime) -> datetime:
    try:
        return now.astimezone(UTC) - policy.older_than.relativedelta
    except (ValueError, OverflowError) as error:
        raise CutoffOutOfCalendar(
            older_than=str(policy.older_than), now=now.isoformat(), hint="Write a shorter older_than."
        ) from error


def _time_column(policy: ArchivePolicy, shape: TableShape) -> Column:
    for column in shape.columns:
        if column.name == policy.column:
            if column.storage not in TIMES:
                raise UnsuitableArchiveColumn(
                    column=policy.column,
                    table=str(policy.table),
                    type=column.type,
                    hint="Name a column that holds the time of the row.",
                )
            return column
    raise ArchiveColumnMissing(column=policy.column, table=str(policy.table), hint=f"It has: {', '.join(shape.names)}.")


def _counted(
    connection: SnapshotConnection,
    policy: ArchivePolicy,
    shape: TableShape,
    cutoff: datetime,
    proof: ProvenSnapshot | None,
) -> ArchivePlan:
    older = older_than(policy, shape, cutoff)
    statement = sql.SQL(
        "select count(*), coalesce(sum(pg_column_size(t.*)), 0), count(*) filter (where {held}){referred}"
        " from {table} as t where {older}"
    ).format(
        held=covered(proof, "t") if proof is not None else sql.SQL("false"),
        referred=sql.SQL("").join(
            sql.SQL(", count(*) filter (where {})").format(reference.refers_to("t")) for reference in shape.references
        ),
        table=policy.table.identifier,
        older=older,
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
