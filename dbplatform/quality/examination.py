"""Runs the checks of one table in one snapshot.

What the catalog proves is not read. Of a large table the columns that the checks need are streamed once and judged by
the client, where that costs less; else all aggregates of all checks are computed by one scan, and uniqueness and
references are asked one by one, as queries always are. A check that PostgreSQL cannot plan or run has errored, with
PostgreSQL's message, and does not touch the others: each is planned by itself first, when the stream fails the scan is
asked, and when the scan fails on the data, each check is run by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import sql

from dbplatform import progress
from dbplatform.errors import UsageError
from dbplatform.postgres.catalog import require_table
from dbplatform.postgres.connection import AutocommitConnection, SessionLost, SnapshotConnection, snapshot
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.by_partition import ByPartition
from dbplatform.quality.checks.base import Check, Outcome, Tolerant, one_row
from dbplatform.quality.checks.conditions import Count, Part
from dbplatform.quality.masks import Masks, draw_salt, reason_of
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.proof import proofs
from dbplatform.quality.results import CheckResult, TableResult
from dbplatform.quality.streaming.cost import table_of
from dbplatform.quality.ways import TableWays, Way, way

if TYPE_CHECKING:
    from dbplatform.quality.streaming.plan import Answers, Streaming

CHECKS_PER_SCAN = 400  # PostgreSQL returns at most 1,664 columns; a check has at most 4.

_LIMIT = """
    select set_config('statement_timeout', least(nullif(setting::bigint, 0), %s)::text, true)
    from pg_settings where name = 'statement_timeout'
"""

_T = TypeVar("_T")


class UnknownCheck(UsageError):
    """The table {table} has no check named {name!r}."""


class ChecksInterrupted(SessionLost):
    """The connection was lost while {table} was checked: {reason}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """A table that has been checked, its snapshot still open: its failing rows can be read as they were counted."""

    connection: SnapshotConnection
    relation: Relation
    checks: tuple[Check, ...]
    result: TableResult
    at: datetime
    """The moment of the snapshot, by the server's clock."""
    masks: Masks = field(default_factory=Masks)
    """Those of all tables of the database."""
    key_of: Relation | None = None
    """The table whose key names the rows, where that is another: of a partition, its whole."""
    by_partition: ByPartition | None = None
    """What was found partition by partition, and taken over from an earlier run."""

    @property
    def of_whole_table(self) -> Examination:
        """The same of the checks that were answered over the whole table."""
        if self.by_partition is None:
            return self
        whole = tuple(check for check in self.checks if check.name not in self.by_partition.answered)
        return replace(self, checks=whole)


@dataclass(frozen=True, slots=True)
class Refused:
    """PostgreSQL could not do it; the reason in its words."""

    reason: str
    sqlstate: str | None = None


@contextmanager
def examined(
    connection: AutocommitConnection,
    policy: TablePolicy,
    *,
    only: Collection[str] | None = None,
    statement_timeout_ms: int | None = None,
    stream: bool | None = None,
    masks: Masks | None = None,
    by_partition: ByPartition | None = None,
) -> Iterator[Examination]:
    """Run the checks of a table, or those named in ``only``; the snapshot stays open for the block.

    One read-only REPEATABLE READ transaction; ACCESS SHARE on what is read. Raises ``TableMissing``, ``UnknownCheck``
    and, when the connection breaks, ``ChecksInterrupted``. A statement over ``statement_timeout_ms`` (none: as the
    policy declares; never longer than the session's own) is an error of its check alone. ``stream`` says whether the
    columns are streamed; none: where it pays. ``masks`` are those of the whole database; none: those of this table.
    """
    checks = _chosen(policy, only)
    masks = Masks.declared([policy]) if masks is None else masks
    with snapshot(connection) as moment:
        moment.execute(_LIMIT, (statement_timeout_ms or policy.statement_timeout_ms,))
        require_table(moment, policy.table)
        if masks:
            draw_salt(moment)
        (at,) = one_row(moment, sql.SQL("select now()"))
        result = Run(moment, policy.table, checks, stream, masks, by_partition).result()
        yield Examination(
            connection=moment,
            relation=policy.table,
            checks=checks,
            result=result,
            at=at,
            masks=masks,
            by_partition=by_partition,
        )


