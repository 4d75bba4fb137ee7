"""What a run of checks found, as the rest of the platform reads it, and the verdict over it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from dbplatform.quality.anomaly.points import Judged
from dbplatform.quality.checks.base import Severity, Status
from dbplatform.quality.checks.options import SOON_DAYS

Verdict = Literal["passed", "failed", "errored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The outcome of one check.

    ``failed_rows`` is exact; ``kept_rows`` of them are in the ledger. ``sql`` shows the failing rows, or measures the
    value, when a person runs it. ``considered_rows`` are those that passed ``where``.
    """

    name: str
    type: str
    column: str | None
    status: Status
    severity: Severity
    blocking: bool
    owner: str | None
    failed_rows: int | None
    considered_rows: int | None
    kept_rows: int = 0
    value: float | None
    tolerance: str | None
    message: str
    sql: str | None
    key_columns: tuple[str, ...] = ()
    """The fields of a kept row that say which row it is; ``value_columns`` are those that were looked at."""
    value_columns: tuple[str, ...] = ()
    masked_columns: tuple[str, ...] = ()
    """Those of both whose values are masked."""
    rows_removed_at: datetime | None = None
    """When retention removed the kept rows."""
    quarantined_rows: int | None = None
    """How many rows this run has moved aside, into ``quarantine_table``; none where that is not declared."""
    quarantine_table: str | None = None
    accepted_until: date | None = None
    """As declared: from the beginning of this day (UTC) on a failure is not accepted any more."""
    accepted_reason: str | None = None
    sample: str | None = None
    """By which part of the table it was judged, in words; none: by all rows. Nothing is extrapolated."""
    sampled_rows: int | None = None
    """How many rows of it were read, whether they passed ``where`` or not."""
    judged: tuple[Judged, ...] = field(default=(), compare=False)
    """Of a check that compares with the past: values beside what was expected of them, the newest last. As results are
    read back they have none: ``history.trends`` has them."""
    sqlstate: str | None = field(default=None, compare=False)
    """Why PostgreSQL could not run it, as it was run; results that are read back have none."""

    @property
    def blocks(self) -> bool:
        """Whether what builds on the data must stop: a blocking check failed, and its rows are still in the table."""
        aside = self.quarantined_rows is not None and self.quarantined_rows >= (self.failed_rows or 1)
        return self.blocking and self.severity == "error" and self.status == "failed" and not aside

    def acceptance_ends(self, day: date) -> int | None:
        """In how many days the acceptance of this failure runs out, if that is soon as seen on ``day`` (UTC)."""
        if self.status != "accepted" or self.accepted_until is None:
            return None
        days = (self.accepted_until - day).days
        return days if days <= SOON_DAYS else None

    def as_json(self) -> dict[str, Any]:
        """The shape of the contract; a value that JSON cannot hold (NaN, infinity) is null."""
        return {
            "name": self.name,
            "type": self.type,
            "column": self.column,
            "status": self.status,
            "severity": self.severity,
            "blocking": self.blocking,
            "owner": self.owner,
            "failed_rows": self.failed_rows,
            "considered_rows": self.considered_rows,
            "kept_rows": self.kept_rows,
            "value": self.value if self.value is not None and math.isfinite(self.value) else None,
            "tolerance": self.tolerance,
            "message": self.message,
            "sql": self.sql,
            "key_columns": list(self.key_columns),
            "value_columns": list(self.value_columns),
            "masked_columns": list(self.masked_columns),
            "rows_removed_at": None if self.rows_removed_at is None else self.rows_removed_at.isoformat(),
            "quarantined_rows": self.quarantined_rows,
            "quarantine_table": self.quarantine_table,
            "accepted_until": None if self.accepted_until is None else self.accepted_until.isoformat(),
            "accepted_reason": self.accepted_reason,
            "sample": self.sample,
            "sampled_rows": self.sampled_rows,
            **self._expected(),
        }

    def _expected(self) -> dict[str, Any]:
        if not self.judged or self.judged[-1].expected is None:
            return {}
        newest = self.judged[-1]
        return {"expected": {"low": newest.low, "value": newest.expected, "high": newest.high}}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionsRead:
    """How many partitions a table has, and how many were read; the answers of the others were taken over."""

    all: int
    read: int

    def as_json(self) -> dict[str, Any]:
        """All, read and unchanged."""
        return {"all": self.all, "read": self.read, "unchanged": self.all - self.read}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableResult:
    """What was found in one table, in one snapshot. ``row_count`` is none when the table could not be read, or only by
    samples.

    ``partitions`` is none where the table was read as a whole.
    """

    table: str
    row_count: int | None
    checks: tuple[CheckResult, ...]
    seconds: float
    partitions: PartitionsRead | None = None

    def as_json(self) -> dict[str, Any]:
        """The shape of the contract."""
        return {
            "table": self.table,
            "row_count": self.row_count,
            "seconds": self.seconds,
            "partitions": None if self.partitions is None else self.partitions.as_json(),
            "checks": [check.as_json() for check in self.checks],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A run of checks over one or more tables of a database, as the ledger has it."""

    database: str
    run_id: str
    started_at: datetime
    finished_at: datetime | None
    verdict: Verdict | None
    tables: tuple[TableResult, ...]

    def as_json(self, *, report: str | None = None) -> dict[str, Any]:
        """The shape of the contract; ``report`` is where the report of the run lies."""
        return {
            "database": self.database,
            "run_id": self.run_id,
            "verdict": self.verdict,
            "report": report,
            "tables": [table.as_json() for table in self.tables],
        }


def verdict_of(tables: Iterable[TableResult]) -> Verdict:
    """Errored when a check has errored or none was run, failed when one has failed (``warn`` too), else passed.

    An accepted failure is no failure of the run.
    """
    return verdict_of_statuses(check.status for table in tables for check in table.checks)


def verdict_of_statuses(statuses: Iterable[str]) -> Verdict:
    """The verdict over the statuses of all checks of a run."""
    seen = set(statuses)
    if "errored" in seen or not seen:
        return "errored"
    return "failed" if "failed" in seen else "passed"
