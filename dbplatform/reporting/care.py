"""The care that was taken of a database in a time, by the ledger's runs of maintenance, and what was left undone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.maintenance import MaintenanceItem, MaintenanceRun
from dbplatform.reporting.month import CareItem, Skipped
from dbplatform.reporting.periods import Period

_UNDONE = ("left", "failed", "proposed")


@dataclass(frozen=True, slots=True, kw_only=True)
class CareRun:
    """One run of maintenance. ``stopped`` says why it ended before its work did; ``not_possible`` is as recorded."""

    at: datetime
    items: tuple[CareItem, ...]
    not_possible: tuple[Mapping[str, Any], ...]
    stopped: str | None


def care_runs(ledger: Ledger, database: str, period: Period) -> tuple[CareRun, ...]:
    """The runs that began in the period, oldest first. One that has not ended yet is told as stopped."""
    runs = (
        select(MaintenanceRun)
        .where(MaintenanceRun.database == database, MaintenanceRun.started_at >= period.starts_at)
        .where(MaintenanceRun.started_at < period.ends_at)
        .order_by(MaintenanceRun.started_at)
    )
    with ledger.session() as session:
        found = session.scalars(runs).all()
        items: dict[Any, list[MaintenanceItem]] = {}
        wanted = select(MaintenanceItem).where(MaintenanceItem.maintenance_id.in_([run.id for run in found]))
        for item in session.scalars(wanted.order_by(MaintenanceItem.id)):
            items.setdefault(item.maintenance_id, []).append(item)
    return tuple(_run(run, items.get(run.id, [])) for run in found)


def _run(run: MaintenanceRun, items: Sequence[MaintenanceItem]) -> CareRun:
    at = run.started_at.astimezone(UTC)
    return CareRun(
        at=at,
        items=tuple(_item(at, item) for item in items),
        not_possible=tuple(run.report.get("not_possible", ())),
        stopped=run.stopped if run.finished_at is not None else "it was killed, or has not ended yet",
    )


def _item(at: datetime, item: MaintenanceItem) -> CareItem:
    return CareItem(
        at=at,
        kind=item.kind,
        subject=item.subject,
        state=item.state,
        words=item.words,
        reason=item.reason,
        statement=item.statement,
        seconds=item.seconds,
        before=_numbers(item.before),
        after=_numbers(item.after),
    )


def _numbers(facts: Mapping[str, Any]) -> dict[str, float]:
    """The facts that can be compared."""
    return {
        name: float(value)
        for name, value in facts.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def skipped(runs: Iterable[CareRun]) -> tuple[Skipped, ...]:
    """What is still undone behind the last run, the most often skipped first: done later, it is no longer skipped."""
    found: dict[tuple[str, str], Skipped] = {}
    for run in runs:
        for done in (one for one in run.items if one.state in ("done", "not needed")):
            found.pop((done.kind, done.subject), None)
        for one in _undone(run):
            before = found.get((one.kind, one.subject))
            times = before.times + 1 if before else 1
            found[one.kind, one.subject] = Skipped(
                kind=one.kind, subject=one.subject, reason=one.reason, hint=one.hint, times=times, last_at=run.at,
                statement=one.statement, state=one.state,
            )  # fmt: skip
    return tuple(sorted(found.values(), key=lambda one: (-one.times, one.kind, one.subject)))


def _undone(run: CareRun) -> Iterable[Skipped]:
    for one in run.items:
        if one.state in _UNDONE:
            yield Skipped(
                kind=one.kind, subject=one.subject, reason=one.words or one.reason, hint="", times=1, last_at=run.at,
                statement=one.statement if one.state == "proposed" else "", state=one.state,
            )  # fmt: skip
    for told in run.not_possible:
        kind, subject, reason, hint = (str(told.get(name, "")) for name in ("kind", "subject", "reason", "hint"))
        yield Skipped(
            kind=kind, subject=subject, reason=reason, hint=hint, times=1, last_at=run.at, state="not possible"
        )
