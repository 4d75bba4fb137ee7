"""The questions that checks ask of one table, of one of its partitions, or of a sample: planned, streamed, or scanned.

Of a large table the columns that the checks need are streamed once and judged by the client, where that costs less;
else all aggregates of all checks are computed by one scan. A check that PostgreSQL cannot plan or run has errored, with
PostgreSQL's message, and does not touch the others: when the stream fails the scan is asked, and when the scan fails on
the data, each check is run by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from psycopg import sql

from dbplatform import progress
from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.attempt import Refused, attempt
from dbplatform.quality.by_partition import ByPartition
from dbplatform.quality.checks.base import Check, Outcome, one_row
from dbplatform.quality.checks.conditions import Count, Part
from dbplatform.quality.masks import Masks
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.sampling import SampledRelation
from dbplatform.quality.streaming.cost import Size, table_of

if TYPE_CHECKING:
    from dbplatform.quality.streaming.plan import Streaming
    from dbplatform.quality.streaming.reading import Answers

CHECKS_PER_SCAN = 400  # PostgreSQL returns at most 1,664 columns; a check has at most 4.

_T = TypeVar("_T")


def _parts(check: Check) -> tuple[Part, ...]:
    return check.parts


class Asking:
    """Asks for the checks of one table in one snapshot, and knows what became of each."""

    def __init__(
        self,
        connection: SnapshotConnection,
        policy: TablePolicy,
        checks: tuple[Check, ...],
        stream: bool | None,
        masks: Masks,
        by_partition: ByPartition | None = None,
    ) -> None:
        self.connection, self.policy, self.checks, self.stream = connection, policy, checks, stream
        self.relation: Relation = policy.table
        self.all_masks, self.masked, self.masks = masks, bool(masks), masks.of(connection, self.relation)
        self.by_partition = by_partition
        # By the server's clock, as all that is judged by time is: however many hosts check, it is one day.
        self.day: date = one_row(connection, sql.SQL("select (now() at time zone 'UTC')::date"))[0]
        self.outcomes: dict[str, Outcome] = {}
        self.row_count: int | None = None
        self.proofs: dict[str, str] = {}
        self.samples: dict[str, SampledRelation] = {}
        """What the checks read that are judged by a sample, by their names."""
        self.sampled_rows: dict[str, int] = {}
        """How many rows that was."""
        self.secured: dict[Relation, str] = {}
        """The tables of which policies may hide rows, with the role from which they do."""
        self._parts_of: Callable[[Check], tuple[Part, ...]] = _parts
        self._whole: Asking = self

    def beside(
        self,
        relation: Relation,
        checks: Sequence[Check],
        *,
        stream: bool | None,
        parts_of: Callable[[Check], tuple[Part, ...]] = _parts,
    ) -> Self:
        """The same checks, of whose proofs nothing changes, asked of a part of the rows: a partition, or a sample."""
        part = copy(self)
        part.relation, part.checks, part.stream = relation, tuple(checks), stream
        part.by_partition, part.outcomes, part.row_count = None, {}, None
        part._parts_of = parts_of
        return part

    def answers(self, checks: list[Check]) -> tuple[dict[str, Sequence[Any]], dict[str, Sequence[Any]]]:
        """The answers to the parts of checks that can be planned, and those that a stream gives to what they ask
        on their own; what is missing has errored."""
        streamed = self._streamed(checks) if checks else None
        values: dict[str, Sequence[Any]] = dict(streamed.parts) if streamed else {}
        values |= self._fused([check for check in checks if check.name not in values])
        return values, dict(streamed.own) if streamed else {}

    def plan(self, checks: Sequence[Check]) -> Refused | None:
        """Plan the statements of these checks, by the protocol that takes one statement only; all parts in one."""
        probes = [probe for check in checks for probe in check.probes(self.relation)]
        for start in range(0, len(checks), CHECKS_PER_SCAN):
            parts = [
                part.sql(self.relation) for check in checks[start : start + CHECKS_PER_SCAN] for part in check.parts
            ]
            probes += [_select(self.relation, parts)] if parts else []

        def plan() -> None:
            for probe in probes:
                self.connection.execute(sql.SQL("explain {}").format(probe), binary=True)

        # What cannot be planned has read no row: PostgreSQL's words quote the declaration.
        return attempt(self.connection, self.relation, plan)

    def _streamed(self, checks: list[Check]) -> Answers | None:
        """What a stream of the table's columns answers, where that pays; none where it fails: then SQL is asked."""
        plan = self.stream_plan(checks)
        if isinstance(plan, str):
            return None
        from dbplatform.quality.streaming.reading import answers, streamed
        from dbplatform.quality.streaming.sessions import StreamRefused

        try:
            total = streamed(self.connection, plan, tell=self.tell)
            found = self.attempt(partial(answers, self.connection, plan, total))
        except StreamRefused:
            return None
        if isinstance(found, Refused):
            return None
        self.row_count = found.rows
        return found

    def stream_plan(self, checks: list[Check], *, size: Size | None = None) -> Streaming | str:
        """How the columns are streamed, or why they are not; ``size`` is that of what is read, none: of the table.

        What streams is imported only where it may pay.
        """
        if self.stream is False:
            return "it was not asked for"
        table = self.attempt(partial(table_of, self.connection, self.relation))
        if isinstance(table, Refused):
            return table.reason
        if table.refused:
            return table.refused
        if size is not None:
            table = replace(table, rows=size.rows, blocks=size.blocks)
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
                    self.errored(check, alone)
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
        parts = self._parts_of(check)
        return parts[:1] if check.name in self.proofs else parts

    def attempt(self, work: Callable[[], _T]) -> _T | Refused:
        """The work's answer, or why PostgreSQL refused it, without a masked value."""
        return attempt(self.connection, self.relation, work, masks=self.masked)

    def errored(self, check: Check, refused: Refused) -> None:
        self.outcomes[check.name] = Outcome(status="errored", message=refused.reason, sqlstate=refused.sqlstate)
        self.tell()

    def tell(self) -> None:
        """Report how many checks of the table are done."""
        done, total = len(self._whole.outcomes), len(self._whole.checks)
        progress.report(f"check {self._whole.relation.words}", done=done, total=total, unit="checks")


def _select(relation: Relation, columns: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL("select {} from {}").format(sql.SQL(", ").join(columns), relation.identifier)
