"""The data-quality checks on the copy that a drill has restored: where backups and quality meet.

A check that fails on the copy is the data's fault as long as it says the same of the source. What the ledger has of the
source is of another moment than the backup, so a check in doubt is asked of the live source again, beside the content
of the tables that it reads: only the same rows with another answer speak against the backup. So does what cannot run
on the copy for want of something that the source had before the backup. What the copy's server lacks or was short of,
and what cannot be told, is said, and proves nothing. Checks that are declared with a sample read all rows here: the
sample of a copy is another one. Anomalies are not looked for: they are judged by a past that the
copy does not have.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from functools import partial

from dbplatform.backups.checked import CheckProof, Examine, Verdict, no_checks
from dbplatform.declaration.loading import Declared
from dbplatform.operations.backups import policy_of
from dbplatform.operations.drill_source import Live, ask, ended_at, left_ms
from dbplatform.operations.platform import Platform
from dbplatform.postgres.catalog import TableMissing
from dbplatform.postgres.connection import ServerRefused, Target, connect
from dbplatform.quality import record
from dbplatform.quality.checks.anomaly import Anomaly
from dbplatform.quality.checks.base import Check
from dbplatform.quality.engine import run_table
from dbplatform.quality.masks import MaskedColumnMissing, Masks
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import CheckResult

_NO_TIME = "the drill's checks took as long as they may (backups: drill: checks_limit)"
#: PostgreSQL's words for a statement that was ended by a limit.
_TIMED_OUT = ("statement timeout", "canceling statement due to user request")
_CANCELED = "57014"
#: What a missing function, table, column or schema is called (manual: Appendix A).
_LACKING = ("42883", "42P01", "42703", "3F000")
_CORRUPTED = ("XX001", "XX002")
# These say nothing of the backup. Connections, resources, interventions, input and output, foreign servers; rights,
# which a drill leaves out, as it does user mappings; and libraries, which are the server's.
_OF_THE_SERVER = ("08", "53", "57", "58030", "HV", "42501")
_OF_THE_SERVER_WORDS = ("user mapping", "preload", "could not access file", "could not load library", "out of memory")

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

    Reads the tables of the copy; of the source, only those of checks in doubt. At the end of ``drill.checks_limit``
    what still runs is cancelled; that is undecided, as what was not run by then.
    """
    now = datetime.now(UTC)
    ends = time.monotonic() + (now + policy_of(declared).drill.checks_limit.relativedelta - now).total_seconds()
    recorded = record.nearest_results(platform.ledger, declared.name, at=at)
    masks = Masks.declared(declared.database.quality)
    found: list[CheckProof] = []
    for whole in (policy.of_all_rows for policy in declared.database.quality):
        policy = whole.model_copy(update={"checks": [c for c in whole.checks if not isinstance(c, Anomaly)]})
        table = str(policy.table)
        results = _on_copy(copy, policy, masks, ends)
        known = {result.name: recorded.get((table, result.name)) for result in results}
        doubtful = [result for result in results if _in_doubt(result, known[result.name])]
        live = _live(platform, declared, copy, policy, {result.name for result in doubtful}, ends) if doubtful else None
        for result in results:
            verdict, reason = _judged(result, known[result.name], live, at)
            found.append(_proof(table, result, known[result.name], verdict, reason))
    return tuple(found)


def _on_copy(copy: Target, policy: TablePolicy, masks: Masks, ends: float) -> tuple[CheckResult, ...]:
    not_run = tuple(_errored(check, f"It was not run: {_NO_TIME}.", sqlstate=_CANCELED) for check in policy.checks)
    left = left_ms(ends)
    if left == 0:
        return not_run
    try:
        with connect(copy, work="drill checks") as connection, ended_at(connection, ends):
            return run_table(connection, policy, statement_timeout_ms=left, masks=masks).checks
    except (TableMissing, MaskedColumnMissing) as missing:
        return _all_missing(policy, missing)
    except ServerRefused:
        if left_ms(ends) == 0:
            return not_run
        raise


