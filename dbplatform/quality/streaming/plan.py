"""Which checks of a table are answered by a stream of its columns, and whether that pays.

A check takes part when all of its counts and measures can: by values that the client judges, or by conditions that the
server evaluates as booleans of the same stream. What cannot: sums and means of floats (their last digits depend on the
order) and of numerics that the client does not hold exactly, and conditions whose functions may give another answer in
another session, such as ``now()`` or ``random()``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.checks.base import Check, shortened
from dbplatform.quality.checks.conditions import (
    NOW,
    Condition,
    IsNull,
    Measured,
    NoMatch,
    Outside,
    Part,
    Where,
)
from dbplatform.quality.checks.keys import Relationship, Unique
from dbplatform.quality.streaming import cost, references
from dbplatform.quality.streaming.batches import Field, Flag, Value
from dbplatform.quality.streaming.columns import Column, columns
from dbplatform.quality.streaming.compiled import Compiled, Compiler
from dbplatform.quality.streaming.cost import Table
from dbplatform.quality.streaming.tally import Key

SESSIONS = 2
_UNITS = 16
_LEAST_BLOCKS = 64
_RANGE_BLOCKS = 1024  # 8 MB: for fewer rows the query costs more than a fortieth of them

_UNSTABLE = """
    select exists (select from pg_proc where provolatile <> 'i' and proname = any(%s))
"""
_UNSTABLE_WORDS = {
    "now", "today", "tomorrow", "yesterday", "allballs", "current_date", "current_time", "current_timestamp",
    "localtime", "localtimestamp", "current_user", "session_user", "user", "current_role", "current_schema",
    "current_catalog", "select", "system_user",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Rows that are read by one name: those of a table, or of one of its partitions."""

    relation: Relation
    blocks: int
    """Of its largest part."""
    ranges: int
    """In how many pieces it is read."""


@dataclass(slots=True)
class Streaming:
    """What a stream of one table answers, and how."""

    relation: Relation
    checks: dict[str, Check] = field(default_factory=dict)
    parts: dict[str, tuple[Part, ...]] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    targets: dict[str, tuple[Column, Column, Relationship]] = field(default_factory=dict)
    judges: dict[Condition, Compiled] = field(default_factory=dict)
    fields: dict[Field, int] = field(default_factory=dict)
    columns: dict[str, Column] = field(default_factory=dict)
    place: Place | None = None
    """The rows of the table itself; those of a partition are in a place of its own."""
    refused: str | None = None
    """Why there is none."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Checks that cannot take part, and why."""

    def asked_of_server(self, check: str) -> list[str]:
        """The conditions of a check that the server evaluates in the stream, but nulls, in words."""
        conditions = {condition for part in self.parts[check] for condition in part.conditions}
        flags = (c for c in conditions if not isinstance(c, IsNull) and isinstance(self.judges[c].field, Flag))
        return sorted(shortened(c.sql(self.relation).as_string()) for c in flags)


def planned(
    connection: SnapshotConnection,
    table: Table,
    checks: Sequence[Check],
    parts: dict[str, tuple[Part, ...]],
    proofs: dict[str, str],
    *,
    always: bool = False,
) -> Streaming:
    """What a stream would answer of these checks. ``parts`` are those to be answered. Reads the catalog.

    ``always``: whatever it costs.
    """
    plan = Streaming(table.relation)
    plan.place = place_of(connection, table.relation, table.blocks, whole=table.secured, always=always)
    plan.columns = columns(connection, table.relation)
    compiler = Compiler(connection, plan.columns)
    for check in checks:
        _add(plan, compiler, check, parts[check.name], proven=check.name in proofs)
    _lay_out(plan, compiler)
    if not plan.checks:
        plan.refused = "no check can take part"
    elif not always and not _pays(plan, table):
        plan.refused = f"streaming about {table.rows:,} rows would cost more"
    return plan


def place_of(
    connection: SnapshotConnection, relation: Relation, blocks: int, *, whole: bool = False, always: bool = False
) -> Place:
    """Where so many blocks are read, in ranges of ``ctid`` unless they must be read as a ``whole``."""
    # A server before 14 would read the whole table for each range; so does any where row-level security filters first.
    ranges = 1
    if connection.info.server_version >= 140000 and not whole:
        even = blocks // _RANGE_BLOCKS // SESSIONS * SESSIONS  # each session has as much to do
        least = SESSIONS if blocks >= SESSIONS * _LEAST_BLOCKS else 1
        ranges = min(_UNITS, max(1, blocks) if always else max(even, least))
    return Place(relation=relation, blocks=blocks, ranges=ranges)


