"""Which checks of a table are answered by a stream of its columns, whether that pays, and the stream itself.

A check takes part when all of its counts and measures can: by values that the client judges, or by conditions that the
server evaluates as booleans of the same stream. What cannot: sums and means of floats (their last digits depend on the
order) and of numerics that the client does not hold exactly, and conditions whose functions may give another answer in
another session, such as ``now()`` or ``random()``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from psycopg import sql

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.checks.base import Check, one_row, shortened
from dbplatform.quality.checks.conditions import (
    NOW,
    Condition,
    Count,
    IsNull,
    Measured,
    NoMatch,
    Outside,
    Part,
    Where,
)
from dbplatform.quality.checks.keys import Relationship, Unique
from dbplatform.quality.streaming import cost, references
from dbplatform.quality.streaming.batches import Batch, Field, Flag, Value
from dbplatform.quality.streaming.columns import Column, columns
from dbplatform.quality.streaming.compiled import Compiled, Compiler
from dbplatform.quality.streaming.cost import Table
from dbplatform.quality.streaming.references import Known
from dbplatform.quality.streaming.sessions import Session, StreamRefused, read, sessions
from dbplatform.quality.streaming.tally import Key, Reference, Sum, Tally, Total

SESSIONS = 2
_UNITS = 16
_LEAST_BLOCKS = 64

_UNSTABLE = """
    select exists (select from pg_proc where provolatile <> 'i' and proname = any(%s))
"""
_UNSTABLE_WORDS = {
    "now", "today", "tomorrow", "yesterday", "allballs", "current_date", "current_time", "current_timestamp",
    "localtime", "localtimestamp", "current_user", "session_user", "user", "current_role", "current_schema",
    "current_catalog", "select", "system_user",
}  # fmt: skip


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
    blocks: int = 0
    ranges: int = 1
    refused: str | None = None
    """Why there is none."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Checks that cannot take part, and why."""

    def asked_of_server(self, check: str) -> list[str]:
        """The conditions of a check that the server evaluates in the stream, but nulls, in words."""
        conditions = {condition for part in self.parts[check] for condition in part.conditions}
        flags = (c for c in conditions if not isinstance(c, IsNull) and isinstance(self.judges[c].field, Flag))
        return sorted(shortened(c.sql(self.relation).as_string()) for c in flags)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a stream has found, by the name of the check: the values of its parts, and what it asks on its own."""

    rows: int
    parts: dict[str, list[Any]]
    own: dict[str, tuple[int]]


NOTHING = Answers(0, {}, {})


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
    plan = Streaming(table.relation, blocks=table.blocks)
    if connection.info.server_version >= 140000 and not table.secured:  # else each range would read the whole table
        plan.ranges = max(1, min(_UNITS, table.blocks // (1 if always else _LEAST_BLOCKS)))
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


def streamed(connection: SnapshotConnection, plan: Streaming, *, tell: Callable[[], None]) -> Total:
    """Stream the table once and count. Raises ``StreamRefused``; must not be called inside a savepoint."""
    tallies: list[Tally] = []
    try:
        with sessions(connection, min(SESSIONS, plan.ranges)) as opened:
            known = _known(opened[0], plan)
            tallies += [_tally(plan, known) for _ in opened]

            def take(number: int, batch: pa.RecordBatch) -> None:
                tallies[number].take(Batch(batch, plan.fields, tallies[number].memory))

            read(opened, _queries(plan), take, tell=tell)
        return Total.of(tallies)
    except (OSError, pa.ArrowException) as error:  # OSError: no room for the keys
        raise StreamRefused(str(error)) from error
    finally:
        for tally in tallies:
            tally.close()


def answers(connection: SnapshotConnection, plan: Streaming, total: Total) -> Answers:
    """What was counted, as the server would give it; divisions and ages are the server's own."""
    return Answers(
        rows=total.rows,
        parts={name: [_value(connection, plan, part, total) for part in parts] for name, parts in plan.parts.items()},
        own=_own(plan, total),
    )


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
    stream = stream // min(SESSIONS, plan.ranges)
    if not table.local:
        width = sum(4 + (f.column.width if isinstance(f, Value) else 1) for f in plan.fields)
        stream = max(stream, cost.REMOTE_BYTE * width)
    return table.rows * (scan - stream) > cost.START


