"""The ledger's record of data-quality runs: written table by table, read back for reports and verdicts.

The verdict is derived from what was recorded, never from what a process remembers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, cast

import psycopg
from psycopg.rows import TupleRow
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.orm import Session

from dbplatform.errors import UsageError
from dbplatform.ledger.acting import current
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import QualityFailedRow, QualityResult, QualityRun, QualityTable
from dbplatform.ledger.quality_partitions import QualityPartition
from dbplatform.quality import history
from dbplatform.quality.attempt import Refused, attempt
from dbplatform.quality.checks.base import Severity, Status
from dbplatform.quality.examination import Examination
from dbplatform.quality.failed_rows import Batch, Fields, batches, lines
from dbplatform.quality.policy import FAILED_ROWS_KEPT
from dbplatform.quality.results import (
    CheckResult,
    PartitionsRead,
    RunResult,
    TableResult,
    Verdict,
    verdict_of_statuses,
)

_COPY = "copy ledger.quality_failed_row (result_id, ordinal, row) from stdin"


class UnknownRun(UsageError):
    """The ledger has no run of checks {run_id}."""


class RunOfAnotherDatabase(UsageError):
    """The run {run_id} checks the database {database!r}, not {asked!r}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run in a list of runs: how many checks ended how."""

    run_id: str
    in_dagster: bool
    """Its run can be seen in the Dagster UI."""
    database: str
    started_at: datetime
    finished_at: datetime | None
    verdict: Verdict | None
    passed: int
    failed: int
    errored: int


def start_run(ledger: Ledger, database: str, run_id: str) -> None:
    """Open a run, or open it again: then it has no verdict until it is finished again. What it has is kept."""
    with ledger.session() as session:
        made = {"run_id": run_id, "database": database, "in_dagster": current().run_id == run_id}
        session.execute(insert(QualityRun).values(made).on_conflict_do_nothing())
        run = session.get_one(QualityRun, run_id)
        if run.database != database:
            raise RunOfAnotherDatabase(
                run_id=run_id, database=run.database, asked=database, hint="Give each run an id of its own."
            )
        run.finished_at, run.verdict = None, None


def record_table(
    ledger: Ledger,
    run_id: str,
    examination: Examination,
    *,
    replace_all: bool = True,
    bound: int = FAILED_ROWS_KEPT,
) -> TableResult:
    """Keep the results of a table and up to ``bound`` failing rows of each check; returns them with ``kept_rows``.

    One transaction in the ledger: all of it or nothing. Earlier results of the table in this run are replaced, all of
    them or, without ``replace_all``, those of the same checks. Failing rows that cannot be read are left out with a
    word in the message; their number stays what was counted.
    """
    result = examination.result
    with ledger.session() as session:
        _lock(session, run_id, result.table)
        _forget(session, run_id, result, replace_all)
        session.add(_table(run_id, result))
        stored = {check.name: _stored(run_id, result.table, check) for check in result.checks}
        session.add_all(stored.values())
        session.flush()  # inserted, and numbered, in the declared order
        for part in examination.by_source:
            for batch in batches(part, bound=bound):
                _keep(session, part, batch, stored)
        database = _run(session, run_id).database
        if examination.by_partition is not None:
            examination.by_partition.record(session, stored, bound=bound, keep=_keep)
        else:  # nobody compares its partitions (any more): what was kept of them is of no use
            session.execute(
                delete(QualityPartition).where(
                    QualityPartition.database == database, QualityPartition.table_name == result.table
                )
            )
        history.keep(session, database, run_id, examination.at, result)
        kept = tuple(
            replace(
                check,
                kept_rows=stored[check.name].kept_rows,
                message=stored[check.name].message,
                key_columns=tuple(stored[check.name].key_columns),
                value_columns=tuple(stored[check.name].value_columns),
                masked_columns=tuple(stored[check.name].masked_columns),
            )
            for check in result.checks
        )
    return replace(result, checks=kept)


def record_moves(
    ledger: Ledger, run_id: str, table: str, moves: Mapping[str, tuple[int, str | None, str]]
) -> dict[str, str]:
    """Note what became of the rows of checks: how many were moved aside, where to, and a sentence on it.

    ``table`` is ``schema.table``. Returns each check's message as it is now.
    """
    with ledger.session() as session:
        rows = session.scalars(
            select(QualityResult).where(
                QualityResult.run_id == run_id, QualityResult.table_name == table, QualityResult.name.in_(moves)
            )
        ).all()
        for row in rows:
            row.quarantined_rows, row.quarantine_table, words = moves[row.name]
            row.message = f"{row.message} {words}"
        return {row.name: row.message for row in rows}


def finish_run(ledger: Ledger, run_id: str) -> Verdict:
    """Close the run with the verdict over its recorded results; a run without any has errored."""
    with ledger.session() as session:
        run = _run(session, run_id)
        statuses = session.scalars(select(QualityResult.status).where(QualityResult.run_id == run_id))
        verdict = verdict_of_statuses(statuses)
        run.verdict = verdict
        run.finished_at = session.scalar(select(func.clock_timestamp()))
    return verdict


def load_run(ledger: Ledger, run_id: str) -> RunResult:
    """The run as recorded, tables by name, checks in their declared order."""
    with ledger.session() as session:
        return _loaded(session, _run(session, run_id))


def previous_run(ledger: Ledger, run_id: str) -> RunResult | None:
    """The newest finished run of the same database that started before this one."""
    with ledger.session() as session:
        run = _run(session, run_id)
        before = session.scalar(
            select(QualityRun)
            .where(
                QualityRun.database == run.database,
                QualityRun.started_at < run.started_at,
                QualityRun.verdict.is_not(None),
            )
            .order_by(QualityRun.started_at.desc())
            .limit(1)
        )
        return None if before is None else _loaded(session, before)


def results_since(ledger: Ledger, database: str, *, since: datetime) -> list[tuple[str, CheckResult]]:
    """Table and result of every check of the runs that finished at ``since`` (aware) or later, oldest run first."""
    statement = (
        select(QualityResult)
        .join(QualityRun, QualityRun.run_id == QualityResult.run_id)
        .where(QualityRun.database == database, QualityRun.finished_at >= since)
        .order_by(QualityRun.finished_at, QualityResult.id)
    )
    with ledger.session() as session:
        return [(row.table_name, _check_result(row)) for row in session.scalars(statement)]


def nearest_results(
    ledger: Ledger, database: str, *, at: datetime | None
) -> dict[tuple[str, str], tuple[datetime, CheckResult]]:
    """Of each table and check the result nearest to ``at`` (aware; none: now), before or after, and its time."""
    moment = func.now() if at is None else at
    statement = (
        select(QualityResult, QualityTable.checked_at)
        .join(QualityRun, QualityRun.run_id == QualityResult.run_id)
        .join(
            QualityTable,
            (QualityTable.run_id == QualityResult.run_id) & (QualityTable.table_name == QualityResult.table_name),
        )
        .where(QualityRun.database == database)
        .ext(distinct_on(QualityResult.table_name, QualityResult.name))
        .order_by(
            QualityResult.table_name,
            QualityResult.name,
            func.abs(func.extract("epoch", QualityTable.checked_at - moment)),
        )
    )
    with ledger.session() as session:
        return {
            (row.table_name, row.name): (checked_at, _check_result(row))
            for row, checked_at in session.execute(statement)
        }


def runs(ledger: Ledger, database: str | None = None, *, limit: int = 50) -> list[RunSummary]:
    """The newest runs first, of one database or of all."""
    with ledger.session() as session:
        wanted = select(QualityRun).order_by(QualityRun.started_at.desc(), QualityRun.run_id).limit(limit)
        if database is not None:
            wanted = wanted.where(QualityRun.database == database)
        found = session.scalars(wanted).all()
        counts: dict[str, Counter[str]] = {run.run_id: Counter() for run in found}
        for run_id, status, number in session.execute(
            select(QualityResult.run_id, QualityResult.status, func.count())
            .where(QualityResult.run_id.in_(counts))
            .group_by(QualityResult.run_id, QualityResult.status)
        ):
            counts[run_id][status] = number
        return [
            RunSummary(
                run_id=run.run_id,
                in_dagster=run.in_dagster,
                database=run.database,
                started_at=run.started_at,
                finished_at=run.finished_at,
                verdict=cast("Verdict | None", run.verdict),
                passed=counts[run.run_id]["passed"],
                failed=counts[run.run_id]["failed"],
                errored=counts[run.run_id]["errored"],
            )
            for run in found
        ]


def failed_row_samples(ledger: Ledger, run_id: str, table: str, check: str, *, limit: int = 20) -> list[dict[str, Any]]:
    """The first kept rows of a check: key columns and the values that were looked at. ``table`` is ``schema.table``."""
    with ledger.session() as session:
        return list(
            session.scalars(
                select(QualityFailedRow.row)
                .join(QualityResult, QualityResult.id == QualityFailedRow.result_id)
                .where(QualityResult.run_id == run_id, QualityResult.table_name == table, QualityResult.name == check)
                .order_by(QualityFailedRow.ordinal)
                .limit(limit)
            )
        )


def _run(session: Session, run_id: str) -> QualityRun:
    run = session.get(QualityRun, run_id)
    if run is None:
        raise UnknownRun(run_id=run_id, hint="See which there are: dbplatform report list.")
    return run


def _lock(session: Session, run_id: str, table: str) -> None:
    """Two processes that record the same table of the same run do so one after the other."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"quality/{run_id}/{table}", 0))))