def _live(
    platform: Platform, declared: Declared, copy: Target, policy: TablePolicy, names: set[str], ends: float
) -> Live | None:
    try:
        return ask(platform, declared, copy, policy, names, ends)
    except (TableMissing, MaskedColumnMissing) as missing:
        results = {result.name: result for result in _all_missing(policy, missing)}
        return Live(results=results, same_rows=frozenset(), same_columns=True)


def _all_missing(policy: TablePolicy, missing: TableMissing | MaskedColumnMissing) -> tuple[CheckResult, ...]:
    # In the same words on both sides: no name of a database is in them.
    gone = isinstance(missing, TableMissing)
    message = f"The table {policy.table.words} does not exist." if gone else missing.message
    return tuple(_errored(check, message, sqlstate="42P01" if gone else "42703") for check in policy.checks)


def _in_doubt(result: CheckResult, recorded: _Recorded) -> bool:
    if result.status == "passed" or _timed_out(result):
        return False
    return recorded is None or not _agree(result, recorded[1])


def _judged(
    result: CheckResult, recorded: _Recorded, live: Live | None, at: datetime | None
) -> tuple[Verdict, str | None]:
    """The verdict over one check of the copy, and why."""
    if result.status == "passed":
        return "passed", None
    if _timed_out(result):
        return "undecided", _NO_TIME
    if recorded is not None and _agree(result, recorded[1]):
        return "finding", "as on the source"
    said = None if live is None else live.results[result.name]
    if said is not None and _agree(result, said):
        return "finding", "as on the source now"
    if _is_of_the_server(result):
        return "undecided", "which says something of the copy's server alone"
    if result.sqlstate in _CORRUPTED:
        return "failed", "and not so on the source" if said is not None else "and the source cannot be asked"
    if live is not None and said is not None and result.name in live.same_rows:
        if _status(result) == _status(said) and result.failed_rows is None:
            return "undecided", "it measures another value on the source by now"
        return "failed", f"and {said.status} on the source, on the same rows"
    ran_before = recorded is not None and recorded[1].status != "errored" and (at is None or recorded[0] <= at)
    if result.sqlstate in _LACKING and ran_before:
        return "failed", "and the source ran it before the backup"
    if live is None or said is None:
        return "undecided", "the source cannot be asked"
    if said.status == "errored":
        return "undecided", "the source cannot run it now"
    if not live.same_columns:
        return "undecided", "its table has other columns on the source by now"
    return "undecided", "the source holds other rows by now"


def _agree(one: CheckResult, other: CheckResult) -> bool:
    """Whether two answers are the same: with the same number of rows where rows were judged, the same value where one
    was measured, and the same words where neither could be run."""
    if _status(one) != _status(other) or _timed_out(one) or _timed_out(other):
        return False
    if one.status == "errored":
        return one.message == other.message
    if one.failed_rows is not None or other.failed_rows is not None:
        return one.failed_rows == other.failed_rows
    if one.value is None or other.value is None:
        return one.value == other.value
    # A sum of floating-point numbers depends on the order in which the rows come.
    return math.isclose(one.value, other.value, rel_tol=1e-9) or (math.isnan(one.value) and math.isnan(other.value))


def _status(result: CheckResult) -> str:
    """Until when a failure is accepted makes no other answer of it."""
    return "failed" if result.status == "accepted" else result.status


def _timed_out(result: CheckResult) -> bool:
    by_words = any(words in result.message for words in _TIMED_OUT)
    return result.status == "errored" and (result.sqlstate == _CANCELED or by_words)


def _is_of_the_server(result: CheckResult) -> bool:
    """Whether a check could not run for a reason that is the copy's server's, whatever the copy holds."""
    if result.status != "errored":
        return False
    by_code = result.sqlstate is not None and result.sqlstate.startswith(_OF_THE_SERVER)
    return by_code or any(words in result.message for words in _OF_THE_SERVER_WORDS)


def _errored(check: Check, message: str, *, sqlstate: str) -> CheckResult:
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
        sqlstate=sqlstate,
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
