"""The stream: the planned columns of a table, or of some of its partitions, read once, judged, and counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from psycopg import sql

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.quality.checks.base import one_row
from dbplatform.quality.checks.conditions import Count, Part
from dbplatform.quality.streaming import references
from dbplatform.quality.streaming.batches import Batch, Memory, Value
from dbplatform.quality.streaming.columns import Column
from dbplatform.quality.streaming.plan import SESSIONS, Place, Streaming
from dbplatform.quality.streaming.references import Known
from dbplatform.quality.streaming.sessions import Session, StreamRefused, read, sessions
from dbplatform.quality.streaming.tally import Reference, Sum, Tally, Total


@dataclass(frozen=True, slots=True)
class Answers:
    """What a stream has found, by the name of the check: the values of its parts, and what it asks on its own."""

    rows: int
    parts: dict[str, list[Any]]
    own: dict[str, tuple[int]]


NOTHING = Answers(0, {}, {})


def streamed(connection: SnapshotConnection, plan: Streaming, *, tell: Callable[[], None]) -> Total:
    """Stream the table once and count. Raises ``StreamRefused``; must not be called inside a savepoint."""
    assert plan.place is not None
    return streamed_each(connection, plan, [plan.place], tell=tell)[0]


def streamed_each(
    connection: SnapshotConnection, plan: Streaming, places: Sequence[Place], *, tell: Callable[[], None]
) -> list[Total]:
    """Stream one place after the other on the same sessions, and count each by itself. Errors as ``streamed``."""
    try:
        with sessions(connection, min(SESSIONS, max(place.ranges for place in places))) as opened:
            known = _known(opened[0], plan)
            memories = [Memory() for _ in opened]
            return [_counted(opened, plan, place, known, memories, tell=tell) for place in places]
    except (OSError, pa.ArrowException, MemoryError) as error:  # OSError: no room for the keys
        raise StreamRefused(str(error) or "there was no memory for it") from error


def _counted(
    opened: Sequence[Session],
    plan: Streaming,
    place: Place,
    known: dict[str, Reference],
    memories: Sequence[Memory],
    *,
    tell: Callable[[], None],
) -> Total:
    tallies: list[Tally] = []
    try:
        tallies += [_tally(plan, known) for _ in opened]

        def take(number: int, batch: pa.RecordBatch) -> None:
            tallies[number].take(Batch(batch, plan.fields, memories[number]))

        read(opened, _queries(plan, place), take, tell=tell)
        return Total.of(tallies)
    finally:
        for tally in tallies:
            tally.close()


def answers(connection: SnapshotConnection, plan: Streaming, total: Total) -> Answers:
    """What was counted, as the server would give it; divisions and ages are the server's own.

    Raises ``psycopg.Error`` and, for what the client cannot write down, ``StreamRefused``.
    """
    return Answers(
        rows=total.rows,
        parts={name: [_value(connection, plan, part, total) for part in parts] for name, parts in plan.parts.items()},
        own=_own(plan, total),
    )


def _queries(plan: Streaming, place: Place) -> list[sql.Composable]:
    """A query for each range of blocks; the last has no end."""
    selected: list[sql.Composable] = []
    for field_ in plan.fields:
        if isinstance(field_, Value):
            selected.append(field_.column.sql(place.relation))
        else:
            selected.append(sql.SQL("coalesce({}, false)").format(field_.condition.sql(place.relation)))
    what = sql.SQL(", ").join(
        sql.SQL("{} as {}").format(value, sql.Identifier(f"c{index}")) for index, value in enumerate(selected)
    )
    whole = sql.SQL("select {} from {}").format(what or sql.SQL("true as c0"), place.relation.identifier)
    if place.ranges == 1:
        return [whole]
    edges = [place.blocks * number // place.ranges for number in range(place.ranges)]
    ctid = sql.Identifier(place.relation.name, "ctid")
    queries: list[sql.Composable] = []
    for number, low in enumerate(edges):
        condition = sql.SQL("{} >= {}::tid").format(ctid, sql.Literal(f"({low},0)"))
        if number + 1 < len(edges):
            above = sql.Literal(f"({edges[number + 1]},0)")
            condition = sql.SQL("{} and {} < {}::tid").format(condition, ctid, above)
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
