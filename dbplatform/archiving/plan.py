"""What an archive would take out of its table. Only reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from dbplatform.archiving.children import Node, Tree, read_tree
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
from dbplatform.archiving.proof import ProvenSnapshot
from dbplatform.archiving.shape import Column, Reference, TableShape, read_shape
from dbplatform.archiving.storage import TIMES
from dbplatform.postgres.connection import AutocommitConnection, SnapshotConnection, snapshot
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildPlan:
    """The rows of a table that refer to those of the archive and leave along."""

    node: Node
    rows: int
    bytes: int

    def as_json(self) -> dict[str, Any]:
        assert self.node.reference is not None
        return {
            "table": str(self.node.table),
            "constraint": self.node.reference.constraint,
            "rows": self.rows,
            "bytes": self.bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivePlan:
    """The rows that match: how many, about how many bytes in the table, and how they would be stored."""

    policy: ArchivePolicy
    tree: Tree
    cutoff: datetime | None
    """Rows before it are old enough; None: their age does not matter."""
    rows: int
    bytes: int
    covered_rows: int | None
    """How many of them a proven backup holds with all that leaves along, where the plan was made with one; only these
    can leave."""
    children: tuple[ChildPlan, ...] = ()
    of: Relation | None = None
    """The table that they are archived for, where the policy's table is a partition of it."""
    besides: sql.Composable | None = None
    """Whether the row ``t`` lies in no archive yet, where that is to be asked: a boolean expression."""

    @property
    def shape(self) -> TableShape:
        """The archive's own table."""
        return self.tree.root.shape

    @property
    def matches(self) -> sql.Composed:
        """Whether the row ``t`` is what the policy declares: a boolean expression."""
        matching = matches(self.policy, self.shape, self.cutoff)
        return matching if self.besides is None else sql.SQL("{} and {}").format(matching, self.besides)

    @property
    def table(self) -> Relation:
        """The table that the rows are archived for."""
        return self.of or self.policy.table

    @property
    def rule(self) -> str:
        """Which rows match, in words."""
        before = f"before {self.cutoff:%Y-%m-%d}" if self.cutoff is not None else None
        where = f"where {self.policy.where}" if self.policy.where is not None else None
        words = " ".join(words for words in (before, where) if words is not None)
        return words or f"where {self.policy.rule}"

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
            "children": [child.as_json() for child in self.children],
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
    ``RowsReferenced`` when a row that does not leave along refers to one that leaves by a foreign key.
    """
    cutoff = _cutoff(policy.older_than, now) if policy.older_than is not None else None
    with snapshot(connection) as reading:
        be_exact(reading)
        shape = read_shape(reading, policy.table)
        _require_predicate(reading, policy, shape, cutoff)
        tree = read_tree(reading, shape, follow=policy.children == "archive")
        return _counted(reading, policy, tree, cutoff, proof)


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
    tree: Tree,
    cutoff: datetime | None,
    proof: ProvenSnapshot | None,
) -> ArchivePlan:
    chosen = matches(policy, tree.root.shape, cutoff)
    held = tree.complete(tree.root, proof) if proof is not None else sql.SQL("false")
    rows, bytes_, covered_rows = _count(connection, policy, tree, tree.root, chosen, held)
    children = []
    for child in tree.children:
        child_rows, child_bytes, _ = _count(connection, policy, tree, child, chosen, sql.SQL("false"))
        children.append(ChildPlan(node=child, rows=child_rows, bytes=child_bytes))
    return ArchivePlan(
        policy=policy,
        tree=tree,
        cutoff=cutoff,
        rows=rows,
        bytes=bytes_,
        covered_rows=covered_rows if proof is not None else None,
        children=tuple(children),
    )


def _count(
    connection: SnapshotConnection,
    policy: ArchivePolicy,
    tree: Tree,
    node: Node,
    chosen: sql.Composable,
    held: sql.Composable,
) -> tuple[int, int, int]:
    """Rows of the node that would leave, their bytes, and how many fulfil ``held``. Raises ``RowsReferenced``."""
    outside = tree.outside(node)
    statement = sql.SQL(
        "select count(*), coalesce(sum(pg_column_size({alias}.*)), 0), count(*) filter (where {held}){referred}"
        " from {table} as {alias} where {leaves}"
    ).format(
        held=held,
        referred=sql.SQL("").join(
            sql.SQL(", count(*) filter (where {})").format(reference.refers_to(node.alias)) for reference in outside
        ),
        table=node.table.identifier,
        alias=sql.Identifier(node.alias),
        leaves=tree.leaves(node, chosen),
    )
    row = connection.execute(statement).fetchone()
    assert row is not None
    rows, bytes_, held_rows, *referred = row
    for reference, count in zip(outside, referred, strict=True):
        if count:
            raise RowsReferenced(
                rows=count,
                table=str(node.table),
                child=str(reference.child),
                constraint=reference.constraint,
                hint=_ways_out(policy, reference),
            )
    return int(rows), int(bytes_), int(held_rows)


def _ways_out(policy: ArchivePolicy, reference: Reference) -> str:
    first = f"Archive or delete the rows of {reference.child} first"
    if policy.children == "refuse":
        return f"{first}, or let them leave along: children: archive."
    return f"{first}: they lead here by more than one foreign key or in a circle, so they cannot leave along."
