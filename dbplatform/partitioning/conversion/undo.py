"""Takes a conversion back, from whatever phase it has reached: a plain table with every row, those written since, too.

Killed anywhere and called again, it goes on where it was. ``progress`` tells of each phase (``undo <table>``) and of
each statement of the swap back (``unswap <table>``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from dbplatform import progress
from dbplatform.partitioning.apply import LOCK
from dbplatform.partitioning.conversion.backward import unswap_steps
from dbplatform.partitioning.conversion.convert import LOCK_TIMEOUT_MS, ConversionReport
from dbplatform.partitioning.conversion.errors import CannotUndo, LegacyGone, NothingToUndo
from dbplatform.partitioning.conversion.forward import drop_check, drop_index, guards, key_index, reference_steps
from dbplatform.partitioning.conversion.marks import Mark, clear, move, read_mark
from dbplatform.partitioning.conversion.names import Names
from dbplatform.partitioning.conversion.patience import Changed, Patience
from dbplatform.partitioning.conversion.plan import PHASES, SWAP, Phase, phases_json, require_same
from dbplatform.partitioning.conversion.refusals import carrying_refusals
from dbplatform.partitioning.conversion.shape import Shape, read_shape
from dbplatform.partitioning.conversion.steps import lock_tables
from dbplatform.partitioning.conversion.work import (
    build_index,
    index_is_there,
    named,
    relations_of,
    require_nothing_left,
    shape_of,
)
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.catalog import require_table
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import advisory_lock

#: The mark of an undo that has made the table plain again, and has foreign keys left to prove.
UNSWAPPED = "unswap"

_IS_PARTITION = "select exists (select from pg_inherits where inhrelid = %s and inhparent = %s)"
_MATCHES = """
    select p.relname, c.relname
    from pg_inherits h
    join pg_index pi on pi.indexrelid = h.inhparent join pg_class p on p.oid = pi.indexrelid
    join pg_index ci on ci.indexrelid = h.inhrelid join pg_class c on c.oid = ci.indexrelid
    where pi.indrelid = %s and ci.indrelid = %s order by 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoPlan:
    """What an undo would do; ``move_rows`` lie outside of the plain table and move back under the hard lock."""

    policy: PartitionPolicy
    mark: Mark
    names: Names
    move_rows: int
    phases: tuple[Phase, ...]

    @property
    def table(self) -> Relation:
        """The table that becomes plain again."""
        return self.policy.table

    def as_json(self, connection: AutocommitConnection) -> dict[str, Any]:
        """The document of ``partition convert --undo --dry-run --json``."""
        return {
            "table": str(self.table),
            "legacy": str(self.names.legacy),
            "bound": self.mark.bound,
            "phases": phases_json(connection, self.phases),
            "notes": [f"Rows of other partitions that move back while the table is locked: {self.move_rows}."]
            if self.move_rows
            else [],
        }


def plan_undo(connection: AutocommitConnection, policy: PartitionPolicy) -> UndoPlan:
    """What is left to take back. Only reads; counts the rows of the other partitions.

    Raises ``TableMissing``, ``NothingToUndo``, ``LegacyGone``, ``TableReplaced`` and ``CannotUndo`` with everything
    that stands in the way.
    """
    table = policy.table
    require_table(connection, table)
    with connection.transaction():
        shape = read_shape(connection, table, policy.column)
        mark = read_mark(connection, table)
        if mark is None:
            raise NothingToUndo(table=str(table), hint="partition convert without --undo begins one.")
        names = Names(table=table, key=mark.key)
        if mark.phase == UNSWAPPED:
            last = Phase(name="references", done=False, steps=tuple(reference_steps(shape)))
            return UndoPlan(policy=policy, mark=mark, names=names, move_rows=0, phases=(last,))
        swapped = PHASES.index(mark.phase) >= SWAP
        require_same(connection, names, shape, mark, swapped=swapped)
        if not swapped:
            return UndoPlan(
                policy=policy, mark=mark, names=names, move_rows=0, phases=_before_the_swap(connection, names, mark)
            )
        legacy = _legacy(connection, shape, names, mark)
        moved = _rows_elsewhere(connection, table, mark)
        phases = _behind_the_swap(connection, shape, legacy, names, mark)
        return UndoPlan(policy=policy, mark=mark, names=names, move_rows=moved, phases=phases)


def undo(
    connection: AutocommitConnection,
    policy: PartitionPolicy,
    *,
    lock_timeout_ms: int = LOCK_TIMEOUT_MS,
    sleep: Callable[[float], None] = time.sleep,
) -> ConversionReport:
    """Make the table plain again, or go on with that.

    Before the swap: the CHECK and the index go. Behind it: a primary key that was extended gets its old columns back by
    an index built concurrently; then one transaction under ACCESS EXCLUSIVE moves the rows of the other partitions
    back, exchanges the names and drops the partitioned table. Raises what ``plan_undo`` raises, ``LockNotAcquired`` and
    ``ConversionFailed``.
    """
    with advisory_lock(connection, LOCK, sleep=sleep):
        plan = plan_undo(connection, policy)
        walk = _Backward(plan, Patience(connection=connection, lock_timeout_ms=lock_timeout_ms, sleep=sleep))
        task = f"undo {plan.table.words}"
        for number, phase in enumerate(plan.phases):
            progress.report(task, done=number, total=len(plan.phases), unit="phases")
            with named(connection, f"undo: {phase.name}", plan.table):
                try:
                    walk.run(phase.name)
                except psycopg.errors.UniqueViolation as error:
                    walk.stay_partitioned()
                    reason = f"{error.diag.message_detail} Rows share a primary key (change or delete one of them)"
                    raise _cannot_undo(plan.table, [reason]) from error
        clear(connection, plan.table)
        progress.report(task, done=len(plan.phases), total=len(plan.phases), unit="phases")
    return ConversionReport(
        table=plan.table,
        legacy=plan.names.legacy,
        bound=plan.mark.bound,
        state="plain",
        phases=tuple(phase.name for phase in plan.phases),
    )


