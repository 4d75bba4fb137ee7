"""What one data-quality run found, with its past: read from the ledger, in the order in which a person wants it.

Only reads. Everything is compared with runs that started earlier, never later, so that a report
written again says the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import QualityResult, QualityRun, QualityTable
from dbplatform.quality.history import trends
from dbplatform.quality.record import RunOfAnotherDatabase, failed_row_samples, load_run
from dbplatform.quality.results import CheckResult, RunResult, TableResult, Verdict
from dbplatform.reporting.causes import BAD, Cause, CheckKey, Onset, causes, onsets
from dbplatform.reporting.errors import RunNotFinished

SAMPLES_PER_CHECK: Final = 20
HISTORY_RUNS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The outcome of one check in one run; ``failed_rows`` and ``value`` are none where it errored."""

    run_id: str
    started_at: datetime
    status: str
    failed_rows: int | None
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BandPoint:
    """A value of a check that compares with the past, beside what was expected of it; none: nothing was, or no end."""

    at: datetime
    value: float | None
    low: float | None
    high: float | None

    @property
    def outside(self) -> bool:
        """It is not what was expected."""
        if self.value is None:
            return False
        return (self.low is not None and self.value < self.low) or (self.high is not None and self.value > self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCount:
    """How many rows a table had in one run; none where they could not be counted."""

    started_at: datetime
    rows: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckEvidence(CheckResult):
    """One check in this run, a few of the rows that failed it, and its outcomes so far (the last one is this run)."""

    table: str
    row_count: int | None
    """Of its table."""
    samples: tuple[Mapping[str, Any], ...]
    history: tuple[Point, ...]
    onset: Onset | None = None
    """Since when it is bad; none while it is not."""
    band: tuple[BandPoint, ...] = ()
    """What it measured and what was expected, oldest first; nothing for a check that does not compare with the past."""

    @property
    def bad(self) -> bool:
        """It failed, or could not be judged."""
        return self.status in BAD

    @property
    def learning(self) -> bool:
        """It was not judged yet, for want of a past to compare with; nobody has accepted anything."""
        return self.status == "accepted" and self.accepted_until is None

    @property
    def of_rows(self) -> int | None:
        """How many rows could have failed: those that it considered, else all of the table."""
        return self.row_count if self.considered_rows is None else self.considered_rows

    @property
    def before(self) -> Point | None:
        """Its outcome in the newest earlier run that had it."""
        return self.history[-2] if len(self.history) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEvidence(TableResult):
    """One table in this run; its checks with the failing ones first, then in their declared order."""

    checks: tuple[CheckEvidence, ...]
    row_counts: tuple[RowCount, ...]

    def count(self, *statuses: str) -> int:
        """How many of its checks ended so."""
        return sum(check.status in statuses for check in self.checks)

    @property
    def sampled(self) -> int:
        """How many of its checks were judged by a sample of its rows."""
        return sum(check.sample is not None for check in self.checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvidence(RunResult):
    """One finished run; its tables with the worst first."""

    finished_at: datetime
    verdict: Verdict
    tables: tuple[TableEvidence, ...]
    previous: tuple[str, datetime] | None
    """Run id and start of the newest earlier run of the database."""
    gone: tuple[tuple[str, str], ...]
    """Table and name of each check that the newest earlier result of a table of this run still had."""
    causes: tuple[Cause, ...] = ()
    """What happened before each failure began, the newest first."""

    @property
    def seconds(self) -> float:
        """From start to finish."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def checks(self) -> tuple[CheckEvidence, ...]:
        """Those of all tables."""
        return tuple(check for table in self.tables for check in table.checks)

    def count(self, *statuses: str) -> int:
        """How many checks ended so."""
        return sum(table.count(*statuses) for table in self.tables)


def load_evidence(ledger: Ledger, run_id: str, *, database: str | None = None) -> RunEvidence:
    """Read a finished run with up to 20 failed rows per check and up to 20 outcomes of each.

    Raises ``UnknownRun``, ``RunOfAnotherDatabase``, ``RunNotFinished``.
    """
    run = load_run(ledger, run_id)
    if database not in (None, run.database):
        raise RunOfAnotherDatabase(
            run_id=run_id, database=run.database, asked=database, hint="See which there are: dbplatform report list."
        )
    if run.verdict is None or run.finished_at is None:
        raise RunNotFinished(run_id=run_id, hint="Wait for its end, or start it again if its process was ended.")
    with ledger.session() as session:
        runs = _runs_until(session, run)
        results = session.scalars(select(QualityResult).where(QualityResult.run_id.in_(runs))).all()
        counted = session.scalars(select(QualityTable).where(QualityTable.run_id.in_(runs))).all()
        bad = {(table.table, check.name) for table in run.tables for check in table.checks if check.status in BAD}
        begun: dict[CheckKey, Onset] = onsets(session, run.database, run_id, run.started_at, bad)
        found = causes(session, run.database, begun)
    history, row_counts = _histories(runs, results), _row_counts(runs, counted)
    tables = []
    for table in run.tables:
        bands = _bands(ledger, run.database, table, run.finished_at)
        checks = (
            CheckEvidence(
                **_fields(check),
                table=table.table,
                row_count=table.row_count,
                samples=_samples(ledger, run_id, table, check),
                history=tuple(history[table.table, check.name]),
                onset=begun.get((table.table, check.name)),
                band=bands.get(check.name, ()),
            )
            for check in table.checks
        )
        kept = {**_fields(table), "checks": tuple(sorted(checks, key=_worst_first))}
        tables.append(TableEvidence(**kept, row_counts=tuple(row_counts[table.table])))
    *earlier, _ = runs.items()
    return RunEvidence(
        run_id=run.run_id,
        database=run.database,
        started_at=run.started_at.astimezone(UTC),
        finished_at=run.finished_at.astimezone(UTC),
        verdict=run.verdict,
        tables=tuple(sorted(tables, key=lambda table: (-table.count(*BAD), table.table))),
        previous=earlier[-1] if earlier else None,
        gone=_gone([run_id for run_id, _ in earlier], results, tables),
        causes=found,
    )


def _runs_until(session: Session, run: RunResult) -> dict[str, datetime]:
    """Id and start of the run and of the finished ones before it, oldest first."""
    rows = session.execute(
        select(QualityRun.run_id, QualityRun.started_at)
        .where(
            QualityRun.database == run.database,
            QualityRun.verdict.is_not(None),
            tuple_(QualityRun.started_at, QualityRun.run_id) <= tuple_(run.started_at, run.run_id),
        )
        .order_by(QualityRun.started_at.desc(), QualityRun.run_id.desc())
        .limit(HISTORY_RUNS)
    ).all()
    return {run_id: started_at.astimezone(UTC) for run_id, started_at in reversed(rows)}


def _histories(
    runs: Mapping[str, datetime], results: Sequence[QualityResult]
) -> defaultdict[tuple[str, str], list[Point]]:
    """The outcomes of each check (by table and name), oldest first; runs that did not have it are left out."""
    order = {run_id: place for place, run_id in enumerate(runs)}
    found: defaultdict[tuple[str, str], list[Point]] = defaultdict(list)
    for result in sorted(results, key=lambda result: order[result.run_id]):
        known = result.status != "errored"
        found[result.table_name, result.name].append(
            Point(
                run_id=result.run_id,
                started_at=runs[result.run_id],
                status=result.status,
                failed_rows=result.failed_rows if known else None,
                value=result.value if known else None,
            )
        )
    return found


def _bands(ledger: Ledger, database: str, table: TableResult, until: datetime) -> dict[str, tuple[BandPoint, ...]]:
    """What the checks that compare with the past have measured up to this run, beside what was expected."""
    names = [check.name for check in table.checks if check.type == "anomaly"]
    if not names:
        return {}
    return {
        name: tuple(
            BandPoint(at=point.at.astimezone(UTC), value=point.value, low=point.low, high=point.high)
            for point in points
            if point.at <= until
        )
        for name, points in trends(ledger, database, table.table, checks=names).items()
    }


def _row_counts(runs: Mapping[str, datetime], counted: Sequence[QualityTable]) -> defaultdict[str, list[RowCount]]:
    order = {run_id: place for place, run_id in enumerate(runs)}
    found: defaultdict[str, list[RowCount]] = defaultdict(list)
    for table in sorted(counted, key=lambda table: order[table.run_id]):
        found[table.table_name].append(RowCount(started_at=runs[table.run_id], rows=table.row_count))
    return found


def _samples(ledger: Ledger, run_id: str, table: TableResult, check: CheckResult) -> tuple[Mapping[str, Any], ...]:
    if not check.kept_rows:
        return ()
    return tuple(failed_row_samples(ledger, run_id, table.table, check.name, limit=SAMPLES_PER_CHECK))


def _fields(result: CheckResult | TableResult) -> dict[str, Any]:
    return {field.name: getattr(result, field.name) for field in fields(result)}


def _worst_first(check: CheckEvidence) -> tuple[int, int]:
    if check.bad:
        return (2 if check.severity == "warn" else 0) + (check.status == "errored"), -(check.failed_rows or 0)
    return 5 if check.status == "passed" else 4, 0


def _gone(
    earlier: Sequence[str], results: Sequence[QualityResult], tables: Sequence[TableEvidence]
) -> tuple[tuple[str, str], ...]:
    """Checks that ended silently: in the newest earlier run of the same table, and not in this one."""
    had: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for result in results:
        had[result.run_id, result.table_name].add(result.name)
    gone = []
    for table in tables:
        last = next((run_id for run_id in reversed(earlier) if had[run_id, table.table]), None)
        if last is not None:
            lost = had[last, table.table] - {check.name for check in table.checks}
            gone += [(table.table, name) for name in sorted(lost)]
    return tuple(gone)


def notes(check: CheckEvidence) -> list[str]:
    """What else is known of how a check was judged, in words: an acceptance, and rows that were set aside.

    This and the three functions below are the one place that knows these fields; a result of an earlier version has
    none of them.
    """
    found = []
    until, reason = getattr(check, "accepted_until", None), getattr(check, "accepted_reason", None)
    if until is not None:
        words = {"accepted": "accepted until", "failed": "its acceptance ended on"}
        begin = words.get(check.status, "a failure would be accepted until")
        found.append(f"{begin} {until}" + (f": {reason}" if reason else ""))
    if check.sample is not None:
        rows = "no row" if check.sampled_rows is None else f"{check.sampled_rows:,} rows"
        found.append(f"judged by a sample: {rows}, {check.sample}")
    aside, where = getattr(check, "quarantined_rows", None), getattr(check, "quarantine_table", None)
    if aside is not None:
        found.append(f"{aside:,} row{'' if aside == 1 else 's'} moved aside into {where}")
    return found


def coverage(table: TableEvidence) -> str | None:
    """How much of a table was read, in words, where that was not all of it."""
    found = []
    partitions = getattr(table, "partitions", None)
    if partitions is not None and partitions.read != partitions.all:
        found.append(f"{partitions.read:,} of {partitions.all:,} partitions read, the others are unchanged")
    if table.sampled:
        found.append(f"only a sample for {table.sampled} of {len(table.checks)} checks")
    return "; ".join(found) or None


def sample_columns(check: CheckEvidence) -> list[str]:
    """Every field of the sampled rows: those that say which row it is, then what was looked at, then the others."""
    known = [*getattr(check, "key_columns", ()), *getattr(check, "value_columns", ())]
    there = dict.fromkeys(key for row in check.samples for key in row)
    return list(dict.fromkeys([*(column for column in known if column in there), *there]))


def masked(check: CheckEvidence) -> frozenset[str]:
    """The fields of the sampled rows whose values are masked."""
    return frozenset(getattr(check, "masked_columns", ()))
