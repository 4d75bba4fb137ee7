"""The data-quality checks on the copy that a drill has restored: where backups and quality meet.

A check that fails on the copy is the data's fault as long as it says the same of the source. What the ledger has of the
source is of another moment than the backup, so a check in doubt is asked of the live source again, at the same time and
beside the content of the tables that it reads: only the same rows with another answer speak against the backup. What
cannot run on the copy and can on the source speaks against it, too. What cannot be told is said, and proves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from psycopg import sql

from dbplatform.backups.checked import CheckProof, Examine, Verdict, no_checks
from dbplatform.backups.contents import read_content, ready_to_read
from dbplatform.backups.manifest import TableContent
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.operations.backups import policy_of
from dbplatform.operations.platform import Platform
from dbplatform.postgres import catalog
from dbplatform.postgres.catalog import TableMissing
from dbplatform.postgres.connection import AutocommitConnection, SnapshotConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality import record
from dbplatform.quality.checks.base import Check
from dbplatform.quality.engine import run_table
from dbplatform.quality.examination import Refused, attempt, examined
from dbplatform.quality.masks import MaskedColumnMissing, Masks
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import CheckResult

_NO_TIME = "the drill's checks took as long as they may (backups: drill: checks_limit)"
_TIMED_OUT = "statement timeout"

#: When the source was asked, and what it said.
_Recorded = tuple[datetime, CheckResult] | None


def examination(platform: Platform, declared: Declared, *, at: datetime | None) -> Examine:
    """Who runs the declared checks on a copy of the source as of ``at``; nobody where that is not wanted."""
    drill = policy_of(declared).drill
    if not drill.checks or not declared.database.quality:
        return no_checks
    return partial(examine, platform, declared, at=at)


def examine(platform: Platform, declared: Declared, copy: Target, *, at: datetime | None) -> tuple[CheckProof, ...]:
    """Run every declared check on the copy, each table in one snapshot, and judge those that did not pass.

    Reads the tables of the copy; of the source, only those of checks in doubt. Within ``drill.checks_limit``: what is
    not run by then is undecided.
    """
    now = datetime.now(UTC)
    ends = time.monotonic() + (now + policy_of(declared).drill.checks_limit.relativedelta - now).total_seconds()
    recorded = record.nearest_results(platform.ledger, declared.name, at=at)
    masks = Masks.declared(declared.database.quality)
    found: list[CheckProof] = []
    for policy in declared.database.quality:
        table = str(policy.table)
        results = _on_copy(copy, policy, masks, ends)
        known = {result.name: recorded.get((table, result.name)) for result in results}
        doubtful = [result for result in results if _in_doubt(result, known[result.name])]
        live = _Live.ask(platform, declared, copy, policy, doubtful, ends) if doubtful else None
        for result in results:
            verdict, reason = _judged(result, known[result.name], live, at)
            found.append(_proof(table, result, known[result.name], verdict, reason))
    return tuple(found)


def _on_copy(copy: Target, policy: TablePolicy, masks: Masks, ends: float) -> tuple[CheckResult, ...]:
    left_ms = _left_ms(ends)
    if left_ms == 0:
        return tuple(_errored(check, f"It was not run: {_NO_TIME} ({_TIMED_OUT}).") for check in policy.checks)
    try:
        with connect(copy, work="drill checks") as connection:
            return run_table(connection, policy, statement_timeout_ms=left_ms, masks=masks).checks
    except (TableMissing, MaskedColumnMissing) as missing:
        return tuple(_errored(check, missing.message) for check in policy.checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Live:
    """What the source says now of the checks in doubt."""

    results: Mapping[str, CheckResult]
    same_rows: frozenset[str]
    """The checks all of whose tables hold the same on both sides."""
    same_columns: bool

    @classmethod
    def ask(
        cls,
        platform: Platform,
        declared: Declared,
        copy: Target,
        policy: TablePolicy,
        doubtful: list[CheckResult],
        ends: float,
    ) -> _Live | None:
        """None where the source cannot be asked: a drill needs it no more than a restore does."""
        names = {result.name for result in doubtful}
        failed = {result.name for result in doubtful if result.status != "errored"}
        masks = Masks.declared(declared.database.quality)
        try:
            source, left_ms = platform.existing_target(declared), _left_ms(ends)
            if source is None or left_ms == 0:
                return None
            with connect(source, work="drill checks") as session, connect(copy, work="drill checks") as other:
                ready_to_read(session)
                ready_to_read(other)
                other.execute("select set_config('statement_timeout', %s, false)", (str(left_ms),))
                with examined(session, policy, only=names, statement_timeout_ms=left_ms, masks=masks) as asked:
                    results = {result.name: result for result in asked.result.checks}
                    contents = _Contents(asked.connection, other)
                    other_answer = {r.name for r in doubtful if not _agree(r, results[r.name])} & failed
                    checks = [check for check in asked.checks if check.name in other_answer]
                    return cls(
                        results=results,
                        same_rows=frozenset(check.name for check in checks if contents.equal(policy.table, check)),
                        same_columns=catalog.columns(session, policy.table) == catalog.columns(other, policy.table),
                    )
        except (TableMissing, MaskedColumnMissing) as missing:
            results = {check.name: _errored(check, missing.message) for check in policy.checks}
            return cls(results=results, same_rows=frozenset(), same_columns=True)
        except PlatformError:
            return None


class _Contents:
    """The tables of source and copy beside each other, each read once."""

    def __init__(self, source: SnapshotConnection, copy: AutocommitConnection) -> None:
        self._source, self._copy = source, copy
        self._equal: dict[Relation, bool] = {}

    def equal(self, table: Relation, check: Check) -> bool:
        """Whether every table that the check reads holds the same rows on both sides; false where it cannot be told."""
        statement = check.statement(table)
        tables = {table}
        if statement is not None:
            planned = attempt(self._source, table, partial(self._tables_of, statement))
            if isinstance(planned, Refused):
                return False
            tables |= planned
        return all(self._same(one) for one in sorted(tables, key=str))

    def _tables_of(self, statement: sql.Composable) -> set[Relation]:
        explain = sql.SQL("explain (verbose, format json) {}").format(statement)
        [(plan,)] = self._source.execute(explain).fetchall()
        return set(_relations(plan))

    def _same(self, table: Relation) -> bool:
        if table not in self._equal:
            there = catalog.columns(self._copy, table) != []
            found = attempt(self._source, table, partial(self._read, table)) if there else Refused("it is not there")
            self._equal[table] = not isinstance(found, Refused) and found[0] == found[1]
        return self._equal[table]

    def _read(self, table: Relation) -> tuple[TableContent, TableContent]:
        return read_content(self._source, table), read_content(self._copy, table)


def _relations(plan: Any) -> Iterator[Relation]:
    """The tables in a plan as EXPLAIN writes it."""
    if isinstance(plan, list):
        for part in plan:
            yield from _relations(part)
    elif isinstance(plan, dict):
        if "Relation Name" in plan and "Schema" in plan:
            yield Relation(plan["Schema"], plan["Relation Name"])
        for part in plan.values():
            yield from _relations(part)


def _in_doubt(result: CheckResult, recorded: _Recorded) -> bool:
    if result.status == "passed" or _timed_out(result):
        return False
    return recorded is None or not _agree(result, recorded[1])


def _judged(
    result: CheckResult, recorded: _Recorded, live: _Live | None, at: datetime | None
) -> tuple[Verdict, str | None]:
    """The verdict over one check of the copy, and why."""
    if result.status == "passed":
        return "passed", None
    if _timed_out(result):
        return "undecided", _NO_TIME
    if recorded is not None and _agree(result, recorded[1]):
        return "finding", "as on the source"
    ran_before = recorded is not None and recorded[1].status != "errored" and (at is None or recorded[0] <= at)
    if live is None:
        if result.status == "errored":
            return "failed", "and the source ran it" if ran_before else "and the source cannot be asked"
        return "undecided", "the source cannot be asked"
    said = live.results[result.name]
    if _agree(result, said):
        return "finding", "as on the source now"
    if result.status == "errored":
        if live.same_columns or ran_before:
            return "failed", f"and {said.status} on the source"
        return "undecided", "its table has other columns on the source by now"
    if result.name in live.same_rows:
        return "failed", f"and {said.status} on the source, on the same rows"
    return "undecided", "the source holds other rows by now"


def _agree(one: CheckResult, other: CheckResult) -> bool:
    """Whether two answers are the same: with the same number of rows, where rows were judged. Until when a failure is
    accepted makes no other answer of it."""
    said = [("failed" if r.status == "accepted" else r.status, r.failed_rows) for r in (one, other)]
    return said[0] == said[1]


def _timed_out(result: CheckResult) -> bool:
    return result.status == "errored" and _TIMED_OUT in result.message


def _left_ms(ends: float) -> int:
    return max(0, round((ends - time.monotonic()) * 1000))


def _errored(check: Check, message: str) -> CheckResult:
    return CheckResult(
        name=check.name,
        type=check.type,
        column=", ".join(check.columns_read) or None,
        status="errored",
        severity=check.severity,
        blocking=check.blocking,
        owner=check.owner,
        failed_rows=None,
        considered_rows=None,
        value=None,
        tolerance=None,
        message=message,
        sql=None,
    )


def _proof(table: str, result: CheckResult, recorded: _Recorded, verdict: Verdict, reason: str | None) -> CheckProof:
    return CheckProof(
        table=table,
        check=result.name,
        status=result.status,
        failed_rows=result.failed_rows,
        message=result.message,
        source_status=recorded[1].status if recorded else None,
        source_failed_rows=recorded[1].failed_rows if recorded else None,
        source_at=recorded[0] if recorded else None,
        verdict=verdict,
        reason=reason,
    )