class _Backward:
    def __init__(self, plan: UndoPlan, patience: Patience) -> None:
        self.plan, self.names, self.table = plan, plan.names, plan.table
        self.patience, self.connection = patience, patience.connection

    def run(self, phase: str) -> None:
        {
            "check": self._check,
            "drop index": self._drop_index,
            "index": self._index,
            "unswap": self._unswap,
            "references": self._references,
        }[phase]()

    def _shape(self) -> Shape:
        return shape_of(self.connection, self.table, self.plan.policy.column)

    def _drop_index(self) -> None:
        move(self.connection, self.table, self.plan.mark.phase, undoing=True)
        oid = self.plan.mark.plain_oid
        if index_is_there(self.connection, self.table, oid, self.names.wide_key) is not None:
            self.connection.execute(drop_index(self.table, self.names.wide_key).statement)

    def _check(self) -> None:
        def work() -> None:
            self.patience.execute(lock_tables([self.table], "share update exclusive"))
            self.patience.hard()
            self.patience.execute([drop_check(self.table, self.names)])
            clear(self.connection, self.table)

        self.patience.run(str(self.table), work)

    def _index(self) -> None:
        mark = self.plan.mark
        move(self.connection, self.table, mark.phase, undoing=True)
        if self.names.extends_key:
            build_index(self.connection, self.names.legacy, mark.plain_oid, self.names.plain_key, mark.key_columns)

    def _unswap(self) -> None:
        seen = self._shape()

        def work() -> None:
            nonlocal seen
            self.patience.execute(guards(seen))
            shape, seen_before = read_shape(self.connection, self.table, self.plan.policy.column), seen
            seen = shape
            if shape != seen_before:
                raise Changed
            legacy = _legacy(self.connection, shape, self.names, self.plan.mark)
            matches = _matches(self.connection, shape, legacy)
            self.patience.unhurried()
            steps = unswap_steps(shape, legacy, self.names, matches)
            self.patience.execute(steps, task=f"unswap {self.table.words}")
            require_nothing_left(self.connection, shape.oid)
            move(self.connection, self.table, UNSWAPPED, undoing=True)

        self.patience.run(relations_of(seen), work)

    def stay_partitioned(self) -> None:
        """The table is partitioned as before, and may stay so."""
        if (
            index_is_there(self.connection, self.names.legacy, self.plan.mark.plain_oid, self.names.plain_key)
            is not None
        ):
            self.connection.execute(drop_index(self.names.legacy, self.names.plain_key).statement)
        move(self.connection, self.table, self.plan.mark.phase)

    def _references(self) -> None:
        shape = self._shape()
        for step in reference_steps(shape):
            self.connection.execute(step.statement)


def _before_the_swap(connection: AnyConnection, names: Names, mark: Mark) -> tuple[Phase, ...]:
    drop = []
    if names.extends_key and index_is_there(connection, names.table, mark.plain_oid, names.wide_key) is not None:
        drop.append(drop_index(names.table, names.wide_key))
    check = [*lock_tables([names.table], "share update exclusive"), drop_check(names.table, names)]
    return (
        Phase(name="drop index", done=False, steps=tuple(drop)),
        Phase(name="check", done=False, steps=tuple(check)),
    )


def _behind_the_swap(
    connection: AnyConnection, shape: Shape, legacy: Shape, names: Names, mark: Mark
) -> tuple[Phase, ...]:
    index = [key_index(names.legacy, names.plain_key, mark.key_columns)] if names.extends_key else []
    steps = (*guards(shape), *unswap_steps(shape, legacy, names, _matches(connection, shape, legacy)))
    return (
        Phase(name="index", done=False, steps=tuple(index)),
        Phase(name="unswap", done=False, steps=steps),
        Phase(name="references", done=False, steps=tuple(reference_steps(shape, all_of_them=True))),
    )


def _legacy(connection: AnyConnection, shape: Shape, names: Names, mark: Mark) -> Shape:
    row = connection.execute(_IS_PARTITION, (mark.plain_oid, shape.oid)).fetchone()
    if row is None or not row[0]:
        raise LegacyGone(legacy=str(names.legacy), table=str(names.table), hint="Attach it again, then undo.")
    found = carrying_refusals(connection, shape)
    if found:
        raise _cannot_undo(names.table, found)
    return read_shape(connection, names.legacy, mark.column)


def _matches(connection: AnyConnection, shape: Shape, legacy: Shape) -> dict[str, str]:
    return dict(connection.execute(_MATCHES, (shape.oid, legacy.oid)).fetchall())


def _rows_elsewhere(connection: AnyConnection, table: Relation, mark: Mark) -> int:
    statement = sql.SQL("select count(*) from {} where {} >= {}").format(
        table.identifier, sql.Identifier(mark.column), sql.Literal(mark.bound)
    )
    row = connection.execute(statement).fetchone()
    assert row is not None
    return int(row[0])


def _cannot_undo(table: Relation, found: Iterable[str]) -> CannotUndo:
    return CannotUndo(table=str(table), reasons="; ".join(found) + ".", hint="Then undo again.")
