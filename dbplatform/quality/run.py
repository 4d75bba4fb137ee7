"""The checks of one table on their way from declared to judged.

What the catalog proves is not read; what is known of partitions that have not changed is not read again; what is to be
judged by a sample reads that. All others are asked together (``asking``), and uniqueness and references that no stream
has answered one by one, as queries always are.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from psycopg import sql

from dbplatform.postgres.identifiers import Relation, quoted
from dbplatform.quality.asking import CHECKS_PER_SCAN, Asking
from dbplatform.quality.attempt import Refused
from dbplatform.quality.checks.anomaly import Anomaly
from dbplatform.quality.checks.base import Check, Outcome, Tolerant, one_row
from dbplatform.quality.checks.keys import Relationship
from dbplatform.quality.proof import proofs
from dbplatform.quality.results import CheckResult, TableResult
from dbplatform.quality.sampling import SampledRelation, sampled
from dbplatform.quality.ways import TableWays, Way, way

_SECURED = """
    select n.nspname::text, c.relname::text, current_user::text
    from unnest(%(schemas)s::text[], %(names)s::text[]) as wanted(schema, name)
    join pg_namespace n on n.nspname = wanted.schema
    join pg_class c on c.relnamespace = n.oid and c.relname = wanted.name
    where row_security_active(c.oid)
