"""What a conversion would do: its phases, each statement with its lock, and what to know before. Only reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from itertools import islice
from typing import Any

from psycopg import sql

from dbplatform.partitioning.bounds import FIRST, HIGHEST, LAST, Bounds, Point, cell, cells, following
from dbplatform.partitioning.conversion.errors import (
    AlreadyPartitioned,
    CannotConvert,
    DeclarationChanged,
    TableReplaced,
    UndoUnderWay,
)
from dbplatform.partitioning.conversion.forward import (
    analyze_steps,
    check_steps,
    guards,
    key_index,
    reference_steps,
    swap_steps,
    validate_steps,
    wide_columns,
)
from dbplatform.partitioning.conversion.marks import Mark, read_mark
from dbplatform.partitioning.conversion.names import Names
from dbplatform.partitioning.conversion.refusals import refusals
from dbplatform.partitioning.conversion.shape import Shape, read_shape
from dbplatform.partitioning.conversion.steps import Step, alter
from dbplatform.partitioning.due import head_of
from dbplatform.partitioning.existing import NUMBER_TYPES
from dbplatform.partitioning.held import zone_of
from dbplatform.partitioning.plan import literal, partition_name
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.catalog import require_table
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation, quoted

#: The phases in their order; the mark holds the last one that is done.
PHASES = ("check", "validate", "index", "swap", "references", "partitions", "analyze")
SWAP = PHASES.index("swap")

# A year beyond 9999 and infinity have no datetime: they come as NULL.
_NEWEST = """
    select newest < '9999-01-01', case when isfinite(newest) and newest >= '0001-01-01' and newest < '9999-01-01'
                                       then newest end
    from (select max({}) as newest from {}) as found
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase; one that is done lists no statements."""

    name: str
    done: bool
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionPlan:
    """The conversion of one table. ``bound`` is where the plain table ends as a partition, as text of its column."""

    policy: PartitionPolicy
    mark: Mark | None
    oid: int
    names: Names
    bound: str
    key_columns: tuple[str, ...]
    phases: tuple[Phase, ...]
    notes: tuple[str, ...]

    @property
    def table(self) -> Relation:
        """The table that is converted."""
        return self.policy.table

    @property
    def is_done(self) -> bool:
        """Whether the table is converted already."""
        return all(phase.done for phase in self.phases)

    def as_json(self, connection: AutocommitConnection) -> dict[str, Any]:
        """The document of ``partition convert --json``."""
        return {
            "table": str(self.table),
            "legacy": str(self.names.legacy),
            "bound": self.bound,
            "phases": phases_json(connection, self.phases),
            "notes": list(self.notes),
        }


def phases_json(connection: AutocommitConnection, phases: Iterable[Phase]) -> list[dict[str, Any]]:
    """Phases with their statements."""
    return [
        {
            "phase": phase.name,
            "done": phase.done,
            "statements": [{"sql": step.text(connection), "lock": step.lock} for step in phase.steps],
        }
        for phase in phases
    ]


def plan_conversion(connection: AutocommitConnection, policy: PartitionPolicy, *, now: datetime) -> ConversionPlan:
    """What is left to do. Takes ACCESS SHARE on the table for one ``max()`` of its column.

    Raises ``TableMissing``, ``AlreadyPartitioned``, ``CannotConvert`` with everything that stands in the way,
    ``UndoUnderWay``, ``DeclarationChanged`` and ``TableReplaced``.
    """
    require_table(connection, policy.table)
    with connection.transaction():
        shape = read_shape(connection, policy.table, policy.column)
        mark = read_mark(connection, policy.table)
        if mark is None:
            return _fresh(connection, shape, policy, now)
        return _begun(connection, shape, policy, mark)


def obstacles(connection: AnyConnection, policy: PartitionPolicy) -> list[str]:
    """What stands in the way of a conversion, a sentence each with its way out. Only reads the catalog."""
    shape = read_shape(connection, policy.table, policy.column)
    return refusals(connection, shape, policy, _names_of(shape, policy)[0])


def check_again(connection: AutocommitConnection, policy: PartitionPolicy, shape: Shape, names: Names) -> None:
    """Raise ``CannotConvert`` when something has come in the way since the conversion began."""
    found = refusals(connection, shape, policy, names, begun=True)
    if found:
        raise _cannot_convert(policy.table, found)


def _fresh(connection: AutocommitConnection, shape: Shape, policy: PartitionPolicy, now: datetime) -> ConversionPlan:
    if shape.kind == "p":
        raise AlreadyPartitioned(table=str(policy.table), hint="partition plan shows its partitions.")
    names, columns = _names_of(shape, policy)
    found = refusals(connection, shape, policy, names)
    if found:
        raise _cannot_convert(policy.table, found)
    bound = literal(_bound(connection, shape, policy, now), shape.column_type)
    return _planned(shape, policy, None, names, bound, columns, done=-1)


def _names_of(shape: Shape, policy: PartitionPolicy) -> tuple[Names, tuple[str, ...]]:
    """The names that it gives, and the columns of a primary key that gets one more."""
    key = shape.primary_key
    if key is None or policy.column in key.columns:
        return Names(table=policy.table, key=None), ()
    return Names(table=policy.table, key=key.name), key.columns


def _begun(connection: AutocommitConnection, shape: Shape, policy: PartitionPolicy, mark: Mark) -> ConversionPlan:
    names = Names(table=policy.table, key=mark.key)
    if mark.undoing:
        raise UndoUnderWay(table=str(policy.table), hint="Finish it: partition convert with --undo.")
    if mark.column != policy.column:
        raise DeclarationChanged(
            table=str(policy.table),
            begun=mark.column,
            declared=policy.column,
            hint="Declare that column again, or take the conversion back by --undo.",
        )
    done = PHASES.index(mark.phase)
    require_same(connection, names, shape, mark, swapped=done >= SWAP)
    if done < SWAP:
        check_again(connection, policy, shape, names)
    return _planned(shape, policy, mark, names, mark.bound, mark.key_columns, done=done)


def require_same(connection: AutocommitConnection, names: Names, shape: Shape, mark: Mark, *, swapped: bool) -> None:
    """Raise ``TableReplaced`` unless the plain table is the one whose conversion was begun."""
    oid: int | None = shape.oid
    if swapped:
        row = connection.execute("select to_regclass(%s)::oid::bigint", (str(names.legacy),)).fetchone()
        oid = row[0] if row is not None else None
    if oid != mark.plain_oid:
        raise TableReplaced(
            table=str(names.legacy if swapped else names.table),
            hint="It was dropped or renamed meanwhile. If that was on purpose, delete the row of the table from "
            "dbplatform.partition_conversion.",
        )


def _planned(
    shape: Shape,
    policy: PartitionPolicy,
    mark: Mark | None,
    names: Names,
    bound: str,
    key_columns: tuple[str, ...],
    *,
    done: int,
) -> ConversionPlan:
    table = policy.table
    indexes = [key_index(table, names.wide_key, wide_columns(shape, policy.column))] if names.extends_key else []
    by_phase: dict[str, Callable[[], Iterable[Step]]] = {
        "check": lambda: check_steps(names, policy.column, bound),
        "validate": lambda: validate_steps(names),
        "index": lambda: indexes,
        "swap": lambda: (*guards(shape), *swap_steps(shape, names, policy.column, bound)),
        # Before the swap they are still valid; behind it those are left that are not.
        "references": lambda: reference_steps(shape, all_of_them=done < SWAP),
        "partitions": lambda: _partition_steps(policy, bound, shape.column_type),
        "analyze": lambda: analyze_steps(names),
    }
    phases = tuple(
        Phase(name=name, done=number <= done, steps=() if number <= done else tuple(by_phase[name]()))
        for number, name in enumerate(PHASES)
    )
    return ConversionPlan(
        policy=policy,
        mark=mark,
        oid=shape.oid,
        names=names,
        bound=bound,
        key_columns=key_columns,
        phases=phases,
        notes=tuple(_notes(shape, policy, names, bound)) if done < SWAP else (),
    )


def _bound(connection: AutocommitConnection, shape: Shape, policy: PartitionPolicy, now: datetime) -> Point:
    """``premake`` ranges after the one that covers now, or after the newest row, or the greatest number.

    What the CHECK refuses, the partitioned table would have refused, too, and a conversion that is left half-way
    refuses nothing sooner.
    """
    if shape.column_type in NUMBER_TYPES:
        latest = head_of(connection, policy, shape.column_type, now=now)
    else:
        latest = max(now.astimezone(UTC), _newest(connection, policy))
    zone = zone_of(policy, shape.column_type)
    covering = cell(policy.interval, latest, zone)
    last = following(policy.interval, covering, policy.premake, zone)
    if shape.column_type in NUMBER_TYPES:
        # The ranges that the plain table covers, and those that are made behind it.
        behind = following(policy.interval, last, policy.premake).upper
        if behind > NUMBER_TYPES[shape.column_type][1]:
            raise _cannot_convert(
                policy.table,
                [
                    f"{2 * policy.premake} ranges above {latest} reach beyond the numbers of its type "
                    f"{shape.column_type} (write a smaller interval or premake, or widen the column)"
                ],
            )
    return last.upper


def _newest(connection: AutocommitConnection, policy: PartitionPolicy) -> datetime:
    """The time of the newest row in UTC; ``FIRST`` in an empty table."""
    query = sql.SQL(_NEWEST).format(sql.Identifier(policy.column), policy.table.identifier)
    early, newest = connection.execute(query).fetchone() or (None, None)
    if early is False:
        raise _cannot_convert(
            policy.table,
            [f"it has rows at infinity or after the year 9998 in {quoted(policy.column)} (give them another time)"],
        )
    if newest is None:
        return FIRST
    return _utc(newest if isinstance(newest, datetime) else datetime.combine(newest, time()))


def next_cells(policy: PartitionPolicy, bound: Point, column_type: str) -> list[Bounds]:
    """The ranges behind the plain table that get partitions at once."""
    behind = Bounds(bound, HIGHEST if isinstance(bound, int) else LAST)
    return list(islice(cells(policy.interval, behind, zone_of(policy, column_type)), policy.premake))


def point_of(bound: str, policy: PartitionPolicy) -> Point:
    """A bound as the time or the number that it stands for."""
    return int(bound) if isinstance(policy.interval, int) else _utc(datetime.fromisoformat(bound))


def just_before(bound: datetime) -> datetime:
    """The last moment of the plain table."""
    return bound - timedelta(microseconds=1)


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _partition_steps(policy: PartitionPolicy, bound: str, column_type: str) -> Iterable[Step]:
    table = policy.table
    for one in next_cells(policy, point_of(bound, policy), column_type):
        child = Relation(
            table.schema, partition_name(table.name, policy.interval, one.lower, zone_of(policy, column_type))
        )
        like = sql.SQL("create table {} (like {} including all excluding indexes excluding identity)")
        yield Step(statement=like.format(child.identifier, table.identifier), lock=f"ACCESS SHARE on {table}")
        attach = sql.SQL("attach partition {} for values from ({}) to ({})").format(
            child.identifier,
            sql.Literal(literal(one.lower, column_type)),
            sql.Literal(literal(one.upper, column_type)),
        )
        yield alter(table, attach, lock="SHARE UPDATE EXCLUSIVE")


def _notes(shape: Shape, policy: PartitionPolicy, names: Names, bound: str) -> Iterable[str]:
    column = quoted(policy.column)
    yield f"Rows with {column} from {bound} on are refused from the first phase until their partition is there."
    if names.key is not None and shape.primary_key is not None:
        key = ", ".join(map(quoted, shape.primary_key.columns))
        yield (
            f"The primary key ({key}) becomes ({key}, {column}): the same {key} may then come with another {column}, "
            f"and ON CONFLICT ({key}) finds no constraint."
        )
    if any(trigger.per_row for trigger in shape.triggers):
        yield (
            f"In a row trigger TG_TABLE_NAME is the name of the partition; a BEFORE trigger must not change {column} "
            "so that the row belongs elsewhere."
        )


def _cannot_convert(table: Relation, found: list[str]) -> CannotConvert:
    reasons = "; ".join(found)
    return CannotConvert(
        table=str(table), reasons=f"{reasons}.", hint="Each way out is in brackets; then run it again.", found=found
    )
