"""What happened to a database in a month: the care that ran, backups, alerts, trends, statements.

How it is gathered from the ledger: ``month_facts``, and ``care`` for maintenance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dbplatform.alerting.record import AlertRecord
from dbplatform.capacity.trend import Sample
from dbplatform.monitoring.kind import Kind
from dbplatform.monitoring.statements import Statement
from dbplatform.reporting.periods import Period

#: Facts of which less is a gain, with their names for people.
GAINS: Final[Mapping[str, str]] = {
    "bytes": "size",
    "index_bytes": "its indexes",
    "bloat": "bloat",
    "dead_rows": "dead rows",
    "changed_rows": "changed rows",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CareItem:
    """One piece of care: what it was done to, how it ended, and the facts before and after."""

    at: datetime
    kind: str
    subject: str
    state: str
    """``done``, ``not needed``, ``left``, ``failed`` or ``proposed``."""
    words: str
    reason: str
    statement: str
    seconds: float
    before: Mapping[str, float]
    after: Mapping[str, float]

    @property
    def gained_bytes(self) -> float:
        """By how much it became smaller."""
        if self.state != "done":
            return 0.0
        sizes = [name for name in ("bytes", "index_bytes") if name in self.before and name in self.after]
        return max(0.0, sum(self.before[name] - self.after[name] for name in sizes))


@dataclass(frozen=True, slots=True, kw_only=True)
class CareSum:
    """All that was done of one kind to one table or index: how often, how long, and what it gained."""

    kind: str
    subject: str
    times: int
    gained_bytes: float
    dead_rows: float
    """How many were cleared."""
    changed_rows: float
    """After how many statistics were made anew."""
    seconds: float
    last: CareItem
    """Of those the one that gained most; where none did, the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """What was due and was not done, with the newest reason and how often that happened."""

    kind: str
    subject: str
    reason: str
    hint: str
    times: int
    last_at: datetime
    statement: str = ""
    """For a person to run, where it was proposed."""
    state: str = "left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What else the platform did, of one kind: how often, how often in vain, how long in all."""

    kind: str
    times: int
    failed: int
    seconds: float
    last_at: datetime
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A metric over the month: the average of its first and its last day, and its least and greatest value."""

    kind: Kind
    first: float
    last: float
    least: float
    greatest: float
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementCourse:
    """A statement that took much of the time; ``early`` and ``late``: its mean seconds in the first and last week."""

    statement: Statement
    share: float
    early: float | None
    late: float | None

    @property
    def slower(self) -> float | None:
        """How many times as long it takes now."""
        return self.late / self.early if self.early and self.late is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertCourse:
    """The alerts of one metric (or check, or job): episodes, how long in all, and those that are open now."""

    metric: str
    episodes: int
    seconds: float
    severity: str
    open: tuple[AlertRecord, ...]
    last_cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Safety:
    """Backups and drills of the month. ``newest`` is the newest complete backup of all, ``proven_at`` its proof."""

    complete: int
    failed: int
    days_without: int
    bytes: int | None
    newest_at: datetime | None
    proven_at: datetime | None
    drills: int
    drills_failed: int
    failed_at: datetime | None
    """When the last of those began."""
    rto_s: tuple[float, float] | None
    """The shortest and the longest restore that proved one."""
    rpo_s: float | None
    """The longest time that a drill would have lost."""
    damage: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """The facts of a month, up to ``until`` where it has not ended."""

    database: str
    period: Period
    until: datetime
    runs: int
    """Of maintenance."""
    stopped: tuple[tuple[datetime, str], ...]
    """Runs that ended before their work did, and why."""
    care: tuple[CareItem, ...]
    skipped: tuple[Skipped, ...]
    work: tuple[Work, ...]
    courses: tuple[Course, ...]
    statements: tuple[StatementCourse, ...]
    statements_since: datetime | None
    """Of longer ago nothing is kept of them; none where all of the month is."""
    alerts: tuple[AlertCourse, ...]
    safety: Safety

    @property
    def is_over(self) -> bool:
        """Whether the month has ended."""
        return self.until >= self.period.ends_at

    @property
    def done(self) -> tuple[CareItem, ...]:
        """The care that was done."""
        return tuple(one for one in self.care if one.state == "done")

    @property
    def sums(self) -> tuple[CareSum, ...]:
        """The care that was done by what it was done to, the largest gain first."""
        found: dict[tuple[str, str], list[CareItem]] = {}
        for one in self.done:
            found.setdefault((one.kind, one.subject), []).append(one)
        sums = (
            CareSum(
                kind=kind,
                subject=subject,
                times=len(those),
                gained_bytes=sum(one.gained_bytes for one in those),
                dead_rows=sum(
                    max(0.0, one.before.get("dead_rows", 0) - one.after.get("dead_rows", 0)) for one in those
                ),
                changed_rows=sum(one.before.get("changed_rows", 0) for one in those),
                seconds=sum(one.seconds for one in those),
                last=max(reversed(those), key=lambda one: one.gained_bytes),
            )
            for (kind, subject), those in found.items()
        )
        return tuple(
            sorted(sums, key=lambda one: (-one.gained_bytes, -max(one.dead_rows, one.changed_rows), one.subject))
        )