def _queries(plan: Streaming) -> list[sql.Composable]:
    """A query for each range of blocks; the last has no end."""
    selected: list[sql.Composable] = []
    for field_ in plan.fields:
        if isinstance(field_, Value):
            selected.append(field_.column.sql(plan.relation))
        else:
            selected.append(sql.SQL("coalesce({}, false)").format(field_.condition.sql(plan.relation)))
    what = sql.SQL(", ").join(
        sql.SQL("{} as {}").format(value, sql.Identifier(f"c{index}")) for index, value in enumerate(selected)
    )
    whole = sql.SQL("select {} from {}").format(what or sql.SQL("true as c0"), plan.relation.identifier)
    if plan.ranges == 1:
        return [whole]
    edges = [plan.blocks * number // plan.ranges for number in range(plan.ranges)]
    place = sql.Identifier(plan.relation.name, "ctid")
    queries: list[sql.Composable] = []
    for number, low in enumerate(edges):
        condition = sql.SQL("{} >= {}::tid").format(place, sql.Literal(f"({low},0)"))
        if number + 1 < len(edges):
            above = sql.Literal(f"({edges[number + 1]},0)")
            condition = sql.SQL("{} and {} < {}::tid").format(condition, place, above)
        queries.append(sql.SQL("{} where {}").format(whole, condition))
    return queries


def _tally(plan: Streaming, known: dict[str, Reference]) -> Tally:
    parts = list(dict.fromkeys(part for parts in plan.parts.values() for part in parts))
    keys = list(dict.fromkeys(plan.keys.values()))
    return Tally(plan.judges, parts, keys, list(known.values()), plan.columns)


def _known(session: Session, plan: Streaming) -> dict[str, Reference]:
    """The referenced values of each relationship, unless they are more than expected."""
    found = {}
    for name, (column, to, check) in plan.targets.items():
        arrays, rows, size = [], 0, 0
        query = sql.SQL("select {} from {}").format(to.sql(check.to.relation), check.to.relation.identifier)
        for batch in session.batches(query):
            arrays.append(batch.column(0))
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows > references.MOST_ROWS or size > references.MOST_ROWS * 8:
                raise StreamRefused(f"{check.to.relation.words} has more rows than its statistics say")
        known = Known(column, to, arrays)
        found[name] = Reference(name, known, plan.parts[name][0].conditions)
    return found


def _own(plan: Streaming, total: Total) -> dict[str, tuple[int]]:
    """The rows that repeat, or have no counterpart; none of a key whose hashes repeat: the server is asked."""
    own = {name: (number,) for name, number in total.missing.items()}
    for name, key in plan.keys.items():
        if key.exact or total.repeats[key] == 0:
            own[name] = (total.repeats[key],)
    return own


def _value(connection: SnapshotConnection, plan: Streaming, part: Part, total: Total) -> Any:
    """The answer as the server gives it, of the same type."""
    if isinstance(part, Count):
        return total.counts[part]
    found, column = total.sums[part], plan.columns[part.column]
    if part.function == "max":
        return one_row(connection, sql.SQL("select {}").format(part.shown(_moment(column, found))))[0]
    if found.nan:
        return Decimal("NaN")
    if not found.count:
        return None
    total_ = Decimal(found.total).scaleb(-column.scale)
    if part.function == "sum":
        return found.total if column.type in ("int2", "int4") else total_
    # PostgreSQL's own division: the mean is the exact sum over the number, in numeric.
    mean = sql.SQL("select {}::numeric / {}::numeric").format(sql.Literal(f"{total_:f}"), sql.Literal(str(found.count)))
    return one_row(connection, mean)[0]


def _moment(column: Column, found: Sum) -> sql.Composable:
    text = None
    if found.greatest is not None:
        try:
            if column.type == "date":
                text = (date(2000, 1, 1) + timedelta(days=found.greatest)).isoformat()
            else:
                text = (datetime(2000, 1, 1) + timedelta(microseconds=found.greatest)).isoformat(" ")  # noqa: DTZ001
        except OverflowError as error:
            raise StreamRefused("the newest moment is beyond the calendar of the client") from error
        if column.type == "timestamptz":
            text += "+00"
    return sql.SQL("{}::{}").format(sql.Literal(text), sql.Identifier(column.type))


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