def explained(
    connection: AutocommitConnection,
    policy: TablePolicy,
    *,
    only: Collection[str] | None = None,
    stream: bool | None = None,
    by_partition: ByPartition | None = None,
) -> TableWays:
    """How each check of a table would be answered now, and why. Errors as ``examined``.

    Reads the catalog only; where ``by_partition`` must prove that rows are unchanged, their headers, too.
    """
    checks = _chosen(policy, only)
    with snapshot(connection) as moment:
        require_table(moment, policy.table)
        return Run(moment, policy.table, checks, stream, Masks.declared([policy]), by_partition).ways()


def attempt(
    connection: SnapshotConnection, relation: Relation, work: Callable[[], _T], *, masks: bool = False
) -> _T | Refused:
    """The work's answer, or why PostgreSQL refused it; the transaction goes on either way.

    ``masks`` says that PostgreSQL's words may quote a masked value.
    """
    try:
        with connection.transaction():
            return work()
    except psycopg.Error as error:
        # A standby that ends a read to go on with replay: the same read can be done elsewhere, so no check has erred.
        if connection.broken or connection.closed or isinstance(error, psycopg.errors.SerializationFailure):
            # From none: the chain of errors is shown, too.
            raise ChecksInterrupted(
                table=relation.words, reason=reason_of(error, masks=masks).rstrip("."), hint="Run the checks again."
            ) from None
        return Refused(reason_of(error, masks=masks), error.sqlstate)


def _chosen(policy: TablePolicy, only: Collection[str] | None) -> tuple[Check, ...]:
    if only is None:
        return tuple(policy.checks)
    for name in only:
        if policy.check(name) is None:
            known = ", ".join(check.name for check in policy.checks)
            raise UnknownCheck(table=policy.table.words, name=name, hint=f"It has: {known}.")
    return tuple(check for check in policy.checks if check.name in only)