"""


class Run(Asking):
    """The checks of one table in one snapshot; good for one examination."""

    def result(self) -> TableResult:
        """Run everything."""
        started = time.monotonic()
        self.tell()
        ready = self._ready()
        self._find_secured()
        whole = [check for check in ready if check.name not in self.samples]
        found = self.by_partition.answers(self, whole) if self.by_partition else None
        if found is not None:
            self.row_count = found.rows
        rest = [check for check in whole if found is None or check.name not in found.parts]
        values, own = self.answers(rest) if rest or not self.samples else ({}, {})
        if found is not None:
            values, own = values | found.parts, own | found.own
        own |= self._windows(whole)
        for check in whole:
            if check.name in values:
                self._judge(check, values[check.name], own.get(check.name))
        for sample in dict.fromkeys(self.samples.values()):
            self._judge_by(sample, [check for check in ready if self.samples.get(check.name) == sample])
        return TableResult(
            table=str(self.relation),
            row_count=self.row_count,
            checks=tuple(self.result_of(check) for check in self.checks),
            seconds=time.monotonic() - started,
            partitions=self.by_partition.read if self.by_partition else None,
        )

    def ways(self) -> TableWays:
        """How each check would be answered; runs none."""
        ready = self._ready()
        whole = [check for check in ready if check.name not in self.samples]
        partitions = self.by_partition.explain(self, whole) if self.by_partition else None
        plan = self.stream_plan(whole) if whole else "every check is judged by a sample"
        beside = {one.name: [c.name for c in some if c is not one] for some in _by_window(whole) for one in some}

        def of(check: Check) -> Way:
            if check.name in self.outcomes:
                return Way(check=check.name, how="error", why=self.outcomes[check.name].message)
            if sample := self.samples.get(check.name):
                return Way(check=check.name, how="sampled", why=f"the server reads {sample.words_of_sample} for it")
            return way(
                check,
                proof=self.proofs.get(check.name),
                plan=plan,
                whole=partitions,
                beside=beside.get(check.name, ()),
            )

        return TableWays(
            table=str(self.relation),
            stream=plan if isinstance(plan, str) else None,
            partitions=partitions,
            checks=tuple(map(of, self.checks)),
        )

    def _ready(self) -> list[Check]:
        """The checks that can be planned; finds what the catalog proves of them, and what those read that are to be
        judged by a sample."""
        together = [check for check in self.checks if not check.takes_sql]
        planned = set() if isinstance(self.plan(together), Refused) else {check.name for check in together}
        ready = [check for check in self.checks if check.name in planned or self._can_be_planned(check)]
        self.proofs = proofs(self.connection, self.relation, ready)
        wanted = {check.name: wish for check in ready if (wish := self.policy.sample_of(check)) is not None}
        if wanted:
            self.samples = sampled(self.connection, self.relation, wanted, seed=self.day.toordinal())
        return ready

    def _find_secured(self) -> None:
        """Find the tables of which policies may hide rows from this role: what is not seen is not judged."""
        tables = {self.relation, *(check.to.relation for check in self.checks if isinstance(check, Relationship))}
        names = {"schemas": [table.schema for table in tables], "names": [table.name for table in tables]}
        rows = self.connection.execute(_SECURED, names).fetchall()
        self.secured = {Relation(schema, name): role for schema, name, role in rows}

    def _can_be_planned(self, check: Check) -> bool:
        """Plan it alone: what a person wrote may become another statement beside what another one wrote."""
        answer = self.plan([check])
        if isinstance(answer, Refused):
            self.errored(check, answer)
        return not isinstance(answer, Refused)

    def _windows(self, checks: Sequence[Check]) -> dict[str, Sequence[Any]]:
        """What checks by period of one time column ask, read together; where that fails, each asks for itself."""
        found: dict[str, Sequence[Any]] = {}
        for some in _by_window(checks):
            from dbplatform.quality.anomaly.periods import measured_together

            (now,) = one_row(self.connection, sql.SQL("select now()"))
            windows = self.attempt(partial(measured_together, self.connection, some, self.relation, now))
            if not isinstance(windows, Refused):
                found |= {check.name: (now, window) for check, window in zip(some, windows, strict=True)}
        return found

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
            self.errored(check, own)
            return
        outcome = check.judge(self.relation, fused, own)
        self.outcomes[check.name] = outcome if self.by_partition is None else self.by_partition.note(check, outcome)
        self.tell()

    def _judge_by(self, sample: SampledRelation, checks: list[Check]) -> None:
        """Judge checks by a sample. One without a row of a table that has some tells nothing."""
        part = self.beside(sample, checks, stream=False)
        values, own = part.answers(checks)
        for check in checks:
            if check.name in values:
                part._judge(check, values[check.name], own.get(check.name))
        self.outcomes |= part.outcomes
        if part.row_count is None:
            return
        self.sampled_rows |= dict.fromkeys((check.name for check in checks), part.row_count)
        if part.row_count == 0 and self._has_rows():
            message = f"a sample of {sample.words_of_sample} holds no row: nothing was judged. Take a larger one."
            read = [check.name for check in checks if check.name not in self.proofs]
            self.outcomes |= dict.fromkeys(read, Outcome(status="errored", message=message))

    def _has_rows(self) -> bool:
        """Whether the table has a row, as far as can be told."""
        there = sql.SQL("select exists (select from {})").format(self.relation.identifier)
        answer = self.attempt(partial(one_row, self.connection, there))
        return isinstance(answer, Refused) or bool(answer[0])

    def result_of(self, check: Check) -> CheckResult:
        """What was found, in the words of the ledger; the check has been judged."""
        outcome = self._judged(check)
        sample, rows = self.samples.get(check.name), self.sampled_rows.get(check.name)
        message = outcome.message
        if sample is not None and rows is not None and outcome.status != "errored":
            message = f"{message} Judged by a sample of {rows:,} rows ({sample.words_of_sample})."
        if outcome.status != "errored":
            message += self._unseen(check)
        statement = check.statement(sample or self.relation)
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
            message=message,
            judged=outcome.judged,
            sqlstate=outcome.sqlstate,
            sql=None if statement is None else statement.as_string(self.connection),
            accepted_until=None if check.accepted_until is None else check.accepted_until.until,
            accepted_reason=None if check.accepted_until is None else check.accepted_until.reason,
            sample=None if sample is None else sample.words_of_sample,
            sampled_rows=rows,
        )

    def _unseen(self, check: Check) -> str:
        """A word about rows that row-level security may have hidden from this role."""
        tables = [self.relation] if check.reads_rows else []
        tables += [check.to.relation] if isinstance(check, Relationship) else []
        hiding = dict.fromkeys(table for table in tables if table in self.secured)
        if not hiding:
            return ""
        names, role = " and ".join(table.words for table in hiding), next(iter(self.secured.values()))
        return f" Row-level security of {names} applies to the role {quoted(role)}: rows that it hides were not seen."

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


def _by_window(checks: Sequence[Check]) -> list[list[Anomaly]]:
    """The checks by period that one query can measure: of one time column, by the same unit, in one time zone."""
    groups: dict[tuple[str, bool, str], list[Anomaly]] = {}
    for check in checks:
        if isinstance(check, Anomaly) and check.by is not None:
            groups.setdefault((check.by, check.hourly, check.time_zone), []).append(check)
    return [
        some[start : start + CHECKS_PER_SCAN]
        for some in groups.values()
        for start in range(0, len(some), CHECKS_PER_SCAN)
        if len(some) > 1
    ]
