"""Doing what is due, one item after the other: looked at again right before its turn, bounded in its waits, measured
before and after.

No transaction is held between items or while it pauses. A run that was killed leaves at most an invalid index of a
REINDEX CONCURRENTLY, or the trigger and tables of a pg_repack: the next run finds and removes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import psycopg
from psycopg.errors import Diagnostic

from dbplatform import progress
from dbplatform.errors import LockNotAcquired
from dbplatform.maintenance import queries
from dbplatform.maintenance.analyze import analyze_facts
from dbplatform.maintenance.catalog import Catalog, Table, oids_of, read_catalog
from dbplatform.maintenance.errors import QueryRefused
from dbplatform.maintenance.guard import Guard, guarded, waits_beyond
from dbplatform.maintenance.model import Item, Kind, NotPossible, Outcome, Plan, QueryTime, Report
from dbplatform.maintenance.pace import Pace, unseen
from dbplatform.maintenance.plan import plan_maintenance
from dbplatform.maintenance.policy import MaintenancePolicy
from dbplatform.maintenance.reindex import index_facts, remains, worked_on
from dbplatform.maintenance.repack import APPLICATION, clean, find_repacker, repack, table_facts
from dbplatform.maintenance.settings import autovacuum_facts, statistics_facts
from dbplatform.maintenance.vacuum import held_back, vacuum_facts
from dbplatform.postgres.catalog import TableMissing
from dbplatform.postgres.client_programs import ProgramFailed
from dbplatform.postgres.connection import AutocommitConnection, Target, watched
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.patience import Pauses, tried

#: How often a lock that readers and writers do not feel is asked for.
_PAUSES = Pauses(tries=5, first_s=0.5)
#: What is concurrent waits for open transactions, and hinders nobody meanwhile; it begins anew when it has failed.
_CONCURRENT_WAIT_MS = 600_000
_CONCURRENT_PAUSES = Pauses(tries=2, first_s=2.0)
#: What the first round has analyzed may show bloat that could not be estimated before.
_ROUNDS = 2
_LOCKED = "55P03"
_REPACKING = """
    select coalesce(array_agg(pid), '{}') from pg_stat_activity
    where application_name = %s and datname = current_database()