class Run:
    """The checks of one table on their way from declared to judged."""

    def __init__(
        self,
        connection: SnapshotConnection,
        relation: Relation,
        checks: tuple[Check, ...],
        stream: bool | None,
        masks: Masks,
        by_partition: ByPartition | None = None,
    ) -> None:
        self.connection, self.relation, self.checks, self.stream = connection, relation, checks, stream
        self.all_masks, self.masked, self.masks = masks, bool(masks), masks.of(connection, relation)
        self.by_partition = by_partition
        # By the server's clock, as all that is judged by time is: however many hosts check, it is one day.
        self.day: date = one_row(connection, sql.SQL("select (now() at time zone 'UTC')::date"))[0]
        self.outcomes: dict[str, Outcome] = {}
        self.row_count: int | None = None
        self.proofs: dict[str, str] = {}

    def result(self) -> TableResult:
        """Run everything."""
        started = time.monotonic()
        self.tell()
        ready = self._ready()
        found = self.by_partition.answers(self, ready) if self.by_partition else None
        if found is not None:
            self.row_count = found.rows
        rest = [check for check in ready if found is None or check.name not in found.parts]
        values, own = self.answers(rest)
        if found is not None:
            values, own = values | found.parts, own | found.own
        for check in ready:
            if check.name in values:
                self._judge(check, values[check.name], own.get(check.name))
        return TableResult(
            table=str(self.relation),
            row_count=self.row_count,
            checks=tuple(self.result_of(check) for check in self.checks),
            seconds=time.monotonic() - started,
            partitions=self.by_partition.read if self.by_partition else None,
        )

    def answers(self, checks: list[Check]) -> tuple[dict[str, Sequence[Any]], dict[str, Sequence[Any]]]:
        """The answers to the parts of checks that can be planned, and those that a stream gives to what they ask
        on their own; what is missing has errored."""
        streamed = self._streamed(checks)
        values: dict[str, Sequence[Any]] = dict(streamed.parts) if streamed else {}
        values |= self._fused([check for check in checks if check.name not in values])
        return values, dict(streamed.own) if streamed else {}

    def ways(self) -> TableWays:
        """How each check would be answered; runs none."""
        ready = self._ready()
        partitions = self.by_partition.explain(self, ready) if self.by_partition else None
        plan = self._stream_plan(ready)
        return TableWays(
            table=str(self.relation),
            stream=plan if isinstance(plan, str) else None,
            partitions=partitions,
            checks=tuple(
                Way(check=check.name, how="error", why=self.outcomes[check.name].message)
                if check.name in self.outcomes
                else way(check, proof=self.proofs.get(check.name), plan=plan, whole=partitions)
                for check in self.checks
            ),
        )

    def _ready(self) -> list[Check]:
        """The checks that can be planned; finds what the catalog proves of them."""
        ready = [check for check in self.checks if self._can_be_planned(check)]
        self.proofs = proofs(self.connection, self.relation, ready)
        return ready

    def _can_be_planned(self, check: Check) -> bool:
        """Plan each statement by itself, by the protocol that takes one statement only."""
        probes = list(check.probes(self.relation))
        if check.parts:
            probes.append(_select(self.relation, [part.sql(self.relation) for part in check.parts]))

        def plan() -> None:
            for probe in probes:
                self.connection.execute(sql.SQL("explain {}").format(probe), binary=True)

        # What cannot be planned has read no row: PostgreSQL's words quote the declaration.
        answer = attempt(self.connection, self.relation, plan)
        if isinstance(answer, Refused):
            self._errored(check, answer)
        return not isinstance(answer, Refused)

    def _streamed(self, checks: list[Check]) -> Answers | None:
        """What a stream of the table's columns answers, where that pays; none where it fails: then SQL is asked."""
        plan = self._stream_plan(checks)
        if isinstance(plan, str):
            return None
        from dbplatform.quality.streaming.plan import answers, streamed
        from dbplatform.quality.streaming.sessions import StreamRefused

        try:
            total = streamed(self.connection, plan, tell=self.tell)
        except StreamRefused:
            return None
        found = self.attempt(partial(answers, self.connection, plan, total))
        if isinstance(found, Refused):
            return None
        self.row_count = found.rows
        return found

    def _stream_plan(self, checks: list[Check]) -> Streaming | str:
        """How the columns are streamed, or why they are not. What streams is imported only where it may pay."""
        if self.stream is False:
            return "it was not asked for"
        table = self.attempt(partial(table_of, self.connection, self.relation))
        if isinstance(table, Refused):
            return table.reason
        if table.refused:
            return table.refused
        if not self.stream and not table.may_pay(len(checks)):
            return f"the table is small, about {table.rows:,} rows"
        from dbplatform.quality.streaming.plan import planned

        parts = {check.name: self.parts(check) for check in checks}
        plan = self.attempt(
            partial(planned, self.connection, table, checks, parts, self.proofs, always=self.stream is True),
        )
        if isinstance(plan, Refused):
            return plan.reason
        return plan.refused or plan

    def _fused(self, checks: list[Check]) -> dict[str, Sequence[Any]]:
        """The answers to all aggregates, by one scan; where the data spoil it, by one scan for each check."""
        answers: dict[str, Sequence[Any]] = {}
        least = 1 if self.row_count is None else 0
        for start in range(0, max(len(checks), least), CHECKS_PER_SCAN):
            some = checks[start : start + CHECKS_PER_SCAN]
            shared = self.attempt(partial(self._scan, some))
            if not isinstance(shared, Refused):
                answers.update(shared)
                continue
            for check in some:
                alone = self.attempt(partial(self._scan, [check]))
                if isinstance(alone, Refused):
                    self._errored(check, alone)
                else:
                    answers.update(alone)
        if self.row_count is None and checks:
            self.attempt(partial(self._scan, []))
        return answers

    def _scan(self, checks: list[Check]) -> dict[str, Sequence[Any]]:
        """One scan; equal aggregates are computed once."""
        places: dict[str, int] = {}
        wanted: list[sql.Composable] = []

        def place(aggregate: sql.Composable) -> int:
            text = aggregate.as_string(self.connection)
            if text not in places:
                places[text] = len(wanted)
                wanted.append(aggregate)
            return places[text]

        place(Count().sql(self.relation))
        of_check = {check.name: [place(part.sql(self.relation)) for part in self.parts(check)] for check in checks}
        row = one_row(self.connection, _select(self.relation, wanted))
        self.row_count = row[0]
        return {name: [row[index] for index in indexes] for name, indexes in of_check.items()}

    def parts(self, check: Check) -> tuple[Part, ...]:
        """What must be read: of a proven check, which begins with the rows considered, only those."""
        return check.parts[:1] if check.name in self.proofs else check.parts

    def _judge(self, check: Check, fused: Sequence[Any], own: Sequence[Any] | Refused | None) -> None:
        if proof := self.proofs.get(check.name):
            outcome = check.judge(self.relation, (fused[0], 0), (0,))
            message = f"{outcome.message.removesuffix('.')}, proven by {proof}."
            self.outcomes[check.name] = replace(outcome, message=message)
            self.tell()
            return
        if own is None:
            own = self.attempt(lambda: check.own(self.connection, self.relation))
        if isinstance(own, Refused):
            self._errored(check, own)
            return
        outcome = check.judge(self.relation, fused, own)
        self.outcomes[check.name] = outcome if self.by_partition is None else self.by_partition.note(check, outcome)
        self.tell()

    def attempt(self, work: Callable[[], _T]) -> _T | Refused:
        """The work's answer, or why PostgreSQL refused it, without a masked value."""
        return attempt(self.connection, self.relation, work, masks=self.masked)

    def _errored(self, check: Check, refused: Refused) -> None:
        self.outcomes[check.name] = Outcome(status="errored", message=refused.reason, sqlstate=refused.sqlstate)
        self.tell()

    def tell(self) -> None:
        """Report how many checks are done."""
        done, total = len(self.outcomes), len(self.checks)
        progress.report(f"check {self.relation.words}", done=done, total=total, unit="checks")

    def result_of(self, check: Check) -> CheckResult:
        """What was found, in the words of the ledger; the check has been judged."""
        outcome = self._judged(check)
        statement = check.statement(self.relation)
        tolerance = check.tolerance if isinstance(check, Tolerant) else None
        return CheckResult(
            name=check.name,
            type=check.type,
            column=", ".join(check.columns_read) or None,
            status=outcome.status,
            severity=check.severity,
            blocking=check.blocking,
            owner=check.owner,
            failed_rows=outcome.failed_rows,
            considered_rows=outcome.considered_rows,
            value=outcome.value,
            tolerance=None if tolerance is None else str(tolerance),
            message=outcome.message,
            judged=outcome.judged,
            sqlstate=outcome.sqlstate,
            sql=None if statement is None else statement.as_string(self.connection),
            accepted_until=None if check.accepted_until is None else check.accepted_until.until,
            accepted_reason=None if check.accepted_until is None else check.accepted_until.reason,
        )

    def _judged(self, check: Check) -> Outcome:
        """The outcome as it may be told, and accepted where somebody answers for it today."""
        outcome = self.outcomes[check.name]
        if outcome.status != "errored" and check.tells(self.masks):
            outcome = check.masked(outcome, self.masks)
        acceptance = check.accepted_until
        if acceptance is None or outcome.status != "failed":
            return outcome
        return replace(
            outcome,
            status="accepted" if acceptance.holds(self.day) else "failed",
            message=f"{outcome.message} {acceptance.words(self.day)}",
        )


def _select(relation: Relation, columns: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL("select {} from {}").format(sql.SQL(", ").join(columns), relation.identifier)