def _add(plan: Streaming, compiler: Compiler, check: Check, parts: tuple[Part, ...], *, proven: bool) -> None:
    """Take a check in, or say why not."""
    conditions = {condition for part in parts for condition in part.conditions}
    for condition in conditions:
        if isinstance(condition, Where) and compiler.of_client(condition) is None and _unstable(compiler, condition):
            plan.left_out[check.name] = "its condition may depend on the session or the moment"
            return
        if (
            isinstance(condition, Outside)
            and NOW in (condition.low, condition.high)
            and not compiler.of_client(condition)
        ):
            plan.left_out[check.name] = "its bound is the moment of the check"
            return
    for part in parts:
        if isinstance(part, Measured) and (why := _cannot_measure(plan, part)):
            plan.left_out[check.name] = why
            return
    if not parts:
        return
    plan.checks[check.name], plan.parts[check.name] = check, parts
    if proven:
        return
    if isinstance(check, Unique):
        key = [plan.columns.get(column) for column in check.columns]
        known = [column for column in key if column is not None and column.kind in ("int", "moment", "text")]
        if len(known) == len(key):
            plan.keys[check.name] = Key(tuple(known), parts[0].conditions)
    elif isinstance(check, Relationship):
        column = plan.columns.get(check.column)
        to = columns(compiler.connection, check.to.relation).get(check.to.column)
        if column and to and _comparable(column, to) and _few(compiler.connection, check.to.relation, to):
            plan.targets[check.name] = column, to, check


def _cannot_measure(plan: Streaming, part: Measured) -> str | None:
    column = plan.columns.get(part.column)
    if part.function == "count distinct":
        return "the server counts different values"
    if part.function == "max":
        return None if column and column.kind == "moment" else "its column is no date or time"
    if column is None or column.kind not in ("int", "decimal"):
        return f"the server alone knows the exact {part.function} of its type"
    return None


def _lay_out(plan: Streaming, compiler: Compiler) -> None:
    """Judge every condition, and find the columns of the stream; nulls by values, where these are streamed anyway."""
    conditions = dict.fromkeys(
        condition for parts in plan.parts.values() for part in parts for condition in part.conditions
    )
    wanted: dict[Field, None] = {}
    for condition in conditions:
        if not isinstance(condition, IsNull):
            plan.judges[condition] = compiler.compiled(condition)
            wanted[plan.judges[condition].field] = None
    for parts in plan.parts.values():
        wanted.update((Value(plan.columns[part.column]), None) for part in parts if isinstance(part, Measured))
    for key in plan.keys.values():
        wanted.update((Value(column), None) for column in key.columns)
    wanted.update((Value(column), None) for column, _, _ in plan.targets.values())
    for condition in conditions:
        if isinstance(condition, IsNull):
            by_value = compiler.null(condition)
            chosen = by_value if by_value is not None and by_value.field in wanted else compiler.compiled(condition)
            plan.judges[condition] = chosen
            wanted[chosen.field] = None
    plan.fields = {field_: index for index, field_ in enumerate(wanted)}


def _pays(plan: Streaming, table: Table) -> bool:
    parts = {part for parts in plan.parts.values() for part in parts}
    regexes = len({c for part in parts for c in part.conditions if isinstance(c, NoMatch)})
    scan = cost.SCAN + cost.AGGREGATE * len(parts) + cost.REGEX * regexes
    scan += cost.UNIQUE * len(plan.keys) + (cost.SCAN + cost.LOOKUP) * len(plan.targets)
    stream = cost.STREAMED_ROW + cost.STREAMED_FIELD * len(plan.fields) + cost.STREAMED_AGGREGATE * len(parts)
    stream += cost.STREAMED_REGEX * regexes + cost.STREAMED_KEY * len(plan.keys)
    stream = stream // (min(SESSIONS, plan.place.ranges) if plan.place else 1)
    if not table.local:
        width = sum(4 + (f.column.width if isinstance(f, Value) else 1) for f in plan.fields)
        stream = max(stream, cost.REMOTE_BYTE * width)
    return table.rows * (scan - stream) > cost.START


def _unstable(compiler: Compiler, where: Where) -> bool:
    """Whether the text holds a word that may be a function, or a literal, of another answer in another session."""
    words = {form for word in re.findall(r"\w+", where.text) for form in (word, word.lower())}
    if words & _UNSTABLE_WORDS:
        return True
    row = compiler.connection.execute(_UNSTABLE, (list(words),)).fetchone()
    return row is None or bool(row[0])


def _comparable(column: Column, to: Column) -> bool:
    if column.kind == "moment":
        return column.type == to.type
    return column.kind == to.kind and column.kind in ("int", "text")


def _few(connection: SnapshotConnection, relation: Relation, to: Column) -> bool:
    row = connection.execute(
        "select coalesce(sum(greatest(s.reltuples, pg_relation_size(s.oid) / 400)), 0) from pg_class s where s.oid in "
        "(select relid from pg_partition_tree(%s::regclass) union all select %s::regclass)",
        (str(relation), str(relation)),
    ).fetchone()
    most = references.MOST_TEXTS if to.kind == "text" else references.MOST_ROWS
    return row is not None and int(row[0]) <= most // 2
