"""Walks through the phases of a conversion; each phase commits with its mark.

Killed anywhere and called again, it goes on where it was. ``progress`` tells of each phase (``convert <table>``) and of
each statement of the swap (``swap <table>``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from dbplatform import progress
from dbplatform.partitioning.apply import LOCK, apply_partitions
from dbplatform.partitioning.conversion.forward import (
    analyze_steps,
    check_steps,
    guards,
    reference_steps,
    swap_steps,
    validate_steps,
    wide_columns,
)
from dbplatform.partitioning.conversion.marks import Mark, begin, ensure_marks, move
from dbplatform.partitioning.conversion.patience import Changed, Patience
from dbplatform.partitioning.conversion.plan import (
    PHASES,
    ConversionPlan,
    check_again,
    just_before,
    plan_conversion,
    point_of,
)
from dbplatform.partitioning.conversion.shape import read_shape
from dbplatform.partitioning.conversion.steps import Step
from dbplatform.partitioning.conversion.work import (
    build_index,
    named,
    relations_of,
    require_nothing_left,
    shape_of,
)
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import advisory_lock

#: A hard lock is waited for so long at most; everybody behind it waits as long.
LOCK_TIMEOUT_MS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionReport:
    """What was done: ``state`` is converted or plain."""

    table: Relation
    legacy: Relation
    bound: str
    state: str
    phases: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The document of ``partition convert --json`` behind the work."""
        return {
            "table": str(self.table),
            "legacy": str(self.legacy),
            "bound": self.bound,
            "state": self.state,
            "phases": [{"phase": name, "done": True, "statements": []} for name in self.phases],
            "notes": list(self.notes),
        }


def convert(
    connection: AutocommitConnection,
    policy: PartitionPolicy,
    *,
    now: datetime,
    lock_timeout_ms: int = LOCK_TIMEOUT_MS,
    sleep: Callable[[float], None] = time.sleep,
) -> ConversionReport:
    """Make the table of the policy a partitioned one, or go on with that; nothing happens where it is done.

    ACCESS EXCLUSIVE twice, for the CHECK and for the swap, asked for in waits of at most ``lock_timeout_ms``; all long
    work reads beside writers. Raises what ``plan_conversion`` raises, ``LockNotAcquired`` and ``ConversionFailed``;
    what is done then stays, and the next call goes on.
    """
    with advisory_lock(connection, LOCK, sleep=sleep):
        plan = plan_conversion(connection, policy, now=now)
        ensure_marks(connection)
        walk = _Forward(plan, Patience(connection=connection, lock_timeout_ms=lock_timeout_ms, sleep=sleep), now)
        task = f"convert {plan.table.words}"
        done = []
        for number, phase in enumerate(plan.phases):
            progress.report(task, done=number, total=len(PHASES), unit="phases")
            if not phase.done:
                with named(connection, phase.name, plan.table):
                    walk.run(phase.name)
                done.append(phase.name)
        progress.report(task, done=len(PHASES), total=len(PHASES), unit="phases")
    return ConversionReport(
        table=plan.table,
        legacy=plan.names.legacy,
        bound=plan.bound,
        state="converted",
        phases=tuple(done),
        notes=plan.notes,
    )


class _Forward:
    def __init__(self, plan: ConversionPlan, patience: Patience, now: datetime) -> None:
        self.plan, self.names, self.policy = plan, plan.names, plan.policy
        self.patience, self.connection, self.now = patience, patience.connection, now

    def run(self, phase: str) -> None:
        {
            "check": self._check,
            "validate": self._validate,
            "index": self._index,
            "swap": self._swap,
            "references": self._references,
            "partitions": self._partitions,
            "analyze": self._analyze,
        }[phase]()

    def _check(self) -> None:
        first, *rest = check_steps(self.names, self.policy.column, self.plan.bound)
        mark = Mark(
            plain_oid=self.plan.oid,
            column=self.policy.column,
            bound=self.plan.bound,
            key=self.names.key,
            key_columns=self.plan.key_columns,
            phase="check",
        )

        def work() -> None:
            self.patience.execute([first])
            self.patience.hard()
            self.patience.execute(rest)
            begin(self.connection, self.plan.table, mark)

        self.patience.run(str(self.plan.table), work)

    def _validate(self) -> None:
        self._marked("validate", list(validate_steps(self.names)))

    def _index(self) -> None:
        if self.names.extends_key:
            shape = shape_of(self.connection, self.policy.table, self.policy.column)
            columns = wide_columns(shape, self.policy.column)
            build_index(self.connection, self.policy.table, shape.oid, self.names.wide_key, columns)
        move(self.connection, self.plan.table, "index")

    def _swap(self) -> None:
        table = self.plan.table
        seen = shape_of(self.connection, table, self.policy.column)

        def work() -> None:
            nonlocal seen
            self.patience.execute(guards(seen))
            shape, seen_before = read_shape(self.connection, table, self.policy.column), seen
            seen = shape
            if shape != seen_before:
                raise Changed
            check_again(self.connection, self.policy, shape, self.names)
            self.patience.hard()
            steps = swap_steps(shape, self.names, self.policy.column, self.plan.bound)
            self.patience.execute(steps, task=f"swap {table.words}")
            require_nothing_left(self.connection, shape.oid)
            move(self.connection, table, "swap")

        self.patience.run(relations_of(seen), work)

    def _references(self) -> None:
        shape = shape_of(self.connection, self.plan.table, self.policy.column)
        for step in reference_steps(shape):
            self.patience.run(relations_of(shape), partial(self.patience.execute, [step]))
        move(self.connection, self.plan.table, "references")

    def _partitions(self) -> None:
        # From the end of the plain table on, as many as are declared to be kept ready.
        bound, now = point_of(self.plan.bound, self.policy), self.now
        policy = self.policy.model_copy(update={"start": "auto"})
        if isinstance(bound, datetime):
            now = max(now, just_before(bound))
        else:
            # The plain table covers as many above the greatest number.
            policy = policy.model_copy(update={"premake": 2 * policy.premake})
        apply_partitions(self.connection, [policy], now=now, sleep=self.patience.sleep)
        move(self.connection, self.plan.table, "partitions")

    def _analyze(self) -> None:
        self._marked("analyze", list(analyze_steps(self.names)))

    def _marked(self, phase: str, steps: list[Step]) -> None:
        def work() -> None:
            self.patience.execute(steps)
            move(self.connection, self.plan.table, phase)

        self.patience.run(str(self.plan.table), work)