def _forget(session: Session, run_id: str, result: TableResult, replace_all: bool) -> None:
    """Delete the table's earlier results; their failing rows go with them."""
    earlier = delete(QualityResult).where(QualityResult.run_id == run_id, QualityResult.table_name == result.table)
    if not replace_all:
        earlier = earlier.where(QualityResult.name.in_([check.name for check in result.checks]))
    session.execute(earlier)
    session.execute(delete(QualityTable).where(QualityTable.run_id == run_id, QualityTable.table_name == result.table))


def _table(run_id: str, result: TableResult) -> QualityTable:
    read = result.partitions
    return QualityTable(
        run_id=run_id,
        table_name=result.table,
        row_count=result.row_count,
        seconds=result.seconds,
        partitions=None if read is None else read.all,
        partitions_read=None if read is None else read.read,
    )


def _stored(run_id: str, table: str, check: CheckResult) -> QualityResult:
    shown = asdict(replace(check, judged=()))
    del shown["judged"], shown["sqlstate"]  # the history keeps the one, the message tells the other
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()}
    return QualityResult(run_id=run_id, table_name=table, column_name=fields.pop("column"), **fields)


def _keep(session: Session, examination: Examination, batch: Batch, stored: dict[str, QualityResult]) -> None:
    """Copy failing rows from the snapshot into the ledger, a line at a time, behind those that are kept already."""
    ledger = cast("psycopg.Connection[TupleRow]", session.connection().connection.driver_connection)
    kept: Counter[str] = Counter()

    def copy() -> Mapping[str, Fields]:
        reading = batch.reading()
        # Inner first: an error of either side rolls the ledger back to before this batch.
        with ledger.transaction(), ledger.cursor().copy(_COPY) as into:
            for name, row in lines(examination.connection, reading):
                kept[name] += 1
                into.write(b"%d\t%d\t%s\n" % (stored[name].id, stored[name].kept_rows + kept[name], row))
        return reading.fields

    answer = attempt(examination.connection, examination.relation, copy, masks=bool(examination.masks))
    if isinstance(answer, Refused):
        for name in batch.names:
            stored[name].message += f" Its failing rows could not be kept: {answer.reason}"
    else:
        for name, fields in answer.items():
            stored[name].kept_rows += kept[name]
            stored[name].key_columns, stored[name].value_columns = list(fields.key), list(fields.values)
            stored[name].masked_columns = list(fields.masked)