"""


class _GaveWay(Exception):
    """Others had waited for it, or held a lock that it does not wait for."""


class _Unguarded(Exception):
    """The session that looks on was lost, and it was ended."""


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of maintenance. ``watcher`` is a second session, which looks at the server while the first one works."""

    connection: AutocommitConnection
    watcher: AutocommitConnection
    target: Target
    policy: MaintenancePolicy
    database: str
    kinds: Collection[Kind]
    pace: Pace
    keep: Callable[[Outcome], None]
    """Told of each outcome as soon as it is known."""
    changing: Callable[[Item], None] = lambda _: None
    """Told of a setting, and its undo, right before it is changed."""
    table: Relation | None = None
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def _lock_timeout_ms(self) -> int:
        return self.policy.limits.lock_timeout.milliseconds

    def to_the_end(self) -> Report:
        """Do all that is due, or what window, budget and limits allow. Can be run twice, and killed anywhere.

        Raises ``OnStandby``, ``TableMissing`` and ``QueryRefused``; what is refused for one item is told of that item.
        """
        started_at, started = self.pace.now(), self.pace.clock()
        self._patient()
        self._set(statement_timeout="0", vacuum_cost_delay=str(self.policy.limits.vacuum_cost_delay_ms))
        with watched(self.connection):
            before, not_possible = self._rounds()
            return Report(
                database=self.database,
                started_at=started_at,
                seconds=self.pace.clock() - started,
                outcomes=tuple(self.outcomes),
                not_possible=not_possible,
                queries=self._compared(before),
                stopped=self.pace.stopped,
                paused_s=self.pace.paused_s,
            )

    def _rounds(self) -> tuple[dict[str, float | str], tuple[NotPossible, ...]]:
        """All items; the times of the queries before them, and what cannot be done."""
        plan = self._plan()
        notices = unseen(self.watcher, self.database) if plan.items else ()
        before = queries.times(self.connection, self.policy.queries)
        not_possible: dict[tuple[str, str], NotPossible] = {}
        known: set[tuple[str, str, str]] = set()
        for _ in range(_ROUNDS):
            not_possible = {(one.kind, one.subject): one for one in plan.not_possible}
            new = [item for item in plan.items if item.key not in known]
            known |= {item.key for item in new}
            self._all(new)
            if not new or self.pace.stopped is not None:
                break
            plan = self._plan()
        return before, (*not_possible.values(), *notices)

    def _plan(self) -> Plan:
        return plan_maintenance(
            self.connection,
            self.target,
            self.policy,
            database=self.database,
            kinds=self.kinds,
            table=self.table,
            may_count=self._begins,
        )

    def _begins(self) -> bool:
        """Whether work may begin, and the reading of what is counted: both are felt by others."""
        return self.pace.stopped is None and self.pace.begins(self.watcher)

    def _all(self, items: Collection[Item]) -> None:
        for number, item in enumerate(items):
            progress.report("maintenance", done=number, total=len(items), unit="items")
            self._note(self._one(item))
        progress.report("maintenance", done=len(items), total=len(items), unit="items")

    def _note(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.keep(outcome)

    def _one(self, item: Item) -> Outcome:
        if item.verb == "set" and self.policy.settings == "propose":
            return Outcome(item=item, state="proposed", words="write it as a migration, or declare settings: apply")
        if not self._begins():
            return Outcome(item=item, state="left", words=self.pace.stopped or "")
        started = self.pace.clock()
        try:
            fresh = self._again(item)
            if fresh is None:
                return Outcome(item=item, state="not needed", words="it is no longer due")
            if isinstance(fresh, NotPossible):
                return Outcome(item=item, state="left", words=f"not possible now: {fresh.reason}")
            self.pace.spent_bytes += fresh.bytes
            item = fresh
            if item.verb == "set":
                self.changing(item)
            words = tried(
                lambda: self._once(item),
                relations=str(item.subject),
                waited_ms=self._lock_timeout_ms,
                sleep=self.pace.sleep,
                pauses=_CONCURRENT_PAUSES if item.kind in ("reindex", "repack") else _PAUSES,
                again_on=(_GaveWay,),
            )
            self._remove_remains(item)  # of a try before, which could not be removed then
            after, held = self._after(item), self._held(item)
        except (LockNotAcquired, psycopg.errors.LockNotAvailable) as error:
            way = isinstance(error.__cause__, _GaveWay)
            words = str(error.__cause__) if way else f"a lock on {item.subject} was not to be had"
            return self._unfinished(item, words, self.pace.clock() - started)
        except _Unguarded:
            words = "the session that looks on was lost, and it was ended"
            return self._unfinished(item, words, self.pace.clock() - started)
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedObject, TableMissing):
            return Outcome(item=item, state="not needed", words="it is no longer there")
        except psycopg.Error as error:
            if error.sqlstate is None or self.connection.closed:
                raise
            words = (error.diag.message_primary or str(error)).rstrip(".")
            return Outcome(item=item, state="failed", words=words, seconds=self.pace.clock() - started)
        except ProgramFailed as error:
            return Outcome(item=item, state="failed", words=str(error), seconds=self.pace.clock() - started)
        seconds = self.pace.clock() - started
        if held is not None:
            return Outcome(item=item, state="left", words=held, after=after, seconds=seconds)
        return Outcome(item=item, state="done", words=words, after=after, seconds=seconds)

    def _unfinished(self, item: Item, words: str, seconds: float) -> Outcome:
        """It is left; but targets of statistics may be set by now, and only their ANALYZE is missing."""
        after = self._after(item) if item.kind == "statistics" else {}
        if not after.get("targets") or after["targets"] == item.evidence["targets"]:
            return Outcome(item=item, state="left", words=words, seconds=seconds)
        words = f"set, and {words}: still to come is {item.statements[-1]}"
        return Outcome(item=item, state="done", words=words, after=after, seconds=seconds)

    def _again(self, item: Item) -> Item | NotPossible | None:
        """The same work, found again now, or why it cannot be done."""
        try:
            found = plan_maintenance(
                self.connection,
                self.target,
                self.policy,
                database=self.database,
                kinds={item.kind},
                table=item.table,
                index=item.subject if item.kind == "reindex" else None,
            )
        except TableMissing:
            return None
        same = (one for one in found.items if one.key == item.key)
        kept = (one for one in found.not_possible if (one.kind, one.subject) == (item.kind, str(item.subject)))
        return next(chain[Item | NotPossible](same, kept), None)

    def _once(self, item: Item) -> str:
        """Do it once; what PostgreSQL said of it in words. Raises ``_GaveWay`` where others come first."""
        if item.verb == "repack":
            return self._repack(item)
        concurrent = item.kind == "reindex"
        if concurrent and worked_on(self.connection, item):
            raise _GaveWay("another session builds an index on its table, or vacuums it")
        waits = min(_CONCURRENT_WAIT_MS, max(round(self.pace.remaining_s * 1000), self._lock_timeout_ms))
        self._set(lock_timeout=str(waits if concurrent else self._lock_timeout_ms))
        said: list[tuple[str | None, str | None, str]] = []

        def hear(one: Diagnostic) -> None:
            said.append((one.severity_nonlocalized, one.sqlstate, one.message_primary or ""))

        self.connection.add_notice_handler(hear)
        guard = Guard()
        try:
            with guarded(self.watcher, self.connection, limit_ms=self._lock_timeout_ms) as guard:
                if item.verb == "clean":
                    self._clean(self._table(item))
                else:
                    for statement in item.statements:
                        self.connection.execute(statement.encode())
        except psycopg.errors.QueryCanceled as error:
            self._remove_remains(item)
            if guard.gave_way:
                raise _GaveWay("others waited for it, and it gave way each time") from error
            if guard.lost:
                raise _Unguarded from error
            raise
        except psycopg.Error:
            self._remove_remains(item)
            raise
        finally:
            self.connection.remove_notice_handler(hear)
            self._patient()
        if any(state == _LOCKED for _, state, _ in said):
            raise _GaveWay("another session holds a lock on it")
        return "; ".join(words for severity, _, words in said if severity == "WARNING")

    def _repack(self, item: Item) -> str:
        def poll() -> None:
            if waits_beyond(self.watcher, self._repacking, limit_ms=2 * self._lock_timeout_ms):
                raise _GaveWay("others waited for pg_repack, and it gave way each time")

        table = self._table(item)
        repacker = find_repacker(self._catalog(item), self.target, self.policy)
        try:
            swapped = repack(self.connection, repacker, table, poll)
        except BaseException:
            if not self.connection.closed:
                self._remove_remains(item)
            raise
        if not swapped:
            raise _GaveWay("pg_repack did not get its lock")
        return ""

    def _repacking(self) -> list[int]:
        row = self.watcher.execute(_REPACKING, (APPLICATION,)).fetchone()
        assert row is not None
        return list(row[0])

    def _remove_remains(self, item: Item) -> None:
        """What a failed try of it has left; where that is in the way of others, the next run removes it."""
        if self.connection.closed or item.verb not in ("reindex", "repack"):
            return
        self._patient()
        catalog = self._catalog(item)
        with suppress(psycopg.errors.LockNotAvailable, psycopg.errors.UndefinedObject):
            table = catalog.tables.get(item.table_oid)
            if item.verb == "repack" and table is not None and table.repack_remains:
                self._clean(table)
            elif item.verb == "reindex":
                for one in remains(catalog):
                    self.connection.execute(one.statements[0].encode())

    def _clean(self, table: Table) -> None:
        """Remove what a pg_repack left, unless one is at work on the table: its trigger is no remains."""
        if not table.repacking:
            clean(self.connection, table)

    def _patient(self) -> None:
        """Wait for locks as long as is declared, from here on."""
        if not self.connection.closed:
            self._set(lock_timeout=str(self._lock_timeout_ms))

    def _catalog(self, item: Item) -> Catalog:
        return read_catalog(
            self.connection,
            database=self.database,
            min_bytes=0,
            only=oids_of(self.connection, item.table),
        )

    def _table(self, item: Item) -> Table:
        table = self._catalog(item).tables.get(item.table_oid)
        if table is None:
            raise TableMissing(table=item.table, database=self.database)
        return table

    def _after(self, item: Item) -> dict[str, Any]:
        """The facts of its evidence, read again."""
        catalog = self._catalog(item)
        if item.kind == "reindex":
            index = catalog.indexes.get(item.subject_oid) or next(
                (one for one in catalog.indexes.values() if one.relation == item.subject), None
            )
            return index_facts(self.connection, catalog, index) if index is not None else {"there": False}
        table = catalog.tables.get(item.table_oid)
        if table is None:
            return {"there": False}
        if item.kind == "analyze":
            return analyze_facts(catalog, table)
        if item.kind == "vacuum":
            return vacuum_facts(table)
        if item.kind == "repack":
            return table_facts(self.connection, catalog, table)
        return autovacuum_facts(table) if item.kind == "autovacuum" else statistics_facts(self.connection, table)

    def _held(self, item: Item) -> str | None:
        """What keeps a vacuum from its aim, looked at behind it; none: it is reached, or nothing is to be seen."""
        again = self._again(item) if item.kind == "vacuum" else None
        if not isinstance(again, Item) or again.statements != item.statements:
            return None
        holder = held_back(self.connection)
        if "FREEZE" not in item.statements[0]:
            return f"its dead rows are kept for {holder}" if holder is not None else None
        return f"its old rows could not be frozen, they are kept for {holder or 'somebody who is not to be seen'}"

    def _compared(self, before: dict[str, float | str]) -> tuple[QueryTime, ...]:
        changed = any(one.state == "done" for one in self.outcomes)
        try:
            after = queries.times(self.connection, self.policy.queries) if changed else {}
        except QueryRefused as error:
            after = {error.fields["name"]: error.fields["reason"]}
        return queries.compared(before, after)

    def _set(self, **settings: str) -> None:
        for name, value in settings.items():
            self.connection.execute("select set_config(%s, %s, false)", (name, value))


def new_pace(
    policy: MaintenancePolicy,
    *,
    resting: Callable[[], AbstractContextManager[None]] = nullcontext,
    in_window: bool = True,
    spent: tuple[float, int] = (0.0, 0),
) -> Pace:
    """The pace of a run that begins now; seconds and bytes of its budget may be ``spent`` already."""
    seconds, size = spent
    return Pace(
        policy=policy,
        sleep=time.sleep,
        clock=time.monotonic,
        now=lambda: datetime.now(UTC),
        started=time.monotonic() - seconds,
        resting=resting,
        in_window=in_window,
        spent_bytes=size,
    )