def _loaded(session: Session, run: QualityRun) -> RunResult:
    tables = session.scalars(
        select(QualityTable).where(QualityTable.run_id == run.run_id).order_by(QualityTable.table_name)
    ).all()
    checks: dict[str, list[CheckResult]] = {table.table_name: [] for table in tables}
    for row in session.scalars(
        select(QualityResult).where(QualityResult.run_id == run.run_id).order_by(QualityResult.id)
    ):
        checks[row.table_name].append(_check_result(row))
    return RunResult(
        database=run.database,
        run_id=run.run_id,
        started_at=run.started_at,
        finished_at=run.finished_at,
        verdict=cast("Verdict | None", run.verdict),
        tables=tuple(
            TableResult(
                table=table.table_name,
                row_count=table.row_count,
                checks=tuple(checks[table.table_name]),
                seconds=table.seconds,
                partitions=_partitions(table),
            )
            for table in tables
        ),
    )


def _partitions(table: QualityTable) -> PartitionsRead | None:
    if table.partitions is None or table.partitions_read is None:
        return None
    return PartitionsRead(all=table.partitions, read=table.partitions_read)


def _check_result(row: QualityResult) -> CheckResult:
    return CheckResult(
        name=row.name,
        type=row.type,
        column=row.column_name,
        status=cast("Status", row.status),
        severity=cast("Severity", row.severity),
        blocking=row.blocking,
        owner=row.owner,
        failed_rows=row.failed_rows,
        considered_rows=row.considered_rows,
        kept_rows=row.kept_rows,
        value=row.value,
        tolerance=row.tolerance,
        message=row.message,
        sql=row.sql,
        key_columns=tuple(row.key_columns),
        value_columns=tuple(row.value_columns),
        masked_columns=tuple(row.masked_columns),
        rows_removed_at=row.rows_removed_at,
        quarantined_rows=row.quarantined_rows,
        quarantine_table=row.quarantine_table,
        accepted_until=row.accepted_until,
        accepted_reason=row.accepted_reason,
        sample=row.sample,
        sampled_rows=row.sampled_rows,
    )
